"""The sums G, B and |Y|² of data, what follows from them, and when they can be trusted.

See `statistics`, which keeps them for users.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.checks import as_float64, check_finite, samples_in_blocks
from .._support.messages import warn
from .._support.ranks import ALONE, Ranks
from ..ops.shapes import Convolution
from .blocks import Block, Scaling, blocks, patches_at
from .least_squares import Matrix, Systems, check_memory
from .masks import Data, Flags, seen
from .products import add_patch_products, kernel_gradient, sums_of_planes
from .unknowns import Unknowns

# Elements of the patch matrix that are multiplied at a time where there is a mask: 8 MiB.
MASKED_ELEMENTS = 1 << 20

# Where more than this part of a block counts, sums of all and of what does not take less time:
# sums of all take a tenth of that of their rows, or less.
MOST = 0.55

# What is left of squares, at least, where some are subtracted: three of their bits are lost.
KEPT = 1 / 8

# Squares below that may have lost digits.
UNDERFLOW = 1e-290


@dataclass
class Sums:
    """The sums over the pixels of some data."""

    unknowns: Unknowns
    products: Matrix  # G, (1 or K, unknowns, unknowns)
    cross_products: Matrix  # B, (K, unknowns)
    squares: Matrix  # |Y|², (K,)
    counts: npt.NDArray[np.int64]  # elements of the target, (K,)

    @classmethod
    def of_nothing(cls, unknowns: Unknowns) -> Sums:
        """Return sums that are zero, and take no memory."""
        kernels, size = unknowns.num_kernels, unknowns.of_kernel
        return cls(
            unknowns,
            np.broadcast_to(0.0, (1, size, size)),
            np.broadcast_to(0.0, (kernels, size)),
            np.broadcast_to(0.0, kernels),
            np.broadcast_to(np.int64(0), kernels),
        )

    @classmethod
    def total(cls, parts: Sequence[Sums]) -> Sums:
        """Return the sums over data of which these are parts, added in this order."""
        arrays = zip(*(part.arrays.values() for part in parts), strict=True)
        total: list[Any] = [sum(each) for each in arrays]
        return cls(parts[0].unknowns, *total)

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays, by their names."""
        return {name: array for name, array in vars(self).items() if name != "unknowns"}

    @classmethod
    def of(
        cls,
        unknowns: Unknowns,
        data: Data,
        num_threads: int,
        scaling: Scaling | None = None,
        ranks: Ranks = ALONE,
    ) -> Sums:
        """Return the sums over samples, of which those that a mask leaves out may be anything.

        Of ranks, each reads a part of the samples. Who calls finds what is not finite.
        """
        size = unknowns.of_kernel
        check_memory(3 * 8 * size**2, f"the sums of products of {size} unknowns")
        options = unknowns.resolve(data)
        nothing = cls.of_nothing(unknowns).arrays.values()
        sums = cls(unknowns, *(np.zeros(array.shape, array.dtype) for array in nothing))
        with np.errstate(all="ignore"):
            how = unknowns.kernel_shape, options, num_threads
            for block in blocks(data, *how, scaling, hide=data.mask is not None, ranks=ranks):
                sums._add(block, options, num_threads)
                del block
            sums._merge(ranks)
        return sums

    def _merge(self, ranks: Ranks) -> None:
        """Add the sums of all ranks."""
        if ranks.size > 1:
            most = max(ranks.gather(len(self.products)))
            if most > len(self.products):  # another has met a mask for each kernel
                self.products = np.repeat(self.products, most, axis=0)
            self.counts = np.sum(ranks.gather(self.counts), axis=0)
            for array in (self.products, self.cross_products, self.squares):
                ranks.add(array)

    def _add(self, block: Block, options: Convolution, num_threads: int) -> None:
        """Add a block of samples."""
        images, targets, mask = block
        taps, size = self.unknowns.num_taps, self.unknowns.kernel_shape
        arguments = size, num_threads, options.geometry._replace(padding_before=(0, 0))
        cross = kernel_gradient(images, targets, *arguments)
        self.cross_products[:, :taps] += cross.reshape(len(cross), taps)
        self.squares += sums_of_planes(targets, targets, num_threads)
        ones = np.broadcast_to(1.0, (len(targets), 1, *targets.shape[2:]))
        inside = options._replace(output_shape=targets.shape[2:])
        if mask is None or mask.all():
            self.counts += targets.size // len(cross)
            self.products[:, :taps, :taps] += self._products(images, inside, num_threads)
            counted = ones
        else:
            self.counts += mask.sum(axis=(0, 2, 3))
            self._add_masked_products(block, inside, num_threads)
            counted = as_float64(mask)
        if self.unknowns.bias:
            sums = kernel_gradient(images, counted, *arguments)
            self.products[:, -1, :taps] += sums.reshape(-1, taps)
            self.products[:, :taps, -1] = self.products[:, -1, :taps]
            self.products[:, -1, -1] += sums_of_planes(counted, counted, num_threads)
            totals = kernel_gradient(targets, ones, (1, 1), num_threads)
            self.cross_products[:, -1] += totals.ravel()

    def _products(self, images: Matrix, options: Convolution, num_threads: int) -> Matrix:
        """Return G over all patches of images, (taps, taps)."""
        taps, size = self.unknowns.num_taps, self.unknowns.kernel_shape
        products = np.zeros((1, taps, taps))
        add_patch_products(products, images, size, options, len(images), num_threads)
        total: Matrix = products[0]
        return total

    def _add_masked_products(self, block: Block, options: Convolution, num_threads: int) -> None:
        """Add G over the patches whose target elements count.

        Windows of different taps meet a mask at different places, so that products of the same
        displacement do not share their sums, as they do in _statistics.pyx. So the patches that
        count are multiplied; or, where they are most, those that do not, and taken from all.
        """
        taps, mask = self.unknowns.num_taps, block.mask
        assert mask is not None
        if mask.shape[1] > len(self.products):
            self.products = np.repeat(self.products, mask.shape[1], axis=0)
        of_all = None
        for products, counted in zip(self.products, mask.swapaxes(0, 1), strict=True):
            if np.count_nonzero(counted) >= MOST * counted.size:
                if of_all is None:
                    of_all = self._products(block.images, options, num_threads)
                rest = of_all - self._products_at(block, ~counted, options)
                # Pixels that are large beside what counts would leave their rounding errors.
                if (np.diagonal(rest) >= KEPT * np.diagonal(of_all)).all():
                    products[:taps, :taps] += rest
                    continue
            products[:taps, :taps] += self._products_at(block, counted, options)

    def _products_at(self, block: Block, flags: Flags, options: Convolution) -> Matrix:
        """Return G over the patches of the targets whose flags (n, oh, ow) are up."""
        taps, size = self.unknowns.num_taps, self.unknowns.kernel_shape
        products = np.zeros((taps, taps))
        for patches, _ in patches_at(block, flags, size, options, MASKED_ELEMENTS):
            products += patches @ patches.T
        return products

    @property
    def size(self) -> int:
        """How many elements of the target count, for all kernels together."""
        size = int(self.counts.sum())
        if size == 0:
            raise ValueError("no element of the target counts")
        return size

    @property
    def finite(self) -> bool:
        """Whether all sums are finite."""
        return bool(np.isfinite(self.products).all() and np.isfinite(self.squares).all())

    @property
    def squares_of_taps(self) -> Matrix:
        """The sums of the squared pixels that each tap meets, (1 or K, taps)."""
        return np.diagonal(self.products, axis1=1, axis2=2)[:, : self.unknowns.num_taps]

    @property
    def tiny(self) -> bool:
        """Whether sums of squares are so small that these may have lost digits."""
        return bool((self.squares_of_taps < UNDERFLOW).any() or (self.squares < UNDERFLOW).any())

    def times(self, weights: Matrix) -> Matrix:
        """Return G times the weights of each kernel."""
        products: Matrix = np.einsum("kut,kt->ku", self.products, weights)
        return products

    def change(self, step: Matrix, right: Matrix) -> Matrix:
        """Return what a step of the weights adds to the squared errors of each kernel.

        `right`, (K, unknowns), are the products of pixels with residuals before it.
        """
        change: Matrix = np.einsum("ku,ku->k", step, self.times(step) - 2 * right)
        return change

    def mean(self, squares: Matrix) -> float:
        """Return the mean of squared errors, of which the sum is known for each kernel."""
        return max(float(squares.sum()), 0.0) / self.size

    def loss(self, weights: Matrix) -> float:
        """Return the mean squared error of weights."""
        rows = np.ascontiguousarray(weights)  # of another layout, the sums have other bits
        return self.mean(self.squares + self.change(rows, self.cross_products))

    def systems(self, ridge: Matrix) -> Systems:
        """Return the normal equations of all kernels, or of each where they differ."""
        check_counts(self.counts)
        return Systems(self.products, ridge, int(self.counts.max()))


