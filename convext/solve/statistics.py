"""Patch statistics: all that the mean squared error of a convolution needs to know of its data.

With X the matrix of the patches (a row for each pixel of the target, a column for each tap) and Y
the targets, a column for each kernel, the sum of squared errors of kernels w is

    |X w - Y|² = w · G w - 2 w · B + |Y|²      with  G = X^T X  and  B = X^T Y.

So G, B and |Y|² say what the loss and its gradient are for any kernels, and which are the best.
They are sums over the pixels: those of parts of a data set add up to those of the whole.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.array_files import load_array, load_record
from .._support.checks import (
    as_float64,
    as_kernel_shape,
    as_numeric_array,
    check_finite,
    finite_number,
    integer,
    integer_pair,
    samples_in_blocks,
)
from .._support.files import FilePath, atomic_write
from .._support.interruption import interruptible
from .._support.sharing import Stateful, in_turn
from ..config import resolve_num_threads
from ..gradient import _kernel_gradient, _statistics
from ..ops.shapes import Convolution, Padding, Pair, edges_of, resolve
from ..ways._forward import ALGORITHMS
from .blocks import MAX_ELEMENTS, Block, blocks, padded_rows, patch_rows
from .least_squares import Matrix, NormalEquations, Solution, check_memory, warn_of_rank
from .masks import Flags, meet, samples_and_masks, seen, with_hidden

# Winograd's algorithm rounds more.
DIRECT = ALGORITHMS["direct"]

# So many elements of the patch matrix, 8 MiB, are multiplied at a time where there is a mask.
MASKED_ELEMENTS = 1 << 20

# Squares below that may have lost digits.
UNDERFLOW = 1e-290


class PatchStatistics(Stateful):
    """Sums over the pixels of a data set, from which losses, gradients and the best kernels follow.

    Parameters
    ----------
    num_channels : int
        Channels of the input, C.
    num_kernels : int
        Channels of the target, K.
    kernel_shape : int or (int, int)
        Height and width of the kernels, (kh, kw); one number is both.
    bias : bool, default False
        Whether each kernel has a number that is added to its results.
    stride, padding, dilation
        Of the convolution; see `conv2d`.

    Attributes
    ----------
    products : numpy.ndarray, (1, unknowns, unknowns) or (K, unknowns, unknowns)
        G: the sums, over all patches, of the products of every two pixels of a patch, where the
        unknowns are the C * kh * kw taps and, with a bias, a last one whose pixel is 1. One for all
        kernels, until a mask leaves out other pixels for one kernel than for another: then one for
        each.
    cross_products : numpy.ndarray, (K, unknowns)
        B: the sums of the products of pixels with targets.
    squares : numpy.ndarray, (K,)
        The sums of squared targets.
    counts : numpy.ndarray, (K,)
        How many elements of the target each kernel has met.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type, or is out of range.

    See Also
    --------
    solve_kernels : The best kernels, as accurate as float64 allows.

    Notes
    -----
    All sums are kept in float64, whatever the types of the arrays. Threads may share it: they take
    turns.

    Examples
    --------
    >>> import numpy as np
    >>> import convext
    >>> rng = np.random.default_rng(0)
    >>> edges = np.array([[[[-1.0, 2.0, -1.0]]]])
    >>> statistics = convext.PatchStatistics(1, 1, (1, 3))
    >>> for image in rng.random((10, 1, 1, 20, 20)):     # one after the other
    ...     statistics.update(image, convext.conv2d(image, edges))
    >>> statistics.solve().kernels.round(12)
    array([[[[-1.,  2., -1.]]]])
    """

    products: Matrix
    cross_products: Matrix
    squares: Matrix
    counts: npt.NDArray[np.int64]

    def __init__(
        self,
        num_channels: int,
        num_kernels: int,
        kernel_shape: Pair,
        *,
        bias: bool = False,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
    ) -> None:
        self._configure(
            num_channels,
            num_kernels,
            kernel_shape,
            bias=bias,
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
        for name, (dtype, shape) in self._layout().items():
            # The products, which may be many, take no memory yet.
            made = np.broadcast_to(0.0, shape) if name == "products" else np.zeros(shape, dtype)
            setattr(self, name, made)

    def _configure(
        self,
        num_channels: int,
        num_kernels: int,
        kernel_shape: Pair,
        *,
        bias: bool,
        stride: Pair,
        padding: Padding,
        dilation: Pair,
    ) -> None:
        self.num_channels = integer("num_channels", num_channels, minimum=1)
        self.num_kernels = integer("num_kernels", num_kernels, minimum=1)
        height, width = as_kernel_shape(kernel_shape)
        self.kernel_shape = height, width
        if not isinstance(bias, (bool, np.bool_)):
            raise TypeError(f"bias must be True or False, got {bias!r} ({type(bias).__name__})")
        self.bias = bool(bias)
        self.stride = integer_pair("stride", stride, minimum=1)
        self.dilation = integer_pair("dilation", dilation, minimum=1)
        self.padding = edges_of(padding)

    def _layout(self) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
        """Return the type and shape of each array, while all kernels have met the same pixels."""
        kernels, unknowns = self.num_kernels, self.num_unknowns
        return {
            "products": (np.float64, (1, unknowns, unknowns)),
            "cross_products": (np.float64, (kernels, unknowns)),
            "squares": (np.float64, (kernels,)),
            "counts": (np.int64, (kernels,)),
        }

    @property
    def num_unknowns(self) -> int:
        """How many numbers a kernel has, its bias included."""
        return self.num_channels * math.prod(self.kernel_shape) + self.bias

    def update(
        self,
        input_data: npt.ArrayLike,
        target_output: npt.ArrayLike,
        mask: npt.ArrayLike | None = None,
        *,
        num_threads: int | None = None,
    ) -> None:
        """Add samples.

        Parameters
        ----------
        input_data : array_like, (C, H, W) or (N, C, H, W)
            The images; their size may differ from call to call. Memory-mapped files may be larger
            than the memory. Of a masked array (`numpy.ma`), windows that meet a masked pixel do not
            count.
        target_output : array_like, (K, OH, OW) or (N, K, OH, OW)
            What the convolution should give. Masked elements of a masked array do not count.
        mask : array_like of bool, optional
            True where an element of the target counts; elsewhere it may even be NaN, and so may
            pixels of the input that only such elements depend on. It has the shape of the target,
            or 1 in place of K: then it holds for all kernels, which takes a K-th of the time and of
            the memory.
        num_threads : int, optional
            Default: `get_num_threads`. The sums have the same bits for any number.

        Raises
        ------
        TypeError
            An array does not hold real numbers, or `mask` is not of bool.
        ValueError
            Shapes do not fit, or an array contains NaN or infinity. The statistics stay as they
            were.
        MemoryError
            The sums take more memory than there is.

        Warns
        -----
        RuntimeWarning
            Values are so small that their squares underflow.
        """
        threads = resolve_num_threads(num_threads)
        inputs, targets, counts, hidden = samples_and_masks(input_data, target_output, mask)
        options = self._resolve(inputs.shape, targets.shape)
        if hidden is not None:
            counts = with_hidden(counts, meet(hidden, self.kernel_shape, options))
        added = PatchStatistics._empty_like(self)
        added._sum(blocks(inputs, targets, counts, self.kernel_shape, options), options, threads)
        if not added._are_finite():
            self._check_finite(inputs, targets, counts, options)
            raise ValueError("input_data or target_output is too large: squares overflow float64")
        if added._may_have_underflowed():
            _warn_of_underflow("input_data", inputs)
            _warn_of_underflow("target_output", targets)
        self.merge(added)

    def merge(self, other: PatchStatistics) -> None:
        """Add the statistics of other samples.

        Parameters
        ----------
        other : PatchStatistics
            Of the same convolution.

        Raises
        ------
        TypeError
            `other` is something else.
        ValueError
            It is of another convolution.
        """
        if not isinstance(other, PatchStatistics):
            raise TypeError(f"other must be PatchStatistics, got {type(other).__name__}")
        for name, value in self._settings().items():
            if value != (theirs := other._settings()[name]):
                raise ValueError(
                    "only statistics of the same convolution can be merged: "
                    f"{name} is {value!r} here and {theirs!r} in other"
                )
        # One object at a time: two that are merged with each other must not wait for each other.
        self._add_sums(other._sums())

    @in_turn
    def _sums(self) -> list[npt.NDArray[Any]]:
        return [getattr(self, name) for name in self._layout()]

    @in_turn
    def _add_sums(self, others: list[npt.NDArray[Any]]) -> None:
        for name, added in zip(self._layout(), others, strict=True):
            setattr(self, name, getattr(self, name) + added)

    @in_turn
    def __getstate__(self) -> dict[str, Any]:
        return vars(self).copy()

    def __add__(self, other: PatchStatistics) -> PatchStatistics:
        if not isinstance(other, PatchStatistics):
            return NotImplemented
        result = PatchStatistics._empty_like(self)
        result.merge(self)
        result.merge(other)
        return result

    def __repr__(self) -> str:
        shape = "x".join(map(str, (self.num_channels, *self.kernel_shape)))
        return (
            f"<PatchStatistics of {int(self.counts.sum())} target elements "
            f"for {self.num_kernels} kernels of {shape}>"
        )

    @in_turn
    def loss(self, kernels: npt.ArrayLike, bias: npt.ArrayLike | None = None) -> float:
        """Return the mean squared error of kernels on all samples so far.

        Parameters
        ----------
        kernels : array_like, (K, C, kh, kw)
        bias : array_like, (K,), optional
            Default: zeros. Only where the statistics were made with a bias.

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            Arguments do not fit, or nothing was added yet.

        Notes
        -----
        Its three terms cancel where the kernels fit well: the error is about 1e-16 of the mean
        squared target, however small the loss.
        """
        weights = self._weights(kernels, bias)
        squares = self.squares + np.einsum(
            "ku,ku->k", weights, self._times(weights) - 2 * self.cross_products
        )
        return max(float(squares.sum()), 0.0) / self._size

    @in_turn
    def gradient(
        self, kernels: npt.ArrayLike, bias: npt.ArrayLike | None = None
    ) -> Matrix | tuple[Matrix, Matrix]:
        """Return the gradient of the mean squared error.

        Parameters
        ----------
        kernels, bias
            As for `loss`.

        Returns
        -------
        numpy.ndarray, (K, C, kh, kw)
            The gradient with respect to the kernels; where the statistics were made with a bias, a
            pair of it and of the gradient with respect to the bias, (K,).

        Raises
        ------
        TypeError, ValueError
            As `loss` does.

        Examples
        --------
        >>> statistics = PatchStatistics(1, 1, (1, 1))
        >>> statistics.update(np.ones((1, 2, 2)), np.full((1, 2, 2), 3.0))
        >>> statistics.gradient(np.ones((1, 1, 1, 1)))
        array([[[[-4.]]]])
        """
        weights = self._weights(kernels, bias)
        gradient = 2 * (self._times(weights) - self.cross_products) / self._size
        of_kernels, of_bias = self._split(gradient)
        return of_kernels if of_bias is None else (of_kernels, of_bias)

    @in_turn
    def solve(self, l2: float = 0.0) -> Solution:
        """Return the kernels with the smallest loss + l2 * (sum of squared kernel values).

        Parameters
        ----------
        l2 : float, default 0
            How much large kernel values cost; a bias costs nothing.

        Returns
        -------
        Solution
            The kernels of the smallest norm where the data do not determine them. Where each kernel
            has a mask of its own, the least rank and the largest condition of all.

        Raises
        ------
        TypeError, ValueError
            `l2` is negative or not a number, or no target element counts for some kernel.

        Warns
        -----
        numpy.exceptions.RankWarning
            The data do not determine the kernels, and `l2` is 0.

        Notes
        -----
        This solves the normal equations, whose errors grow with the square of the condition:
        `solve_kernels`, which has the data, loses half as many digits.
        """
        systems = self._normal_equations(self._ridge(l2, self._size))
        weights = self._solve_systems(systems, self.cross_products)
        rank = min(system.rank for system in systems)
        if l2 == 0:
            warn_of_rank(rank, self.num_unknowns)
        kernels, bias = self._split(weights)
        condition = max(system.condition for system in systems)
        return Solution(kernels, bias, self.loss(kernels, bias), rank, condition)

    @in_turn
    def max_learning_rate(self) -> float:
        """Return the largest learning rate at which gradient descent on all samples is stable.

        Returns
        -------
        float
            2 / the largest eigenvalue of the loss's Hessian, 2 G / n; infinite when all pixels are
            zero.

        Raises
        ------
        ValueError
            Nothing was added yet.

        Examples
        --------
        >>> statistics = PatchStatistics(1, 1, (1, 1))
        >>> statistics.update(np.full((1, 2, 2), 2.0), np.ones((1, 2, 2)))
        >>> statistics.max_learning_rate()
        0.25
        """
        size = self._size
        largest = float(interruptible(np.linalg.eigvalsh, self.products).max())
        return size / largest if largest > 0 else math.inf

    @in_turn
    def save(self, file: FilePath) -> None:
        """Write the statistics to a .npz file.

        Parameters
        ----------
        file : path
            Written under exactly this name; a failure leaves an older file as it was.

        Raises
        ------
        OSError
            The folder does not exist or is not writable, or the disk is full.
        """
        arrays: dict[str, Any] = {name: getattr(self, name) for name in self._layout()}
        with atomic_write(file) as stream:
            np.savez_compressed(stream, settings=np.array(json.dumps(self._settings())), **arrays)

    @classmethod
    def load(cls, file: FilePath) -> PatchStatistics:
        """Read statistics that `save` wrote. Nothing is ever unpickled.

        Parameters
        ----------
        file : path

        Returns
        -------
        PatchStatistics

        Raises
        ------
        OSError
            From the system, unchanged.
        ValueError
            The file is damaged, or of another kind.

        Examples
        --------
        >>> import tempfile
        >>> statistics = PatchStatistics(1, 2, (3, 3), bias=True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     statistics.save(f"{folder}/statistics.npz")
        ...     PatchStatistics.load(f"{folder}/statistics.npz")
        <PatchStatistics of 0 target elements for 2 kernels of 1x3x3>
        """
        label = f"statistics ({os.fspath(file)})"
        settings = load_record(file, "statistics", "settings") or {}
        statistics = cls.__new__(cls)
        try:
            statistics._configure(**settings)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{label} does not hold patch statistics: {error}") from None
        for name, (dtype, shape) in statistics._layout().items():
            array: npt.NDArray[Any] = load_array(file, "statistics", member=name)
            shapes = {shape, (statistics.num_kernels, *shape[1:])}
            if array.dtype != dtype or array.shape not in shapes:
                raise ValueError(
                    f"{label}: {name} must be {np.dtype(dtype)} of shape {shape}, "
                    f"got {array.dtype} of shape {array.shape}"
                )
            if not np.isfinite(array).all() or (
                name in ("squares", "counts") and (array < 0).any()
            ):
                raise ValueError(f"{label}: {name} holds numbers that no data have")
            setattr(statistics, name, array)
        return statistics

    def _normal_equations(self, ridge: Matrix) -> list[NormalEquations]:
        """Return the equations of all kernels, or of each where they differ."""
        check_counts(self.counts)
        size = self.num_unknowns
        check_memory(6 * 8 * size**2, f"the normal equations of {size} unknowns")
        rows = int(self.counts.max())
        return [NormalEquations(products, ridge, rows) for products in self.products]

    def _ridge(self, l2: float, size: int) -> Matrix:
        """Return what is added to the diagonal of G, for all taps, but nothing for the bias."""
        ridge = np.full(self.num_unknowns, finite_number("l2", l2, minimum=0) * size)
        if self.bias:
            ridge[-1] = 0
        return ridge

    @staticmethod
    def _solve_systems(systems: list[NormalEquations], right: Matrix) -> Matrix:
        """Return the weights (K, unknowns) for right-hand sides (K, unknowns)."""
        if len(systems) == 1:
            return systems[0].solve(right.T).T
        return np.array(
            [
                system.solve(side[:, np.newaxis])[:, 0]
                for system, side in zip(systems, right, strict=True)
            ]
        )

    def _split(self, weights: Matrix) -> tuple[Matrix, Matrix | None]:
        """Return weights (K, unknowns) as kernels (K, C, kh, kw) and bias (K,)."""
        taps = self.num_unknowns - self.bias
        kernels = weights[:, :taps].reshape(-1, self.num_channels, *self.kernel_shape).copy()
        return kernels, weights[:, -1].copy() if self.bias else None

    @classmethod
    def _empty_like(cls, other: PatchStatistics) -> PatchStatistics:
        return cls(**other._settings())

    def _settings(self) -> dict[str, Any]:
        names = ("num_channels", "num_kernels", "kernel_shape", "bias")
        return {name: getattr(self, name) for name in (*names, "stride", "padding", "dilation")}

    def _resolve(self, input_shape: tuple[int, ...], target_shape: tuple[int, ...]) -> Convolution:
        if input_shape[1] != self.num_channels:
            raise ValueError(
                f"input_data must have {self.num_channels} channels, got {input_shape[1]} "
                f"(shape {input_shape})"
            )
        options = resolve(
            input_shape,
            self.kernel_shape,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=1,
        )
        expected = (input_shape[0], self.num_kernels, *options.output_shape)
        if target_shape != expected:
            raise ValueError(
                f"target_output must have the shape {expected} for {self.num_kernels} kernels of "
                f"{self.kernel_shape[0]}x{self.kernel_shape[1]} on input_data of shape "
                f"{input_shape}, got {target_shape}"
            )
        return options

    @property
    def _size(self) -> int:
        """How many elements of the target count, for all kernels together."""
        size = int(self.counts.sum())
        if size == 0:
            raise ValueError("no element of the target counts")
        return size

    def _weights(self, kernels: npt.ArrayLike, bias: npt.ArrayLike | None) -> Matrix:
        """Return kernels and bias as (K, unknowns)."""
        weights = as_float64(as_numeric_array("kernels", kernels))
        expected = (self.num_kernels, self.num_channels, *self.kernel_shape)
        if weights.shape != expected:
            raise ValueError(f"kernels must have the shape {expected}, got {weights.shape}")
        flat = weights.reshape(self.num_kernels, -1)
        if not self.bias:
            if bias is not None:
                raise ValueError("bias was given, but the statistics were made without one")
            return flat
        offsets = np.zeros(self.num_kernels)
        if bias is not None:
            offsets = as_float64(as_numeric_array("bias", bias))
        if offsets.shape != (self.num_kernels,):
            raise ValueError(f"bias must have the shape {(self.num_kernels,)}, got {offsets.shape}")
        return np.column_stack([flat, offsets])

    def _times(self, weights: Matrix) -> Matrix:
        """Return G times the weights of each kernel."""
        products: Matrix = np.einsum("kut,kt->ku", self.products, weights)
        return products

    def _check_finite(
        self,
        inputs: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        counts: Flags | None,
        options: Convolution,
    ) -> None:
        """Raise ValueError where data that count are not finite."""
        if counts is not None:
            targets = np.where(counts, targets, 0)
            inputs = np.where(seen(counts, inputs.shape[2:], self.kernel_shape, options), inputs, 0)
        check_finite("input_data", inputs)
        check_finite("target_output", targets)

    def _sum(self, parts: Iterable[Block], options: Convolution, num_threads: int) -> None:
        """Add blocks of samples to statistics that are empty."""
        size = self.num_unknowns
        check_memory(3 * 8 * size**2, f"the sums of products of {size} unknowns")
        self.products = np.zeros((1, size, size))
        with np.errstate(all="ignore"):  # who calls finds what is not finite
            for block in parts:
                self._add(block, options, num_threads)

    def _are_finite(self) -> bool:
        return bool(np.isfinite(self.products).all() and np.isfinite(self.squares).all())

    def _may_have_underflowed(self) -> bool:
        """Return whether sums of squares are so small that these may have lost digits."""
        squares = np.diagonal(self.products, axis1=1, axis2=2)
        return bool((squares < UNDERFLOW).any() or (self.squares < UNDERFLOW).any())

    def _add(self, block: Block, options: Convolution, num_threads: int) -> None:
        """Add a block of samples."""
        images, targets, mask = block
        taps = self.num_unknowns - self.bias
        arguments = self.kernel_shape, options.stride, options.dilation, num_threads
        cross = kernel_gradient(images, targets, *arguments)
        self.cross_products[:, :taps] += cross.reshape(self.num_kernels, taps)
        self.squares += sums_of_planes(targets, targets, num_threads)
        ones = np.broadcast_to(1.0, (len(targets), 1, *targets.shape[2:]))
        if mask is None or mask.all():
            self.counts += targets.size // self.num_kernels
            products = np.zeros((1, taps, taps))
            _statistics.patch_products(
                images, self.kernel_shape, options.stride, options.dilation, targets.shape[2:],
                len(images), products, num_threads,
            )  # fmt: skip
            self.products[:, :taps, :taps] += products
            counted = ones
        else:
            self.counts += mask.sum(axis=(0, 2, 3))
            self._add_masked_products(block, options)
            counted = as_float64(mask)
        if self.bias:
            sums = kernel_gradient(images, counted, *arguments)
            self.products[:, -1, :taps] += sums.reshape(-1, taps)
            self.products[:, :taps, -1] = self.products[:, -1, :taps]
            self.products[:, -1, -1] += sums_of_planes(counted, counted, num_threads)
            self.cross_products[:, -1] += kernel_gradient(
                targets, ones, (1, 1), (1, 1), (1, 1), num_threads
            ).ravel()

    def _add_masked_products(self, block: Block, options: Convolution) -> None:
        """Add G over the patches whose target elements count.

        Windows of different taps meet a mask at different places, so that products of the same
        displacement do not share their sums, as they do in _statistics.pyx.
        """
        taps = self.num_unknowns - self.bias
        for rows, _, counts in patch_rows(block, self.kernel_shape, options, MASKED_ELEMENTS):
            if counts.shape[1] > len(self.products):
                self.products = np.repeat(self.products, counts.shape[1], axis=0)
            for products, counted in zip(self.products, counts.T, strict=True):
                kept = rows * counted[:, np.newaxis]
                products[:taps, :taps] += kept.T @ kept


def _warn_of_underflow(name: str, array: npt.NDArray[Any]) -> None:
    """Warn where the values of a channel are not zero, but their squares are, or nearly."""
    largest = np.zeros(array.shape[1])
    for _, block in samples_in_blocks(array):
        np.maximum(largest, np.abs(block).max(axis=(0, 2, 3), initial=0), out=largest)
    if ((largest > 0) & (largest < math.sqrt(UNDERFLOW))).any():
        warnings.warn(
            f"values of {name} are as small as {largest[largest > 0].min():.3g}: their squares "
            "underflow float64; multiply by a large number, or use solve_kernels",
            RuntimeWarning,
            stacklevel=3,
        )


def products_of_units(
    inputs: npt.NDArray[Any],
    kernel_size: tuple[int, int],
    options: Convolution,
    samples_of_unit: int,
    num_threads: int,
) -> Matrix:
    """Return G of each `samples_of_unit` samples (the last may be fewer): (units, taps, taps)."""
    taps = inputs.shape[1] * math.prod(kernel_size)
    samples_of_unit = min(samples_of_unit, len(inputs))
    result = np.zeros((-(-len(inputs) // samples_of_unit), taps, taps))
    arguments = kernel_size, options.stride, options.dilation
    if samples_of_unit * math.prod(inputs.shape[1:]) > MAX_ELEMENTS:
        no_targets = np.broadcast_to(0.0, (samples_of_unit, 1, *options.output_shape))
        for unit in range(len(result)):
            samples = inputs[unit * samples_of_unit : (unit + 1) * samples_of_unit]
            for block in blocks(samples, no_targets[: len(samples)], None, kernel_size, options):
                _statistics.patch_products(
                    block.images, *arguments, block.targets.shape[2:], len(samples),
                    result[unit : unit + 1], num_threads,
                )  # fmt: skip
        return result
    step = MAX_ELEMENTS // (samples_of_unit * math.prod(inputs.shape[1:]))
    for unit in range(0, len(result), step):
        samples = inputs[unit * samples_of_unit : (unit + step) * samples_of_unit]
        images = padded_rows(samples, 0, options.output_shape, kernel_size, options)
        _statistics.patch_products(
            images, *arguments, options.output_shape, samples_of_unit, result[unit : unit + step],
            num_threads,
        )  # fmt: skip
    return result


def check_counts(counts: npt.NDArray[np.int64]) -> None:
    """Raise ValueError where no element of the target counts for some kernel."""
    if not counts.all():
        of_kernel = f" for kernel {int(np.argmin(counts))}" if counts.any() else ""
        raise ValueError(f"no element of the target counts{of_kernel}")


def kernel_gradient(
    images: Matrix,
    gradients: Matrix,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    num_threads: int,
    groups: int = 1,
) -> Matrix:
    """Return the sums of the products of pixels with output gradients, (K, C/groups, kh, kw)."""
    result = np.empty((gradients.shape[1], images.shape[1] // groups, *kernel_size))
    _kernel_gradient.conv2d_kernel_grad(
        images, gradients, result, stride, (0, 0), dilation, groups, num_threads, DIRECT
    )
    return result


def sums_of_planes(first: Matrix, second: Matrix, num_threads: int) -> Matrix:
    """Return the sum of the products of two arrays for each channel."""
    channels = first.shape[1]
    return kernel_gradient(first, second, (1, 1), (1, 1), (1, 1), num_threads, channels).ravel()
