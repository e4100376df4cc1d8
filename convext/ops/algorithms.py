"""The names of the ways of computing a convolution."""

from __future__ import annotations

from .._support.checks import one_of
from ..gradient import _differentiation
from ..ways import _convolution

# The numbers that the compiled code knows them by: those of conv2d and conv2d_input_grad, and of
# conv2d_kernel_grad.
NUMBERS = {name: number for number, name in enumerate(("auto", *_convolution.NAMES))}
NUMBERS_OF_KERNEL_GRADIENT = {
    name: number for number, name in enumerate(("auto", *_differentiation.NAMES))
}


def resolve_algorithm(algorithm: object, numbers: dict[str, int] = NUMBERS) -> int:
    """Return the number of an algorithm; the compiled code says where it does not apply."""
    return numbers[one_of("algorithm", algorithm, numbers)]
