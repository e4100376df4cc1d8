"""How a convolution is computed."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ..ways._forward import ALGORITHMS
from .shapes import Convolution, Shape

Algorithm: TypeAlias = Literal["auto", "direct", "winograd", "fft"]

# The sizes of kernels that Winograd's algorithm computes: along an axis, and with a stride of two.
WINOGRAD_SIZES = range(3, 10)
WINOGRAD_STRIDED = [(3, 3), (5, 5)]


def resolve_algorithm(
    algorithm: object,
    kernel_shape: Shape,
    convolution: Convolution,
    *,
    kernel_gradient: bool = False,
) -> int:
    """Return the number of an algorithm, if the convolution can be computed that way.

    The kernel gradient has fewer: no Fourier transforms, and Winograd's for 3x3 kernels with
    stride 1 alone.
    """
    choices = [name for name in ALGORITHMS if not (kernel_gradient and name == "fft")]
    *others, last = map(repr, choices)
    allowed = f"{', '.join(others)} or {last}"
    if not isinstance(algorithm, str):
        raise TypeError(f"algorithm must be {allowed}, got {type(algorithm).__name__}")
    if algorithm not in choices:
        raise ValueError(f"algorithm must be {allowed}, got {algorithm!r}")
    size, stride, dilation = kernel_shape[-2:], convolution.stride, convolution.dilation
    if kernel_gradient:
        applies, sizes = size == (3, 3) and stride == (1, 1), "3x3 kernels with stride 1"
    else:
        applies = (stride == (1, 1) and all(n in WINOGRAD_SIZES for n in size)) or (
            stride == (2, 2) and size in WINOGRAD_STRIDED
        )
        sizes = "kernels of 3x3 to 9x9 with stride 1, 3x3 and 5x5 with stride 2,"
    if algorithm == "winograd" and not (applies and dilation == (1, 1)):
        raise ValueError(
            f"algorithm 'winograd' computes {sizes} and dilation 1, got kernels of "
            f"{size[0]}x{size[1]}, stride {stride} and dilation {dilation}"
        )
    return ALGORITHMS[algorithm]
