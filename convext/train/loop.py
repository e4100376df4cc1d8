"""The loop over the epochs, which is that of every training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._support.checks import RealArray, finite_number
from .._support.interruption import stoppable
from .._support.sharing import Stateful, in_use
from .callbacks import Callback
from .checkpoint import Checkpoint
from .epoch_report import EpochReport, monitored
from .hooks import Hooks
from .progress import Progress


class Run(Protocol):
    """A training under way, for `run_epochs`. A `Checkpoint` asks it for more.

    That is settings(), data and options by their names, which must be the same to go on; state(),
    what changes from epoch to epoch; and put(state).
    """

    method: str
    model: Any

    @property
    def learning_rate(self) -> float | Callable[[int], float]:
        """The learning rate, or what gives that of an epoch; a callback may set another."""

    @property
    def weights(self) -> RealArray:
        """All that is trained, itself."""

    def kernels(self) -> RealArray:
        """Return the kernels, or those of the first layer, themselves."""

    def order(self) -> npt.NDArray[np.intp]:
        """Return the order of the samples in the next epoch."""

    def epoch(self, number: int, rate: float, order: npt.NDArray[np.intp]) -> dict[str, float]:
        """Run the epoch of that number (from 1); return the loss, and what else was measured."""

    def progress(self) -> tuple[int, int | None]:
        """Return how many samples, or batches, of how many are done, while an epoch runs."""


def run_epochs(
    run: Run,
    num_epochs: int,
    callbacks: Sequence[Callback],
    verbose: bool,
    first_epoch: int = 0,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Run the epochs from `first_epoch` (from 0) to `num_epochs`: the loop of every training."""
    schedule: Any = run.learning_rate
    parts: tuple[Any, ...] = (schedule, *callbacks)
    with ExitStack() as stack:
        for part in parts:
            if isinstance(part, Stateful):
                stack.enter_context(in_use(part))
        hooks = Hooks(callbacks, run.model, epochs=num_epochs, verbose=verbose)
        if hasattr(schedule, "reset") and first_epoch == 0:
            schedule.reset()
        hooks.call("on_train_begin", {})
        if checkpoint is not None:
            stack.enter_context(stoppable())
            stack.push(checkpoint.ended)
            first_epoch = checkpoint.begin(run, hooks, first_epoch, num_epochs, verbose)
        progress = Progress(max(1, num_epochs - first_epoch), verbose, run.progress)
        progress.first_epoch = first_epoch
        stack.enter_context(progress)
        epoch = first_epoch
        while epoch < num_epochs:
            if callbacks and not hooks.stopped:
                hooks.call("on_epoch_begin", epoch, {})
            if hooks.stopped:
                break
            schedule = run.learning_rate
            report = _run_epoch(run, epoch)
            if hasattr(schedule, "observe"):
                schedule.observe(monitored(report, getattr(schedule, "monitor", "loss")))
            progress.epoch(report)
            if callbacks:
                hooks.epoch_end(report)
            epoch += 1
            if checkpoint is not None:
                checkpoint.epoch_ended(epoch)
        if checkpoint is not None:
            checkpoint.epoch_ended(epoch, last=True)
        hooks.call("on_train_end", {})


def _run_epoch(run: Run, epoch: int) -> EpochReport:
    """Run an epoch, counted from 0; return what there is to say about it."""
    rate, order = _rate(run.learning_rate, epoch), run.order()
    started = time.perf_counter()
    values = run.epoch(epoch + 1, rate, order)
    seconds = time.perf_counter() - started
    loss, val_loss = values.pop("loss"), values.pop("val_loss", None)
    kernels, model = run.kernels().copy(), run.model
    return EpochReport(
        epoch + 1, loss, rate, seconds, kernels, run.method, val_loss, model, values, run.weights
    )


def _rate(learning_rate: float | Callable[[int], float], epoch: int) -> float:
    if callable(learning_rate):
        return finite_number(f"learning_rate({epoch})", learning_rate(epoch), minimum=0)
    if type(learning_rate) is float:  # it was checked
        return learning_rate
    return finite_number("learning_rate", learning_rate, minimum=0)
