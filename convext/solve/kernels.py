"""The best kernels for given data, by exact least squares."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.checks import as_float64
from .._support.ranks import ALONE, Ranks, together
from ..config import resolve_num_threads
from ..ops.operations import conv2d
from ..ops.shapes import Padding, Pair, Shape, resolve
from .blocks import Block, Scaling, blocks, patches_at
from .least_squares import (
    EPSILON,
    Matrix,
    Solution,
    Systems,
    add_rows,
    check_memory,
    solve_rows,
    warn_of_rank,
)
from .masks import Data, as_data
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
    comm: Any = None,
) -> Solution:
    """Find the kernels that turn the input into the target with the smallest mean squared error.

    There is no learning rate and there are no epochs: the mean squared error is a quadratic
    function of the kernels, and this is its minimum.

    Parameters
    ----------
    input_data : array_like or path, (C, H, W) or (N, C, H, W)
        The images before. They may be larger than the memory: .npy files, shards such as
        ``"x-*.npy"``, memory maps, and whatever slices like an array (h5py, Zarr, Dask) are read in
        blocks, of some 16 MiB in float64, each while the one before is summed up. Of a masked
        array (`numpy.ma`), windows that meet a masked pixel do not count.
    target_output : array_like or path, (K, OH, OW) or (N, K, OH, OW)
        The images after, likewise. Where stride is 1 and padding is 0 they may also be as large as
        the input: then their borders, of which nobody knows how they were made, are left out, and
        of the two middles of an even kernel the one that fits better is taken. Masked elements of
        a masked array do not count.
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
    comm : mpi4py.MPI.Comm, optional
        A communicator, such as ``MPI.COMM_WORLD``, whose processes all make this call with the same
        arguments. Each reads a part of the samples, or of their rows, and the whole of a mask;
        their sums are added in the order of the ranks, and all return the same solution.
        `num_threads` is by default the CPUs of the machine over its ranks; see docs/mpi.md.

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
    pass. Unless rounding errors of G, which its condition number enlarges, are harmless, a second
    pass takes the residual of the solution from the pixels, and the equations are solved once more
    for a correction. Where the condition of the patches is beyond about 3e5, or the data do not
    determine the kernels, that pass is a QR decomposition of the patch matrix, block by block; with
    no more target elements than unknowns, the matrix itself is decomposed.

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
    with together(comm, "solve_kernels") as ranks:
        threads = resolve_num_threads(num_threads, ranks)
        data = as_data(input_data, target_output, mask)
        channels, kernels = data.inputs.shape[1], data.targets.shape[1]
        unknowns = Unknowns(channels, kernels, kernel_shape, bias, stride, padding, dilation)
        size = unknowns.kernel_shape
        ranks.check_same(lambda: {**vars(unknowns), "l2": l2} | data.settings())
        solutions = []
        for centre in centres_of(unknowns, data):
            inside = data.inside(without_border(data.inputs.shape, size, centre, dilation))
            solution = _Problem(unknowns, inside, threads, ranks).solve(l2)
            solutions.append(replace(solution, centre=centre))
        best = ranks.once(lambda: min(solutions, key=lambda solution: solution.loss))
        if l2 == 0 and ranks.first:
            warn_of_rank(best.rank, unknowns.of_kernel)
        return best


