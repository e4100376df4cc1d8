"""The loop over the epochs, which is that of every training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._support.checks import RealArray, finite_number
from .._support.interruption import stoppable
from .._support.ranks import ALONE, Ranks
from .._support.sharing import Stateful, in_use
from .callbacks import Callback, History
from .checkpoint import Checkpoint
from .epoch_report import EpochReport, monitored
from .hooks import Hooks
from .progress import Progress


class Run(Protocol):
    """A training under way, for `run_epochs` and `Checkpoint`."""

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

    def settings(self) -> dict[str, Any]:
        """Return data and options by their names: what must be the same to go on."""

    def state(self) -> dict[str, Any]:
        """Return what changes from epoch to epoch."""

    def put(self, state: dict[str, Any]) -> None:
        """Go back to a state."""


def run_epochs(
    run: Run,
    num_epochs: int,
    callbacks: Sequence[Callback],
    verbose: bool,
    first_epoch: int = 0,
    checkpoint: Checkpoint | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Run the epochs from `first_epoch` (from 0) to `num_epochs`: the loop of every training.

    Of several ranks, the first calls the callbacks, has the checkpoint and prints; the others
    follow it, and call nothing but History.
    """
    if not ranks.first:
        callbacks, verbose = [each for each in callbacks if type(each) is History], False
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
        ranks.check_same(lambda: {"number of epochs": num_epochs} | run.settings())
        begin: Callable[[], int] = partial(int, first_epoch)
        if checkpoint is not None or ranks.size > 1:
            stack.enter_context(stoppable())
        if checkpoint is not None:
            stack.push(checkpoint.ended)
            begin = partial(checkpoint.begin, run, hooks, first_epoch, num_epochs, verbose)
        first_epoch = ranks.once(begin)
        _follow(run, ranks)
        progress = Progress(max(1, num_epochs - first_epoch), verbose, run.progress)
        progress.first_epoch = first_epoch
        stack.enter_context(progress)
        epoch = first_epoch
        while epoch < num_epochs:
            if callbacks and not hooks.stopped:
                hooks.call("on_epoch_begin", epoch, {})
            hooks.stopped = ranks.once(lambda: hooks.stopped)
            if hooks.stopped:
                break
            report = _run_epoch(run, epoch, ranks)
            progress.epoch(report)
            if callbacks:
                hooks.epoch_end(report)
            epoch += 1
            if checkpoint is not None:
                checkpoint.epoch_ended(epoch)
        if checkpoint is not None:
            checkpoint.epoch_ended(epoch, last=True)
        hooks.call("on_train_end", {})
        _follow(run, ranks)


def _follow(run: Run, ranks: Ranks) -> None:
    """Go on from the state of the first rank."""
    if ranks.size > 1:
        state = ranks.once(run.state)
        if not ranks.first:
            run.put(state)


def _run_epoch(run: Run, epoch: int, ranks: Ranks) -> EpochReport:
    """Run an epoch, counted from 0; return what there is to say about it."""
    schedule: Any = run.learning_rate
    rate, order = ranks.once(partial(_rate, schedule, epoch)), run.order()
    started = time.perf_counter()
    values = run.epoch(epoch + 1, rate, order)
    seconds = time.perf_counter() - started
    loss, val_loss = values.pop("loss"), values.pop("val_loss", None)
    kernels, model = run.kernels().copy(), run.model
    report = EpochReport(
        epoch + 1, loss, rate, seconds, kernels, run.method, val_loss, model, values, run.weights
    )
    if hasattr(schedule, "observe"):
        schedule.observe(monitored(report, getattr(schedule, "monitor", "loss")))
    return report


def _rate(learning_rate: float | Callable[[int], float], epoch: int) -> float:
    if callable(learning_rate):
        return finite_number(f"learning_rate({epoch})", learning_rate(epoch), minimum=0)
    if type(learning_rate) is float:  # it was checked
        return learning_rate
    return finite_number("learning_rate", learning_rate, minimum=0)
