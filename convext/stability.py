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
from .config import get_num_threads
from .shapes import Convolution

# Of more batches than this, so many spread over the data are looked at.
MAX_BATCHES = 64

# The power iteration ends when the eigenvalue grows by less than this, relatively.
TOLERANCE = 1e-4
MAX_ITERATIONS = 200


def largest_stable_rate(
    inputs: npt.NDArray[Any],
    kernel_shape: tuple[int, ...],
    options: Convolution,
    batch_size: int,
) -> float:
    """Return the largest learning rate that is stable for each of the batches.

    Parameters
    ----------
    inputs : numpy.ndarray, (N, C, H, W)
    kernel_shape : (K, C, kh, kw)
    options : Convolution
    batch_size : int

    Returns
    -------
    float
        2 / the largest eigenvalue of the batches' Hessians; infinite when all inputs are zero.

    Notes
    -----
    The largest eigenvalue is found by power iteration: multiplying a kernel by G is a convolution
    followed by the kernel gradient of the result. The iteration for each batch starts from the
    eigenvector of the one before, which is close on most data.
    """
    starts = np.arange(0, len(inputs), min(batch_size, len(inputs)))
    if len(starts) > MAX_BATCHES:
        starts = starts[np.linspace(0, len(starts) - 1, MAX_BATCHES).astype(int)]
    vector = np.ones((1, *kernel_shape[1:]))
    largest = 0.0
    for start in starts:
        batch = np.ascontiguousarray(inputs[start : start + batch_size], dtype=np.float64)
        elements = len(batch) * kernel_shape[0] * math.prod(options.output_shape)
        eigenvalue, vector = _largest_eigenvalue(batch, vector, options)
        largest = max(largest, 2 * eigenvalue / elements)
    # The iteration approaches the eigenvalue from below.
    return 2 / (largest * (1 + 10 * TOLERANCE)) if largest > 0 else math.inf


def _largest_eigenvalue(
    batch: npt.NDArray[np.float64], vector: npt.NDArray[np.float64], options: Convolution
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the largest eigenvalue of G, and its eigenvector, of a batch."""
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
    return length, vector


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
