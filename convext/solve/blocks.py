"""Cutting pairs of arrays, which may be larger than the memory, into blocks that are not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._support.checks import as_float64
from .._support.large_arrays import ahead
from .._support.ranks import ALONE, Ranks
from ..ops.shapes import Convolution
from .least_squares import Matrix
from .masks import Data, Flags, seen

# Elements of the images and targets of a block, together: 16 MiB in float64.
MAX_ELEMENTS = 1 << 21


class Scaling(NamedTuple):
    """What is subtracted from pixels and targets, and what they are multiplied by then.

    Sums of squares lose digits to a large mean, and overflow or vanish beyond about 1e150 and
    1e-150. Factors are powers of two, which round nothing.
    """

    offset: Matrix  # (C,)
    factor: Matrix  # (C,)
    target_offset: Matrix  # (K,)
    target_factor: float

    @classmethod
    def plain(cls, channels: int, kernels: int) -> Scaling:
        """Return one that changes nothing."""
        return cls(np.zeros(channels), np.ones(channels), np.zeros(kernels), 1.0)

    @property
    def changing(self) -> bool:
        """Whether it changes anything."""
        return bool(
            self.offset.any()
            or self.target_offset.any()
            or (self.factor != 1).any()
            or self.target_factor != 1
        )

    def of_images(self, images: Matrix) -> Matrix:
        """Return pixels (N, C, H, W) as they are scaled."""
        return (images - self.offset[:, np.newaxis, np.newaxis]) * self.factor[
            :, np.newaxis, np.newaxis
        ]

    def of_targets(self, targets: Matrix) -> Matrix:
        """Return targets (N, K, OH, OW) as they are scaled."""
        return (targets - self.target_offset[:, np.newaxis, np.newaxis]) * self.target_factor


class Block(NamedTuple):
    """Some samples, or some rows of the targets of one, with all pixels that these depend on."""

    images: Matrix  # (n, C, h, w), with the padding
    targets: Matrix  # (n, K, oh, ow), zero where they do not count
    mask: Flags | None  # (n, K or 1, oh, ow), True where they count


def blocks(
    data: Data,
    kernel_size: tuple[int, int],
    options: Convolution,
    num_threads: int,
    scaling: Scaling | None = None,
    hide: bool = False,
    ranks: Ranks = ALONE,
) -> Iterator[Block]:
    """Yield all samples with their targets, block by block; of ranks, each has a part of them.

    Pixels that no counted window sees are zero where they are not finite, and wherever they are if
    `hide` says so. Where the blocks begin depends on the shapes alone. Arrays of float64 that need
    no padding are not copied. What is not in memory is read while the block before is in use.
    """
    gaps = max(*options.stride, *options.dilation) > 1  # windows may leave out pixels
    parts = _read(data, kernel_size, options, ranks)
    for part in ahead(parts, data.inputs, data.targets):
        # What is read ahead is as small as the file has it.
        images, values, counts = as_float64(part.images), as_float64(part.targets), part.mask
        del part
        if scaling is not None and scaling.changing:
            images, values = scaling.of_images(images), scaling.of_targets(values)
        some_unseen, size = gaps, values.shape[2:]
        if counts is not None and not counts.all():
            values, some_unseen = np.where(counts, values, 0.0), True
        if some_unseen and (hide or not _are_finite(images)):
            inside = options._replace(padding_before=(0, 0), output_shape=size)
            counted = np.ones((1, 1, *size), bool) if counts is None else counts
            kept = seen(counted, images.shape[2:], kernel_size, inside, num_threads)
            images = np.where(kept, images, 0.0)
        yield Block(images, values, counts)
        del images, values, counts  # while the next block is waited for


def _read(
    data: Data, kernel_size: tuple[int, int], options: Convolution, ranks: Ranks
) -> Iterator[Block]:
    """Yield the blocks of a rank as they are in the arrays."""
    inputs, targets, mask, _ = data
    extent = (kernel_size[0] - 1) * options.dilation[0] + 1
    samples, rows = _block_size(inputs.shape, targets.shape, extent, options.stride[0])
    places = [*product(range(0, len(inputs), samples), range(0, targets.shape[2], rows))]
    for first, top in places[ranks.part(len(places))]:
        some = slice(first, first + samples)
        values = targets[some, :, top : top + rows]
        counts = None if mask is None else mask[some, :, top : top + rows]
        size = values.shape[2:]
        yield Block(padded_rows(inputs, top, size, kernel_size, options, some), values, counts)


def _are_finite(images: Matrix) -> bool:
    """Return whether all values are finite; perhaps not, if they are near the largest number."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(images.sum()))


