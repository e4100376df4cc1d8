"""At which learning rates gradient descent is stable on given data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.checks import (
    as_float64,
    as_kernel_shape,
    as_numeric_array,
    boolean,
    check_dimensions,
    check_finite,
    integer,
    samples_in_blocks,
)
from .._support.large_arrays import loaded, part_of
from ..config import get_num_threads
from ..gradient import _differentiation
from ..ops.shapes import IMAGES, Convolution, Padding, Pair, Shape, resolve
from ..solve.products import products_of_units
from ..ways import _convolution

# The most taps for which G is made, and its largest eigenvalue found exactly.
MAX_TAPS = 512

# The most elements of the matrices G, and of the samples, that are looked at together.
MAX_ELEMENTS = 1 << 20

# With more taps, the rate is too low by at most this share, and too high with this probability.
ACCURACY = 0.02
FAILURE = 1e-10


def suggest_learning_rate(
    input_data: npt.ArrayLike,
    kernel_shape: Pair,
    batch_size: int = 1,
    *,
    num_kernels: int = 1,
    shuffle: bool = False,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
) -> float:
    """Return the largest learning rate with which `train_model` is stable on given images.

    Up to it, no step leads away from the best kernels; beyond, the steps overshoot further each
    time and the loss grows without end. Half of it is a good start.

    Parameters
    ----------
    input_data : array_like, (C, H, W) or (N, C, H, W)
        The input data; the targets do not matter.
    kernel_shape : int or (int, int)
        Height and width of the kernels, (kh, kw); one number is both.
    batch_size : int, default 1
        Samples for a step.
    num_kernels : int, default 1
        How many kernels are trained: the loss is the mean over the results of all, so that a
        gradient is the smaller the more they are.
    shuffle : bool, default False
        Whether the batches are of any samples, instead of the same ones in each epoch.
    stride, padding, dilation
        Of the convolution; see `conv2d`.

    Returns
    -------
    float
        Infinite when all pixels are zero.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type, does not fit, or contains NaN or infinity.

    See Also
    --------
    solve_kernels : The best kernels without any learning rate.

    Notes
    -----
    Up to this rate no step on any batch leads away from that batch's best kernels, in any order of
    batches. Without `shuffle`, and with a single batch, the limit is sharp; with several, some
    larger rates may do. With `shuffle` it is safe for any batches, and as a rule lower than needed.
    It is about steps without momentum. Up to 512 taps (C kh kw) it is exact up to rounding; with
    more, at most 2 % too low, and too high with a probability below 1e-10 for each batch. See
    docs/least-squares.md.

    Examples
    --------
    >>> import numpy as np
    >>> import convext
    >>> images = np.random.default_rng(0).random((20, 1, 16, 16))
    >>> round(suggest_learning_rate(images, (3, 3)), 2)
    0.37
    """
    images = as_numeric_array("input_data", input_data)
    check_dimensions("input_data", images.shape, IMAGES)
    images = images if images.ndim == 4 else images[np.newaxis]
    size = as_kernel_shape(kernel_shape)
    batch_size = integer("batch_size", batch_size, minimum=1)
    num_kernels = integer("num_kernels", num_kernels, minimum=1)
    shuffle = boolean("shuffle", shuffle)
    options = resolve(
        images.shape, size, stride=stride, padding=padding, dilation=dilation, groups=1
    )
    check_finite("input_data", images)
    shape = num_kernels, images.shape[1], *size
    return largest_stable_rate(images, shape, options, batch_size, shuffle)


def largest_stable_rate(
    inputs: npt.NDArray[Any],
    kernel_shape: Shape,
    options: Convolution,
    batch_size: int,
    shuffle: bool = False,
) -> float:
    """Return what `suggest_learning_rate` does, for kernels (K, C, kh, kw)."""
    count = len(inputs)
    batch_size = min(batch_size, count)
    # Each pixel is in at most kh kw patches: no eigenvalue of a sample's G exceeds its trace, which
    # is at most this.
    traces = energies(inputs) * math.prod(kernel_shape[2:])
    if not np.isfinite(traces).all():  # squares overflow: no rate is small enough
        return 0.0

    def eigenvalue(size: int) -> float:
        return _largest_eigenvalue(inputs, kernel_shape[1:], options, size, traces)

    if shuffle and batch_size < count:
        smallest = count % batch_size or batch_size
        largest = min(eigenvalue(1), eigenvalue(count) * (count / smallest))
    else:
        largest = eigenvalue(batch_size)
    results = kernel_shape[0] * math.prod(options.output_shape)
    return results / largest if largest > 0 else math.inf


def energies(inputs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the sum of the squares of each sample."""
    result = np.empty(len(inputs))
    with np.errstate(over="ignore"):
        for begin, block in samples_in_blocks(inputs):
            rows = np.ascontiguousarray(block)  # of another layout, the sums have other bits
            of_block = result[begin : begin + len(block)]
            np.einsum("nchw,nchw->n", rows, rows, out=of_block, dtype=np.float64)
    return result


