"""Hypothesis strategies for complete, legal convolutions in every type and memory layout.

A `Case` is a description, so that a failing example prints in a few lines; its arrays are made
from its seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import reference
from hypothesis import strategies as st
from numpy.typing import NDArray

# Keeps the extended-precision reference to a few milliseconds.
MOST_PRODUCTS = 1_000_000

# What a view must not read: any use of it turns a result into NaN, or far off for integers.
POISON = {"f": np.nan, "i": 113, "u": 113, "b": True}

LAYOUTS = (
    "c_order",
    "fortran_order",
    "channels_last",
    "reversed",
    "stepped",
    "cropped",
    "broadcast_first",
    "broadcast_last",
    "unaligned",
    "off_by_one",
    "odd_singles",
    "read_only",
    "swapped_bytes",
)


def random_values(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return values of `dtype`, some of them exactly zero, whose products cannot overflow."""
    kind = np.dtype(dtype).kind
    if kind == "f":
        values = rng.standard_normal(shape)
        values[rng.random(shape) < 0.05] = 0
        return values.astype(dtype)
    if kind == "b":
        return rng.random(shape) < 0.6
    return rng.integers(0 if kind == "u" else -9, 10, shape).astype(dtype)


def _poisoned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.full(shape, POISON[dtype.kind], dtype)


