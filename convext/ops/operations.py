"""Convolution and its gradients.

Convolution here is cross-correlation, as in every deep-learning library: the kernels are not
flipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.checks import (
    RealArray,
    as_array,
    as_dtype,
    as_numeric_array,
    check_not_masked,
)
from ..config import resolve_num_threads
from ..gradient import _differentiation
from ..ways import _convolution
from .losses import mse_loss_gradient
from .plans import (
    Given,
    Options,
    Plan,
    plan_conv2d,
    plan_input_grad,
    plan_kernel_grad,
    remembering,
)
from .prepared import PreparedKernels, check_bias
from .shapes import Padding, Pair, Shape

# What is told apart from options that come with prepared kernels.
_NOT_GIVEN = Options()


def conv2d(
    input_data: npt.ArrayLike,
    kernels: npt.ArrayLike | PreparedKernels,
    *,
    bias: npt.ArrayLike | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    algorithm: str = "auto",
    out: RealArray | None = None,
    num_threads: int | None = None,
) -> RealArray:
    """Convolve images with kernels.

    Parameters
    ----------
    input_data : array_like, (C, H, W) or (N, C, H, W)
        One image, or N of them (N may be 0), of C channels.
    kernels : array_like, (K, C/groups, kh, kw), or PreparedKernels
        K kernels; they are not flipped (this is cross-correlation). Kernels from
        `prepare_kernels` bring their bias, stride, padding, dilation, groups and algorithm with
        them.
    bias : array_like, (K,), optional
        Added to the result, one number for each kernel.
    stride : int or (int, int), default 1
        Pixels from one window to the next, down and across.
    padding : int, (int, int), ((int, int), (int, int)), "valid" or "same", default 0
        Zeros around the image: on every side; above and below, left and right;
        ((top, bottom), (left, right)). "valid" is 0; "same" pads so that the result has
        ceil(H / stride) rows and ceil(W / stride) columns, the odd zero below and on the right.
    dilation : int or (int, int), default 1
        Pixels from one tap of a kernel to the next, down and across.
    groups : int, default 1
        How many groups channels and kernels are shared out to; each kernel sees the channels of
        its group alone. ``groups=C`` is the depthwise convolution.
    algorithm : str, default "auto"
        How to compute it. "auto" takes the way that is predicted to take the least time for these
        shapes (`explain` shows it), but never where the data are such that it is not exact, see
        below. Each can be asked for by its name:

        - "direct": the sums as they are defined;
        - "winograd": kernels of 3x3 to 9x9 with stride 1, of 3x3 and 5x5 with stride 2, and
          dilation 1, in about a third of the multiplications (with stride 2, a half), rounding
          about twice as much;
        - "fft": transforms of tiles of the image, for large kernels;
        - "separable": down the columns, then along the rows, where all kernels see one channel
          each and are separable to rounding (Gaussian, box, Sobel), with stride and dilation 1;
        - "depthwise": where all kernels see one channel each, of 64 taps at most;
        - "shifted_sums": few kernels over many channels, with stride 1.
    out : numpy.ndarray, optional
        Where to write the result: C-contiguous, of the result's shape and type, not overlapping
        an argument.
    num_threads : int, optional
        Default: `get_num_threads`. The result has the same bits for any number.

    Returns
    -------
    numpy.ndarray, (K, OH, OW) or (N, K, OH, OW)
        `out` where given. float32 when all arrays are float32 (or float16), else float64.

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or an option has the wrong type.
    ValueError
        If shapes do not fit each other, an option is out of range, or the algorithm cannot compute
        this convolution.

    See Also
    --------
    conv2d_kernel_grad, conv2d_input_grad : The gradients.
    prepare_kernels : For many convolutions with the same kernels.
    explain : The ways of computing it, and the one that "auto" takes.

    Notes
    -----
    The values of the arrays, their shapes and types, the options and the instruction set decide
    every bit of the result: not the number of threads, nor how the arrays lie in memory, nor
    whether the kernels were prepared. With "auto", values decide where transforms are exact
    enough, and whether kernels are separable; all else that it chooses by are shapes and types.

    With "auto", as with "direct", NaN and infinity reach the results whose windows cover them and
    no others, and so do outliers: the error of a result is at most 32 eps times the norms (roots
    of the sums of squares) of the pixels under its window and of its kernel; "direct" stays below
    3 eps times these on random data. Rows of tiles in which transforms might round more are
    computed directly, and so is everything where kernels are not finite. (Under a large kernel
    that reaches beyond the image by more than a half, the pixels of the nearest half window
    count.)

    "winograd" and "fft" do what they are asked for: all results of a tile, of up to 4x4 or of up
    to 512x512 and twice as many, share the errors of the largest, and NaN and infinity.

    Zeros of the padding may be left out: where a weight that is not finite meets no pixel, the
    result may be finite, or NaN.

    References
    ----------
    A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.

    J. W. Cooley and J. W. Tukey, "An algorithm for the machine calculation of complex Fourier
    series", Mathematics of Computation 19, 1965.

    Examples
    --------
    >>> import numpy as np
    >>> import convext
    >>> image = np.arange(9.0).reshape(1, 3, 3)
    >>> edges = np.array([[[[-1.0, 1.0]]]])
    >>> convext.conv2d(image, edges)
    array([[[1., 1.],
            [1., 1.],
            [1., 1.]]])
    """
    options: Given = (stride, padding, dilation, groups, algorithm)
    kept = None
    if isinstance(kernels, PreparedKernels):
        prepared = kernels
        check_not_given(bias, options)
        kernels, bias, kept = prepared.kernels, prepared.bias, prepared._kept
        options = prepared._options
    images = as_array("input_data", input_data)
    weights = as_array("kernels", kernels)
    offsets = None if bias is None else as_array("bias", bias)
    shape, dtype, geometry, number = remembering(plan_conv2d, options)(
        images.shape,
        images.dtype,
        weights.shape,
        weights.dtype,
        None if offsets is None else offsets.dtype,
        options,
    )
    threads = resolve_num_threads(num_threads)
    if offsets is not None:
        check_bias(offsets, weights.shape[0])
    if out is None:
        out = np.empty(shape, dtype)
    else:
        _check_out(out, shape, dtype, {"input_data": images, "kernels": weights, "bias": offsets})
    _convolution.conv2d(
        as_dtype(images, dtype),
        as_dtype(weights, dtype),
        None if offsets is None else as_dtype(offsets, dtype, contiguous=True),
        out,
        geometry,
        threads,
        kept,
        number,
    )
    return out


def conv2d_kernel_grad(
    input_data: npt.ArrayLike,
    output_grad: npt.ArrayLike,
    kernel_shape: Pair,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> RealArray:
    """Return the gradient of a loss with respect to the kernels of a convolution.

    Parameters
    ----------
    input_data : array_like, (C, H, W) or (N, C, H, W)
        The images that were convolved.
    output_grad : array_like, (K, OH, OW) or (N, K, OH, OW)
        The gradient of the loss with respect to the result of `conv2d`.
    kernel_shape : int or (int, int)
        Height and width of the kernels, (kh, kw); one number is both.
    stride, padding, dilation, groups, num_threads
        As given to `conv2d`.
    algorithm : "auto", "direct", "winograd" or "depthwise", default "auto"
        As for `conv2d`; but "winograd" is for 3x3 kernels with stride and dilation 1 alone.

    Returns
    -------
    numpy.ndarray, (K, C/groups, kh, kw)
        Summed over the samples: zero where there are none. float32 when both arrays are float32 (or
        float16), else float64.

    Raises
    ------
    TypeError, ValueError
        As `conv2d` does.

    Notes
    -----
    The sums over pixels are taken in blocks, which are added in float64.

    With "auto", as with "direct", NaN and infinity reach the taps that meet them and no others.
    "winograd" spreads them over all nine taps, of the same channels and kernels, whose errors are
    relative to the largest; "auto" does not take it where a few pixels, or output gradients,
    outweigh the others that all taps meet.

    Examples
    --------
    >>> import numpy as np
    >>> import convext
    >>> image = np.arange(9.0).reshape(1, 3, 3)
    >>> convext.conv2d_kernel_grad(image, np.ones((1, 2, 2)), (2, 2))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    images = as_array("input_data", input_data)
    gradients = as_array("output_grad", output_grad)
    options = (stride, padding, dilation, groups, algorithm)
    make = remembering(plan_kernel_grad, options, kernel_shape)
    compute = _differentiation.conv2d_kernel_grad
    return _gradient(make, compute, images, gradients, kernel_shape, options, num_threads)


