"""How a convolution is computed."""

from __future__ import annotations

from typing import Literal, TypeAlias

from .shapes import Convolution, Shape

Algorithm: TypeAlias = Literal["auto", "direct", "winograd", "fft"]

# The numbers that the compiled code knows them by.
ALGORITHMS = {"auto": 0, "direct": 1, "winograd": 2, "fft": 3}

# The sizes of kernels that Winograd's algorithm computes.
WINOGRAD_KERNELS = {"3x3": (3, 3), "5x5": (5, 5)}


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
    choices, sizes, strides = list(ALGORITHMS), list(WINOGRAD_KERNELS), [1, 2]
    if kernel_gradient:
        choices.remove("fft")
        sizes.remove("5x5")
        strides.remove(2)
    *others, last = map(repr, choices)
    allowed = f"{', '.join(others)} or {last}"
    if not isinstance(algorithm, str):
        raise TypeError(f"algorithm must be {allowed}, got {type(algorithm).__name__}")
    if algorithm not in choices:
        raise ValueError(f"algorithm must be {allowed}, got {algorithm!r}")
    size, stride, dilation = kernel_shape[-2:], convolution.stride, convolution.dilation
    applies = (
        size in [WINOGRAD_KERNELS[name] for name in sizes]
        and stride in [(n, n) for n in strides]
        and dilation == (1, 1)
    )
    if algorithm == "winograd" and not applies:
        raise ValueError(
            f"algorithm 'winograd' computes {' and '.join(sizes)} kernels with stride "
            f"{' or '.join(map(str, strides))} and dilation 1, got kernels of "
            f"{size[0]}x{size[1]}, stride {stride} and dilation {dilation}"
        )
    return ALGORITHMS[algorithm]
