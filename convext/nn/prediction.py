"""The forward pass of a network over images of any size: in strips, so that memory stays bounded.

A strip of the last layer's rows needs some rows of the layer before, these some of the one before
that, and so on up to the image. Zeros are padded at the borders of the image alone, so that the
strips fit together as if there were none. The same holds for columns, of images in parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from .._support.checks import RealArray, as_dtype
from .._support.large_arrays import ahead, is_large, read_as
from .._support.memory import available_memory
from ..ops.shapes import window_of
from ..train._layers import activate
from ..train._steps import Layer
from ..ways import _convolution

# What all layers make of a strip, in bytes, where the strips have more rows than the least.
MAX_BYTES = 32 << 20
MIN_ROWS = 16

# With what is read ahead, and scratch memory, strips have three times their bytes.
STRIPS_AT_ONCE = 3

# Of images that are not in memory, strips take less than this part of what is available.
SHARE = 8


# From where to where (exclusive) a layer needs rows, or columns, of its input: none, where all
# windows lie in the padding. Then the padding before them, and how many rows it makes.
Span: TypeAlias = tuple[int, int, int, int]


def predict(
    layers: Sequence[Layer],
    images: RealArray,
    dtype: np.dtype[Any],
    num_threads: int,
    result: RealArray,
    crop: tuple[slice, slice] | None = None,
    begin: tuple[int, int] = (0, 0),
    limit: int | None = None,
) -> None:
    """Leave in `result` what the layers make of images (N, C, H, W), which may be of any type.

    With a crop, those rows and columns of the images are added. Without, `result` may be the part
    of it that begins at a row and a column; then `images` have only the pixels that are `seen`.
    A limit is that of the bytes of strips, unless their least number of rows takes more.
    """
    images, most = read_as(images, dtype), _most_bytes(images, limit)
    (top, left), (height, width) = begin, result.shape[2:]
    row_bytes = dtype.itemsize * sum(
        math.prod(layer.output_shape) // layer.output_shape[1] for layer in layers
    )
    rows = min(height, max(MIN_ROWS, most // row_bytes))
    across, (start, _) = _spans(layers, 1, left, left + width), seen(layers, 0, top, top + height)
    strips = [
        _spans(layers, 0, top + i, top + min(i + rows, height)) for i in range(0, height, rows)
    ]
    # Layers with strides are given far more rows than they make.
    given = max(
        sum(
            layer.input_shape[0] * (end - first) * layer.input_shape[2]
            for layer, (first, end, *_) in zip(layers, strip, strict=True)
        )
        for strip in strips
    )
    samples = max(1, most // max(row_bytes * rows, dtype.itemsize * given // 2))
    beside = slice(None) if crop is None else crop[1]

    def read() -> Iterator[tuple[slice, int, RealArray, list[RealArray]]]:
        for first in range(0, len(images), samples):
            some = slice(first, first + samples)
            for i, strip in enumerate(strips):
                wanted = [(strip[0][0] - start, strip[0][1] - start)]
                if crop is not None:
                    own = crop[0].start + i * rows
                    wanted.append((own, own + strip[-1][3]))
                above, below = min(wanted)[0], max(end for _, end in wanted)
                part = images[some, :, above:below]
                values, *added = (part[:, :, begin - above : end - above] for begin, end in wanted)
                yield some, i, as_dtype(values, dtype, contiguous=True), added

    for part in ahead(read(), images):
        some, i, values, added = part
        for layer, *extent in zip(layers, strips[i], across, strict=True):
            values = _convolve(layer, extent[0], extent[1], values, num_threads)
        for pixels in added:
            values += pixels[..., beside].astype(dtype, copy=False)
        result[some, :, i * rows : i * rows + values.shape[2]] = values


def _most_bytes(images: RealArray, limit: int | None) -> int:
    """Return what a strip may take."""
    most = MAX_BYTES if limit is None else min(MAX_BYTES, limit // STRIPS_AT_ONCE)
    return min(most, available_memory() // SHARE) if is_large(images) else most


def seen(layers: Sequence[Layer], axis: int, begin: int, end: int) -> tuple[int, int]:
    """Return which rows of the images (axis 0), or columns, are needed for those of the result."""
    return _spans(layers, axis, begin, end)[0][:2]


def _spans(layers: Sequence[Layer], axis: int, begin: int, end: int) -> list[Span]:
    """Return what each layer has to do so that the last one gives rows (axis 0) begin to end."""
    found: list[Span] = []
    for layer in reversed(layers):
        size, made = layer.input_shape[1 + axis], end - begin
        first, last = window_of(layer.kernels.shape[2:], layer.geometry, axis, begin, end)
        begin, end = (min(max(first, 0), size), min(max(last, 0), size)) if made else (0, 0)
        found.append((begin, end, max(-first, 0), made))
    return found[::-1]


def _convolve(
    layer: Layer, rows: Span, columns: Span, values: RealArray, num_threads: int
) -> RealArray:
    shape = len(values), layer.output_shape[0], rows[3], columns[3]
    out: RealArray = np.empty(shape, values.dtype)
    if values.size == 0 or out.size == 0:
        out[...] = 0
    else:
        geometry = layer.geometry._replace(padding_before=(rows[2], columns[2]))
        _convolution.conv2d(values, layer.kernels, None, out, geometry, num_threads)
    if layer.bias is not None or layer.activation:
        activate(out, layer.bias, layer.activation, num_threads)
    return out
