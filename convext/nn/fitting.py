"""The epochs of a training of a network."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..train._training import Trainer
from ..train.epoch_report import EpochReport
from .batches import ArrayBatches, Chosen, Source

if TYPE_CHECKING:
    from .models import Sequential
    from .optimizers import LearningRate


class Means:
    """Means of losses and metrics over samples."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, float] = {}

    def add(self, values: dict[str, float], count: int) -> None:
        """Add the means over so many samples."""
        self.count += count
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * count

    def values(self) -> dict[str, float]:
        """Return the means over all samples."""
        return {name: value / self.count for name, value in self._sums.items()}


class Fit:
    """A training under way; with a trainer, an epoch is one call of it."""

    def __init__(
        self,
        model: Sequential,
        batches: Source,
        validation: Source | None,
        trainer: Trainer | None,
        num_threads: int,
    ) -> None:
        self.model, self.batches, self.validation = model, batches, validation
        self.trainer, self.num_threads = trainer, num_threads
        self.done, self.count = 0, batches.count()

    @property
    def learning_rate(self) -> LearningRate:
        """The learning rate, which a callback may change."""
        return self.model._compiled().learning_rate

    def report(self, number: int, rate: float, order: npt.NDArray[np.intp]) -> EpochReport:
        """Run an epoch; return what there is to say about it."""
        model = self.model
        started = time.perf_counter()
        when = f"in epoch {number}"
        if self.trainer is not None:
            values = {"loss": self._run_fused_epoch(when, rate, order)}
        else:
            values = self._run_epoch(when, rate, order)
        loss, val_loss = values.pop("loss"), None
        if self.validation is not None:
            tested = model._test(self.validation, self.num_threads, when)
            val_loss = tested.pop("loss")
            values |= {f"val_{name}": value for name, value in tested.items()}
        seconds = time.perf_counter() - started
        kernels = model._variables()[0].copy()
        return EpochReport(
            number, loss, rate, seconds, kernels, val_loss=val_loss, model=model, metrics=values,
            weights=model._weights,
        )  # fmt: skip

    def _run_epoch(self, when: str, rate: float, order: npt.NDArray[np.intp]) -> dict[str, float]:
        """Take a step for every batch; return the mean loss, and the metrics."""
        means = Means()
        self.done = 0
        for batch in self.batches.epoch(order):
            if self.done == 0:  # there are no weights before the first batch
                self.model._freeze()
            values = self.model._learn(batch, rate, self.num_threads, when)
            means.add(values, len(batch.order))
            self.done += 1
        self.count = self.done
        return means.values()

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
