"""Convolutions of Dask arrays, and the kernels between them (needs Dask: the ``dask`` extra).

Chunks may have any sizes along any axes. Nothing is computed before it is asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from ._support.checks import RealArray, check_not_masked, finite_number
from ._support.dask_arrays import Tasks, checked
from .config import resolve_num_threads
from .nn import prediction
from .nn.models import Sequential
from .ops import operations
from .ops.plans import Options
from .ops.prepared import PreparedKernels, prepare_kernels
from .ops.shapes import Padding, Pair, Shape, window_of
from .solve.dask_sums import Centre, delayed_of_sums
from .solve.least_squares import Solution
from .solve.statistics import PatchStatistics
from .solve.sums import Sums
from .solve.unknowns import Unknowns

__all__ = ["conv2d", "predict", "solve_kernels"]


def solve_kernels(
    input_data: Any,
    target_output: Any,
    kernel_shape: Pair,
    *,
    bias: bool = False,
    l2: float = 0.0,
    mask: Any = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    num_threads: int | None = 1,
) -> Any:
    """Find the kernels that turn the input into the target with the smallest mean squared error.

    Parameters
    ----------
    input_data, target_output, mask : dask.array.Array
        The images before, (C, H, W) or (N, C, H, W), and after, and what counts of these.
    kernel_shape, bias, l2, stride, padding, dilation
        As for `convext.solve_kernels`.
    num_threads : int, default 1
        Of each task; None is what `get_num_threads` says where it runs.

    Returns
    -------
    dask.delayed.Delayed
        Its ``compute()`` gives the `Solution`.

    Raises
    ------
    TypeError, ValueError
        As `convext.solve_kernels` does, what values show when they are computed; or sizes of chunks
        are unknown.

    Notes
    -----
    The data are read once, and the kernels are those of `PatchStatistics.solve`: errors grow with
    the square of `Solution.condition`, where `convext.solve_kernels` would read them again. That
    the data do not determine the kernels shows in `Solution.rank`: a worker's warning stays there.
    How the target is chunked decides the last digits, the number of workers none.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import convext.dask
    >>> before = da.random.default_rng(0).random((8, 1, 60, 60), chunks=(4, 1, 25, 60))
    >>> after = convext.dask.conv2d(before, np.array([[[[0.25, 0.5, 0.25]]]]))
    >>> convext.dask.solve_kernels(before, after, (1, 3)).compute().kernels.round(9)
    array([[[[0.25, 0.5 , 0.25]]]])
    """
    options = kernel_shape, bias, stride, padding, dilation
    best = partial(_best, finite_number("l2", l2, minimum=0))
    arrays = input_data, target_output, mask
    return delayed_of_sums("solve", best, arrays, options, num_threads, centred=True)


def _best(
    l2: float, unknowns: Unknowns, centres: Sequence[Centre], parts: Sequence[Sums]
) -> Solution:
    solutions = []
    for centre, sums in zip(centres, parts, strict=True):
        solution = PatchStatistics._of_sums(unknowns, None, [sums]).solve(l2)
        solutions.append(replace(solution, centre=centre))
    return min(solutions, key=attrgetter("loss"))


def conv2d(
    input_data: Any,
    kernels: npt.ArrayLike | PreparedKernels,
    *,
    bias: npt.ArrayLike | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    algorithm: str = "auto",
    num_threads: int | None = 1,
) -> Any:
    """Convolve the images of a Dask array with kernels.

    Parameters
    ----------
    input_data : dask.array.Array, (C, H, W) or (N, C, H, W)
        One image, or N of them.
    kernels, bias, stride, padding, dilation, groups, algorithm
        As for `convext.conv2d`. The graph holds one copy of the kernels.
    num_threads : int, default 1
        As for `solve_kernels`.

    Returns
    -------
    dask.array.Array, (K, OH, OW) or (N, K, OH, OW)
        In as many chunks of samples, rows and columns as the input, the same where it is as large.

    Raises
    ------
    TypeError, ValueError
        As `convext.conv2d` does, or sizes of chunks are unknown.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import convext.dask
    >>> images = da.ones((100, 1, 64, 64), chunks=(30, 1, 20, 64))
    >>> blurred = convext.dask.conv2d(images, np.full((1, 1, 3, 3), 1 / 9), padding="same")
    >>> blurred.chunks == images.chunks, round(float(blurred.max().compute()), 9)
    (True, 1.0)
    """
    images = checked("input_data", input_data)
    options = stride, padding, dilation, groups, algorithm
    if isinstance(kernels, PreparedKernels):
        operations.check_not_given(bias, options)
        given = kernels
    else:
        given = prepare_kernels(kernels, None, bias=bias, **Options(*options)._asdict())
    shape, dtype, geometry, _ = given.plan(images.shape, images.dtype)
    single, images = images.ndim == 3, images[np.newaxis] if images.ndim == 3 else images
    inside = PreparedKernels(given.kernels, given.bias, *given._options._replace(padding=0))
    tasks = Tasks("convolution", [inside.__getstate__(), geometry, images], num_threads)
    task = partial(_conv2d, tasks.num_threads), tasks.add("kernels", inside)
    seen = partial(window_of, given.shape[2:], geometry)
    results = tasks.array(images, shape[-3:], dtype, seen, *task)
    return results[0] if single else results


def _conv2d(
    num_threads: int | None, kernels: PreparedKernels, images: RealArray, _: object
) -> RealArray:
    return operations.conv2d(images, kernels, num_threads=num_threads)


def predict(model: Sequential, x: Any, num_threads: int | None = 1) -> Any:
    """Return what a model makes of the images of a Dask array.

    Parameters
    ----------
    model : Sequential
        The graph holds a copy of it, as it is now.
    x : dask.array.Array, (C, H, W) or (N, C, H, W)
        One image, or N of them; with the channels last where the model has them so.
    num_threads : int, default 1
        As for `solve_kernels`.

    Returns
    -------
    dask.array.Array, (K, OH, OW) or (N, K, OH, OW)
        In the model's type, and in chunks as those of `conv2d`.

    Raises
    ------
    TypeError, ValueError
        As `Sequential.predict` does, or sizes of chunks are unknown.

    Examples
    --------
    >>> import dask.array as da
    >>> import convext.dask
    >>> model = convext.Sequential([convext.Conv2D(4, 3), convext.Conv2D(1, 5)])
    >>> convext.dask.predict(model, da.ones((1, 100, 80), chunks=(1, 40, 40))).chunks
    ((1,), (37, 38, 19), (37, 37))
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"model must be a Sequential, got {type(model).__name__}")
    images = model._channels_first("x", checked("x", x), empty_batch=True)
    model, shape = copy.copy(model), images.shape[1:]
    layers = model._layers_for(shape)
    tasks = Tasks("predict", [model, images], num_threads)
    task = partial(_predict, shape, tasks.num_threads), tasks.add("model", model)
    seen = partial(prediction.seen, layers)
    results = tasks.array(images, layers[-1].output_shape, model.dtype, seen, *task)
    if (crop := model._crop(layers)) is not None:
        results += images[:, :, crop[0], crop[1]].astype(model.dtype)
    if model.data_format == "channels_last":
        results = np.moveaxis(results, 1, -1)
    return results[0] if x.ndim == 3 else results


def _predict(
    shape: Shape,
    num_threads: int | None,
    model: Sequential,
    images: RealArray,
    parts: Sequence[tuple[int, int]],
) -> RealArray:
    check_not_masked("x", images)
    layers, threads = model._layers_for(shape), resolve_num_threads(num_threads)
    size = [end - begin for begin, end in parts]
    result: RealArray = np.empty((len(images), layers[-1].output_shape[0], *size), model.dtype)
    start = parts[0][0], parts[1][0]
    prediction.predict(layers, images, model.dtype, threads, result, begin=start)
    return result
