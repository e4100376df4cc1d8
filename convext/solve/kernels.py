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
from ..ops.shapes import Padding, Pair, Shape, edges_of, resolve
from .blocks import Block, Scaling, blocks, patch_rows
from .least_squares import (
    EPSILON,
    Matrix,
    Solution,
    Systems,
    Weights,
    add_rows,
    check_memory,
    solve_rows,
    solve_triangle,
    warn_of_rank,
)
from .masks import Flags, meet, samples_and_masks, with_hidden
from .products import kernel_gradient, sums_of_planes
from .sums import Sums, check_counts, check_samples
from .unknowns import Unknowns

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

# With a bias, the means of channels are taken out where the ratio of their squares to the variance
# of the pixels is larger.
MEAN_TO_SPREAD = 1e4

MAX_REFINEMENTS = 4

# Elements of the patch matrix that are decomposed at a time: 16 MiB.
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
    unknowns = Unknowns(
        inputs.shape[1], targets.shape[1], kernel_shape, bias, stride, padding, dilation
    )
    size = unknowns.kernel_shape
    solutions = []
    for centre in centres_of(inputs.shape, targets.shape, size, stride, padding, dilation):
        inside = without_border(inputs.shape, size, centre, dilation)
        chosen = targets[inside]
        counted = None if counts is None else counts[inside]
        options = unknowns.resolve(inputs.shape, chosen.shape)
        if hidden is not None:
            counted = with_hidden(counted, meet(hidden, size, options))
        solution = _Problem(unknowns, inputs, chosen, counted, threads).solve(l2)
        solutions.append(replace(solution, centre=centre))
    best = min(solutions, key=lambda solution: solution.loss)
    if l2 == 0:
        warn_of_rank(best.rank, unknowns.of_kernel)
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
        unknowns: Unknowns,
        inputs: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        mask: Flags | None,
        num_threads: int,
    ) -> None:
        self.unknowns = unknowns
        self.inputs, self.targets, self.mask = inputs, targets, mask
        self.num_threads = num_threads
        self.options = unknowns.resolve(inputs.shape, targets.shape)
        self.scaling = Scaling.plain(inputs.shape[1], targets.shape[1])

    def solve(self, l2: float) -> Solution:
        """Return the best kernels, by what the data allow."""
        rows = self._rows()
        check_counts(rows)
        ridge = self.unknowns.ridge(l2, int(rows.sum()))
        if rows.max() <= self.unknowns.of_kernel:
            return self._solve_few(ridge)
        sums = self._sums()
        if self.unknowns.bias and (scaling := self._centred(sums)) is not None:
            plain, self.scaling = self.scaling, scaling
            solution = self._solve(self._sums(), ridge)
            # Where the kernels are not determined, the smallest are those without the change.
            if solution.rank == self.unknowns.of_kernel or l2 > 0:
                return solution
            self.scaling = plain
        return self._solve(sums, ridge)

    def _rows(self) -> npt.NDArray[np.int64]:
        """Return how many elements of the target count for each kernel."""
        samples, kernels, height, width = self.targets.shape
        if self.mask is None:
            return np.full(kernels, samples * height * width)
        counts: npt.NDArray[np.int64] = self.mask.sum(axis=(0, 2, 3))
        return np.broadcast_to(counts, kernels)

    def _sums(self) -> Sums:
        """Sum up the pixels, scaled so that squares neither overflow nor vanish."""
        data = self.inputs, self.targets, self.mask
        sums = Sums.of(self.unknowns, *data, self.num_threads, self.scaling)
        if not sums.finite:
            check_samples(self.unknowns, *data)
        if not sums.finite or sums.tiny:
            scaling = self._in_range()
            if not np.array_equal(scaling.factor, self.scaling.factor) or (
                scaling.target_factor != self.scaling.target_factor
            ):
                self.scaling = scaling
                return self._sums()
        return sums

    def _in_range(self) -> Scaling:
        """Return a scaling with which the largest values are near 1, if they are far from it."""
        largest, of_targets = np.zeros(len(self.scaling.factor)), 0.0
        for images, targets, _ in self._blocks(hide=True):
            np.maximum(largest, np.abs(images).max(axis=(0, 2, 3)), out=largest)
            of_targets = max(of_targets, float(np.abs(targets).max()))
        factors = _power_of_two(largest)
        factor = float(_power_of_two(np.array(of_targets)))
        return self.scaling._replace(
            factor=self.scaling.factor * factors, target_factor=self.scaling.target_factor * factor
        )

    def _centred(self, sums: Sums) -> Scaling | None:
        """Return a scaling without the means of the channels where these would cost digits."""
        rows = sums.products[:, -1:, -1]
        means = sums.products[:, -1, :-1] / rows
        spread = sums.squares_of_taps / rows - means**2
        if not (means**2 > MEAN_TO_SPREAD * spread).any():
            return None
        of_channels = means.mean(axis=0).reshape(self.unknowns.num_channels, -1).mean(axis=1)
        return self.scaling._replace(
            offset=of_channels / self.scaling.factor,
            target_offset=sums.cross_products[:, -1] / sums.counts / self.scaling.target_factor,
        )

    def _scaled(self, ridge: Matrix) -> Matrix:
        """Return a ridge for the kernels of the scaled data."""
        if not (self.scaling.changing and ridge.any()):
            return ridge
        factors = np.ones(self.unknowns.of_kernel)
        taps = math.prod(self.unknowns.kernel_shape)
        factors[: self.unknowns.num_taps] = np.repeat(self.scaling.factor, taps)
        with np.errstate(over="ignore"):  # of very small data, it is larger than anything
            return np.minimum(ridge * factors * factors, LARGEST_RIDGE)

    def _solve(self, sums: Sums, ridge: Matrix) -> Solution:
        """Solve the normal equations, or decompose the patches where these do not suffice."""
        ridge = self._scaled(ridge)
        systems = sums.systems(ridge)
        if systems.spread < ILL_CONDITIONED:
            return self._decompose(sums, ridge)
        weights = systems.solve(sums.cross_products)
        loss, mean_square = sums.loss(weights), float(sums.squares.sum()) / sums.size
        if systems.spread < WELL_CONDITIONED or loss < CANCELLED * mean_square:
            weights, loss = self._refine(sums, systems, weights, ridge)
        return self._solution(weights, loss, systems.rank, systems.condition)

    def _solution(self, weights: Matrix, loss: float, rank: int, condition: float) -> Solution:
        """Return the solution for the data, of which this is that for the scaled ones."""
        kernels, bias = self.unknowns.split(weights)
        offset, factor, target_offset, target_factor = self.scaling
        if self.scaling.changing:
            kernels *= (factor / target_factor)[:, np.newaxis, np.newaxis]
            loss = loss / target_factor / target_factor
        if bias is not None and self.scaling.changing:
            bias = bias / target_factor + target_offset - kernels.sum(axis=(2, 3)) @ offset
        return Solution(kernels, bias, loss, rank, condition)

    def _blocks(self, hide: bool = False) -> Iterator[Block]:
        data = self.inputs, self.targets, self.mask
        return blocks(*data, self.unknowns.kernel_shape, self.options, self.scaling, hide)

    def _patches(self, one: float) -> Iterator[tuple[Matrix, Matrix, Matrix]]:
        """Yield the rows of the problem, `one` for the bias, with `patch_rows`' other results."""
        size = self.unknowns.kernel_shape
        for block in self._blocks():
            for taps, sides, counts in patch_rows(block, size, self.options, DECOMPOSED_ELEMENTS):
                ones = np.full((len(taps), int(self.unknowns.bias)), one)
                yield np.hstack([taps, ones]), sides, counts

    def _solve_few(self, ridge: Matrix) -> Solution:
        """Solve with no more rows than unknowns: all of them are kept."""
        unknowns, kernels = self.unknowns.of_kernel, self.unknowns.num_kernels
        of_bias = self.unknowns.num_taps
        own = 1 if self.mask is None else self.mask.shape[1]
        size = int(self._rows().max())
        self.scaling = self._in_range()
        ridge = self._scaled(ridge)
        check_memory(4 * 8 * size * unknowns, f"{size} equations of {unknowns} unknowns")
        results = []
        for k in range(own):
            parts = []
            for taps, sides, counts in self._patches(1.0):
                counted = counts[:, k % counts.shape[1]] > 0
                parts.append(np.hstack([taps, sides])[counted])
            rows = np.vstack(parts)
            if not np.isfinite(rows).all():
                check_samples(self.unknowns, self.inputs, self.targets, self.mask)
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
        self, sums: Sums, systems: Systems, weights: Matrix, ridge: Matrix
    ) -> tuple[Matrix, float]:
        """Correct the weights by what their true residuals say; return them and the loss."""
        tolerance = EPSILON / math.sqrt(systems.spread)
        for _ in range(MAX_REFINEMENTS):
            right, squares = self._residual_products(weights)
            step = systems.solve(right - ridge * weights)
            weights = weights + step
            squares += sums.change(step, right)
            if np.abs(step).max() <= tolerance * np.abs(weights).max():
                break
        return weights, sums.mean(squares)

    def _residual_products(self, weights: Matrix) -> tuple[Matrix, Matrix]:
        """Return the products of pixels with residuals (K, unknowns), and the squared residuals."""
        kernels, bias = self.unknowns.split(weights)
        right, squares = np.zeros_like(weights), np.zeros(len(weights))
        taps, threads = self.unknowns.num_taps, self.num_threads
        inside = self.options.geometry._replace(padding_before=(0, 0))
        for images, targets, mask in self._blocks(hide=True):
            predicted = conv2d(
                images,
                kernels,
                bias=bias,
                stride=inside.stride,
                dilation=inside.dilation,
                algorithm="direct",
                num_threads=threads,
            )
            residual = np.subtract(targets, as_float64(predicted), out=predicted)
            if mask is not None:
                residual *= mask
            # Summed with the mean taken out of the pixels, the products round less, and what the
            # mean adds errs only where the patches say most.
            means = np.ascontiguousarray(images).mean(axis=(0, 2, 3), keepdims=True)
            totals = residual.sum(axis=(0, 2, 3))
            size = self.unknowns.kernel_shape
            sums = kernel_gradient(images - means, residual, size, threads, inside)
            sums += means * totals[:, np.newaxis, np.newaxis, np.newaxis]
            right[:, :taps] += sums.reshape(len(kernels), -1)
            if bias is not None:
                right[:, -1] += totals
            squares += sums_of_planes(residual, residual, threads)
        return right, squares

    def _decompose(self, sums: Sums, ridge: Matrix) -> Solution:
        """Solve by a QR decomposition of the patches, a block of rows after the other."""
        count, kernels = len(sums.products), self.unknowns.num_kernels
        unknowns, of_bias = self.unknowns.of_kernel, self.unknowns.num_taps
        columns = unknowns + kernels // count
        triangles = np.zeros((count, columns, columns))
        num_rows = int(sums.counts.max())
        one = _one_beside(math.sqrt(float(sums.squares_of_taps.max()) / num_rows))
        for rows, sides, counts in self._patches(one):
            for k in range(count):
                own = sides if count == 1 else sides[:, k : k + 1]
                counted = counts[:, k % counts.shape[1], np.newaxis]
                triangles[k] = add_rows(triangles[k], counted * np.hstack([rows, own]))
        results = [solve_triangle(triangle, unknowns, ridge, num_rows) for triangle in triangles]
        for found, _ in results:
            found.values[of_bias:] *= one
        return self._collected(results, sums.size)


def _one_beside(largest: float) -> float:
    """Return what stands for the 1 of a bias, that it is no rounding error beside the pixels."""
    exponent = math.frexp(largest)[1]
    return math.ldexp(1.0, exponent) if largest > 0 and abs(exponent) > 24 else 1.0


def _power_of_two(largest: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what brings values near 1 where their squares would overflow or lose digits."""
    exponents = np.clip(np.frexp(largest)[1], -1000, 1000)
    far = (largest > 0) & (np.abs(exponents) > FARTHEST_EXPONENT)
    return np.ldexp(1.0, np.where(far, -exponents, 0))
