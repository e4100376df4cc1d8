"""The best kernels for given data, by exact least squares."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.checks import as_float64
from ..config import resolve_num_threads
from ..ops.operations import conv2d
from ..ops.shapes import Convolution, Padding, Pair, Shape, edges_of, resolve
from .blocks import Block, Units, blocks, patch_rows
from .least_squares import (
    EPSILON,
    Matrix,
    NormalEquations,
    Solution,
    Weights,
    add_rows,
    check_memory,
    solve_rows,
    solve_triangle,
    warn_of_rank,
)
from .masks import Flags, meet, samples_and_masks, with_hidden
from .statistics import PatchStatistics, check_counts, kernel_gradient, sums_of_planes

# With eigenvalues no further apart than this, the normal equations lose fewer than four of sixteen
# digits: the data need not be read again.
WELL_CONDITIONED = 1e-3

# Further apart than this, refinement hardly converges.
ILL_CONDITIONED = 1e-11

# A loss below this share of the mean squared target has lost too many digits in the sums.
CANCELLED = 1e-8

# Squares of values whose exponents are larger may lose digits or overflow, summed over an image.
FARTHEST_EXPONENT = 400

# Beyond, kernels are zero beside the data: of these, no square is larger than 1e241.
LARGEST_RIDGE = 1e250

# With a bias, the means of channels are taken out where their squares are so many times as large as
# what the pixels vary by.
MEAN_TO_SPREAD = 1e4

MAX_REFINEMENTS = 4

# So many elements of the patch matrix, 16 MiB, are decomposed at a time.
DECOMPOSED_ELEMENTS = 1 << 21


def solve_kernels(
    input_data: npt.ArrayLike,
    target_output: npt.ArrayLike,
    kernel_shape: Pair,
    *,
    bias: bool = False,
    l2: float = 0.0,
    mask: npt.ArrayLike | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    num_threads: int | None = None,
) -> Solution:
    """Find the kernels that turn the input into the target with the smallest mean squared error.

    There is no learning rate and there are no epochs: the mean squared error is a quadratic
    function of the kernels, and this is its minimum.

    Parameters
    ----------
    input_data : array_like, (C, H, W) or (N, C, H, W)
        The images before. Arrays and memory-mapped files (see `load_data`) may be larger than the
        memory: they are read in blocks. Of a masked array (`numpy.ma`), windows that meet a masked
        pixel do not count.
    target_output : array_like, (K, OH, OW) or (N, K, OH, OW)
        The images after. Where stride is 1 and padding is 0 they may also be as large as the
        input: then their borders, of which nobody knows how they were made, are left out, and of
        the two middles of an even kernel the one that fits better is taken. Masked elements of a
        masked array do not count.
    kernel_shape : int or (int, int)
        Height and width of the kernels, (kh, kw); one number is both.
    bias : bool, default False
        Whether each kernel has a number that is added to its results.
    l2 : float, default 0
        Minimize the mean squared error + l2 * (sum of squared kernel values): larger values give
        smaller kernels, less sensitive to noise. A bias costs nothing.
    mask : array_like of bool, optional
        True where an element of the target counts, in its shape, or with 1 in place of K; elsewhere
        the target may be anything, even NaN, and so may pixels of the input that only such elements
        depend on.
    stride, padding, dilation
        Of the convolution; see `conv2d`.
    num_threads : int, optional
        Default: `get_num_threads`.

    Returns
    -------
    Solution
        With the attributes `kernels`, `bias` and `loss` in float64, `rank`, `condition` and
        `centre`.

    Raises
    ------
    TypeError
        An argument has the wrong type.
    ValueError
        Shapes do not fit, an array contains NaN or infinity, no element of the target counts, or
        `l2` is negative.
    MemoryError
        So many unknowns take more memory than there is.

    Warns
    -----
    numpy.exceptions.RankWarning
        The data do not determine the kernels (flat images, repeated channels, fewer target elements
        than unknowns), and `l2` is 0. Of all best kernels, those of the smallest norm are returned.

    See Also
    --------
    PatchStatistics : For data that come in parts, and without reading anything twice.

    Notes
    -----
    The kernels solve the normal equations G w = B, whose sums are taken over the pixels in one
    pass. Rounding errors of G are enlarged by its condition number, which is the square of that of
    the patches. Unless that is harmless, a second pass computes the residual of the solution from
    the pixels, and the equations are solved once more for a correction: that makes it as accurate
    as a QR decomposition of the patch matrix, until the condition of the patches reaches about
    3e5. Beyond, and where the data do not determine the kernels, the second pass is that QR
    decomposition, block by block. Where there are no more target elements than unknowns, the patch
    matrix itself is decomposed.

    With a bias, a mean that is large beside what the pixels vary by is taken out first, and values
    whose squares would overflow or vanish are multiplied by a power of two: `condition` is that of
    the patches then.

    References
    ----------
    N. Wiener, "Extrapolation, Interpolation, and Smoothing of Stationary Time Series", 1949.
    Å. Björck, "Numerical Methods for Least Squares Problems", SIAM 1996, sections 2.9 and 6.6.
    J. Demmel et al., "Communication-optimal parallel and sequential QR and LU factorizations",
    SIAM J. Sci. Comput. 34, 2012.

    Examples
    --------
    Which filter was it?

    >>> import numpy as np
    >>> import convext
    >>> before = np.random.default_rng(0).random((1, 64, 64))
    >>> blur = np.array([[[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]]) / 16
    >>> after = convext.conv2d(before, blur) + 0.5
    >>> solution = convext.solve_kernels(before, after, (3, 3), bias=True)
    >>> solution.kernels.round(9)[0, 0]
    array([[0.0625, 0.125 , 0.0625],
           [0.125 , 0.25  , 0.125 ],
           [0.0625, 0.125 , 0.0625]])
    >>> solution.bias.round(9), solution.rank
    (array([0.5]), 10)
    """
    threads = resolve_num_threads(num_threads)
    inputs, targets, counts, hidden = samples_and_masks(input_data, target_output, mask)
    statistics = PatchStatistics(
        inputs.shape[1],
        targets.shape[1],
        kernel_shape,
        bias=bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    solutions = []
    for centre in centres_of(
        inputs.shape, targets.shape, statistics.kernel_shape, stride, padding, dilation
    ):
        inside = without_border(inputs.shape, statistics.kernel_shape, centre, dilation)
        chosen = targets[inside]
        counted = None if counts is None else counts[inside]
        options = statistics._resolve(inputs.shape, chosen.shape)
        if hidden is not None:
            counted = with_hidden(counted, meet(hidden, statistics.kernel_shape, options))
        solution = _Problem(statistics, inputs, chosen, counted, threads).solve(l2)
        solutions.append(replace(solution, centre=centre))
    best = min(solutions, key=lambda solution: solution.loss)
    if l2 == 0:
        warn_of_rank(best.rank, statistics.num_unknowns)
    return best


def centres_of(
    input_shape: Shape,
    target_shape: Shape,
    kernel_size: tuple[int, int],
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
) -> list[tuple[int, int] | None]:
    """Return where in its window the pixel may be that an element of the target belongs to.

    That is in the middle, of which even sizes have two. Where the target is not as large as the
    input, or is not compared with a convolution without padding, it is None.
    """
    options = resolve(
        input_shape, kernel_size, stride=stride, padding=padding, dilation=dilation, groups=1
    )
    if (
        target_shape[2:] != input_shape[2:]
        or options.stride != (1, 1)
        or edges_of(padding) != ((0, 0), (0, 0))
    ):
        return [None]
    ends = [(size - 1) * apart for size, apart in zip(kernel_size, options.dilation, strict=True)]
    rows, columns = (sorted({end // 2, -(-end // 2)}) for end in ends)
    return [(row, column) for row in rows for column in columns]


def without_border(
    input_shape: Shape,
    kernel_size: tuple[int, int],
    centre: tuple[int, int] | None,
    dilation: Pair = 1,
) -> tuple[slice, ...]:
    """Return which part of a target (N, K, H, W) is compared with a convolution without padding.

    That is all of it, unless it is as large as the input: then it is what the kernel reaches.
    """
    everything = (slice(None),) * 4
    if centre is None:
        return everything
    size = resolve(input_shape, kernel_size, stride=1, padding=0, dilation=dilation, groups=1)
    return *everything[:2], *(
        slice(start, start + length)
        for start, length in zip(centre, size.output_shape, strict=True)
    )


class _Problem:
    """A least-squares problem with its data, which are read block by block, once or more."""

    def __init__(
        self,
        statistics: PatchStatistics,
        inputs: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        mask: Flags | None,
        num_threads: int,
    ) -> None:
        self.statistics = statistics
        self.inputs, self.targets, self.mask = inputs, targets, mask
        self.num_threads = num_threads
        self.options: Convolution = statistics._resolve(inputs.shape, targets.shape)
        self.units = Units.plain(inputs.shape[1], targets.shape[1])

    def solve(self, l2: float) -> Solution:
        """Return the best kernels, by what the data allow."""
        rows = self._rows()
        check_counts(rows)
        ridge = self.statistics._ridge(l2, int(rows.sum()))
        if rows.max() <= self.statistics.num_unknowns:
            return self._solve_few(ridge)
        self._sum()
        if self.statistics.bias and (units := self._centred()) is not None:
            plain, self.units = (self.units, self.statistics), units
            self._sum()
            solution = self._solve(ridge)
            # Where the kernels are not determined, the smallest are those without the change.
            if solution.rank == self.statistics.num_unknowns or l2 > 0:
                return solution
            self.units, self.statistics = plain
        return self._solve(ridge)

    def _rows(self) -> npt.NDArray[np.int64]:
        """Return how many elements of the target count for each kernel."""
        samples, kernels, height, width = self.targets.shape
        if self.mask is None:
            return np.full(kernels, samples * height * width)
        counts: npt.NDArray[np.int64] = self.mask.sum(axis=(0, 2, 3))
        return np.broadcast_to(counts, kernels)

    def _sum(self) -> None:
        """Sum up the pixels, in units in which squares neither overflow nor vanish."""
        self.statistics = PatchStatistics._empty_like(self.statistics)
        self.statistics._sum(self._blocks(), self.options, self.num_threads)
        finite = self.statistics._are_finite()
        if not finite:
            self.statistics._check_finite(self.inputs, self.targets, self.mask, self.options)
        if not finite or self.statistics._may_have_underflowed():
            units = self._in_range()
            if not np.array_equal(units.factor, self.units.factor) or (
                units.target_factor != self.units.target_factor
            ):
                self.units = units
                self._sum()

    def _in_range(self) -> Units:
        """Return units in which the largest values are near 1, if they are far from it now."""
        largest, of_targets = np.zeros(len(self.units.factor)), 0.0
        for images, targets, _ in self._blocks(hide=True):
            np.maximum(largest, np.abs(images).max(axis=(0, 2, 3)), out=largest)
            of_targets = max(of_targets, float(np.abs(targets).max()))
        factors = _power_of_two(largest)
        factor = float(_power_of_two(np.array(of_targets)))
        return self.units._replace(
            factor=self.units.factor * factors, target_factor=self.units.target_factor * factor
        )

    def _centred(self) -> Units | None:
        """Return units without the means of the channels where these would cost digits."""
        sums = self.statistics
        taps = sums.num_unknowns - 1
        rows = sums.products[:, -1:, -1]
        means = sums.products[:, -1, :taps] / rows
        spread = np.diagonal(sums.products, axis1=1, axis2=2)[:, :taps] / rows - means**2
        if not (means**2 > MEAN_TO_SPREAD * spread).any():
            return None
        of_channels = means.mean(axis=0).reshape(sums.num_channels, -1).mean(axis=1)
        return self.units._replace(
            offset=of_channels / self.units.factor,
            target_offset=sums.cross_products[:, -1] / sums.counts / self.units.target_factor,
        )

    def _in_units(self, ridge: Matrix) -> Matrix:
        """Return a ridge in the units of the kernels that are solved for."""
        if not (self.units.changing and ridge.any()):
            return ridge
        factors = np.repeat(self.units.factor, math.prod(self.statistics.kernel_shape))
        factors = np.append(factors, np.ones(int(self.statistics.bias)))
        with np.errstate(over="ignore"):  # of very small data, it is larger than anything
            return np.minimum(ridge * factors * factors, LARGEST_RIDGE)

    def _solve(self, ridge: Matrix) -> Solution:
        """Solve the normal equations, or decompose the patches where these do not suffice."""
        ridge = self._in_units(ridge)
        systems = self.statistics._normal_equations(ridge)
        spread = min(system.spread for system in systems)
        if spread < ILL_CONDITIONED:
            return self._decompose(ridge)
        weights = self.statistics._solve_systems(systems, self.statistics.cross_products)
        kernels, bias = self.statistics._split(weights)
        loss = self.statistics.loss(kernels, bias)
        mean_square = float(self.statistics.squares.sum()) / self.statistics._size
        if spread < WELL_CONDITIONED or loss < CANCELLED * mean_square:
            weights, loss = self._refine(systems, weights, ridge, EPSILON / math.sqrt(spread))
        return self._solution(
            weights,
            loss,
            min(system.rank for system in systems),
            max(system.condition for system in systems),
        )

    def _solution(self, weights: Matrix, loss: float, rank: int, condition: float) -> Solution:
        """Return a solution in these units in those of the data."""
        kernels, bias = self.statistics._split(weights)
        offset, factor, target_offset, target_factor = self.units
        if self.units.changing:
            kernels *= (factor / target_factor)[:, np.newaxis, np.newaxis]
            loss = loss / target_factor / target_factor
        if bias is not None and self.units.changing:
            bias = bias / target_factor + target_offset - kernels.sum(axis=(2, 3)) @ offset
        return Solution(kernels, bias, loss, rank, condition)

    def _blocks(self, hide: bool = False) -> Iterator[Block]:
        size = self.statistics.kernel_shape
        return blocks(self.inputs, self.targets, self.mask, size, self.options, self.units, hide)

    def _solve_few(self, ridge: Matrix) -> Solution:
        """Solve with no more rows than unknowns: all of them are kept."""
        unknowns, kernels = self.statistics.num_unknowns, self.statistics.num_kernels
        of_bias = unknowns - self.statistics.bias
        own = 1 if self.mask is None else self.mask.shape[1]
        size = int(self._rows().max())
        self.units = self._in_range()
        ridge = self._in_units(ridge)
        check_memory(4 * 8 * size * unknowns, f"{size} equations of {unknowns} unknowns")
        results = []
        for k in range(own):
            parts = []
            for block in self._blocks():
                for taps, sides, counts in patch_rows(
                    block, self.statistics.kernel_shape, self.options, DECOMPOSED_ELEMENTS
                ):
                    ones = np.ones((len(taps), int(self.statistics.bias)))
                    counted = counts[:, k % counts.shape[1]] > 0
                    parts.append(np.hstack([taps, ones, sides])[counted])
            rows = np.vstack(parts)
            if not np.isfinite(rows).all():
                self.statistics._check_finite(self.inputs, self.targets, self.mask, self.options)
            chosen = slice(None) if own < kernels else slice(k, k + 1)
            one = 1.0 if ridge.any() else _one_beside(np.abs(rows[:, :of_bias]).max())
            rows[:, of_bias:unknowns] = one
            found, squares = solve_rows(rows[:, :unknowns], rows[:, unknowns:][:, chosen], ridge)
            found.values[of_bias:] *= one
            results.append((found, squares))
        return self._collected(results, int(self._rows().sum()))

    def _collected(self, results: list[tuple[Weights, Matrix]], size: int) -> Solution:
        """Return the solutions of systems for all kernels, or for each, as one."""
        return self._solution(
            np.hstack([result.values for result, _ in results]).T,
            float(sum(squares.sum() for _, squares in results)) / size,
            min(result.rank for result, _ in results),
            max(result.condition for result, _ in results),
        )

    def _refine(
        self, systems: list[NormalEquations], weights: Matrix, ridge: Matrix, tolerance: float
    ) -> tuple[Matrix, float]:
        """Correct the weights by what their true residuals say; return them and the loss."""
        for _ in range(MAX_REFINEMENTS):
            right, squares = self._residual_products(weights)
            step = self.statistics._solve_systems(systems, right - ridge * weights)
            weights = weights + step
            squares += np.einsum("ku,ku->k", step, self.statistics._times(step) - 2 * right)
            if np.abs(step).max() <= tolerance * np.abs(weights).max():
                break
        return weights, max(float(squares.sum()), 0.0) / self.statistics._size

    def _residual_products(self, weights: Matrix) -> tuple[Matrix, Matrix]:
        """Return the products of pixels with residuals (K, unknowns), and the squared residuals."""
        kernels, bias = self.statistics._split(weights)
        right, squares = np.zeros_like(weights), np.zeros(len(weights))
        taps = kernels[0].size
        options, threads = self.options, self.num_threads
        for images, targets, mask in self._blocks(hide=True):
            predicted = conv2d(
                images,
                kernels,
                bias=bias,
                stride=options.stride,
                dilation=options.dilation,
                algorithm="direct",
                num_threads=threads,
            )
            residual = np.subtract(targets, as_float64(predicted), out=predicted)
            if mask is not None:
                residual *= mask
            # Summed with the mean taken out of the pixels, the products round less, and what the
            # mean adds errs only where the patches say most.
            means = images.mean(axis=(0, 2, 3), keepdims=True)
            totals = residual.sum(axis=(0, 2, 3))
            sums = kernel_gradient(
                images - means,
                residual,
                kernels.shape[2:],
                options.stride,
                options.dilation,
                threads,
            )
            sums += means * totals[:, np.newaxis, np.newaxis, np.newaxis]
            right[:, :taps] += sums.reshape(len(kernels), -1)
            if bias is not None:
                right[:, -1] += totals
            squares += sums_of_planes(residual, residual, threads)
        return right, squares

    def _decompose(self, ridge: Matrix) -> Solution:
        """Solve by a QR decomposition of the patches, a block of rows after the other."""
        count = len(self.statistics.products)
        kernels = self.statistics.num_kernels
        unknowns = self.statistics.num_unknowns
        columns = unknowns + kernels // count
        triangles = np.zeros((count, columns, columns))
        size = self.statistics.kernel_shape
        of_bias = unknowns - self.statistics.bias
        squares = np.diagonal(self.statistics.products, axis1=1, axis2=2)[:, :of_bias]
        one = _one_beside(math.sqrt(float(squares.max()) / int(self.statistics.counts.max())))
        for block in self._blocks():
            for taps, sides, counts in patch_rows(block, size, self.options, DECOMPOSED_ELEMENTS):
                ones = np.full((len(taps), int(self.statistics.bias)), one)
                rows = np.hstack([taps, ones])
                for k in range(count):
                    own = sides if count == 1 else sides[:, k : k + 1]
                    counted = counts[:, k % counts.shape[1], np.newaxis]
                    triangles[k] = add_rows(triangles[k], counted * np.hstack([rows, own]))
        num_rows = int(self.statistics.counts.max())
        results = [solve_triangle(triangle, unknowns, ridge, num_rows) for triangle in triangles]
        for found, _ in results:
            found.values[of_bias:] *= one
        return self._collected(results, self.statistics._size)


def _one_beside(largest: float) -> float:
    """Return what stands for the 1 of a bias, that it is no rounding error beside the pixels."""
    exponent = math.frexp(largest)[1]
    return math.ldexp(1.0, exponent) if largest > 0 and abs(exponent) > 24 else 1.0


def _power_of_two(largest: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what brings values near 1 where their squares would overflow or lose digits."""
    exponents = np.clip(np.frexp(largest)[1], -1000, 1000)
    far = (largest > 0) & (np.abs(exponents) > FARTHEST_EXPONENT)
    return np.ldexp(1.0, np.where(far, -exponents, 0))
