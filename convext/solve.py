"""The best kernels for given data, by exact least squares."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import as_float64
from .blocks import Block, blocks, patch_rows
from .config import resolve_num_threads
from .least_squares import (
    EPSILON,
    Matrix,
    NormalEquations,
    Solution,
    add_rows,
    solve_triangle,
    warn_of_rank,
)
from .masks import meet, samples_and_masks, with_hidden
from .operations import conv2d
from .shapes import Convolution, Padding, Pair, Shape, edges_of, resolve
from .statistics import PatchStatistics, kernel_gradient, sums_of_planes

# With eigenvalues no further apart than this, the normal equations lose fewer than four of sixteen
# digits: the data need not be read again.
WELL_CONDITIONED = 1e-3

# Further apart than this, refinement hardly converges.
ILL_CONDITIONED = 1e-11

# A loss below this share of the mean squared target has lost too many digits in the sums.
CANCELLED = 1e-8

MAX_REFINEMENTS = 4

# So many elements of the patch matrix, 16 MiB, are decomposed at a time.
DECOMPOSED_ELEMENTS = 1 << 21


def solve_kernels(
    input_data: npt.ArrayLike,
    target_output: npt.ArrayLike,
    kernel_shape: tuple[int, int],
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
        input: then their borders, of which nobody knows how they were made, are left out. Masked
        elements of a masked array do not count.
    kernel_shape : (int, int)
        Height and width of the kernels, (kh, kw).
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
        With the attributes `kernels`, `bias`, `loss`, `rank` and `condition`, all in float64.

    Raises
    ------
    TypeError
        An argument has the wrong type.
    ValueError
        Shapes do not fit, an array contains NaN or infinity, no element of the target counts, or
        `l2` is negative.

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
    decomposition, block by block.

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
    inside = without_border(
        inputs.shape, targets.shape, statistics.kernel_shape, stride, padding, dilation
    )
    targets = targets[inside]
    counts = None if counts is None else counts[inside]
    if hidden is not None:
        options = statistics._resolve(inputs.shape, targets.shape)
        counts = with_hidden(counts, meet(hidden, statistics.kernel_shape, options))
    solution = _Problem(statistics, inputs, targets, counts, threads).solve(l2)
    if l2 == 0:
        warn_of_rank(solution.rank, statistics.num_unknowns)
    return solution


def without_border(
    input_shape: Shape,
    target_shape: Shape,
    kernel_size: tuple[int, int],
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
) -> tuple[slice, ...]:
    """Return which part of a target (N, K, H, W) is compared with a convolution without padding.

    That is all of it, unless it is as large as the input: then it is what a kernel in the middle of
    its window reaches.
    """
    everything = (slice(None),) * 4
    options = resolve(
        input_shape, kernel_size, stride=stride, padding=padding, dilation=dilation, groups=1
    )
    if (
        target_shape[2:] != input_shape[2:]
        or options.stride != (1, 1)
        or edges_of(padding) != ((0, 0), (0, 0))
    ):
        return everything
    starts = [
        (size - 1) * apart // 2 for size, apart in zip(kernel_size, options.dilation, strict=True)
    ]
    return *everything[:2], *(
        slice(start, start + size) for start, size in zip(starts, options.output_shape, strict=True)
    )


class _Problem:
    """A least-squares problem with its data, which are read block by block, once or more."""

    def __init__(
        self,
        statistics: PatchStatistics,
        inputs: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        mask: npt.NDArray[np.bool_] | None,
        num_threads: int,
    ) -> None:
        self.statistics = statistics
        self.inputs, self.targets, self.mask = inputs, targets, mask
        self.num_threads = num_threads
        statistics.update(inputs, targets, mask, num_threads=num_threads)
        self.options: Convolution = statistics._resolve(inputs.shape, targets.shape)

    def solve(self, l2: float) -> Solution:
        systems = self.statistics._normal_equations(l2)
        ridge = self.statistics._ridge(l2 * self.statistics._size)
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
        kernels, bias = self.statistics._split(weights)
        return Solution(kernels, bias, loss, rank, condition)

    def _blocks(self) -> Iterator[Block]:
        size = self.statistics.kernel_shape
        return blocks(self.inputs, self.targets, self.mask, size, self.options)

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
        for images, targets, mask in self._blocks():
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
        for block in self._blocks():
            for taps, sides, counts in patch_rows(block, size, self.options, DECOMPOSED_ELEMENTS):
                ones = np.ones((len(taps), int(self.statistics.bias)))
                rows = np.hstack([taps, ones])
                for k in range(count):
                    own = sides if count == 1 else sides[:, k : k + 1]
                    counted = counts[:, k % counts.shape[1], np.newaxis]
                    triangles[k] = add_rows(triangles[k], counted * np.hstack([rows, own]))
        num_rows = int(self.statistics.counts.max())
        results = [solve_triangle(triangle, unknowns, ridge, num_rows) for triangle in triangles]
        weights = np.hstack([result.values for result, _ in results]).T
        rank = min(result.rank for result, _ in results)
        return self._solution(
            weights,
            float(sum(squares.sum() for _, squares in results)) / self.statistics._size,
            rank,
            max(result.condition for result, _ in results),
        )
