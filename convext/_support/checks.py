"""Checks of arguments: each names the argument, what was expected and what came."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard, cast

import numpy as np
import numpy.typing as npt

from .large_arrays import ahead

RealArray: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

# The largest size that is still an exact index on every platform.
LARGEST_SIZE = int(np.iinfo(np.intp).max)

# About how many elements of an array are gone through at a time.
_BLOCK = 1 << 20


def real_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type, float32 or float64, in which values of `dtype` are computed."""
    if dtype is FLOAT64 or dtype.kind in "biu":
        return FLOAT64
    if dtype.kind == "f" and dtype.itemsize <= 8:
        return FLOAT64 if dtype.itemsize == 8 else FLOAT32
    raise TypeError(
        f"{name} must hold real numbers (float16, float32, float64, integers or bool), got {dtype}"
    )


def as_array(name: str, value: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return `value` as an array, not copied where it already is one."""
    if type(value) is np.ndarray:
        return value
    check_not_masked(name, value)
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (str, os.PathLike)):
        raise TypeError(
            f"{name} must hold real numbers, got a {type(value).__name__} of names: for several "
            "files, give a pattern that matches them, such as 'x-*.npy'"
        )
    if isinstance(value, Mapping):  # as a file of h5py is
        raise TypeError(
            f"{name} must be one array, got a {type(value).__name__} with names: choose one of it"
        )
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} cannot be made into one array: {error}") from None


def check_not_masked(name: str, value: object) -> None:
    """Raise ValueError where an array, or one in a list, has elements that its mask hides.

    NumPy would take the values under the mask, of which nobody knows what they are.
    """
    if isinstance(value, np.ndarray):
        if hidden := np.count_nonzero(getattr(value, "mask", False)):
            raise ValueError(
                f"{name} has {hidden} masked elements, whose values do not count: choose some, as "
                f"in {name}.filled(0); only solve_kernels and PatchStatistics can leave them out"
            )
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            if isinstance(part, (list, tuple, np.ndarray)):
                check_not_masked(f"{name}[{i}]", part)


def as_numeric_array(name: str, value: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return `value` as an array of real numbers, not copied where it already is one."""
    array = as_array(name, value)
    real_dtype(name, array.dtype)
    return array


def common_dtype(**dtypes: np.dtype[Any] | None) -> np.dtype[Any]:
    """Return float32 when arrays of all these types are computed in float32, else float64.

    None is the type of an array that is not given.
    """
    computed = [real_dtype(name, dtype) for name, dtype in dtypes.items() if dtype is not None]
    return FLOAT32 if all(dtype == FLOAT32 for dtype in computed) else FLOAT64


def as_dtype(
    array: npt.NDArray[Any], dtype: np.dtype[Any], *, contiguous: bool = False
) -> RealArray:
    """Return `array` in `dtype`, native byte order and aligned; copied only when it is not so."""
    as_it_is = array.dtype is dtype and array.flags.aligned
    if as_it_is and (not contiguous or array.flags.c_contiguous):
        return array  # numpy.require would find the same, in ten times the time
    return np.require(array, dtype, ["C", "A"] if contiguous else ["A"])


def as_float64(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return `array` in float64, native byte order and aligned; copied only when it is not so."""
    return cast("npt.NDArray[np.float64]", as_dtype(array, FLOAT64))


def check_dimensions(
    name: str, shape: tuple[int, ...], layouts: dict[int, str], *, empty_batch: bool = False
) -> None:
    """Raise ValueError unless `shape` has a number of dimensions in `layouts`, none of size 0.

    With `empty_batch`, N may be 0.
    """
    if len(shape) not in layouts:
        expected = " or ".join(layouts.values())
        raise ValueError(
            f"{name} must have the shape {expected}, got {len(shape)} dimensions (shape {shape})"
            f"{_what_is_missing(name, len(shape), min(layouts))}"
        )
    first = 1 if empty_batch and len(shape) == 4 else 0
    if 0 in shape[first:]:
        axis_name = layouts[len(shape)].strip("()").split(", ")[shape.index(0, first)]
        raise ValueError(f"{name} is empty: {axis_name} is 0 in its shape {shape}")


def _what_is_missing(name: str, dimensions: int, fewest: int) -> str:
    """Return how an array of at least two dimensions gets those that it lacks."""
    if not 2 <= dimensions < fewest:
        return ""
    array = name if name.isidentifier() else "array"
    ways = {(2, 3): ["None"], (2, 4): ["None, None"]}.get((dimensions, fewest), ["None", ":, None"])
    return ": sizes that are missing are 1, as in " + " or ".join(f"{array}[{w}]" for w in ways)


def shown(value: object) -> str:
    """Return what came, for a message: of a large array its shape, not its numbers."""
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"an array of shape {value.shape}"
    return repr(value)


def integer(name: str, value: object, *, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`; floats, even whole ones, are a TypeError."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{name} must be an integer, got {shown(value)} ({type(value).__name__})"
        ) from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    if number > LARGEST_SIZE:
        raise ValueError(f"{name} is too large: {number} (at most {LARGEST_SIZE})")
    return number


def boolean(name: str, value: object) -> bool:
    """Return a bool, or 0 or 1, as a bool; all else, such as "no", is a TypeError."""
    if not isinstance(value, (int, np.integer, np.bool_)) or value not in (0, 1):
        raise TypeError(
            f"{name} must be True or False, got {shown(value)} ({type(value).__name__})"
        )
    return bool(value)


def _has_length(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def integer_pair(name: str, value: object, *, minimum: int) -> tuple[int, int]:
    """Return an int, or a pair of ints for height and width, as a pair."""
    if _has_length(value):
        if len(value) != 2:
            raise ValueError(
                f"{name} must be an integer or a pair (height, width), got {shown(value)}"
            )
        return (
            integer(f"{name}[0]", value[0], minimum=minimum),
            integer(f"{name}[1]", value[1], minimum=minimum),
        )
    number = integer(name, value, minimum=minimum)
    return number, number


def as_kernel_shape(value: object) -> tuple[int, int]:
    """Return the height and width of kernels; one number is both."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        value = (value, value)
    height, width = shape_of_length("kernel_shape", value, {2: "an integer or (kh, kw)"})
    return height, width


def shape_of_length(
    name: str, value: object, layouts: dict[int, str], *, empty_batch: bool = False
) -> tuple[int, ...]:
    """Return `value` as a tuple of positive sizes whose length is a key of `layouts`.

    With `empty_batch`, N may be 0.
    """
    expected = " or ".join(layouts.values())
    if not _has_length(value):
        raise TypeError(f"{name} must be {expected}, got {shown(value)} ({type(value).__name__})")
    if len(value) not in layouts:
        raise ValueError(f"{name} must be {expected}, got {shown(value)}")
    of_batch = 0 if empty_batch and len(value) == 4 else None
    shape = tuple(
        integer(f"{name}[{i}]", size, minimum=0 if i == of_batch else 1)
        for i, size in enumerate(value)
    )
    check_size(name, shape)
    return shape


def check_size(name: str, shape: tuple[int, ...], itemsize: int = 8) -> None:
    """Raise ValueError when an array of `shape` could not be addressed."""
    size = itemsize * math.prod(shape)
    if size > LARGEST_SIZE:
        raise ValueError(f"{name} would be too large: shape {shape} needs {size} bytes")


def finite_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    minimum: float = -math.inf,
    maximum: float = math.inf,
) -> float:
    """Return `value` as a finite float within the limits; text and bool are a TypeError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {shown(value)} ({type(value).__name__})")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ValueError(f"{name} must be finite, got {value!r}")
    limits = {"above": above, "below": below, "at least": minimum, "at most": maximum}
    if not (above < result < below and minimum <= result <= maximum):
        expected = " and ".join(f"{k} {v:g}" for k, v in limits.items() if math.isfinite(v))
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return result


def one_of(name: str, value: object, allowed: Collection[str]) -> str:
    """Return `value`, which must be one of the names that are allowed."""
    if isinstance(value, str) and value in allowed:
        return value
    *others, last = map(repr, allowed)
    expected = f"{', '.join(others)} or {last}"
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {expected}, got {type(value).__name__}")
    raise ValueError(f"{name} must be {expected}, got {value!r}")


def check_finite(name: str, array: npt.NDArray[Any], start: int = 0) -> None:
    """Raise ValueError when `array` contains NaN or infinity; say how many, and where first.

    Its samples are those of a larger array from `start` on.
    """
    if array.dtype.kind != "f":
        return
    count, first = 0, None
    for begin, block in samples_in_blocks(array):
        bad = ~np.isfinite(block)
        if bad.any():
            count += int(np.count_nonzero(bad))
            if first is None:
                position = np.unravel_index(int(np.argmax(bad)), bad.shape)
                first = (begin + int(position[0]), *(int(i) for i in position[1:]))
    if first is not None:
        value, first = array[first], (start + first[0], *first[1:])
        raise ValueError(
            f"{name} contains {count} values that are NaN or infinite, the first at {first} "
            f"({value})"
        )


def samples_in_blocks(array: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Return the samples in blocks, each with the index of its first."""
    samples = max(1, _BLOCK // math.prod(array.shape[1:]))
    starts = range(0, len(array), samples)
    return ahead(((begin, array[begin : begin + samples]) for begin in starts), array)