def patches_at(
    block: Block,
    flags: Flags,
    kernel_size: tuple[int, int],
    options: Convolution,
    max_elements: int,
) -> Iterator[tuple[Matrix, Matrix]]:
    """Yield the patches of the targets whose flags (n, oh, ow) are up, as columns: (taps, some).

    With them come these targets, (K, some). About `max_elements` of pixels come at a time.
    """
    pixels = np.ascontiguousarray(block.images)
    _, channels, height, width = pixels.shape
    (sh, sw), (down, across) = options.stride, options.dilation
    axes = (channels, height * width), (kernel_size[0], down * width), (kernel_size[1], across)
    offsets = [sum(place) for place in product(*(range(0, n * step, step) for n, step in axes))]
    # Quicker than numpy.nonzero, where few are up.
    sample, row, column = np.unravel_index(np.flatnonzero(flags), flags.shape)
    begins = sample * (channels * height * width) + row * (sh * width) + column * sw
    flat, many = pixels.reshape(-1), max(1, max_elements // len(offsets))
    for first in range(0, len(begins), many):
        part = slice(first, first + many)
        patches = np.empty((len(offsets), len(begins[part])))
        for values, offset in zip(patches, offsets, strict=True):
            flat[offset:].take(begins[part], out=values, mode="clip")  # other modes copy
        yield patches, block.targets[sample[part], :, row[part], column[part]].T


def _block_size(
    input_shape: tuple[int, ...], target_shape: tuple[int, ...], extent: int, stride: int
) -> tuple[int, int]:
    """Return how many samples, and how many rows of their targets, make a block."""
    of_sample = math.prod(input_shape[1:]) + math.prod(target_shape[1:])
    if of_sample <= MAX_ELEMENTS:
        return MAX_ELEMENTS // of_sample, target_shape[2]
    input_row, target_row = input_shape[1] * input_shape[3], target_shape[1] * target_shape[3]
    # Rows that two blocks share are read twice, so that there should be more of the others.
    fitting = (MAX_ELEMENTS - extent * input_row) // (stride * input_row + target_row)
    count = -(-target_shape[2] // max(extent, fitting))
    return 1, -(-target_shape[2] // count)


def padded_rows(
    images: npt.NDArray[Any],
    top: int,
    output_shape: tuple[int, ...],
    kernel_size: tuple[int, int],
    options: Convolution,
    some: slice = slice(None),
) -> npt.NDArray[Any]:
    """Return what the rows of the output from `top` on depend on, zeros outside included.

    That is for `some` of the images, in their type or, with zeros, in float64.
    """
    needed = [
        (outputs - 1) * stride + (size - 1) * dilation + 1
        for outputs, stride, size, dilation in zip(
            output_shape, options.stride, kernel_size, options.dilation, strict=True
        )
    ]
    starts = top * options.stride[0] - options.padding_before[0], -options.padding_before[1]
    inside = [
        slice(max(start, 0), max(min(start + length, size), 0))
        for start, length, size in zip(starts, needed, images.shape[2:], strict=True)
    ]
    part = images[some, :, inside[0], inside[1]]
    if part.shape[2:] == tuple(needed):
        return part
    padded = np.zeros((*part.shape[:2], *needed))
    rows, columns = (
        slice(within.start - start, within.start - start + length)
        for within, start, length in zip(inside, starts, part.shape[2:], strict=True)
    )
    padded[:, :, rows, columns] = part
    return padded
