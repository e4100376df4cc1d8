"""Convolution written from its definition, in extended precision: what the tests believe.

With `padded` the input with zeros around it, and kernel k in group k // (K / groups),

    output[n, k, y, x] = bias[k] + sum over c, i, j of
        kernels[k, c, i, j] * padded[n, group * C / groups + c,
                                     y * stride_h + i * dilation_h,
                                     x * stride_w + j * dilation_w]

The two gradients are this sum read the other way: every product `kernel * pixel` that enters an
output adds `pixel * output_grad` to that kernel value's gradient and `kernel * output_grad` to
that pixel's. Nothing here is shared with the package under test.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import wraps
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Wider than float64 on x86-64, so that the reference's own rounding does not count.
Wide = np.longdouble

Padding = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] | str
Edges = tuple[tuple[int, int], tuple[int, int]]

# The largest error allowed, relative to sqrt(taps) times the sum of absolute products.
BOUNDS = {np.dtype(np.float32): 5e-7, np.dtype(np.float64): 1e-15}


class Expected(NamedTuple):
    """A result, the sum of the absolute products of each element, and how many products."""

    value: NDArray[Any]
    magnitude: NDArray[Any]
    taps: int


# The last results: most are asked for on one instruction set after the other.
_results: OrderedDict[object, Any] = OrderedDict()
MOST_RESULTS = 24


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compute what was computed a moment ago for the same arguments only once."""

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        named = sorted(options.items())
        key = (function.__name__, *map(_contents, arguments), *map(_contents, named))
        if key not in _results:
            _results[key] = result = function(*arguments, **options)
            for array in result[:2] if isinstance(result, Expected) else [result]:
                array.flags.writeable = False
            while len(_results) > MOST_RESULTS:
                _results.popitem(last=False)
        return _results[key]

    return call


def _contents(argument: Any) -> object:
    """Return what tells an argument from others, in few bytes."""
    if isinstance(argument, (list, tuple)):
        return tuple(map(_contents, argument))
    if not isinstance(argument, np.ndarray):
        return repr(argument)
    return argument.shape, argument.dtype.str, sha256(argument.tobytes()).digest()


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Return one number for both axes, or a pair, as a pair (height, width)."""
    if isinstance(value, int):
        return value, value
    height, width = value
    return height, width


def kernel_extent(kernel_hw: tuple[int, int], dilation: int | tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of the window that a dilated kernel covers."""
    (kh, kw), (dh, dw) = kernel_hw, pair(dilation)
    return (kh - 1) * dh + 1, (kw - 1) * dw + 1


def _same_edges(size: int, extent: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's padding before and after an axis for `"same"`."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + extent - size, 0)
    before = total // 2
    return before, total - before


def resolve_padding(
    padding: Padding,
    input_hw: tuple[int, int],
    kernel_hw: tuple[int, int],
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
) -> Edges:
    """Return any form of `padding` as ((top, bottom), (left, right))."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        (sh, sw), (eh, ew) = pair(stride), kernel_extent(kernel_hw, dilation)
        return _same_edges(input_hw[0], eh, sh), _same_edges(input_hw[1], ew, sw)
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    vertical, horizontal = padding
    return pair(vertical), pair(horizontal)


def output_size(
    input_hw: tuple[int, int],
    kernel_hw: tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
) -> tuple[int, int]:
    """Return the output's height and width; not positive where the kernel does not fit."""
    edges = resolve_padding(padding, input_hw, kernel_hw, stride, dilation)
    sizes = zip(input_hw, edges, kernel_extent(kernel_hw, dilation), pair(stride), strict=True)
    height, width = ((size + sum(edge) - extent) // s + 1 for size, edge, extent, s in sizes)
    return height, width


def _batched(array: ArrayLike) -> NDArray[Any]:
    """Return (C, H, W) or (N, C, H, W) as a wide (N, C, H, W)."""
    wide = np.asarray(array).astype(Wide)
    return wide if wide.ndim == 4 else wide[np.newaxis]


def _grouped(array: NDArray[Any], groups: int, axis: int) -> NDArray[Any]:
    """Split the channels or kernels on `axis` into (groups, each group's)."""
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])


def _tap_windows(
    kernel_hw: tuple[int, int],
    output_hw: tuple[int, int],
    stride: int | tuple[int, int],
    dilation: int | tuple[int, int],
) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
    """Yield i, j and the index of the padded pixels that tap (i, j) meets, one for each output."""
    (kh, kw), (oh, ow), (sh, sw), (dh, dw) = kernel_hw, output_hw, pair(stride), pair(dilation)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
            yield i, j, (..., rows, columns)


