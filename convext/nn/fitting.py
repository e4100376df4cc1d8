"""The epochs of a training of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.checks import RealArray
from .._support.ranks import ALONE, Ranks
from ..train._steps import LOSSES
from ..train._training import Trainer, fuses
from ..train.checkpoint import describe
from ..train.reader import make_trainer
from . import model_file
from .batches import ArrayBatches, Chosen, Source
from .learning import Learner, means
from .optimizers import LearningRate

# Arrays up to this size are converted and kept for the fused steps of a single small layer.
MAX_FUSED_BYTES = 64 << 20


class Fit:
    """A training under way. With a trainer, an epoch is one call of it."""

    method = "direct"

    def __init__(
        self,
        model: Learner,
        batches: Source,
        validation: Source | None,
        num_threads: int,
        initial_epoch: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.batches, self.validation = model, batches, validation
        self.trainer = None if ranks.size > 1 else _fused_trainer(model, batches, num_threads)
        self.ranks = ranks
        self.num_threads, self.initial_epoch = num_threads, initial_epoch
        self.done, self.count = 0, batches.count()
        self.order = batches.order

    @property
    def learning_rate(self) -> LearningRate:
        """The learning rate, which a callback may change."""
        return self.model._compiled().learning_rate

    @property
    def weights(self) -> RealArray:
        """All weights, themselves."""
        return self.model._weights

    def kernels(self) -> RealArray:
        """Return the kernels of the first layer, themselves."""
        return self.model._variables()[0]

    def epoch(self, number: int, rate: float, order: npt.NDArray[np.intp]) -> dict[str, float]:
        """Run an epoch; return its loss, and what else was measured."""
        when = f"in epoch {number}"
        if self.trainer is not None:
            values = {"loss": self._run_fused_epoch(when, rate, order)}
        else:
            values = means(self._take_steps(when, rate, order))
        if self.validation is not None:
            tested = self.model._test(self.validation, self.num_threads, when, self.ranks)
            values |= {f"val_{name}": value for name, value in tested.items()}
        return values

    def _take_steps(
        self, when: str, rate: float, order: npt.NDArray[np.intp]
    ) -> Iterator[tuple[dict[str, float], int]]:
        """Take a step for every batch; yield its loss and metrics, and the samples it had."""
        self.done = 0
        for batch in self.batches.epoch(order, self.ranks):
            if self.done == 0:  # there are no weights before the first batch
                self.model._freeze()
                self.ranks.take(self.model._weights)  # a callback may have changed them
            values = self.model._take(batch, self.num_threads, when, rate, self.ranks)
            yield values, len(batch.order)
            self.done += 1
        self.count = self.done

    def _run_fused_epoch(self, when: str, rate: float, order: npt.NDArray[np.intp]) -> float:
        """Take a step for every batch of a small layer; return the mean loss."""
        assert self.trainer is not None
        assert isinstance(self.batches, ArrayBatches)
        self.model._freeze()
        update = self.model._current_update()
        trained = [a for a in (self.model._weights, update.first, update.second) if a is not None]
        before, iterations = [array.copy() for array in trained], update.iterations
        loss, _ = self.trainer.run_epoch(order, rate)
        if not math.isfinite(loss):
            for array, values in zip(trained, before, strict=True):
                array[...] = values
            update.iterations = iterations
            raise self.model._not_finite(
                loss, Chosen(self.batches.samples, np.sort(order), len(order)), when, rate
            )
        return loss

    def progress(self) -> tuple[int, int | None]:
        """Return how many batches of the epoch are done, and how many there are, if known."""
        if self.trainer is None or not isinstance(self.batches, ArrayBatches):
            return self.done, self.count
        return self.trainer.done, len(self.batches.samples.inputs)

    def settings(self) -> dict[str, Any]:
        """Return data and options by their names; see `Run`."""
        model, optimizer = self.model, self.model._compiled()
        settings: dict[str, Any] = {"function": "fit", "initial_epoch": self.initial_epoch}
        settings |= {f"layers[{i}]": repr(layer) for i, layer in enumerate(model.layers)}
        settings["seed"] = model._seed
        for name in ("residual", "data_format", "dtype", "loss", "metrics_names"):
            settings[name] = getattr(model, name)
        settings["optimizer"] = type(optimizer).__name__
        settings |= optimizer._arguments()
        settings["learning_rate"] = describe(optimizer.learning_rate)
        settings |= self.batches.settings()
        if self.validation is not None:
            validation = self.validation.settings()
            settings |= {f"validation {name}": value for name, value in validation.items()}
        return settings

    def state(self) -> dict[str, Any]:
        """Return what changes from epoch to epoch."""
        rate = self.learning_rate
        rates = {} if callable(rate) else {"learning_rate": rate}
        return {**model_file.state(self.model), "channels": self.model._channels, **rates}

    def put(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        if state["channels"] is not None:
            self.model.build(state["channels"])
        model_file.put(self.model, state)
        if "learning_rate" in state:
            self.model._compiled().learning_rate = state["learning_rate"]


def _fused_trainer(model: Learner, batches: Source, num_threads: int) -> Trainer | None:
    """Return what trains a single layer on small samples an epoch at a time, where that is meant.

    It is the loop of `train_model`, with bias, activation and optimizer in it.
    """
    if (
        not isinstance(batches, ArrayBatches)
        or batches.samples.weights is not None
        or model._metrics
        or len(model.layers) > 1
        or model.layers[0].groups > 1
        or model.residual
        or LOSSES[model.loss] != LOSSES["mse"]
    ):
        return None
    inputs, targets, _ = batches.samples
    itemsize = model.dtype.itemsize
    if (inputs.size + targets.size) * itemsize > MAX_FUSED_BYTES:
        return None
    layer = model._layers_for(inputs.shape[1:])[0]
    size = batches.batch_size
    shapes = inputs.shape, targets.shape, layer.kernels.shape
    if not fuses(*shapes, size, layer.geometry, itemsize):
        return None
    how = size, layer.geometry, num_threads, model._current_update()
    of_layer = layer.bias is not None, layer.activation
    return make_trainer(inputs, targets, batches.block, layer.kernels, *how, *of_layer)
