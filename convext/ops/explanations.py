"""How an operation would be computed, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import wrap
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from .._support.checks import as_dtype, as_numeric_array, check_dimensions, one_of, shape_of_length
from ..config import resolve_num_threads
from ..gradient import _differentiation
from ..ways import _convolution
from .plans import Options, plan_conv2d
from .shapes import IMAGES, KERNELS, Padding, Pair, Shape

Operation: TypeAlias = Literal["conv2d", "conv2d_input_grad", "conv2d_kernel_grad"]

WIDTH = 79


class Way(NamedTuple):
    """One way of computing an operation."""

    name: str
    applies: bool  # at least where `algorithm` asks for it
    reason: str | None  # why it does not, or why "auto" does not take it
    time: float | None  # in multiply-adds of the direct way
    num_threads: int
    scratch_per_thread: int  # bytes
    scratch_shared: int

    @property
    def scratch(self) -> int:
        """Bytes of scratch memory in all."""
        return self.num_threads * self.scratch_per_thread + self.scratch_shared


class Explanation(NamedTuple):
    """What `convext.explain` returns; it prints as a table.

    Its attributes cannot be set. Threads may share it.

    Attributes
    ----------
    operation : str
        As it was given.
    input_shape, kernel_shape, output_shape : tuple of int
        The shapes of the arrays, (N, C, H, W), (K, C/groups, kh, kw) and (N, K, OH, OW).
    dtype : str
        "float32" or "float64".
    taken : str
        The name of the way that "auto" takes. What it would not compute exactly enough, as where
        there are NaN or outliers, is computed directly (see `conv2d`).
    ways : tuple of Way
        All that there are. Each has a `name`; whether it `applies`; the `reason` why it does not,
        or why "auto" does not take it, else None; the predicted `time`, in multiply-adds of the
        direct way, or None; `num_threads`; and, in bytes, `scratch_per_thread`, `scratch_shared`
        and `scratch`, which is all of it.
    """

    operation: str
    input_shape: Shape
    kernel_shape: Shape
    output_shape: Shape
    dtype: str
    taken: str
    ways: tuple[Way, ...]

    def __repr__(self) -> str:
        return "\n".join(table(self))


def explain(
    operation: Operation,
    input_data: npt.ArrayLike,
    kernels: npt.ArrayLike,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    dtype: npt.DTypeLike = np.float64,
    num_threads: int | None = None,
) -> Explanation:
    """Say which ways of computing a convolution there are, and which one "auto" takes.

    Nothing is convolved.

    Parameters
    ----------
    operation : "conv2d", "conv2d_input_grad" or "conv2d_kernel_grad"
        What is to be computed.
    input_data : tuple of int, (C, H, W) or (N, C, H, W), or array_like of that shape
        The shape of the input, for the gradients, too; or the input itself.
    kernels : tuple of int, (K, C/groups, kh, kw), or array_like of that shape
        The same of the kernels. Whether they are separable is known of an array alone.
    stride, padding, dilation, groups, num_threads
        As given to `conv2d`.
    dtype : float32 or float64, default float64
        The type of what is given as a shape.

    Returns
    -------
    Explanation
        Print it, or see its attributes.

    Raises
    ------
    TypeError, ValueError
        As `conv2d` does; and where there are no samples.

    See Also
    --------
    conv2d : Its `algorithm` asks for a way by its name.

    Examples
    --------
    >>> import convext
    >>> found = convext.explain("conv2d", (64, 56, 56), (64, 64, 3, 3), padding=1)
    >>> found.taken
    'winograd'
    >>> [way.name for way in found.ways if way.applies]
    ['winograd', 'fft', 'shifted_sums', 'direct']
    """
    one_of("operation", operation, get_args(Operation))
    input_shape, input_dtype, _ = _described("input_data", input_data, IMAGES, dtype)
    kernel_shape, kernel_dtype, values = _described("kernels", kernels, KERNELS, dtype)
    options = Options(stride, padding, dilation, groups)
    plan = plan_conv2d.__wrapped__(
        input_shape, input_dtype, kernel_shape, kernel_dtype, None, options
    )
    shapes = (1, *input_shape)[-4:], kernel_shape, (1, *plan.shape)[-4:]
    how = plan.geometry, resolve_num_threads(num_threads), plan.dtype.itemsize
    if operation == "conv2d_kernel_grad":
        rows, taken = _differentiation.explain(*shapes, *how)
    else:
        number = get_args(Operation).index(operation)
        array = None if values is None else as_dtype(values, plan.dtype)
        rows, taken = _convolution.explain(number, *shapes, *how, array)
    ways = tuple(Way(*row) for row in rows)
    return Explanation(operation, *shapes, plan.dtype.name, ways[taken].name, ways)


def _described(
    name: str, given: npt.ArrayLike, layouts: dict[int, str], dtype: npt.DTypeLike
) -> tuple[Shape, np.dtype[np.generic], npt.NDArray[np.generic] | None]:
    """Return shape, type and, where it is an array, what was given."""
    if isinstance(given, (tuple, list)) and not any(hasattr(part, "__len__") for part in given):
        return shape_of_length(name, given, layouts), np.dtype(dtype), None
    array = as_numeric_array(name, given)
    check_dimensions(name, array.shape, layouts)
    return array.shape, array.dtype, array


# What is said below the table, and between its columns.
LEGEND = (
    '*: what "auto" takes. M: millions of multiply-adds of the direct way, as predicted. '
    "x: beside the way that is taken. Then threads, and scratch memory of all."
)
IMPOSSIBLE = "does not apply:"
BY_NAME = "by its name alone:"


def table(
    explanation: Explanation,
    in_words: Callable[[str], str] = str,
    broken: Callable[[str, int], list[str]] = wrap,
    width: int = WIDTH,
) -> Iterator[str]:
    """Yield the lines of a table, in the language of `in_words`, broken to the width."""
    shapes = " ".join(
        str(shape).replace(" ", "")
        for shape in (explanation.input_shape, explanation.kernel_shape, explanation.output_shape)
    )
    yield from broken(f"{explanation.operation} {explanation.dtype} {shapes}", width)
    best = next(way.time for way in explanation.ways if way.name == explanation.taken) or 1
    for way in explanation.ways:
        row = f"{'*' if way.name == explanation.taken else ' '} {way.name:<12} "
        if way.time is not None:
            row += f"{way.time / 1e6:10.3f} M {way.time / best:7.2f} x"
            row += f"{way.num_threads:4} {_bytes(way.scratch):>9}"
        yield row.rstrip()
        if way.reason is not None:
            why = in_words(BY_NAME if way.applies else IMPOSSIBLE)
            for line in broken(f"{why} {in_words(way.reason)}", width - 4):
                yield f"    {line}"
    yield from broken(in_words(LEGEND), width)


def _bytes(count: int) -> str:
    return f"{count / 1024:.0f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"
