"""At which learning rates gradient descent is stable on given data.

With a linear layer and the mean squared error, the loss of a batch is quadratic in the kernels.
Its Hessian is 2 G / n, where G sums the products of every two pixels of each patch and n is the
number of elements of the target; a step of gradient descent is stable when learning_rate times the
largest eigenvalue of the Hessian is below 2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _forward, _kernel_gradient
from ._checks import (
    as_numeric_array,
    check_dimensions,
    check_finite,
    integer,
    shape_of_length,
)
from .config import get_num_threads
from .shapes import IMAGES, KERNEL_SHAPE, Convolution, Padding, Pair, Shape, resolve
from .statistics import products_of_units

# With more taps, G is not made.
MAX_TAPS = 512

# Of more batches than this, so many spread over the data are looked at.
MAX_BATCHES = 64

# The power iteration ends when the eigenvalue grows by less than this, relatively.
TOLERANCE = 1e-4
MAX_ITERATIONS = 200


def suggest_learning_rate(
    input_data: npt.ArrayLike,
    kernel_shape: tuple[int, int],
    batch_size: int = 1,
    *,
    num_kernels: int = 1,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
) -> float:
    """Return the largest learning rate with which `train_model` is stable on given images.

    Up to it, the steps of gradient descent lead down; beyond, they overshoot further each time and
    the loss grows without end. Half of it is a good start.

    Parameters
    ----------
    input_data : array_like, (C, H, W) or (N, C, H, W)
        The input data; the targets do not matter.
    kernel_shape : (int, int)
        Height and width of the kernels, (kh, kw).
    batch_size : int, default 1
        Samples for a step.
    num_kernels : int, default 1
        How many kernels are trained: the loss is the mean over the results of all, so that a
        gradient is the smaller the more they are.
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
    A step on a batch is stable when learning_rate times the largest eigenvalue of the batch's
    Hessian, 2 G / n, is below 2; see docs/least-squares.md. This is the smallest limit over the
    batches, of which 64, spread over the data, are looked at. With more than 512 taps the
    eigenvalue is estimated by power iteration, a thousandth above it.

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
    size = shape_of_length("kernel_shape", kernel_shape, KERNEL_SHAPE)
    batch_size = integer("batch_size", batch_size, minimum=1)
    num_kernels = integer("num_kernels", num_kernels, minimum=1)
    options = resolve(
        images.shape, size, stride=stride, padding=padding, dilation=dilation, groups=1
    )
    check_finite("input_data", images)
    shape = num_kernels, images.shape[1], *size
    return largest_stable_rate(images, shape, options, batch_size)


def largest_stable_rate(
    inputs: npt.NDArray[Any], kernel_shape: Shape, options: Convolution, batch_size: int
) -> float:
    """Return what `suggest_learning_rate` does, for kernels (K, C, kh, kw)."""
    starts = np.arange(0, len(inputs), min(batch_size, len(inputs)))
    if len(starts) > MAX_BATCHES:
        starts = starts[np.linspace(0, len(starts) - 1, MAX_BATCHES).astype(int)]
    vector = np.ones((1, *kernel_shape[1:]))
    largest = 0.0
    for start in starts:
        batch = inputs[start : start + batch_size]
        elements = len(batch) * kernel_shape[0] * math.prod(options.output_shape)
        if vector.size <= MAX_TAPS:
            height, width = kernel_shape[2:]
            (products,) = products_of_units(
                batch, (height, width), options, len(batch), get_num_threads()
            )
            eigenvalue = float(np.linalg.eigvalsh(products)[-1])
        else:
            eigenvalue, vector = _largest_eigenvalue(
                np.ascontiguousarray(batch, dtype=np.float64), vector, options
            )
        largest = max(largest, 2 * eigenvalue / elements)
    return float(2 / largest) if largest > 0 else math.inf


def _largest_eigenvalue(
    batch: npt.NDArray[np.float64], vector: npt.NDArray[np.float64], options: Convolution
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return a bit more than the largest eigenvalue of G, and its eigenvector, of a batch.

    Multiplying a kernel by G is a convolution, followed by the kernel gradient of the result. The
    power iteration starts from the eigenvector of the batch before, which is close on most data,
    and approaches the eigenvalue from below.
    """
    eigenvalue = 0.0
    for _ in range(MAX_ITERATIONS):
        product = _multiply(batch, vector, options)
        length = float(np.linalg.norm(product))
        if length == 0:
            return 0.0, np.ones_like(vector)
        vector = product / length
        if length <= eigenvalue * (1 + TOLERANCE):
            break
        eigenvalue = length
    return length * (1 + 10 * TOLERANCE), vector


def _multiply(
    batch: npt.NDArray[np.float64], vector: npt.NDArray[np.float64], options: Convolution
) -> npt.NDArray[np.float64]:
    """Return G times `vector`."""
    arguments = (*options[:4], get_num_threads())
    response = np.empty((len(batch), 1, *options.output_shape))
    _forward.conv2d(batch, vector, None, response, *arguments)
    product = np.empty_like(vector)
    _kernel_gradient.conv2d_kernel_grad(batch, response, product, *arguments)
    return product