def conv2d_input_grad(
    output_grad: npt.ArrayLike,
    kernels: npt.ArrayLike,
    input_shape: tuple[int, ...],
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> RealArray:
    """Return the gradient of a loss with respect to the input of a convolution.

    Parameters
    ----------
    output_grad : array_like, (K, OH, OW) or (N, K, OH, OW)
        The gradient of the loss with respect to the result of `conv2d`.
    kernels : array_like, (K, C/groups, kh, kw)
        The kernels of the convolution.
    input_shape : (C, H, W) or (N, C, H, W)
        The shape of the input; N may be left out where `output_grad` has it.
    stride, padding, dilation, groups, algorithm, num_threads
        As given to `conv2d`.

    Returns
    -------
    numpy.ndarray, (C, H, W) or (N, C, H, W)
        float32 when both arrays are float32 (or float16), else float64.

    Raises
    ------
    TypeError, ValueError
        As `conv2d` does.

    Examples
    --------
    >>> import numpy as np
    >>> import convext
    >>> kernel = np.array([[[[1.0, 2.0]]]])
    >>> convext.conv2d_input_grad(np.ones((1, 1, 3)), kernel, (1, 1, 4))
    array([[[1., 3., 3., 2.]]])
    """
    gradients = as_array("output_grad", output_grad)
    weights = as_array("kernels", kernels)
    options = (stride, padding, dilation, groups, algorithm)
    make = remembering(plan_input_grad, options, input_shape)
    compute = _convolution.conv2d_input_grad
    return _gradient(make, compute, gradients, weights, input_shape, options, num_threads)


def _gradient(
    make: Callable[..., Plan],
    compute: Callable[..., None],
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    sizes: object,
    options: Given,
    num_threads: int | None,
) -> RealArray:
    """Return the gradient that `compute` writes, for two arrays and what `make` plans for them."""
    shape, dtype, geometry, number = make(
        first.shape, first.dtype, second.shape, second.dtype, sizes, options
    )
    threads = resolve_num_threads(num_threads)
    result: RealArray = np.empty(shape, dtype)
    compute(as_dtype(first, dtype), as_dtype(second, dtype), result, geometry, threads, number)
    return result


def conv2d_backprop(
    input_data: npt.ArrayLike,
    kernels: npt.ArrayLike,
    target_output: npt.ArrayLike,
    R: npt.ArrayLike,  # noqa: N803  (the textbook's name)
    *,
    algorithm: str = "auto",
) -> RealArray:
    """Return the gradient of the mean squared error with respect to the kernels.

    Parameters
    ----------
    input_data : array_like, (C, H, W) or (N, C, H, W)
        The images that were convolved.
    kernels : array_like, (K, C, kh, kw)
        The kernels.
    target_output : array_like, (K, OH, OW) or (N, K, OH, OW)
        What the convolution should give.
    R : array_like, of the same shape
        What it gives: ``conv2d(input_data, kernels)``.
    algorithm : "auto", "direct", "winograd" or "depthwise", default "auto"
        As given to `conv2d_kernel_grad`.

    Returns
    -------
    numpy.ndarray, (K, C, kh, kw)
        The gradient of ``mse_loss(R, target_output)``.

    Raises
    ------
    TypeError, ValueError
        As `conv2d` does.

    Examples
    --------
    One step of gradient descent:

    >>> import numpy as np
    >>> import convext
    >>> image, target = np.ones((1, 3, 3)), np.full((1, 2, 2), 4.0)
    >>> kernels = np.zeros((1, 1, 2, 2))
    >>> R = convext.conv2d(image, kernels)
    >>> kernels -= 0.125 * convext.conv2d_backprop(image, kernels, target, R)
    >>> convext.conv2d(image, kernels)
    array([[[4., 4.],
            [4., 4.]]])
    """
    images = as_array("input_data", input_data)
    weights = as_array("kernels", kernels)
    expected = plan_conv2d(
        images.shape, images.dtype, weights.shape, weights.dtype, None, Options()
    ).shape
    arrays = {"R": R, "target_output": target_output}
    predicted, target = (as_numeric_array(name, array) for name, array in arrays.items())
    for name, array in (("R", predicted), ("target_output", target)):
        if array.shape != expected:
            raise ValueError(f"{name} must have the shape {expected}, got {array.shape}")
    gradient = mse_loss_gradient(predicted, target)
    return conv2d_kernel_grad(images, gradient, weights.shape[2:], algorithm=algorithm)


def check_not_given(bias: object, options: Given) -> None:
    """Raise ValueError where prepared kernels come with options that they have already."""
    if bias is None and options == _NOT_GIVEN:
        return
    pairs = zip(options, _NOT_GIVEN, strict=True)
    differ = [bias is not None, *(value != default for value, default in pairs)]
    name = ("bias", *Options._fields)[differ.index(True)]
    raise ValueError(
        f"{name} is part of prepared kernels: give it to prepare_kernels, not to conv2d"
    )


def _check_out(
    out: RealArray,
    shape: Shape,
    dtype: np.dtype[Any],
    arrays: dict[str, npt.NDArray[Any] | None],
) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy.ndarray, got {type(out).__name__}")
    check_not_masked("out", out)
    if out.dtype != dtype or not out.dtype.isnative:
        raise TypeError(f"out must be of type {dtype}, the result's, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have the shape {shape}, got {out.shape}")
    if not out.flags.c_contiguous or not out.flags.aligned:
        raise ValueError("out must be C-contiguous and aligned")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    for name, array in arrays.items():
        if array is not None and np.may_share_memory(out, array):
            raise ValueError(f"out overlaps {name}, which would be overwritten while it is read")
