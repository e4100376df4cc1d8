"""The forward pass of a network over images of any size: in strips, so that memory stays bounded.

A strip of the last layer's rows needs some rows of the layer before, these some of the one before
that, and so on up to the image. Zeros are padded at the borders of the image alone, so that the
strips fit together as if there were none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._support.checks import RealArray, as_dtype
from .._support.large_arrays import ahead
from ..train._layers import activate
from ..train._steps import Layer
from ..ways import _convolution

# What all layers make of a strip, in bytes, where the strips have more rows than the least.
MAX_BYTES = 32 << 20
MIN_ROWS = 16


class _Strip(NamedTuple):
    """What a layer does for a strip: from input rows first to end (exclusive) to `rows` rows.

    Where these lie in the padding alone, there is no input row.
    """

    layer: Layer
    first: int
    end: int
    padding_top: int
    rows: int


def predict(
    layers: Sequence[Layer],
    images: RealArray,
    dtype: np.dtype[Any],
    num_threads: int,
    result: RealArray,
    crop: tuple[slice, slice] | None = None,
) -> None:
    """Leave in `result` what the layers make of images (N, C, H, W), which may be of any type.

    With a crop, those rows and columns of the images are added.
    """
    shape = layers[-1].output_shape
    row_bytes = dtype.itemsize * sum(
        math.prod(layer.output_shape) // layer.output_shape[1] for layer in layers
    )
    rows = min(shape[1], max(MIN_ROWS, MAX_BYTES // row_bytes))
    samples = max(1, MAX_BYTES // (row_bytes * rows))
    strips = [
        list(_strips(layers, begin, min(begin + rows, shape[1])))
        for begin in range(0, shape[1], rows)
    ]

    def read() -> Iterator[tuple[slice, int, RealArray, RealArray | None]]:
        for first in range(0, len(images), samples):
            some = slice(first, first + samples)
            for i, (above, *_) in enumerate(strips):
                rows_above = images[some, :, above.first : above.end]
                added = None
                if crop is not None:
                    top = crop[0].start + i * rows - above.first
                    added = rows_above[:, :, top : top + strips[i][-1].rows, crop[1]]
                yield some, i, as_dtype(rows_above, dtype, contiguous=True), added

    for part in ahead(read(), images):
        some, i, values, added = part
        for strip in strips[i]:
            values = _convolve(strip, values, num_threads)
        if added is not None:
            values += added.astype(dtype, copy=False)
        result[some, :, i * rows : i * rows + values.shape[2]] = values


def _strips(layers: Sequence[Layer], begin: int, end: int) -> Iterator[_Strip]:
    """Return what each layer has to do so that the last one gives rows begin to end."""
    strips = []
    for layer in reversed(layers):
        (stride, _), (padding, _), (dilation, _), _ = layer.geometry
        height = layer.input_shape[1]
        first = begin * stride - padding
        last = (end - 1) * stride - padding + (layer.kernels.shape[2] - 1) * dilation + 1
        strip = _Strip(
            layer, min(max(first, 0), height), min(max(last, 0), height), max(-first, 0),
            end - begin,
        )  # fmt: skip
        strips.append(strip)
        begin, end = strip.first, strip.end
        if begin == end:  # the layer sees padding alone: nothing has to be done before it
            break
    return reversed(strips)


def _convolve(strip: _Strip, values: RealArray, num_threads: int) -> RealArray:
    layer = strip.layer
    channels, _, width = layer.output_shape
    out: RealArray = np.empty((len(values), channels, strip.rows, width), values.dtype)
    if strip.first == strip.end:
        out[...] = 0
    else:
        padding = (strip.padding_top, layer.geometry.padding_before[1])
        geometry = layer.geometry._replace(padding_before=padding)
        _convolution.conv2d(values, layer.kernels, None, out, geometry, num_threads)
    if layer.bias is not None or layer.activation:
        activate(out, layer.bias, layer.activation, num_threads)
    return out
