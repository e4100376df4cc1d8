"""Sums, over the patches of an image, of the products of every two pixels of a patch.

With a linear layer and the mean squared error, these sums are all that the loss needs to know of an
image once it was computed from the pixels: from there it is a quadratic function of the kernels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _forward, _kernel_gradient
from ._checks import RealArray
from .algorithms import ALGORITHMS
from .shapes import Convolution, Shape

MAX_BYTES = 64 * 1024 * 1024


def first_epoch_with_products(
    input_shape: Shape, kernel_shape: Shape, output_shape: Shape
) -> float:
    """Return from which epoch on a training uses these sums; infinity where they do not pay.

    Making them takes about as long as the epochs before, so that a training is never twice as long
    as without them, whenever it ends. They have to be smaller than the data, to be read in less
    time and to need little memory. All this depends on shapes alone: a training that goes on for
    longer begins with the same bits.
    """
    num_samples, num_kernels = input_shape[0], kernel_shape[0]
    taps = math.prod(kernel_shape[1:])
    pixels = math.prod(output_shape)
    of_sample = taps * (taps + 2 * num_kernels)
    if (
        of_sample > math.prod(input_shape[1:]) + num_kernels * pixels
        or 8 * max(num_samples * of_sample, taps * pixels) > MAX_BYTES
    ):
        return math.inf
    return 2 + 2 * taps / num_kernels


def patch_products(
    inputs: RealArray, kernel_shape: Shape, options: Convolution, num_threads: int
) -> npt.NDArray[np.float64]:
    """Return the sums for kernels (K, C, kh, kw): (N, C * kh * kw, C * kh * kw).

    The pixels that one tap meets are the convolution with a kernel that is 1 there and else 0;
    their products with those that the others meet are the kernel gradient for that.
    """
    taps = math.prod(kernel_shape[1:])
    taps_alone: npt.NDArray[Any] = np.eye(taps, dtype=inputs.dtype)
    taps_alone = taps_alone.reshape(taps, *kernel_shape[1:])
    pixels = np.empty((taps, *options.output_shape), inputs.dtype)
    sums = np.empty_like(taps_alone)
    products = np.empty((len(inputs), taps, taps))
    direct = ALGORITHMS["direct"]  # which copies the pixels as they are
    forward: tuple[Any, ...] = (*options[:4], num_threads, None, direct)
    gradient: tuple[Any, ...] = (*options[:4], num_threads, direct)
    for image, result in zip(inputs, products, strict=True):
        _forward.conv2d(image, taps_alone, None, pixels, *forward)
        _kernel_gradient.conv2d_kernel_grad(image, pixels, sums, *gradient)
        result[:] = sums.reshape(taps, taps)
    return products
