"""The epochs of a training of a network."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .._support.checks import as_dtype
from ..train._steps import LOSSES
from ..train._training import Trainer, fuses
from ..train.epoch_report import EpochReport
from .batches import ArrayBatches, Chosen, Source
from .learning import Learner, means
from .optimizers import LearningRate

# Arrays up to this size are converted and kept for the fused steps of a single small layer.
MAX_FUSED_BYTES = 64 << 20


class Fit:
    """A training under way. With a trainer, an epoch is one call of it."""

    def __init__(
        self,
        model: Learner,
        batches: Source,
        validation: Source | None,
        num_threads: int,
    ) -> None:
        self.model, self.batches, self.validation = model, batches, validation
        self.trainer = _fused_trainer(model, batches, num_threads)
        self.num_threads = num_threads
        self.done, self.count = 0, batches.count()

    @property
    def learning_rate(self) -> LearningRate:
        """The learning rate, which a callback may change."""
        return self.model._compiled().learning_rate

    def report(self, number: int, rate: float, order: npt.NDArray[np.intp]) -> EpochReport:
        """Run an epoch; return what there is to say about it."""
        started = time.perf_counter()
        when = f"in epoch {number}"
        if self.trainer is not None:
            values = {"loss": self._run_fused_epoch(when, rate, order)}
        else:
            values = means(self._take_steps(when, rate, order))
        loss, val_loss = values.pop("loss"), None
        if self.validation is not None:
            tested = self.model._test(self.validation, self.num_threads, when)
            val_loss = tested.pop("loss")
            values |= {f"val_{name}": value for name, value in tested.items()}
        seconds = time.perf_counter() - started
        kernels = self.model._variables()[0].copy()
        return EpochReport(
            number, loss, rate, seconds, kernels, val_loss=val_loss, model=self.model,
            metrics=values, weights=self.model._weights,
        )  # fmt: skip

    def _take_steps(
        self, when: str, rate: float, order: npt.NDArray[np.intp]
    ) -> Iterator[tuple[dict[str, float], int]]:
        """Take a step for every batch; yield its loss and metrics, and the samples it had."""
        self.done = 0
        for batch in self.batches.epoch(order):
            if self.done == 0:  # there are no weights before the first batch
                self.model._freeze()
            yield self.model._take(batch, self.num_threads, when, rate), len(batch.order)
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
    with np.errstate(over="ignore"):  # infinite values make an infinite loss
        images, wanted = (as_dtype(a, model.dtype, contiguous=True) for a in (inputs, targets))
    return Trainer(
        images, wanted, layer.kernels, size, layer.geometry, num_threads,
        model._current_update(), layer.bias is not None, layer.activation,
    )  # fmt: skip
