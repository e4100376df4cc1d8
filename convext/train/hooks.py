"""Calling callbacks: functions of a report, and objects with methods as Keras calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ..errors import StopTraining
from .callbacks import Callback
from .epoch_report import EpochReport

_CALLED = ("on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end")
_NOT_CALLED = [
    f"on_{part}_{moment}"
    for part in ("train_batch", "batch", "test", "test_batch")
    for moment in ("begin", "end")
]


def checked_callbacks(callbacks: Iterable[Callback] | None) -> tuple[Callback, ...]:
    """Return the callbacks as a tuple; each must be callable or have methods as in Keras."""
    if callbacks is None:
        return ()
    if callable(callbacks) or _methods(callbacks):
        raise TypeError("callbacks must be a sequence of callbacks, got one: put it in a list")
    result = tuple(callbacks)
    for callback in result:
        if isinstance(callback, type):
            name = callback.__name__
            raise TypeError(f"callbacks must be objects, got the class {name}: make one, {name}()")
        if not (callable(callback) or _methods(callback)):
            raise TypeError(
                f"callbacks must be callable, got {callback!r}; objects may have methods as in "
                "Keras instead, such as on_epoch_end(epoch, logs)"
            )
        for name in _NOT_CALLED:
            if _own(callback, name):
                raise TypeError(
                    f"{type(callback).__name__} has {name}, which would never be called: callbacks "
                    f"are called at {', '.join(_CALLED)}"
                )
    return result


class Model(Protocol):
    """A model that callbacks are told of, as far as it concerns a training."""

    stop_training: bool


class Hooks:
    """The callbacks of a training of a model, or of kernels alone.

    Where one raises StopTraining, the others are called all the same, and `stopped` is True.
    """

    def __init__(
        self, callbacks: Iterable[Callback], model: Model | None, **params: object
    ) -> None:
        self.callbacks, self.model = tuple(callbacks), model
        self._with = {
            name: [callback for callback in self.callbacks if hasattr(callback, name)]
            for name in _CALLED
        }
        self.stopped = False
        self._ends = [(c, callable(c), hasattr(c, "on_epoch_end")) for c in self.callbacks]
        for callback in self.callbacks:
            if hasattr(callback, "set_params"):
                callback.set_params(params)
            if model is not None and hasattr(callback, "set_model"):
                callback.set_model(model)
        if model is not None:
            model.stop_training = False

    def call(self, name: str, *arguments: object) -> None:
        """Call a method of each callback that has it."""
        for callback in self._with[name]:
            self._call(callback, name, *arguments)

    def epoch_end(self, report: EpochReport) -> None:
        """Tell each callback of an epoch."""
        for callback, called, told in self._ends:
            if called:
                self._run(callback, report)
            if told:
                self._call(callback, "on_epoch_end", report.epoch - 1, report.logs)
        if self.model is not None and self.model.stop_training:
            self.stopped = True

    def _call(self, callback: Any, name: str, *arguments: object) -> None:
        try:
            self._run(getattr(callback, name), *arguments)
        except AttributeError as error:
            ours = type(error.obj).__module__.partition(".")[0] == "convext"
            if not ours or isinstance(error.obj, type(callback)):
                raise
            raise TypeError(
                f"{type(callback).__name__}.{name} needs what a {type(error.obj).__name__} of "
                f"convext does not have: {error}"
            ) from error

    def _run(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except StopTraining:
            self.stopped = True


def _methods(callback: object) -> bool:
    return any(hasattr(callback, name) for name in _CALLED)


def _own(callback: object, name: str) -> bool:
    """Whether a callback has a method that is not one of Keras's base class, which do nothing."""
    for kind in type(callback).__mro__:
        if name in vars(kind):
            return not (kind.__name__ == "Callback" and "keras" in kind.__module__)
    return hasattr(callback, name)