@remembered
def conv2d(
    input_data: ArrayLike,
    kernels: ArrayLike,
    bias: ArrayLike | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    detailed: bool = False,
) -> Any:
    """Return the convolution, or with `detailed` an `Expected`; the bias is one more product."""
    pixels, weights = _batched(input_data), np.asarray(kernels).astype(Wide)
    input_hw, kernel_hw = pixels.shape[2:], weights.shape[2:]
    edges = resolve_padding(padding, input_hw, kernel_hw, stride, dilation)
    output_hw = output_size(input_hw, kernel_hw, stride, padding, dilation)

    padded = _grouped(np.pad(pixels, ((0, 0), (0, 0), *edges)), groups, axis=1)
    weights = _grouped(weights, groups, axis=0)
    value = np.zeros((len(pixels), *weights.shape[:2], *output_hw), Wide)
    for i, j, window in _tap_windows(kernel_hw, output_hw, stride, dilation):
        value += np.einsum("ngchw,gkc->ngkhw", padded[window], weights[..., i, j])

    value = value.reshape(len(pixels), -1, *output_hw)
    if bias is not None:
        value += np.asarray(bias).astype(Wide)[:, np.newaxis, np.newaxis]
    value = value if np.ndim(input_data) == 4 else value[0]
    if not detailed:
        return value
    arguments = [None if a is None else np.abs(_wide(a)) for a in (input_data, kernels, bias)]
    magnitude = conv2d(*arguments, stride, padding, dilation, groups)
    taps = int(np.prod(np.shape(kernels)[1:])) + (bias is not None)
    return Expected(value, magnitude, taps)


@remembered
def conv2d_kernel_grad(
    input_data: ArrayLike,
    output_grad: ArrayLike,
    kernel_shape: tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    detailed: bool = False,
) -> Any:
    """Return the gradient of sum(conv2d * output_grad) by the kernels, or an `Expected`."""
    pixels, gradient = _batched(input_data), _batched(output_grad)
    output_hw = gradient.shape[2:]
    edges = resolve_padding(padding, pixels.shape[2:], kernel_shape, stride, dilation)

    padded = _grouped(np.pad(pixels, ((0, 0), (0, 0), *edges)), groups, axis=1)
    gradient = _grouped(gradient, groups, axis=1)
    value = np.zeros((groups, gradient.shape[2], padded.shape[2], *kernel_shape), Wide)
    for i, j, window in _tap_windows(kernel_shape, output_hw, stride, dilation):
        value[..., i, j] = np.einsum("ngchw,ngkhw->gkc", padded[window], gradient)

    value = value.reshape(-1, *value.shape[2:])
    if not detailed:
        return value
    arguments = (np.abs(_wide(input_data)), np.abs(_wide(output_grad)))
    magnitude = conv2d_kernel_grad(*arguments, kernel_shape, stride, padding, dilation, groups)
    return Expected(value, magnitude, len(pixels) * output_hw[0] * output_hw[1])


@remembered
def conv2d_input_grad(
    output_grad: ArrayLike,
    kernels: ArrayLike,
    input_shape: tuple[int, ...],
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    detailed: bool = False,
) -> Any:
    """Return the gradient of sum(conv2d * output_grad) by the input, or an `Expected`."""
    gradient, weights = _batched(output_grad), np.asarray(kernels).astype(Wide)
    (height, width), kernel_hw, output_hw = input_shape[-2:], weights.shape[2:], gradient.shape[2:]
    edges = resolve_padding(padding, (height, width), kernel_hw, stride, dilation)

    (top, bottom), (left, right) = edges
    gradient, weights = _grouped(gradient, groups, axis=1), _grouped(weights, groups, axis=0)
    shape = (len(gradient), groups, weights.shape[2], top + height + bottom, left + width + right)
    padded = np.zeros(shape, Wide)
    for i, j, window in _tap_windows(kernel_hw, output_hw, stride, dilation):
        padded[window] += np.einsum("ngkhw,gkc->ngchw", gradient, weights[..., i, j])

    value = padded[..., top : top + height, left : left + width].reshape(input_shape)
    if not detailed:
        return value
    arguments = (np.abs(_wide(output_grad)), np.abs(_wide(kernels)))
    magnitude = conv2d_input_grad(*arguments, input_shape, stride, padding, dilation, groups)
    taps = np.shape(kernels)[0] // groups * kernel_hw[0] * kernel_hw[1]
    return Expected(value, magnitude, taps)


def _wide(array: ArrayLike) -> NDArray[Any]:
    return np.asarray(array).astype(Wide)


def mse_loss(predicted: ArrayLike, target: ArrayLike) -> float:
    """Return the mean of the squared differences."""
    return float(np.mean((_wide(predicted) - _wide(target)) ** 2))


def assert_within_bound(actual: NDArray[Any], expected: Expected, note: str = "") -> None:
    """Check each element's error against its products; where all are zero it must be zero."""
    assert actual.shape == expected.value.shape, note
    allowed = BOUNDS[actual.dtype] * np.sqrt(expected.taps) * expected.magnitude
    error = np.abs(actual.astype(Wide) - expected.value)
    # Written so that a NaN, of which every comparison is false, counts as wrong.
    wrong = ~(error <= allowed)
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} elements are wrong {note}: at {first} "
            f"got {actual[first]!r}, expected {expected.value[first]!r}, "
            f"error {error[first]:.3g}, allowed {allowed[first]:.3g}"
        )
