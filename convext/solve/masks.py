"""Pairs of samples, and which elements of them count: masks, and masked arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._support.checks import as_array
from ..ops.data import paired_samples
from ..ops.shapes import Convolution

Flags = npt.NDArray[np.bool_]


class Data(NamedTuple):
    """Samples with their targets, and what counts of them."""

    inputs: npt.NDArray[Any]  # (N, C, H, W)
    targets: npt.NDArray[Any]  # (N, K, OH, OW)
    mask: Flags | None = None  # (N, K or 1, OH, OW), True where the target counts
    hidden: Flags | None = None  # (N, C, H, W), pixels of which no window counts

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many elements of the target count for each kernel, (K,)."""
        samples, kernels, height, width = self.targets.shape
        if self.mask is None:
            return np.full(kernels, samples * height * width)
        return np.broadcast_to(self.mask.sum(axis=(0, 2, 3)), kernels)

    def inside(self, part: tuple[slice, ...]) -> Data:
        """Return the data with a part of the targets."""
        mask = None if self.mask is None else self.mask[part]
        return self._replace(targets=self.targets[part], mask=mask)

    def unhidden(self, kernel_size: tuple[int, int], options: Convolution) -> Data:
        """Return the data with a mask that leaves out the windows that meet hidden pixels."""
        if self.hidden is None:
            return self
        mask = _without(self.mask, meet(self.hidden, kernel_size, options))
        return self._replace(mask=mask, hidden=None)


def as_data(
    input_data: npt.ArrayLike, target_output: npt.ArrayLike, mask: npt.ArrayLike | None
) -> Data:
    """Return pairs of samples, which may be masked arrays (see `paired_samples`)."""
    pixels, hidden = without_mask(input_data)
    values, missing = without_mask(target_output)
    inputs, targets = paired_samples(pixels, values)
    counts = None if mask is None else checked_mask(mask, targets.shape, np.ndim(pixels))
    if missing is not None:
        counts = _without(counts, missing.reshape(targets.shape))
    return Data(inputs, targets, counts, None if hidden is None else hidden.reshape(inputs.shape))


def without_mask(array: npt.ArrayLike) -> tuple[npt.ArrayLike, Flags | None]:
    """Return a masked array's values and where it hides them; None for all other arrays."""
    hidden = getattr(array, "mask", None) if isinstance(array, np.ndarray) else None
    if hidden is None or not (isinstance(array, np.ma.MaskedArray) and np.any(hidden)):
        return array, None
    return np.ma.getdata(array), np.ma.getmaskarray(array)


def checked_mask(mask: npt.ArrayLike, target_shape: tuple[int, ...], dimensions: int) -> Flags:
    """Return a mask for a target (N, K, OH, OW) as (N, K or 1, OH, OW); N may be left out."""
    array = as_array("mask", mask)
    if array.dtype != np.bool_:
        raise TypeError(f"mask must be of bool, True where the target counts, got {array.dtype}")
    shapes = [target_shape, (target_shape[0], 1, *target_shape[2:])]
    if dimensions == 3:
        shapes = [shape[1:] for shape in shapes]
    if array.shape not in shapes:
        raise ValueError(
            f"mask must have the shape {shapes[0]} of target_output, or {shapes[1]} for all "
            f"kernels alike, got {array.shape}"
        )
    return array if dimensions == 4 else array[np.newaxis]


def _without(mask: Flags | None, hidden: Flags) -> Flags:
    """Return a mask (N, K or 1, OH, OW) without what is hidden, in one of these shapes, too."""
    return ~hidden if mask is None else mask & ~hidden


def meet(hidden: Flags, kernel_size: tuple[int, int], options: Convolution) -> Flags:
    """Return which windows meet a pixel that is hidden in any channel: (N, 1, OH, OW)."""
    flags: Flags = np.logical_or.reduce(hidden, axis=1, keepdims=True)
    for axis in range(2):
        windows = _lowered(flags, axis, options.output_shape[axis])
        for outputs, pixels in _meetings(axis, flags.shape[2 + axis], kernel_size, options):
            windows[outputs] |= flags[pixels]
        flags = windows
    return flags


def seen(
    counts: Flags, size: tuple[int, ...], kernel_size: tuple[int, int], options: Convolution
) -> Flags:
    """Return which pixels (N, 1, *size) lie in windows (N, K or 1, OH, OW) that count."""
    flags: Flags = np.logical_or.reduce(counts, axis=1, keepdims=True)
    for axis in range(2):
        of_pixels = _lowered(flags, axis, size[axis])
        for outputs, pixels in _meetings(axis, size[axis], kernel_size, options):
            of_pixels[pixels] |= flags[outputs]
        flags = of_pixels
    return flags


def _lowered(flags: Flags, axis: int, size: int) -> Flags:
    """Return flags that are all down, as many as given but for one axis."""
    shape = list(flags.shape)
    shape[2 + axis] = size
    return np.zeros(shape, np.bool_)


def _meetings(
    axis: int, size: int, kernel_size: tuple[int, int], options: Convolution
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Yield, for each tap along an axis, the outputs it makes and the pixels it then meets."""
    stride, outputs = options.stride[axis], options.output_shape[axis]
    before = (slice(None),) * (2 + axis)
    for tap in range(kernel_size[axis]):
        offset = tap * options.dilation[axis] - options.padding_before[axis]
        first = max(0, -(offset // stride))
        end = min(outputs, (size - 1 - offset) // stride + 1)
        if first < end:
            start = first * stride + offset
            met = slice(start, start + (end - first - 1) * stride + 1, stride)
            yield (*before, slice(first, end)), (*before, met)
