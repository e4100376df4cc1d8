"""How a training gets its losses and gradients: from the pixels, or from sums over them.

The loss of a unit, a sample or a batch, is a quadratic function of the kernels. Once the sums of
the products of every two pixels of its patches are known, and the loss was computed from the pixels
once, neither need be read again (see src/convext/train/_quadratic.pxd).
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from .._support.checks import one_of
from ..ops.shapes import Shape

Method: TypeAlias = Literal["auto", "direct", "statistics"]

METHODS = ("auto", "direct", "statistics")

# The most bytes that the statistics of `auto` take.
MAX_BYTES = 64 * 1024 * 1024

# How long a product of another kind takes, in products of an epoch from the pixels: the sums of a
# unit are made in short runs, and each of its epochs goes through them once, in plain loops.
OF_MAKING = 2.0
OF_EXPANDING = 16.0


def samples_of_unit(num_samples: int, batch_size: int, shuffle: bool) -> int:
    """Return how many samples a unit has: those of a batch, if that is always of the same ones."""
    if batch_size >= num_samples:
        return num_samples
    return 1 if shuffle else batch_size


def choose_method(
    method: str,
    input_shape: Shape,
    kernel_shape: Shape,
    output_shape: Shape,
    *,
    unit: int,
    num_epochs: int,
    alone: bool = True,
) -> str:
    """Return "direct" or "statistics"; `auto` is the one that promises to take less time.

    That depends on the shapes, (N, C, H, W), (K, C, kh, kw) and (OH, OW), on the samples of a unit
    and on the number of epochs. Several processes together, of which none is `alone`, can only take
    "direct".
    """
    if one_of("method", method, METHODS) == "statistics" and not alone:
        raise ValueError("method='statistics' is for one process: several take 'direct'")
    if method != "auto" or not alone:
        return "direct" if method == "auto" else method
    num_samples, num_kernels = input_shape[0], kernel_shape[0]
    taps = math.prod(kernel_shape[1:])
    units = -(-num_samples // unit)
    if 8 * units * taps * (taps + 2 * num_kernels) > MAX_BYTES:
        return "direct"
    products = float(num_samples * math.prod(output_shape) * taps)
    epoch = 2 * products * num_kernels
    making = OF_MAKING * products * taps
    expanding = OF_EXPANDING * units * taps * taps * num_kernels
    # The first epoch reads the pixels in any case.
    from_statistics = epoch + making + num_epochs * expanding
    return "statistics" if from_statistics < num_epochs * epoch else "direct"