def centres_of(unknowns: Unknowns, data: Data) -> list[tuple[int, int] | None]:
    """Return where in its window the pixel may be that an element of the target belongs to.

    That is in the middle, of which even sizes have two. Where the target is not as large as the
    input, or is not compared with a convolution without padding, it is None.
    """
    size = data.inputs.shape[2:]
    plain = unknowns.convolution(size).stride == (1, 1) and unknowns.padding == ((0, 0), (0, 0))
    if data.targets.shape[2:] != size or not plain:
        return [None]
    ends = [(n - 1) * d for n, d in zip(unknowns.kernel_shape, unknowns.dilation, strict=True)]
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
        self, unknowns: Unknowns, data: Data, num_threads: int, ranks: Ranks = ALONE
    ) -> None:
        self.unknowns, self.num_threads, self.ranks = unknowns, num_threads, ranks
        self.options = unknowns.resolve(data)
        self.data = data.unhidden(unknowns.kernel_shape, self.options, num_threads)
        self.scaling = Scaling.plain(unknowns.num_channels, unknowns.num_kernels)

    def solve(self, l2: float) -> Solution:
        """Return the best kernels, by what the data allow."""
        rows = self.data.counts
        check_counts(rows)
        ridge = self.unknowns.ridge(l2, int(rows.sum()))
        size, unknowns = int(rows.max()), self.unknowns.of_kernel
        if size <= unknowns:
            check_memory(4 * 8 * size * unknowns, f"{size} equations of {unknowns} unknowns")
            self.scaling = self._in_range()
            return self._decompose(self._scaled(ridge))
        sums = self._sums()
        if self.unknowns.bias and (scaling := self._centred(sums)) is not None:
            plain, self.scaling = self.scaling, scaling
            solution = self._solve(self._sums(), ridge)
            # Where the kernels are not determined, the smallest are those without the change.
            if solution.rank == self.unknowns.of_kernel or l2 > 0:
                return solution
            self.scaling = plain
        return self._solve(sums, ridge)

    def _sums(self) -> Sums:
        """Sum up the pixels, scaled so that squares neither overflow nor vanish."""
        sums = Sums.of(self.unknowns, self.data, self.num_threads, self.scaling, self.ranks)
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
        largest, of_targets = self._largest()
        return self.scaling._replace(
            factor=self.scaling.factor * _power_of_two(largest),
            target_factor=self.scaling.target_factor * float(_power_of_two(of_targets)),
        )

    def _largest(self) -> tuple[Matrix, Matrix]:
        """Return the largest sizes of the pixels of each channel, (C,), and of the targets, ()."""
        largest, of_targets = np.zeros(self.unknowns.num_channels), np.zeros(())
        for images, targets, _ in self._blocks(hide=True):
            np.maximum(largest, np.abs(images).max(axis=(0, 2, 3)), out=largest)
            np.maximum(of_targets, np.abs(targets).max(), out=of_targets)
        each = self.ranks.gather((largest, of_targets))
        largest, of_targets = (np.max(part, axis=0) for part in zip(*each, strict=True))
        if not (np.isfinite(largest).all() and np.isfinite(of_targets)):
            check_samples(self.unknowns, self.data)
        return largest, of_targets

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
        if not self.scaling.changing:
            return ridge
        factors = np.ones(self.unknowns.of_kernel)
        taps = math.prod(self.unknowns.kernel_shape)
        factors[: self.unknowns.num_taps] = np.repeat(self.scaling.factor, taps)
        with np.errstate(over="ignore"):  # of very small data, it is larger than anything
            return np.minimum(ridge * factors * factors, LARGEST_RIDGE)

    def _solve(self, sums: Sums, ridge: Matrix) -> Solution:
        """Solve the normal equations, or decompose the patches where these do not suffice."""
        ridge = self._scaled(ridge)
        systems = self.ranks.once(partial(sums.systems, ridge))
        if systems.spread < ILL_CONDITIONED:
            return self._decompose(ridge)
        weights = self.ranks.once(partial(systems.solve, sums.cross_products))
        loss = self.ranks.once(partial(sums.loss, weights))
        mean_square = float(sums.squares.sum()) / sums.size
        if systems.spread < WELL_CONDITIONED or loss < CANCELLED * mean_square:
            weights, loss = self._refine(sums, systems, weights, ridge)
        return self._solution(weights, loss, systems.rank, systems.condition)

    def _solution(self, weights: Matrix, loss: float, rank: int, condition: float) -> Solution:
        """Return the solution for the data, of which this is that for the scaled ones."""
        kernels, bias = self.unknowns.split(weights)
        offset, factor, target_offset, target_factor = self.scaling
        kernels *= (factor / target_factor)[:, np.newaxis, np.newaxis]
        if bias is not None:
            bias = bias / target_factor + target_offset - kernels.sum(axis=(2, 3)) @ offset
        return Solution(kernels, bias, loss / target_factor / target_factor, rank, condition)

    def _blocks(self, hide: bool = False) -> Iterator[Block]:
        how = self.unknowns.kernel_shape, self.options, self.num_threads
        return blocks(self.data, *how, self.scaling, hide, self.ranks)

    def _refine(
        self, sums: Sums, systems: Systems, weights: Matrix, ridge: Matrix
    ) -> tuple[Matrix, float]:
        """Correct the weights by what their true residuals say; return them and the loss."""
        tolerance = EPSILON / math.sqrt(systems.spread)
        for _ in range(MAX_REFINEMENTS):
            right, squares = self._residual_products(weights)
            step = self.ranks.once(partial(systems.solve, right - ridge * weights))
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
        for array in (right, squares):
            self.ranks.add(array)
        return right, squares

    def _decompose(self, ridge: Matrix) -> Solution:
        """Solve by the patches themselves: all of them, or the triangle of their QR decomposition.

        The triangle of those so far takes their place when they are more than the unknowns.
        """
        data, unknowns = self.data, self.unknowns.of_kernel
        size, of_bias = self.unknowns.kernel_shape, self.unknowns.num_taps
        one = _one_beside(float(self._largest()[0].max()))
        kernels = range(1 if data.mask is None else data.mask.shape[1])
        systems = [np.empty((0, unknowns + data.targets.shape[1] // len(kernels))) for _ in kernels]
        for block in self._blocks():
            for k in kernels:
                every = np.broadcast_to(True, block.targets[:, 0].shape)
                flags = every if block.mask is None else block.mask[:, k]
                how = size, self.options, DECOMPOSED_ELEMENTS
                for patches, sides in patches_at(block, flags, *how):
                    ones = np.full((unknowns - of_bias, patches.shape[1]), one)
                    own = sides if len(kernels) == 1 else sides[k : k + 1]
                    systems[k] = add_rows(systems[k], np.vstack([patches, ones, own]).T)
        num_rows = int(data.counts.max())
        each = [list(parts) for parts in zip(*self.ranks.gather(systems), strict=True)]
        results = self.ranks.once(
            lambda: [solve_rows(reduce(add_rows, rows), unknowns, ridge, num_rows) for rows in each]
        )
        for found, _ in results:
            found.values[of_bias:] *= one
        return self._solution(
            np.hstack([found.values for found, _ in results]).T,
            float(sum(squares.sum() for _, squares in results)) / int(data.counts.sum()),
            min(found.rank for found, _ in results),
            max(found.condition for found, _ in results),
        )


def _one_beside(largest: float) -> float:
    """Return what stands for the 1 of a bias, that it is no rounding error beside the pixels."""
    exponent = math.frexp(largest)[1]
    return math.ldexp(1.0, exponent) if largest > 0 and abs(exponent) > 24 else 1.0


def _power_of_two(largest: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what brings values near 1 where their squares would overflow or lose digits."""
    exponents = np.clip(np.frexp(largest)[1], -1000, 1000)
    far = (largest > 0) & (np.abs(exponents) > FARTHEST_EXPONENT)
    return np.ldexp(1.0, np.where(far, -exponents, 0))