def _largest_eigenvalue(
    inputs: npt.NDArray[Any],
    shape: Shape,
    options: Convolution,
    batch_size: int,
    traces: npt.NDArray[np.float64],
) -> float:
    """Return the largest eigenvalue of G, divided by the number of samples, of all batches.

    Batches with high traces come first; most others need only be shown to have no larger eigenvalue
    than those before.
    """
    starts = np.arange(0, len(inputs), batch_size)
    sizes = np.minimum(batch_size, len(inputs) - starts)
    bounds = np.add.reduceat(traces, starts) / sizes
    order = np.argsort(-bounds, kind="stable")
    taps = math.prod(shape)
    together = 1
    if batch_size == 1 and taps <= MAX_TAPS:
        together = max(1, MAX_ELEMENTS // max(taps**2, math.prod(inputs.shape[1:])))
    largest = 0.0
    for i in range(0, len(order), together):
        if bounds[order[i]] <= largest:
            break
        if together > 1:
            batch, size = inputs[order[i : i + together]], 1
        else:
            start, size = starts[order[i]], int(sizes[order[i]])
            batch = part_of(inputs, (slice(start, start + size),))
        if taps <= MAX_TAPS:
            kernel_size = shape[1], shape[2]
            products = products_of_units(batch, kernel_size, options, size, get_num_threads())
            eigenvalue = _eigenvalue_above(products, largest * size)
        else:
            eigenvalue = _bound_by_lanczos(
                as_float64(loaded(batch)), shape, options, largest * size
            )
        largest = max(largest, eigenvalue / size)
    return largest


def _eigenvalue_above(products: npt.NDArray[np.float64], enough: float) -> float:
    """Return the largest eigenvalue of matrices, or `enough` where none is larger.

    That none is larger shows in that Cholesky's method succeeds, a tenth of the work.
    """
    try:
        np.linalg.cholesky(enough * (1 + 1e-13) * np.eye(products.shape[1]) - products)
    except np.linalg.LinAlgError:
        return float(np.linalg.eigvalsh(products)[:, -1].max())
    return enough


def _bound_by_lanczos(
    batch: npt.NDArray[np.float64], shape: Shape, options: Convolution, enough: float
) -> float:
    """Return an upper bound on the largest eigenvalue of G, or less than `enough` if that is.

    After k steps from a random start, Lanczos's method has found less than 1 - e times the largest
    eigenvalue of a matrix of n rows with a probability of at most 1.648 sqrt(n) exp(-(2k - 1)
    sqrt(e)), whatever the matrix. Vectors are kept orthogonal, without which that does not hold.
    """
    taps = math.prod(shape)
    margin = math.log(1.648 * math.sqrt(taps) / FAILURE)
    steps = min(taps, math.ceil((margin / math.sqrt(ACCURACY) + 1) / 2))
    basis = np.empty((steps, taps))
    triangle = np.zeros((steps, steps))
    vector = np.random.default_rng(taps).standard_normal(taps)
    vector /= np.linalg.norm(vector)
    for k in range(1, steps + 1):
        basis[k - 1] = vector
        product = _multiply(batch, vector.reshape(1, *shape), options).ravel()
        triangle[k - 1, k - 1] = vector @ product
        for _ in range(2):  # the second time takes away what rounding left
            product -= (basis[:k] @ product) @ basis[:k]
        length = float(np.linalg.norm(product))
        # All that the start has a share in was seen.
        exhausted = k == taps or length <= 1e-12 * triangle.max()
        if exhausted or k % 20 == 0 or k == steps:
            found = float(np.linalg.eigvalsh(triangle[:k, :k])[-1])
            error = 0.0 if exhausted else (margin / (2 * k - 1)) ** 2
            if exhausted or k == steps or found <= (1 - error) * enough:
                break
        vector = product / length
        triangle[k, k - 1] = triangle[k - 1, k] = length
    return found / (1 - error) * (1 + 1e-12)


def _multiply(
    batch: npt.NDArray[np.float64], vector: npt.NDArray[np.float64], options: Convolution
) -> npt.NDArray[np.float64]:
    """Return G times `vector`."""
    how = options.geometry, get_num_threads()
    response = np.empty((len(batch), 1, *options.output_shape))
    _convolution.conv2d(batch, vector, None, response, *how)
    product = np.empty_like(vector)
    _differentiation.conv2d_kernel_grad(batch, response, product, *how)
    return product
