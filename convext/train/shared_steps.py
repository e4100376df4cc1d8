"""Steps of a training that several ranks take together, each for its share of a batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.checks import RealArray
from .._support.ranks import Ranks
from ..ops.shapes import Geometry
from ._layers import ACTIVATIONS
from ._optimizers import Update
from ._steps import LOSSES, Layer, Step


def run_step(
    step: Step,
    ranks: Ranks,
    samples: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.float64] | None],
    order: npt.NDArray[np.intp],
    learning: bool,
) -> float:
    """Do what `Step.run` does; loss, measures and gradient are of the samples of all ranks."""
    inputs, targets, weights = samples
    if ranks.size == 1:
        return step.run(inputs, targets, order, weights, learning)
    own = order[ranks.part(len(order))]
    gradient = step.gradient if learning else np.empty(0)
    sums = np.zeros(3 + len(gradient))
    if len(own):
        sums[0] = step.run(inputs, targets, own, weights, learning)
        if step.measures is not None:
            sums[1:3] = step.measures
        sums[3:] = gradient
        sums *= len(own) / len(order)
    ranks.add(sums)
    gradient[...] = sums[3:]
    step.measures = sums[1:3]
    return float(sums[0])


class SharedTrainer:
    """What a `Trainer` of a linear convolution is, for several ranks."""

    expansion = None

    def __init__(
        self,
        inputs: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        kernels: RealArray,
        batch_size: int,
        geometry: Geometry,
        num_threads: int,
        update: Update,
        ranks: Ranks,
    ) -> None:
        shapes = inputs.shape[1:], targets.shape[1:]
        layer = Layer(kernels, None, 0, *shapes, geometry, ACTIVATIONS["linear"])
        self.batch_size = min(batch_size, len(inputs))
        most = -(-self.batch_size // ranks.size)
        loss, size = LOSSES["mse"], kernels.size
        self.step = Step([layer], size, most, loss, None, kernels.dtype, num_threads)
        self.samples, self.weights, self.update = (inputs, targets, None), kernels, update
        self.ranks, self.done, self.input_data = ranks, 0, inputs

    def run_epoch(self, order: npt.NDArray[np.intp], learning_rate: float) -> tuple[float, float]:
        """Take a step for every batch; return the mean loss, and that of the first batch.

        Ends before the update, with a loss that is not finite, where a batch's loss is not.
        """
        self.done, total, first = 0, 0.0, None
        self.update.learning_rate = learning_rate
        while self.done < len(order):
            batch = order[self.done : self.done + self.batch_size]
            loss = run_step(self.step, self.ranks, self.samples, batch, True)
            first = loss if first is None else first
            total += loss * len(batch)
            if not math.isfinite(loss):
                break
            self.update.update(self.weights, self.step.gradient)
            self.done += len(batch)
        assert first is not None
        return total / len(order), first
