"""How a convolution is computed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, TypeAlias

from .shapes import Convolution, Shape

Algorithm: TypeAlias = Literal["auto", "direct", "winograd", "fft"]

# The numbers that the compiled code knows them by.
ALGORITHMS = {"auto": 0, "direct": 1, "winograd": 2, "fft": 3}

WINOGRAD_KERNEL = (3, 3)


# The kernel gradient has no other.
FOR_KERNEL_GRADIENTS = ("auto", "direct", "winograd")


def resolve_algorithm(
    algorithm: object,
    kernel_shape: Shape,
    convolution: Convolution,
    choices: Collection[str] = ALGORITHMS,
) -> int:
    """Return the number of an algorithm, if the convolution can be computed that way."""
    *others, last = map(repr, choices)
    allowed = f"{', '.join(others)} or {last}"
    if not isinstance(algorithm, str):
        raise TypeError(f"algorithm must be {allowed}, got {type(algorithm).__name__}")
    if algorithm not in choices:
        raise ValueError(f"algorithm must be {allowed}, got {algorithm!r}")
    size, stride, dilation = kernel_shape[-2:], convolution.stride, convolution.dilation
    if algorithm == "winograd" and (size, stride, dilation) != (WINOGRAD_KERNEL, (1, 1), (1, 1)):
        raise ValueError(
            "algorithm 'winograd' computes 3x3 kernels with stride 1 and dilation 1, got kernels "
            f"of {size[0]}x{size[1]}, stride {stride} and dilation {dilation}"
        )
    return ALGORITHMS[algorithm]
