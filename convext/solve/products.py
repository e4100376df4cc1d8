"""Sums of the products of pixels: with targets, and with each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.checks import as_float64
from .._support.large_arrays import part_of
from ..gradient import _differentiation, _statistics
from ..ops.algorithms import NUMBERS_OF_KERNEL_GRADIENT
from ..ops.shapes import Convolution, Geometry
from .blocks import MAX_ELEMENTS, blocks, padded_rows
from .least_squares import Matrix
from .masks import Data

# Winograd's algorithm rounds more.
DIRECT = NUMBERS_OF_KERNEL_GRADIENT["direct"]


PLAIN = Geometry(stride=(1, 1), padding_before=(0, 0), dilation=(1, 1), groups=1)


def kernel_gradient(
    images: Matrix,
    gradients: Matrix,
    kernel_size: tuple[int, int],
    num_threads: int,
    geometry: Geometry = PLAIN,
) -> Matrix:
    """Return the sums of the products of pixels with output gradients, (K, C/groups, kh, kw)."""
    result = np.empty((gradients.shape[1], images.shape[1] // geometry.groups, *kernel_size))
    _differentiation.conv2d_kernel_grad(images, gradients, result, geometry, num_threads, DIRECT)
    return result


def sums_of_planes(first: Matrix, second: Matrix, num_threads: int) -> Matrix:
    """Return the sum of the products of two arrays for each channel."""
    each = PLAIN._replace(groups=first.shape[1])
    return kernel_gradient(first, second, (1, 1), num_threads, each).ravel()


def add_patch_products(
    products: Matrix,
    images: Matrix,
    kernel_size: tuple[int, int],
    options: Convolution,
    samples_of_unit: int,
    num_threads: int,
) -> None:
    """Add G of each `samples_of_unit` padded images to products, (units, taps, taps)."""
    _statistics.patch_products(
        images, kernel_size, options.stride, options.dilation, options.output_shape,
        samples_of_unit, products, num_threads,
    )  # fmt: skip


def products_of_units(
    inputs: npt.NDArray[Any],
    kernel_size: tuple[int, int],
    options: Convolution,
    samples_of_unit: int,
    num_threads: int,
) -> Matrix:
    """Return G of each `samples_of_unit` samples (the last may be fewer): (units, taps, taps)."""
    taps = inputs.shape[1] * math.prod(kernel_size)
    of_unit = min(samples_of_unit, len(inputs))
    result = np.zeros((-(-len(inputs) // of_unit), taps, taps))
    step = MAX_ELEMENTS // (of_unit * math.prod(inputs.shape[1:]))
    for unit in range(0, len(result), max(1, step)):
        some = slice(unit * of_unit, (unit + max(1, step)) * of_unit)
        products = result[unit : unit + max(1, step)]
        if step == 0:
            samples = part_of(inputs, (some,))
            no_targets = np.broadcast_to(0.0, (len(samples), 1, *options.output_shape))
            data = Data(samples, no_targets)
            for images, targets, _ in blocks(data, kernel_size, options, num_threads):
                inside = options._replace(output_shape=targets.shape[2:])
                add_patch_products(products, images, kernel_size, inside, of_unit, num_threads)
        else:
            images = as_float64(
                padded_rows(inputs, 0, options.output_shape, kernel_size, options, some)
            )
            add_patch_products(products, images, kernel_size, options, of_unit, num_threads)
    return result
