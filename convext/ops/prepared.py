"""Kernels prepared once for many convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.checks import (
    RealArray,
    as_numeric_array,
    check_dimensions,
    common_dtype,
    integer,
    integer_pair,
    shape_of_length,
)
from ..ways import _convolution
from .plans import Options, Plan, plan_conv2d, remembering
from .shapes import IMAGES, KERNELS, Padding, Pair, Shape

# Results of a row that no way finds too few, on any instruction set.
_WIDE = 64


class PreparedKernels:
    """Kernels, their bias and the options of a convolution, made by `prepare_kernels`.

    `convext.conv2d` takes it in place of kernels. It holds copies: nothing done later to the arrays
    that it was made from changes it, and its attributes cannot be set. Threads may share it. Copies
    and pickles hold the kernels and options, but not what was made of them.

    Attributes
    ----------
    kernels : numpy.ndarray, (K, C/groups, kh, kw)
        The kernels, read-only.
    bias : numpy.ndarray, (K,), or None
        The bias, read-only.
    stride, padding, dilation, groups, algorithm
        As they were given.
    """

    kernels: RealArray
    bias: RealArray | None
    stride: Pair
    padding: Padding
    dilation: Pair
    groups: int
    algorithm: str
    _options: Options
    # What the compiled code made of them, for each type and layout that was asked for.
    _kept: dict[object, object]

    def __init__(
        self, kernels: RealArray, bias: RealArray | None, *options: Any, **named: Any
    ) -> None:
        given = Options(*options, **named)
        self.__setstate__({"kernels": kernels, "bias": bias, **given._asdict()})

    def __setstate__(self, state: dict[str, Any]) -> None:
        for array in (state["kernels"], state["bias"]):
            if array is not None:
                array.flags.writeable = False
        options = Options(*(state[name] for name in Options._fields))
        vars(self).update(state, _options=options, _kept={})

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name[0] != "_"}

    def __setattr__(self, name: str, value: object) -> None:
        if name in PreparedKernels.__annotations__:  # what was made of the kernels would not fit
            raise AttributeError(f"{name} cannot be set: prepare the kernels anew")
        super().__setattr__(name, value)

    @property
    def shape(self) -> Shape:
        """The shape of the kernels, (K, C/groups, kh, kw)."""
        return self.kernels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the kernels, float32 or float64."""
        return self.kernels.dtype

    def __repr__(self) -> str:
        given = [] if self.bias is None else ["bias"]
        for (name, usual), value in zip(
            Options._field_defaults.items(), self._options, strict=True
        ):
            if value != usual:
                given.append(f"{name}={value!r}")
        return f"<PreparedKernels {', '.join([f'{self.shape} {self.dtype}', *given])}>"

    def plan(self, input_shape: Shape, dtype: np.dtype[Any]) -> Plan:
        """Return what `conv2d` does with them, for images of a shape and type."""
        bias = None if self.bias is None else self.bias.dtype
        make = remembering(plan_conv2d, self._options)
        return make(input_shape, dtype, self.shape, self.dtype, bias, self._options)

    def _prepare_for(self, input_shape: Shape) -> None:
        shape, _, geometry, algorithm = self.plan(input_shape, self.dtype)
        shapes = (1, *input_shape)[-4:], (1, *shape)[-4:]
        _convolution.keep_kernels(self.kernels, *shapes, geometry, self._kept, algorithm)


def prepare_kernels(
    kernels: npt.ArrayLike,
    input_shape: tuple[int, ...] | None = None,
    *,
    bias: npt.ArrayLike | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    algorithm: str = "auto",
) -> PreparedKernels:
    """Prepare kernels for many convolutions with them.

    `conv2d` reorders or transforms the kernels at every call, which can take longer than the
    convolution itself where images are small and kernels are many. Prepared kernels are reordered
    or transformed once.

    Parameters
    ----------
    kernels : array_like, (K, C/groups, kh, kw)
        K kernels. They are copied.
    input_shape : (C, H, W) or (N, C, H, W), optional
        The shape of the images to come: the kernels are then ready for the first of them. Images
        of other shapes may follow, too; without it, the first call prepares what it needs.
    bias : array_like, (K,), optional
        Added to the result, one number for each kernel. Copied, too.
    stride, padding, dilation, groups, algorithm
        As for `conv2d`, which then must not be given them again.

    Returns
    -------
    PreparedKernels
        To be given to `conv2d` in place of kernels.

    Raises
    ------
    TypeError, ValueError
        As `conv2d` does.

    Examples
    --------
    >>> import numpy as np
    >>> import convext
    >>> blur = convext.prepare_kernels(np.full((1, 1, 3, 3), 1 / 9), padding=1)
    >>> convext.conv2d(np.ones((1, 3, 3)), blur).round(2)
    array([[[0.44, 0.67, 0.44],
            [0.67, 1.  , 0.67],
            [0.44, 0.67, 0.44]]])
    """
    weights = as_numeric_array("kernels", kernels)
    check_dimensions("kernels", weights.shape, KERNELS)
    offsets = None if bias is None else check_bias(bias, weights.shape[0])
    groups = integer("groups", groups, minimum=1)
    dilations = integer_pair("dilation", dilation, minimum=1)
    dtype = common_dtype(kernels=weights.dtype, bias=None if offsets is None else offsets.dtype)
    prepared = PreparedKernels(
        np.array(weights, dtype, order="C"),
        None if offsets is None else np.array(offsets, dtype, order="C"),
        stride,
        padding,
        dilation,
        groups,
        algorithm,
    )
    if input_shape is None:
        # What is wrong with the options shows without images; with one, whether kernels are
        # separable.
        size = (
            (length - 1) * step + _WIDE
            for length, step in zip(weights.shape[2:], dilations, strict=True)
        )
        samples = 1 if algorithm == "separable" else 0
        prepared._prepare_for((samples, weights.shape[1] * groups, *size))
    else:
        prepared._prepare_for(shape_of_length("input_shape", input_shape, IMAGES, empty_batch=True))
    return prepared


def check_bias(bias: npt.ArrayLike, num_kernels: int) -> npt.NDArray[Any]:
    """Return the bias as an array of one real number for each kernel."""
    offsets = as_numeric_array("bias", bias)
    if offsets.shape != (num_kernels,):
        raise ValueError(
            f"bias must have the shape ({num_kernels},), one number for each kernel, "
            f"got {offsets.shape}"
        )
    return offsets
