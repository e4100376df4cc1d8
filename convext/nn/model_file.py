"""The files of networks: what describes a model and its training, beside its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .._support.array_files import load_array, load_record
from .._support.atomic_files import FilePath, atomic_write, path_of
from .._support.checks import integer
from ..train.checkpoint import put_array
from . import optimizers
from .layers import Conv2D
from .learning import Learner

FORMAT = "convext model 1"

Model = TypeVar("Model", bound=Learner)


def state(model: Learner) -> dict[str, Any]:
    """Return what changes when a model is trained: JSON, and arrays."""
    generator = model._generator.bit_generator.state
    return {"generator": generator, "weights": model._weights, **model._moments()}


def put(model: Learner, state: dict[str, Any]) -> None:
    """Let a built model go on from a state."""
    put_array(model._weights, state["weights"])
    model._generator.bit_generator.state = state["generator"]
    model._put_moments(state)


def write(model: Learner, filepath: FilePath, checkpoint: dict[str, object] | None) -> None:
    """Write a model; see `Sequential.save`."""
    model._check_built()
    config = {
        "format": FORMAT,
        "layers": [layer.config() for layer in model.layers],
        "name": model.name,
        "checkpoint": checkpoint,
        "residual": model.residual,
        "input_channels": model._channels,
        "data_format": model.data_format,
        "dtype": model.dtype.name,
        "loss": model.loss,
        "metrics": model._metrics,
        "optimizer": None if model.optimizer is None else model.optimizer.config(),
    }
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, value in state(model).items():
        (arrays if isinstance(value, np.ndarray) else config)[name] = value
    text = np.array(json.dumps(config))
    with atomic_write(filepath) as stream:
        np.savez(stream, allow_pickle=False, config=text, **arrays)


def read(filepath: FilePath, kind: Callable[..., Model]) -> Model:
    """Read a model, which `kind` makes of its layers and options; see `load_model`."""
    path = path_of(filepath)
    try:
        config = load_record(filepath, "model", "config") or {}
        if config.get("format") != FORMAT:
            raise ValueError("it is not a model that Sequential.save wrote")
        return _from_config(config, filepath, kind)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # nobody can foresee what a damaged description leads to
        raise ValueError(f"model ({path}) cannot be read: {error}") from error


def _from_config(config: dict[str, Any], filepath: FilePath, kind: Callable[..., Model]) -> Model:
    model = kind(
        [Conv2D(**layer) for layer in config["layers"]],
        residual=config["residual"],
        data_format=config["data_format"],
        dtype=config["dtype"],
        seed=0,
        name=config.get("name"),
    )
    model._seed = None  # the generator goes on from where it was
    channels = integer("input_channels", config["input_channels"], minimum=1)
    shape = (sum(_sizes(model.layers, channels)),)

    def flat(name: str) -> npt.NDArray[Any]:
        array = load_array(filepath, "model", member=name)
        if array.shape != shape or array.dtype != model.dtype:
            raise ValueError(
                f"{name} must be {shape} {model.dtype}, got {array.shape} {array.dtype}"
            )
        return array

    saved = {name: config[name] for name in ("generator", "iterations")}
    saved["weights"] = flat("weights")  # before as many are made
    if config["optimizer"] is not None:
        metrics = config.get("metrics")
        model.compile(optimizers.from_config(config["optimizer"]), config["loss"], metrics)
        if config["iterations"]:
            names = ("optimizer_first", "optimizer_second")[: model._compiled()._num_states]
            saved |= {name: flat(name) for name in names}
    model.build(channels)
    put(model, saved)
    return model


def _sizes(layers: Sequence[Conv2D], channels: int) -> Iterator[int]:
    """Yield how many weights each layer has, where images have these channels."""
    for layer in layers:
        yield math.prod(layer.kernel_shape(channels)) + layer.use_bias * layer.filters
        channels = layer.filters
