"""What is to be found: kernels, perhaps with biases, of a convolution."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .._support.checks import (
    as_float64,
    as_kernel_shape,
    as_numeric_array,
    finite_number,
    integer,
    integer_pair,
)
from .._support.messages import format_size
from ..ops.shapes import Convolution, Padding, Pair, Shape, edges_of, resolve
from .least_squares import Matrix
from .masks import Data


class Unknowns:
    """The numbers of all kernels, and the convolution that these are of.

    Weights hold them: a row for each kernel, its taps and, where there is a bias, that.
    """

    def __init__(
        self,
        num_channels: int,
        num_kernels: int,
        kernel_shape: Pair,
        bias: bool,
        stride: Pair,
        padding: Padding,
        dilation: Pair,
    ) -> None:
        self.num_channels = integer("num_channels", num_channels, minimum=1)
        self.num_kernels = integer("num_kernels", num_kernels, minimum=1)
        self.kernel_shape = as_kernel_shape(kernel_shape)
        if not isinstance(bias, (bool, np.bool_)):
            raise TypeError(f"bias must be True or False, got {bias!r} ({type(bias).__name__})")
        self.bias = bool(bias)
        self.stride = integer_pair("stride", stride, minimum=1)
        self.padding = edges_of(padding)
        self.dilation = integer_pair("dilation", dilation, minimum=1)

    @property
    def num_taps(self) -> int:
        """How many taps a kernel has."""
        return self.num_channels * math.prod(self.kernel_shape)

    @property
    def of_kernel(self) -> int:
        """How many numbers a kernel has, its bias included."""
        return self.num_taps + self.bias

    def convolution(self, input_shape: Shape) -> Convolution:
        """Return the convolution of inputs (..., H, W)."""
        return resolve(
            input_shape,
            self.kernel_shape,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=1,
        )

    def resolve(self, data: Data) -> Convolution:
        """Return the convolution of the inputs, if its results are like the targets."""
        input_shape, target_shape = data.inputs.shape, data.targets.shape
        if input_shape[1] != self.num_channels:
            raise ValueError(
                f"input_data must have {self.num_channels} channels, got {input_shape[1]} "
                f"(shape {input_shape})"
            )
        options = self.convolution(input_shape)
        expected = (input_shape[0], self.num_kernels, *options.output_shape)
        if target_shape != expected:
            raise ValueError(
                f"target_output must have the shape {expected} for {self.num_kernels} kernels of "
                f"{format_size(self.kernel_shape)} on input_data of shape "
                f"{input_shape}, got {target_shape}"
            )
        return options

    def joined(self, kernels: npt.ArrayLike, bias: npt.ArrayLike | None) -> Matrix:
        """Return kernels and bias, which may be wrong, as weights."""
        weights = as_float64(as_numeric_array("kernels", kernels))
        expected = (self.num_kernels, self.num_channels, *self.kernel_shape)
        if weights.shape != expected:
            raise ValueError(f"kernels must have the shape {expected}, got {weights.shape}")
        flat = weights.reshape(self.num_kernels, -1)
        if not self.bias:
            if bias is not None:
                raise ValueError("bias was given, but the statistics were made without one")
            return flat
        offsets = np.zeros(self.num_kernels)
        if bias is not None:
            offsets = as_float64(as_numeric_array("bias", bias))
        if offsets.shape != (self.num_kernels,):
            raise ValueError(f"bias must have the shape {(self.num_kernels,)}, got {offsets.shape}")
        return np.column_stack([flat, offsets])

    def split(self, weights: Matrix) -> tuple[Matrix, Matrix | None]:
        """Return weights as kernels (K, C, kh, kw) and bias (K,)."""
        taps = weights[:, : self.num_taps]
        kernels = taps.reshape(-1, self.num_channels, *self.kernel_shape).copy()
        return kernels, weights[:, -1].copy() if self.bias else None

    def ridge(self, l2: float, size: int) -> Matrix:
        """Return what is added to the diagonal of G, for all taps, but nothing for the bias."""
        ridge = np.full(self.of_kernel, finite_number("l2", l2, minimum=0) * size)
        ridge[self.num_taps :] = 0
        return ridge
