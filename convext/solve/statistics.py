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
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.array_files import load_array, load_record
from .._support.atomic_files import FilePath, atomic_write, path_of
from .._support.interruption import interruptible
from .._support.messages import format_size
from .._support.sharing import Stateful, in_turn
from ..config import resolve_num_threads
from ..ops.shapes import Padding, Pair
from .least_squares import Matrix, Solution, warn_of_rank
from .masks import as_data
from .sums import Sums, sums_of
from .unknowns import Unknowns


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

    num_channels: int
    num_kernels: int
    kernel_shape: tuple[int, int]
    bias: bool
    stride: tuple[int, int]
    padding: Padding
    dilation: tuple[int, int]
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
        self._unknowns = unknowns = Unknowns(
            num_channels, num_kernels, kernel_shape, bias, stride, padding, dilation
        )
        vars(self).update(vars(unknowns), **Sums.of_nothing(unknowns).arrays)

    @in_turn
    def _sums(self) -> Sums:
        arrays = self.products, self.cross_products, self.squares, self.counts
        return Sums(self._unknowns, *arrays)

    @in_turn
    def _add(self, sums: Sums) -> None:
        for name, added in sums.arrays.items():
            setattr(self, name, getattr(self, name) + added)

    @property
    def num_unknowns(self) -> int:
        """How many numbers a kernel has, its bias included."""
        return self._unknowns.of_kernel

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
            The images; their size may differ from call to call.
        target_output : array_like, (K, OH, OW) or (N, K, OH, OW)
            What the convolution should give. As for `solve_kernels`, data may be larger than
            the memory, and what a masked array hides does not count.
        mask : array_like of bool, optional
            True where an element of the target counts, as for `solve_kernels`. With 1 in place of
            K, it takes a K-th of the time and of the memory.
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
        data = as_data(input_data, target_output, mask)
        self._add(sums_of(self._unknowns, data, threads))

    @classmethod
    def from_dask(
        cls,
        input_data: Any,
        target_output: Any,
        kernel_shape: Pair,
        *,
        bias: bool = False,
        mask: Any = None,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        num_threads: int | None = 1,
    ) -> Any:
        """Return the statistics of Dask arrays, still to be computed: see `convext.dask`.

        Parameters
        ----------
        input_data, target_output, mask : dask.array.Array
            As for `update`; their chunks may have any sizes.
        kernel_shape, bias, stride, padding, dilation
            As for `PatchStatistics`.
        num_threads : int, default 1
            As for `convext.dask.solve_kernels`.

        Returns
        -------
        dask.delayed.Delayed
            Its ``compute()`` gives the `PatchStatistics`.

        Raises
        ------
        ImportError, TypeError, ValueError
            As `convext.dask.solve_kernels` does.

        Examples
        --------
        >>> import dask.array as da
        >>> x = da.ones((10, 1, 8, 8), chunks=(4, 1, 3, 8))
        >>> y = da.full((10, 2, 6, 6), 9.0, chunks=(4, 2, 3, 6))
        >>> PatchStatistics.from_dask(x, y, (3, 3)).compute()
        <PatchStatistics of 720 target elements for 2 kernels of 1x3x3>
        """
        from .dask_sums import delayed_of_sums

        options = kernel_shape, bias, stride, padding, dilation
        arrays = input_data, target_output, mask
        return delayed_of_sums("statistics", cls._of_sums, arrays, options, num_threads)

    @classmethod
    def _of_sums(cls, unknowns: Unknowns, _: object, parts: Sequence[Sums]) -> PatchStatistics:
        if not parts[0].finite:
            raise ValueError("input_data or target_output is too large: squares overflow float64")
        statistics = cls(**vars(unknowns))
        statistics._add(parts[0])
        return statistics

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
        theirs = vars(other._unknowns)
        for name, value in vars(self._unknowns).items():
            if value != theirs[name]:
                raise ValueError(
                    "only statistics of the same convolution can be merged: "
                    f"{name} is {value!r} here and {theirs[name]!r} in other"
                )
        # One object at a time: two that are merged with each other must not wait for each other.
        self._add(other._sums())

    @in_turn
    def __getstate__(self) -> dict[str, Any]:
        return vars(self).copy()

    def __add__(self, other: PatchStatistics) -> PatchStatistics:
        if not isinstance(other, PatchStatistics):
            return NotImplemented
        result = PatchStatistics(**vars(self._unknowns))
        result.merge(self)
        result.merge(other)
        return result

    def __repr__(self) -> str:
        shape = format_size((self.num_channels, *self.kernel_shape))
        return (
            f"<PatchStatistics of {int(self.counts.sum())} target elements "
            f"for {self.num_kernels} kernels of {shape}>"
        )

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
        sums = self._sums()
        return sums.loss(sums.unknowns.joined(kernels, bias))

    def gradient(
        self, kernels: npt.ArrayLike, bias: npt.ArrayLike | None = None
    ) -> Matrix | tuple[Matrix, Matrix]:
        """Return the gradient of the mean squared error.

        Parameters
        ----------
        kernels, bias
            As for `loss`, and with its errors.

        Returns
        -------
        numpy.ndarray, (K, C, kh, kw)
            The gradient with respect to the kernels; where the statistics were made with a bias, a
            pair of it and of the gradient with respect to the bias, (K,).

        Examples
        --------
        >>> statistics = PatchStatistics(1, 1, (1, 1))
        >>> statistics.update(np.ones((1, 2, 2)), np.full((1, 2, 2), 3.0))
        >>> statistics.gradient(np.ones((1, 1, 1, 1)))
        array([[[[-4.]]]])
        """
        sums = self._sums()
        weights = sums.unknowns.joined(kernels, bias)
        gradient = 2 * (sums.times(weights) - sums.cross_products) / sums.size
        of_kernels, of_bias = sums.unknowns.split(gradient)
        return of_kernels if of_bias is None else (of_kernels, of_bias)

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
        sums = self._sums()
        systems = sums.systems(sums.unknowns.ridge(l2, sums.size))
        weights = systems.solve(sums.cross_products)
        if l2 == 0:
            warn_of_rank(systems.rank, self.num_unknowns)
        kernels, bias = sums.unknowns.split(weights)
        return Solution(kernels, bias, sums.loss(weights), systems.rank, systems.condition)

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
        sums = self._sums()
        size, largest = sums.size, float(interruptible(np.linalg.eigvalsh, sums.products).max())
        return size / largest if largest > 0 else math.inf

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
        arrays: dict[str, Any] = self._sums().arrays
        settings = json.dumps(vars(self._unknowns))
        with atomic_write(file) as stream:
            np.savez_compressed(stream, settings=np.array(settings), **arrays)

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
        label = f"statistics ({path_of(file)})"
        settings = load_record(file, "statistics", "settings") or {}
        try:
            unknowns = Unknowns(**settings)
            expected = Sums.of_nothing(unknowns).arrays
        except (ValueError, TypeError) as error:
            raise ValueError(f"{label} does not hold patch statistics: {error}") from None
        statistics = cls.__new__(cls)
        vars(statistics).update(vars(unknowns), _unknowns=unknowns)
        for name, nothing in expected.items():
            array: npt.NDArray[Any] = load_array(file, "statistics", member=name)
            shapes = {nothing.shape, (unknowns.num_kernels, *nothing.shape[1:])}
            if array.dtype != nothing.dtype or array.shape not in shapes:
                raise ValueError(
                    f"{label}: {name} must be {nothing.dtype} of shape {nothing.shape}, "
                    f"got {array.dtype} of shape {array.shape}"
                )
            if not np.isfinite(array).all() or (
                name in ("squares", "counts") and (array < 0).any()
            ):
                raise ValueError(f"{label}: {name} holds numbers that no data have")
            setattr(statistics, name, array)
        return statistics
