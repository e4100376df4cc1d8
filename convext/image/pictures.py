"""Images whose pixels stay as they are stored, taken in strips of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .._support.atomic_files import FilePath, path_of
from .._support.checks import LARGEST_SIZE, as_numeric_array, check_dimensions, integer
from .._support.messages import warn
from ..ops.shapes import IMAGES
from . import pillow_files

# Values of a strip of rows that is taken at a time.
_STRIP = 1 << 22

# What stands for 1 in images of integers.
_LARGEST = {"bool": 1, "uint8": 255, "uint16": 65535}

Strips: TypeAlias = Iterable[tuple[int, npt.NDArray[Any]]]


class Picture(NamedTuple):
    """An image as it is stored; its rows as numbers are made when they are asked for."""

    pixels: npt.NDArray[Any]  # (H, W, C)
    largest: int  # what stands for 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the image as an array, (C, H, W)."""
        height, width, channels = self.pixels.shape
        return channels, height, width

    def rows(self, begin: int = 0, end: int | None = None) -> npt.NDArray[np.float64]:
        """Return rows of the image, (C, end - begin, W), in [0, 1]."""
        planes = np.moveaxis(self.pixels[begin:end], -1, 0)
        result = np.empty(planes.shape)
        np.divide(planes, self.largest, out=result)
        return result


def load_picture(file: FilePath, page: int | None = None, max_pixels: int | None = None) -> Picture:
    """Read an image as `load_image` does, but leave its pixels as they are stored."""
    page = None if page is None else integer("page", page, minimum=0)
    limit = None if max_pixels is None else integer("max_pixels", max_pixels, minimum=1)
    return Picture(*pillow_files.read(file, page, limit))


def as_picture(name: str, image: npt.ArrayLike) -> Picture:
    """Return an image (C, H, W) of floats or of integers whose type says what stands for 1."""
    array = as_numeric_array(name, image)
    check_dimensions(name, array.shape, {3: IMAGES[3]})
    return Picture(np.moveaxis(array, 0, -1), _largest(name, array.dtype))


def strips_of(rows: int, values: int, least: int = 1) -> Iterator[tuple[int, int]]:
    """Yield where strips of rows begin and end, for an image with `values` in a row."""
    step = max(1, least, _STRIP // values)
    for begin in range(0, rows, step):
        yield begin, min(begin + step, rows)


def save_strips(
    file: FilePath,
    shape: tuple[int, ...],
    strips: Strips,
    *,
    bits: int | None = None,
    like: FilePath | None = None,
    own_bits: int = 8,
) -> float:
    """Write an image (C, H, W) that comes in strips of rows; return the share that was clipped."""
    check_dimensions("array", shape, {3: IMAGES[3]})
    channels, height, width = shape
    if channels not in (1, 3):
        raise ValueError(
            f"an image has 1 channel (grey) or 3 (colour), got {channels} "
            f"(shape {shape}); other arrays can be saved as .npy"
        )
    header = pillow_files.Header((height, width), own_bits, None, None)
    if like is not None:
        header = pillow_files.read_header(like, max_pixels=LARGEST_SIZE)
    depth = _depth(file, bits, header.bits)
    pixels = np.empty((height, width, channels), pillow_files.TYPES[depth])
    clipped = 0
    for begin, rows in strips:
        values = rows
        if depth < 32:
            if np.isnan(rows).any():
                raise ValueError(f"array holds NaN, which {path_of(file)} cannot")
            clipped += int(np.count_nonzero((rows < 0) | (rows > 1)))
            values = np.clip(rows, 0, 1)
            values *= 2**depth - 1
            np.rint(values, out=values)
        pixels[begin : begin + rows.shape[1]] = np.moveaxis(values, 0, -1)
    profile = header.profile
    others = {b"GRAY", b"RGB ", b"CMYK", b"Lab "} - {b"GRAY" if channels == 1 else b"RGB "}
    if profile is not None and profile[16:20] in others:
        profile = None
    pillow_files.write(file, pixels, profile, header.dpi)
    return clipped / pixels.size


def _depth(file: FilePath, bits: int | None, wanted: int) -> int:
    """Return how many bits a value gets in a file."""
    depths = pillow_files.DEPTHS[pillow_files.format_of(file)]
    if bits is not None:
        if bits not in depths:
            raise ValueError(f"bits must be one of {depths} for {path_of(file)}, got {bits!r}")
        return bits
    if wanted > depths[-1]:
        warn(
            f"{path_of(file)} holds {depths[-1]} bits for each value, of {wanted} that there are",
        )
    return min(wanted, depths[-1])


def as_floats(name: str, image: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return images as floats, in [0, 1] where they are integers; floats are not copied."""
    array = as_numeric_array(name, image)
    largest = _largest(name, array.dtype)
    return array if array.dtype.kind == "f" else array / largest


def _largest(name: str, dtype: np.dtype[Any]) -> int:
    """Return the value that stands for 1 in images of a type."""
    if dtype.kind != "f" and dtype.name not in _LARGEST:
        raise TypeError(
            f"{name} is an image of type {dtype}, which does not say what stands for white: "
            "convert it to floats in [0, 1], to uint8 (0 to 255) or to uint16 (0 to 65535)"
        )
    return _LARGEST.get(dtype.name, 1)
