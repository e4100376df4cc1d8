"""Checkpoints: the state of a training in a file, from which it goes on as if it had not stopped.

A state is a tree of dictionaries and lists; its arrays, and lists of numbers, are those of a .npz
file, the rest is JSON.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.array_files import load_array, load_record
from .._support.atomic_files import FilePath, atomic_write, check_writable, path_of
from .._support.checks import boolean, integer, real_dtype
from .._support.messages import say, warn
from .callbacks import EarlyStopping
from .hooks import Hooks

FORMAT = "convext checkpoint 1"

DEFAULT_EVERY = "30s"

# A state that Ctrl-C writes is at most that much older than the last whole epoch, or twenty times
# what it takes to note one.
_SECONDS_BETWEEN_STATES = 0.1


class Checkpoint:
    """The file that a training writes its state to, now and then and where it ends by an error.

    To be pushed on an `ExitStack`. The arguments are those of `train_model`.
    """

    def __init__(self, file: FilePath, every: int | str, resume: bool) -> None:
        self.epochs = self.seconds = math.inf
        if isinstance(every, int | np.integer):
            self.epochs = integer("checkpoint_every", every, minimum=1)
        elif not isinstance(every, str):
            raise TypeError(
                "checkpoint_every must be a number of epochs, or of seconds as in '30s', got "
                f"{every!r} ({type(every).__name__})"
            )
        elif re.fullmatch(r"\d*\.?\d+s", every) and float(every[:-1]):
            self.seconds = float(every[:-1])
        else:
            raise ValueError(
                "checkpoint_every must be a number of epochs, or of seconds as in '30s', got "
                f"{every!r}"
            )
        self.file, self.previous = files_of(file)
        self._folder = os.getcwd()  # a callback may go to another
        self.resume = boolean("resume", resume)
        check_writable(self.file)
        if not resume:
            for name in filter(os.path.exists, (self.file, self.previous)):
                _record(name)  # no other file is replaced
        self._state: tuple[int, Any, list[npt.NDArray[Any]]] | None = None  # that was noted last
        self._written = 0  # its epoch
        # What cannot be kept of a callback is found out after the first epoch.
        self._noted, self._saved = -math.inf, time.monotonic()
        self._pause = _SECONDS_BETWEEN_STATES

    def begin(
        self, run: Any, hooks: Hooks, first_epoch: int, num_epochs: int, verbose: bool
    ) -> int:
        """Take a `Run` from the file, if asked to; return how many epochs have been run."""
        self._run, self._hooks, self._written = run, hooks, first_epoch
        settings = run.settings() | {"callbacks": [describe(part) for part in self._parts()]}
        self._settings = json.loads(json.dumps(settings, default=str))
        if not self.resume:
            return first_epoch
        file, previous = self._found(self.file), self._found(self.previous)
        if not os.path.exists(file):
            file = previous
        if not os.path.exists(file):
            if verbose:
                say("There is no {file} yet: the training begins anew", file=self.file)
            return first_epoch
        try:
            epoch, others, state = _read(file)
        except ValueError as error:
            raise ValueError(f"{error}{self._older(file)}") from error
        for name in {**self._settings, **others}:
            now, then = self._settings.get(name), others.get(name)
            if now != then:
                raise ValueError(
                    f"checkpoint ({file}) is of another training: {name} is {now}, and was {then}"
                )
        if os.path.exists(previous):
            _record(previous)  # no other file is replaced
        if epoch > num_epochs:
            raise ValueError(
                f"checkpoint ({file}) is of epoch {epoch}, more than the {num_epochs} asked for"
            )
        try:
            self._put(state)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"checkpoint ({file}) cannot be used: {error!r}") from error
        if verbose:
            say("Going on after epoch {epoch}: {file}", epoch=epoch, file=file)
        self._written = epoch
        return epoch

    def epoch_ended(self, epoch: int, last: bool = False) -> None:
        """Note the state after an epoch, and write it, where that is due."""
        now = time.monotonic()
        due = last or now >= self._saved + self.seconds or epoch >= self._written + self.epochs
        if due or now >= self._noted + self._pause:
            arrays: list[npt.NDArray[Any]] = []
            state = _encode({"run": self._run.state(), "stopped": self._hooks.stopped}, arrays)
            state["items"]["parts"] = [_state_of(part, arrays) for part in self._parts()]
            self._state = epoch, state, arrays
            self._noted = time.monotonic()
            self._pause = max(_SECONDS_BETWEEN_STATES, 20 * (self._noted - now))
        if due:
            self._write()

    def ended(self, kind: object, *_: object) -> None:
        """Write what was noted last, where a training ends by Ctrl-C or an error."""
        if kind is not None:
            self._write()

    def _write(self) -> None:
        if self._state is None or self._state[0] == self._written:
            return
        epoch, state, arrays = self._state
        record = {
            "format": FORMAT, "epoch": epoch, "arrays": len(arrays), "settings": self._settings,
            "state": state,
        }  # fmt: skip
        members = {f"array_{i}": array for i, array in enumerate(arrays)}
        try:
            names = self._found(self.file), self._found(self.previous)
            for name in filter(os.path.exists, names):
                _record(name)  # somebody may have put another file there meanwhile
            with atomic_write(*names) as stream:
                np.savez(stream, allow_pickle=False, config=np.array(json.dumps(record)), **members)
        except (OSError, ValueError) as error:  # no reason to lose a training that can go on
            why: object = error
            if isinstance(error, OSError) and error.strerror:
                why = f"{error.filename}: {error.strerror}"
            warn(f"the checkpoint of epoch {epoch} could not be written: {why}")
        else:
            self._written = epoch
        self._saved = time.monotonic()

    def _found(self, file: str) -> str:
        """Return the name under which a file is found in the folder where the training is now."""
        return file if os.getcwd() == self._folder else os.path.join(self._folder, file)

    def _parts(self) -> list[Any]:
        """Return the learning rate and the callbacks that have a state."""
        parts = (self._run.learning_rate, *self._hooks.callbacks)
        return [part for part in parts if hasattr(part, "get_state")]

    def _put(self, state: dict[str, Any]) -> None:
        self._run.put(state["run"])
        for part, of_part in zip(self._parts(), state["parts"], strict=True):
            part.set_state(of_part)
            if isinstance(part, EarlyStopping):
                part._weights = self._run.weights
        self._hooks.stopped = bool(state["stopped"])

    def _older(self, file: str) -> str:
        """Say whether the checkpoint before a damaged one is good."""
        previous = self._found(self.previous)
        if file != previous and os.path.exists(previous):
            try:
                epoch, *_ = _read(previous)
            except (OSError, ValueError):
                return f"; {previous}, the one before it, is damaged as well"
            return f"; {previous}, of epoch {epoch}, is good: rename it to {file} to go on"
        return "; there is no older one"


def make_checkpoint(file: FilePath | None, every: int | str, resume: bool) -> Checkpoint | None:
    """Return the checkpoint of a training that takes these arguments."""
    if file is not None:
        return Checkpoint(file, every, resume)
    if resume or every != DEFAULT_EVERY:
        name = "resume" if resume else "checkpoint_every"
        raise ValueError(f"{name} needs a checkpoint: give the name of its file")
    return None


def files_of(checkpoint: FilePath) -> tuple[str, str]:
    """Return the file of a checkpoint, that which a link stands for, and that of the one before."""
    path = path_of(checkpoint)
    file = os.path.realpath(path) if os.path.islink(path) else path
    return file, beside(file, "previous")


def beside(file: FilePath, what: str) -> str:
    """Return the name of a file beside another, named after that."""
    root, suffix = os.path.splitext(file)
    return f"{root}-{what}{suffix}"


def describe(part: Any) -> Any:
    """Return what tells a learning rate or a callback from others, as far as that is known."""
    if isinstance(part, partial):
        try:
            given = signature(part.func).bind_partial(*part.args, **part.keywords).arguments
        except (TypeError, ValueError):  # which arguments it has is not known
            given = {"arguments": part.args, **part.keywords}
        arguments = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"{str(describe(part.func)).lstrip('_')}({arguments})"
    if hasattr(part, "_options"):
        options = ", ".join(f"{name}={getattr(part, name)!r}" for name in part._options)
        return f"{type(part).__name__}({options})"
    return getattr(part, "__qualname__", type(part).__name__) if callable(part) else part


def put_array(target: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    """Copy the values of a state, which must fit exactly."""
    if target.shape != values.shape or target.dtype != values.dtype:
        raise ValueError(
            f"it holds {values.dtype} {values.shape} in place of {target.dtype} {target.shape}"
        )
    target[...] = values


def _record(file: str) -> dict[str, Any]:
    record = load_record(file, "checkpoint", "config") or {}
    if record.get("format") != FORMAT:
        raise ValueError(f"checkpoint ({file}) is a file that convext did not write as one")
    return record


def _read(file: str) -> tuple[int, dict[str, Any], Any]:
    """Return the epoch of a checkpoint, the settings of its training, and its state."""
    record = _record(file)
    try:
        numbers = range(record["arrays"])
        arrays = [load_array(file, "checkpoint", member=f"array_{i}") for i in numbers]
        epoch = integer("epoch", record["epoch"], minimum=0)
        return epoch, dict(record["settings"]), _decode(record["state"], arrays)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        if isinstance(error, ValueError):  # of numbers that are none, which says so
            raise
        raise ValueError(f"checkpoint ({file}) is damaged: {error!r}") from error


def _state_of(part: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    """Return the state of a callback or a learning rate as `_encode` does."""
    state = part.get_state()
    try:
        return _encode(state, arrays)
    except TypeError as error:
        raise TypeError(f"{type(part).__name__}.get_state(): {error}") from None


def _encode(value: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    """Return a state as JSON can hold it, with copies of its arrays in a list of their own."""
    if isinstance(value, np.ndarray):
        real_dtype("an array of a state", value.dtype)  # no others are read
        arrays.append(value.copy())
        return {"array": len(arrays) - 1}
    if isinstance(value, dict) and {*map(type, value)} <= {str}:
        return {"items": {name: _encode(item, arrays) for name, item in value.items()}}
    if isinstance(value, (list, tuple)):
        kinds = {*map(type, value)}
        if kinds == {str} and len({*value}) == 1:
            return {"times": len(value), "value": value[0]}
        if kinds in ({int}, {float}):
            numbers = np.array(value)
            # What is too large for integers would be rounded, or stay objects.
            if kinds == {type(numbers.item(0))} and not numbers.dtype.hasobject:
                arrays.append(numbers)
                return {"list": len(arrays) - 1}
        return [_encode(item, arrays) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a state cannot be kept in a checkpoint that has {value!r}")


def _decode(value: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    """Return the state of which `_encode` has made JSON and arrays."""
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "items" in value:
        return {k: _decode(item, arrays) for k, item in value["items"].items()}
    if "array" in value:
        return arrays[value["array"]]
    return arrays[value["list"]].tolist() if "list" in value else [value["value"]] * value["times"]
