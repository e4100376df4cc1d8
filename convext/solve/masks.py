"""Pairs of samples, and which elements of them count: masks, and masked arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._support.checks import as_array
from .._support.fingerprints import fingerprint
from .._support.large_arrays import part_of
from ..ops.data import as_samples, paired_samples
from ..ops.shapes import Convolution
from ..ways import _convolution

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

    def settings(self) -> dict[str, Any]:
        """Return what tells these data from others."""
        return {
            key: value
            for name, array in self._asdict().items()
            if array is not None
            for key, value in fingerprint(name, array).items()
        }

    def inside(self, part: tuple[slice, ...]) -> Data:
        """Return the data with a part of the targets."""
        mask = None if self.mask is None else self.mask[part]
        return self._replace(targets=part_of(self.targets, part), mask=mask)

    def channels(self, some: slice) -> Data:
        """Return some channels of the inputs and the same of the targets."""
        mask = None if self.mask is None else self.mask[:, some]
        part = slice(None), some
        return Data(part_of(self.inputs, part), part_of(self.targets, part), mask)

    def unhidden(
        self, kernel_size: tuple[int, int], options: Convolution, num_threads: int
    ) -> Data:
        """Return the data with a mask that leaves out the windows that meet hidden pixels."""
        if self.hidden is None:
            return self
        mask = without(self.mask, meet(self.hidden, kernel_size, options, num_threads))
        return self._replace(mask=mask, hidden=None)


def as_data(
    input_data: npt.ArrayLike, target_output: npt.ArrayLike, mask: npt.ArrayLike | None
) -> Data:
    """Return pairs of samples, which may be masked arrays (see `paired_samples`)."""
    given, hidden = without_mask(input_data)
    values, missing = without_mask(target_output)
    pixels = as_samples("input_data", given)
    inputs, targets = paired_samples(pixels, values)
    counts: Flags | None = None
    if mask is not None:
        counts = checked_mask(as_array("mask", mask), targets.shape, pixels.ndim)
    if missing is not None:
        counts = without(counts, missing.reshape(targets.shape))
    return Data(inputs, targets, counts, None if hidden is None else hidden.reshape(inputs.shape))


def without_mask(array: npt.ArrayLike) -> tuple[npt.ArrayLike, Flags | None]:
    """Return a masked array's values and where it hides them; None for all other arrays."""
    hidden = getattr(array, "mask", None) if isinstance(array, np.ndarray) else None
    if hidden is None or not (isinstance(array, np.ma.MaskedArray) and np.any(hidden)):
        return array, None
    return np.ma.getdata(array), np.ma.getmaskarray(array)


def checked_mask(array: Any, target_shape: tuple[int, ...], dimensions: int) -> Any:
    """Return a mask for a target (N, K, OH, OW) as (N, K or 1, OH, OW); N may be left out."""
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


def without(mask: Flags | None, hidden: Flags) -> Flags:
    """Return a mask (N, K or 1, OH, OW) without what is hidden, in one of these shapes, too."""
    return ~hidden if mask is None else mask & ~hidden


def meet(
    hidden: Flags, kernel_size: tuple[int, int], options: Convolution, num_threads: int
) -> Flags:
    """Return which windows meet a pixel that is hidden in any channel: (N, 1, OH, OW)."""
    flags, taps = _as_plane(hidden), np.ones((1, 1, *kernel_size), np.float32)
    counts = np.empty((len(flags), 1, *options.output_shape), np.float32)
    _convolution.conv2d(flags, taps, None, counts, options.geometry, num_threads)
    return counts > 0.5  # which rounding does not reach


def seen(
    counts: Flags,
    size: tuple[int, ...],
    kernel_size: tuple[int, int],
    options: Convolution,
    num_threads: int,
) -> Flags:
    """Return which pixels (N, 1, *size) lie in windows (N, K or 1, OH, OW) that count."""
    flags, taps = _as_plane(counts), np.ones((1, 1, *kernel_size), np.float32)
    windows = np.empty((len(flags), 1, *size), np.float32)
    _convolution.conv2d_input_grad(flags, taps, windows, options.geometry, num_threads)
    return windows > 0.5


def _as_plane(flags: Flags) -> npt.NDArray[np.float32]:
    """Return 1 where a flag is up in any channel, else 0."""
    return np.logical_or.reduce(flags, axis=1, keepdims=True).astype(np.float32)