def _stepped(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values as every second element of a larger array, along every axis."""
    view = _poisoned(tuple(2 * n + 1 for n in values.shape), values.dtype)
    view = view[tuple(slice(1, 2 * n + 1, 2) for n in values.shape)]
    view[...] = values
    return view


def _cropped(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values as the inside of a larger array: contiguous rows with a gap between."""
    view = _poisoned(tuple(n + 5 for n in values.shape), values.dtype)
    view = view[tuple(slice(2, n + 2) for n in values.shape)]
    view[...] = values
    return view


def _unaligned(values: NDArray[Any]) -> NDArray[Any]:
    view: NDArray[Any] = np.ndarray(
        values.shape, values.dtype, buffer=bytearray(values.nbytes + 1), offset=1
    )
    view[...] = values
    return view


def _off_by_one(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values one element beyond a cache line, or beyond where they would begin."""
    view = _poisoned((values.size + 1,), values.dtype)[1:].reshape(values.shape)
    view[...] = values
    return view


def _odd_singles(values: NDArray[Any]) -> NDArray[Any]:
    """Return a copy in which the axes of one element have strides that lead nowhere."""
    copy = values.copy()
    strides = [
        7 * copy.itemsize * (3 + axis) if size == 1 else stride
        for axis, (size, stride) in enumerate(zip(copy.shape, copy.strides, strict=True))
    ]
    view: NDArray[Any] = np.ndarray(copy.shape, copy.dtype, copy, strides=strides)
    return view


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    view = values.copy()
    view.setflags(write=False)
    return view


def lay_out(values: NDArray[Any], layout: str) -> NDArray[Any]:
    """Return the values in a memory layout; the broadcast ones repeat their first element."""
    backwards = (slice(None, None, -1),) * values.ndim
    views = {
        "c_order": lambda: np.ascontiguousarray(values),
        "fortran_order": lambda: np.asfortranarray(values),
        "channels_last": lambda: np.moveaxis(np.moveaxis(values, -3, -1).copy(), -1, -3),
        "reversed": lambda: values[backwards].copy()[backwards],
        "stepped": lambda: _stepped(values),
        "cropped": lambda: _cropped(values),
        "broadcast_first": lambda: np.broadcast_to(values[:1], values.shape),
        "broadcast_last": lambda: np.broadcast_to(values[..., :1], values.shape),
        "unaligned": lambda: _unaligned(values),
        "off_by_one": lambda: _off_by_one(values),
        "odd_singles": lambda: _odd_singles(values),
        "read_only": lambda: _read_only(values),
        "swapped_bytes": lambda: values.astype(values.dtype.newbyteorder("S")),
    }
    return views[layout]()


@dataclass(frozen=True)
class Case:
    """One convolution: all sizes and options, and how its arrays are made and stored."""

    input_shape: tuple[int, ...]
    kernels_shape: tuple[int, int, int, int]
    stride: Any
    padding: Any
    dilation: Any
    groups: int
    with_bias: bool
    dtypes: tuple[str, str, str]
    layouts: tuple[str, str, str]
    num_threads: int | None
    seed: int

    @property
    def options(self) -> dict[str, Any]:
        """Return the keywords that say which convolution it is."""
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    @property
    def kernel_shape(self) -> tuple[int, int]:
        return self.kernels_shape[2:]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Return the shape of the result, with N if the input has it."""
        size = reference.output_size(
            self.input_shape[-2:], self.kernel_shape, self.stride, self.padding, self.dilation
        )
        return (*self.input_shape[:-3], self.kernels_shape[0], *size)

    def _array(self, role: int, shape: tuple[int, ...]) -> NDArray[Any]:
        rng = np.random.default_rng((self.seed, role))
        return lay_out(random_values(rng, shape, self.dtypes[role]), self.layouts[role])

    @cached_property
    def input_data(self) -> NDArray[Any]:
        return self._array(0, self.input_shape)

    @cached_property
    def kernels(self) -> NDArray[Any]:
        return self._array(1, self.kernels_shape)

    @cached_property
    def output_grad(self) -> NDArray[Any]:
        return self._array(2, self.output_shape)

    @cached_property
    def bias(self) -> NDArray[Any] | None:
        """Return one value for each kernel in the kernels' type, or None."""
        if not self.with_bias:
            return None
        rng = np.random.default_rng((self.seed, 3))
        return random_values(rng, self.kernels_shape[:1], self.dtypes[1])


_SINGLE = ("float32", "float32", "float32", "float16")
_DOUBLE = ("float64", "float64", "float64", "int8", "uint8", "int64", "bool")


@st.composite
def _dtypes(draw: st.DrawFn, computed: str) -> tuple[str, str, str]:
    """Draw types of which any two are computed in `computed`."""
    if computed == "float32":
        return draw(st.tuples(*[st.sampled_from(_SINGLE)] * 3))
    dtypes = list(draw(st.tuples(*[st.sampled_from(_DOUBLE)] * 3)))
    # At most one array in single precision: with any other, the pair is mixed.
    if draw(st.booleans()):
        dtypes[draw(st.integers(0, 2))] = draw(st.sampled_from(_SINGLE))
    first, second, third = dtypes
    return first, second, third


def _one_or_pair(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    return st.one_of(numbers, st.tuples(numbers, numbers))


def _paddings() -> st.SearchStrategy[Any]:
    small, large = st.integers(0, 4), st.integers(5, 12)
    return st.one_of(
        st.just(0),
        st.sampled_from(["valid", "same"]),
        _one_or_pair(small),
        st.tuples(st.tuples(small, small), st.tuples(small, small)),
        _one_or_pair(large),
        st.tuples(st.tuples(large, small), st.tuples(small, large)),
    )


_kernel_sizes = st.one_of(st.integers(1, 4), st.integers(1, 7), st.integers(8, 11))

# Height and width: tiny, middling, rows of several vector tiles, and tall ones.
_image_sizes = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(8, 36), st.integers(8, 70)),
    st.tuples(st.integers(1, 5), st.integers(100, 300)),
    st.tuples(st.integers(50, 120), st.integers(1, 5)),
)

# Smallest and largest groups, channels in a group and kernels in a group.
_CHANNELS = {
    "few": ((1, 1), (1, 6), (1, 8)),
    "grouped": ((2, 4), (1, 4), (1, 5)),
    "depthwise": ((2, 18), (1, 1), (1, 3)),
    "many kernels": ((1, 1), (1, 3), (9, 40)),
    "many channels": ((1, 1), (9, 40), (1, 3)),
}


def _large_enough(
    image: tuple[int, int], kernel_hw: tuple[int, int], padding: Any, stride: Any, dilation: Any
) -> tuple[int, int]:
    """Return the image size, raised to where the kernel fits."""
    edges = reference.resolve_padding(padding, image, kernel_hw, stride, dilation)
    extents = reference.kernel_extent(kernel_hw, dilation)
    height, width = (
        max(n, extent - sum(edge)) for n, extent, edge in zip(image, extents, edges, strict=True)
    )
    return height, width


@st.composite
def _counts(draw: st.DrawFn, most: int) -> tuple[int, int, int, int]:
    """Draw N, groups, channels and kernels in a group, of a product of at most `most`."""
    counts = []
    for low, high in ((1, 3), *_CHANNELS[draw(st.sampled_from(sorted(_CHANNELS)))]):
        affordable = max(1, min(high, most))
        counts.append(draw(st.integers(min(low, affordable), affordable)))
        most //= counts[-1]
    samples, groups, channels, kernels = counts
    return samples, groups, channels, kernels


@st.composite
def cases(draw: st.DrawFn, computed: str | None = None) -> Case:
    """Draw a legal convolution, computed in float32 or float64 (either if None)."""
    kernel_hw = draw(st.tuples(_kernel_sizes, _kernel_sizes))
    stride = draw(_one_or_pair(st.sampled_from([1, 1, 1, 2, 3, 4])))
    dilation = draw(_one_or_pair(st.sampled_from([1, 1, 1, 2, 3])))
    padding = draw(_paddings())
    image = _large_enough(draw(_image_sizes), kernel_hw, padding, stride, dilation)

    output_hw = reference.output_size(image, kernel_hw, stride, padding, dilation)
    most = MOST_PRODUCTS // (math.prod(output_hw) * math.prod(kernel_hw))
    samples, groups, channels, kernels = draw(_counts(most))
    batch = draw(st.sampled_from([(samples,), (samples,), ()]))
    return Case(
        input_shape=(*batch, groups * channels, *image),
        kernels_shape=(groups * kernels, channels, *kernel_hw),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        with_bias=draw(st.booleans()),
        dtypes=draw(_dtypes(computed or draw(st.sampled_from(["float32", "float64"])))),
        layouts=draw(st.tuples(*[st.sampled_from(LAYOUTS)] * 3)),
        num_threads=draw(st.sampled_from([None, 1, 2, 5])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )
