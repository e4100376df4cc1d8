"""The samples of a training that are not in memory: read block by block, in the order of epochs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.checks import RealArray, as_dtype
from .._support.large_arrays import ahead, in_memory, is_large, loaded, read_as, samples_of_block
from .._support.memory import bytes_of, memory_limit
from ._training import Trainer


def place(
    inputs: npt.NDArray[Any],
    targets: npt.NDArray[Any],
    itemsize: int,
    max_memory: int | str | None,
    share: int = 1,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int]:
    """Return samples in memory where there is room for them, and how many a block has, or 0.

    They are computed with in a type of that size, and may have a `share`-th of the memory.
    """
    pair = inputs, targets
    if max_memory is not None:
        bytes_of("max_memory", max_memory)
    if not any(map(is_large, pair)):
        return *pair, 0
    limit = memory_limit(max_memory) // share
    if in_memory(pair, itemsize, limit):
        return loaded(inputs), loaded(targets), 0
    return *pair, samples_of_block(pair, itemsize, limit)


def cuts(num_samples: int, batch_size: int, part: int, block: int) -> list[int]:
    """Return where the blocks of an epoch begin: with a batch, or with a part of a large one.

    Samples of a part are summed together, and must be of one block.
    """
    if batch_size <= block:
        return list(range(0, num_samples, batch_size * (block // batch_size)))
    step = part * max(1, block // part)
    return [
        first
        for batch in range(0, num_samples, batch_size)
        for first in range(batch, min(batch + batch_size, num_samples), step)
    ]


def make_trainer(
    inputs: npt.NDArray[Any],
    targets: npt.NDArray[Any],
    block: int,
    kernels: RealArray,
    batch_size: int,
    *how: Any,
) -> Trainer:
    """Return a trainer for samples in memory, or for those that are read in blocks."""
    images, wanted = inputs, targets
    if not block:
        with np.errstate(over="ignore"):  # infinite values make an infinite loss
            images, wanted = (
                as_dtype(array, kernels.dtype, contiguous=True) for array in (inputs, targets)
            )
    trainer = Trainer(images, wanted, kernels, batch_size, *how)
    if block:
        part = 1 if trainer.fused else trainer.part
        starts = cuts(len(images), batch_size, part, block)
        trainer.reader = Reader(images, wanted, kernels.dtype, starts)
    return trainer


class Reader:
    """Gives the block in which a place of the epoch's order is; the next one is read meanwhile."""

    def __init__(
        self,
        inputs: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        dtype: np.dtype[Any],
        starts: list[int],
    ) -> None:
        self.inputs, self.targets = read_as(inputs, dtype), read_as(targets, dtype)
        self.dtype, self.starts = dtype, starts
        self.following = -1

    def begin(self, order: npt.NDArray[np.intp]) -> None:
        """Begin an epoch that takes the samples in that order."""
        self.order, self.following = order, -1

    def __call__(self, place: int) -> tuple[int, RealArray, RealArray]:
        """Return where in the order the block begins, its inputs and its targets."""
        block = bisect_right(self.starts, place) - 1
        if block != self.following:
            self._blocks = ahead(self._read(block), self.inputs, self.targets)
        self.following = block + 1
        return next(self._blocks)

    def _read(self, block: int) -> Iterator[tuple[int, RealArray, RealArray]]:
        for first, end in zip(
            self.starts[block:], [*self.starts[block + 1 :], len(self.order)], strict=True
        ):
            with np.errstate(over="ignore"):  # infinite values make an infinite loss
                images, wanted = (
                    as_dtype(array[self.order[first:end]], self.dtype, contiguous=True)
                    for array in (self.inputs, self.targets)
                )
            yield first, images, wanted