def sums_of(unknowns: Unknowns, data: Data, num_threads: int) -> Sums:
    """Return the sums over samples, which are finite, or say what is wrong with these."""
    data = data.unhidden(unknowns.kernel_shape, unknowns.resolve(data), num_threads)
    sums = Sums.of(unknowns, data, num_threads)
    if not sums.finite:
        check_samples(unknowns, data)
        raise ValueError("input_data or target_output is too large: squares overflow float64")
    if sums.tiny:
        _warn_of_underflow("input_data", data.inputs)
        _warn_of_underflow("target_output", data.targets)
    return sums


def check_samples(unknowns: Unknowns, data: Data) -> None:
    """Raise ValueError where data that count are not finite."""
    inputs, targets, mask, _ = data
    if mask is not None:
        options = unknowns.resolve(data)
        targets = np.where(mask, targets, 0)
        kept = seen(mask, inputs.shape[2:], unknowns.kernel_shape, options, 1)
        inputs = np.where(kept, inputs, 0)
    check_finite("input_data", inputs)
    check_finite("target_output", targets)


def check_counts(counts: npt.NDArray[np.int64]) -> None:
    """Raise ValueError where no element of the target counts for some kernel."""
    if not counts.all():
        of_kernel = f" for kernel {int(np.argmin(counts))}" if counts.any() else ""
        raise ValueError(f"no element of the target counts{of_kernel}")


def _warn_of_underflow(name: str, array: npt.NDArray[Any]) -> None:
    """Warn where the values of a channel are not zero, but their squares are, or nearly."""
    largest = np.zeros(array.shape[1])
    for _, block in samples_in_blocks(array):
        np.maximum(largest, np.abs(block).max(axis=(0, 2, 3), initial=0), out=largest)
    if ((largest > 0) & (largest < math.sqrt(UNDERFLOW))).any():
        warn(
            f"values of {name} are as small as {largest[largest > 0].min():.3g}: their squares "
            "underflow float64; multiply by a large number, or use solve_kernels",
            RuntimeWarning,
        )
