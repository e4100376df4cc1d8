"""The loop over the epochs, which is that of every training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._support.checks import finite_number
from .._support.sharing import Stateful, in_use
from .callbacks import Callback
from .epoch_report import EpochReport, monitored
from .hooks import Hooks, Model
from .progress import Progress


class Run(Protocol):
    """A training under way, for `run_epochs`."""

    @property
    def learning_rate(self) -> float | Callable[[int], float]:
        """The learning rate, or what gives that of an epoch; a callback may set another."""

    def report(self, number: int, rate: float, order: npt.NDArray[np.intp]) -> EpochReport:
        """Run the epoch of that number (from 1), taking the samples in that order."""

    def progress(self) -> tuple[int, int | None]:
        """Return how many samples, or batches, of the epoch are done, and how many there are.

        Another thread asks while the epoch runs.
        """


def run_epochs(
    run: Run,
    num_epochs: int,
    orders: Callable[[], npt.NDArray[np.intp]],
    callbacks: Sequence[Callback],
    verbose: bool,
    first_epoch: int = 0,
    model: Model | None = None,
) -> None:
    """Run the epochs from `first_epoch` (from 0) to `num_epochs`: the loop of every training."""
    schedule: Any = run.learning_rate
    parts: tuple[Any, ...] = (schedule, *callbacks)
    with ExitStack() as stack:
        for part in parts:
            if isinstance(part, Stateful):
                stack.enter_context(in_use(part))
        hooks = Hooks(callbacks, model, epochs=num_epochs, verbose=verbose)
        if hasattr(schedule, "reset") and first_epoch == 0:
            schedule.reset()
        progress = stack.enter_context(
            Progress(max(1, num_epochs - first_epoch), verbose, run.progress)
        )
        hooks.call("on_train_begin", {})
        for epoch in range(first_epoch, num_epochs):
            if callbacks and not hooks.stopped:
                hooks.call("on_epoch_begin", epoch, {})
            if hooks.stopped:
                break
            schedule = run.learning_rate
            report = run.report(epoch + 1, _rate(schedule, epoch), orders())
            if hasattr(schedule, "observe"):
                schedule.observe(monitored(report, getattr(schedule, "monitor", "loss")))
            progress.epoch(report)
            if callbacks:
                hooks.epoch_end(report)
        hooks.call("on_train_end", {})


def _rate(learning_rate: float | Callable[[int], float], epoch: int) -> float:
    if callable(learning_rate):
        return finite_number(f"learning_rate({epoch})", learning_rate(epoch), minimum=0)
    if type(learning_rate) is float:  # it was checked
        return learning_rate
    return finite_number("learning_rate", learning_rate, minimum=0)
