"""Plans: what an operation does with arrays of given shapes and types.

A plan depends on shapes, types and options alone. It is made, and everything checked, once for each
set of them and then remembered: for small arrays that takes longer than the operation itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from .._support.checks import (
    as_kernel_shape,
    check_dimensions,
    check_size,
    common_dtype,
    shape_of_length,
)
from .algorithms import NUMBERS, NUMBERS_OF_KERNEL_GRADIENT, resolve_algorithm
from .shapes import (
    IMAGES,
    KERNELS,
    Convolution,
    Geometry,
    Padding,
    Pair,
    Shape,
    check_channels,
    check_groups,
    resolve,
)

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

NUM_REMEMBERED = 256

_INTEGERS = frozenset({int})


class Options(NamedTuple):
    """The options of an operation, as they are given."""

    stride: Pair = 1
    padding: Padding = 0
    dilation: Pair = 1
    groups: int = 1
    algorithm: str = "auto"


# Operations give `Options` without the names: these would take a twentieth of a small call.
Given: TypeAlias = tuple[Pair, Padding, Pair, int, str]


class Plan(NamedTuple):
    """What an operation does."""

    shape: Shape
    dtype: np.dtype[Any]
    geometry: Geometry
    algorithm: int


def remembering(
    make: _lru_cache_wrapper[Plan], options: Given, sizes: object = None
) -> Callable[..., Plan]:
    """Return `make`, or what it is without its memory, where that might mix up these options.

    Only plain integers, text and tuples of integers are looked up: others may be equal to these and
    yet an error (True and 1.0 equal 1), or not hashable.
    """
    stride, padding, dilation, groups, algorithm = options
    if (
        type(stride) is type(dilation) is type(groups) is int
        and type(padding) in (int, str)
        and type(algorithm) is str
        and (sizes is None or (type(sizes) is tuple and _INTEGERS.issuperset(map(type, sizes))))
    ):
        return make
    return make.__wrapped__


@lru_cache(NUM_REMEMBERED)
def plan_conv2d(
    image_shape: Shape,
    image_dtype: np.dtype[Any],
    kernel_shape: Shape,
    kernel_dtype: np.dtype[Any],
    bias_dtype: np.dtype[Any] | None,
    options: Given,
) -> Plan:
    """Check the arguments of `conv2d`."""
    dtype = common_dtype(input_data=image_dtype, kernels=kernel_dtype, bias=bias_dtype)
    check_dimensions("input_data", image_shape, IMAGES, empty_batch=True)
    check_dimensions("kernels", kernel_shape, KERNELS)
    convolution, number = _resolve(image_shape, kernel_shape, options)
    check_channels(image_shape, kernel_shape, convolution.groups)
    shape = (*image_shape[:-3], kernel_shape[0], *convolution.output_shape)
    return _plan(shape, dtype, convolution, number)


@lru_cache(NUM_REMEMBERED)
def plan_kernel_grad(
    image_shape: Shape,
    image_dtype: np.dtype[Any],
    grad_shape: Shape,
    grad_dtype: np.dtype[Any],
    kernel_size: Pair,
    options: Given,
) -> Plan:
    """Check the arguments of `conv2d_kernel_grad`."""
    dtype = common_dtype(input_data=image_dtype, output_grad=grad_dtype)
    dimensions = len(image_shape)
    check_dimensions("input_data", image_shape, IMAGES, empty_batch=True)
    check_dimensions(
        "output_grad", grad_shape, {dimensions: _output_layout(dimensions)}, empty_batch=True
    )
    size = as_kernel_shape(kernel_size)
    convolution, number = _resolve(image_shape, size, options, numbers=NUMBERS_OF_KERNEL_GRADIENT)
    channels, num_kernels = image_shape[-3], grad_shape[-3]
    check_groups(channels, num_kernels, convolution.groups)
    _check_output_grad(grad_shape, (*image_shape[:-3], num_kernels, *convolution.output_shape))
    shape = (num_kernels, channels // convolution.groups, *size)
    return _plan(shape, dtype, convolution, number)


@lru_cache(NUM_REMEMBERED)
def plan_input_grad(
    grad_shape: Shape,
    grad_dtype: np.dtype[Any],
    kernel_shape: Shape,
    kernel_dtype: np.dtype[Any],
    input_shape: Shape,
    options: Given,
) -> Plan:
    """Check the arguments of `conv2d_input_grad`."""
    dtype = common_dtype(output_grad=grad_dtype, kernels=kernel_dtype)
    layouts = {n: _output_layout(n) for n in IMAGES}
    check_dimensions("output_grad", grad_shape, layouts, empty_batch=True)
    check_dimensions("kernels", kernel_shape, KERNELS)
    name = "input_shape"
    shape = shape_of_length(name, input_shape, IMAGES, empty_batch=True)
    if len(shape) < len(grad_shape):
        shape = (grad_shape[0], *shape)
    convolution, number = _resolve(shape, kernel_shape, options, name)
    check_channels(shape, kernel_shape, convolution.groups, name)
    if len(shape) > len(grad_shape):
        grad_shape = (1, *grad_shape)
    _check_output_grad(grad_shape, (*shape[:-3], kernel_shape[0], *convolution.output_shape))
    return _plan(shape, dtype, convolution, number)


def _resolve(
    image_shape: Shape,
    kernel_shape: Shape,
    options: Given,
    image_name: str = "input_data",
    numbers: dict[str, int] = NUMBERS,
) -> tuple[Convolution, int]:
    """Return the options as the sizes resolve them, and the number of the algorithm."""
    given = Options(*options)._asdict()
    number = resolve_algorithm(given.pop("algorithm"), numbers)
    return resolve(image_shape, kernel_shape, **given, image_name=image_name), number


def _plan(shape: Shape, dtype: np.dtype[Any], convolution: Convolution, algorithm: int) -> Plan:
    check_size("the result", shape, dtype.itemsize)
    return Plan(shape, dtype, convolution.geometry, algorithm)


def _output_layout(dimensions: int) -> str:
    return IMAGES[dimensions].replace("C, H, W", "K, OH, OW")


def _check_output_grad(shape: Shape, expected: Shape) -> None:
    if shape != expected:
        raise ValueError(
            f"output_grad must have the shape {expected} of the convolution's result, got {shape}"
        )
