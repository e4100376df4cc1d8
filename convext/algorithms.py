"""How a convolution is computed."""

from __future__ import annotations

from typing import Literal, TypeAlias

from .shapes import Convolution, Shape

Algorithm: TypeAlias = Literal["auto", "direct", "winograd"]

# The numbers that the compiled code knows them by.
ALGORITHMS = {"auto": 0, "direct": 1, "winograd": 2}

WINOGRAD_KERNELS = ((3, 3), (5, 5))


def resolve_algorithm(algorithm: object, kernel_shape: Shape, convolution: Convolution) -> int:
    """Return the number of an algorithm, if the convolution can be computed that way."""
    *others, last = map(repr, ALGORITHMS)
    allowed = f"{', '.join(others)} or {last}"
    if not isinstance(algorithm, str):
        raise TypeError(f"algorithm must be {allowed}, got {type(algorithm).__name__}")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be {allowed}, got {algorithm!r}")
    size, stride, dilation = kernel_shape[-2:], convolution.stride, convolution.dilation
    dense = stride == dilation == (1, 1)
    if algorithm == "winograd" and not (dense and size in WINOGRAD_KERNELS):
        raise ValueError(
            "algorithm 'winograd' computes 3x3 and 5x5 kernels with stride 1 and dilation 1, got "
            f"kernels of {size[0]}x{size[1]}, stride {stride} and dilation {dilation}"
        )
    return ALGORITHMS[algorithm]
