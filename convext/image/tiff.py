"""TIFF files of types that Pillow does not read or write."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]  # (H, W, C)

# Tags.
BITS_PER_SAMPLE = 258
COMPRESSION = 259
PHOTOMETRIC = 262
STRIPS = 273
ORIENTATION = 274
STRIP_SIZES = 279
PLANAR = 284
SAMPLE_FORMAT = 339
_PROFILE = 34675

# Values of COMPRESSION: none, and two numbers of deflate.
_PACKINGS = {1, 8, 32946}

# Pixels that are compressed at a time.
_BLOCK = 1 << 20


Plain = tuple[Pixels, int, dict[str, Any]]


def read(stream: IO[bytes], page: int | None, limit: int) -> Plain | None:
    """Return an image of floats, signed integers or 32 and more bits.

    With it come how many images there are, and its profile and resolution. Pillow does not read
    some of these, and swaps the bytes of others. None for all other files, and for those that are
    left to Pillow to say what is wrong.
    """
    from PIL.Image import DecompressionBombError

    start = stream.read(8)
    if start[:4] not in {b"II*\0", b"MM\0*"}:
        return None
    order = "<" if start[:1] == b"I" else ">"
    directories = _directories(stream, start, order)
    if not directories:
        return None
    tags = directories[min(page or 0, len(directories) - 1)]
    bits, kind = tags.get(BITS_PER_SAMPLE, (1,)), tags.get(SAMPLE_FORMAT, (1,))[0]
    shape = tags.get(257, 0), tags.get(256, 0), len(bits)
    if len(set(bits)) > 1 or bits[0] not in {8, 16, 32, 64}:
        return None
    if kind not in {1, 2, 3} or (kind == 1 and bits[0] < 32):
        return None
    if math.prod(shape[:2]) > limit:
        raise DecompressionBombError
    packing = tags.get(COMPRESSION, 1)
    chunky = tags.get(PLANAR, 1) == tags.get(317, 1) == 1 and STRIPS in tags
    if packing not in _PACKINGS or not chunky:
        if order == ">" and packing != 1:
            raise ValueError("its compression is not supported")
        return None
    check_page(page or 0, len(directories))
    dtype = np.dtype(f"{order}{' uif'[kind]}{bits[0] // 8}")
    data, missing = bytearray(), math.prod(shape) * dtype.itemsize
    for offset, size in zip(tags[STRIPS], tags[STRIP_SIZES], strict=True):
        stream.seek(offset)
        strip = stream.read(size)[: missing if packing == 1 else None]
        if packing != 1 and missing:
            strip = zlib.decompressobj().decompress(strip, missing)
        data += strip
        missing -= len(strip)
    if missing:
        raise ValueError("it is truncated")
    values = np.frombuffer(data[: math.prod(shape) * dtype.itemsize], dtype).reshape(shape)
    pixels = upright(values[..., : 3 if len(bits) > 2 else 1], tags.get(ORIENTATION, 1))
    dpi = (tags.get(282), tags.get(283)) if tags.get(296, 2) == 2 else None
    return pixels, len(directories), {"icc_profile": tags.get(_PROFILE), "dpi": dpi}


def _directories(stream: IO[bytes], start: bytes, order: str) -> list[Any]:
    """Return the tags of each image, up to the first that is damaged."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    found, seen = [], {0}
    following = struct.unpack(f"{order}L", start[4:])[0]
    while following not in seen:
        seen.add(following)
        stream.seek(following)
        directory = ImageFileDirectory_v2(start)
        try:
            directory.load(stream)
        except Exception:  # there are as many kinds as ways to damage a file
            break
        found.append(directory)
        following = directory.next
    return found


def check_page(page: int, count: int) -> None:
    """Raise ValueError where there are no more than `page` images."""
    if page >= count:
        raise ValueError(f"page must be below {count}, the images in it, got {page}")


def upright(pixels: Pixels, turn: int) -> Pixels:
    """Turn an image as its EXIF orientation says."""
    if turn in {3, 4, 6, 7}:
        pixels = pixels[::-1]
    if turn in {2, 3, 7, 8}:
        pixels = pixels[:, ::-1]
    return pixels.swapaxes(0, 1) if turn >= 5 else pixels


def write(
    stream: IO[bytes],
    pixels: Pixels,
    profile: bytes | None,
    dpi: tuple[float, float] | None,
) -> None:
    """Write a TIFF file; Pillow writes no colours of 16 or 32 bits."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    height, width, channels = pixels.shape
    little = pixels.dtype.newbyteorder("<")
    strips = [zlib.compress(rows.astype(little, copy=False).tobytes()) for rows in blocks(pixels)]
    sizes = [len(strip) for strip in strips]
    directory = ImageFileDirectory_v2()
    tags: dict[int, Any] = {
        256: width,
        257: height,
        BITS_PER_SAMPLE: (8 * little.itemsize,) * channels,
        COMPRESSION: 8,  # compressed by deflate
        PHOTOMETRIC: 2 if channels == 3 else 1,  # colours, or 0 is black
        STRIPS: tuple(sum(sizes[:i]) for i in range(len(sizes))),  # where strips begin
        277: channels,
        278: len(next(blocks(pixels))),  # rows in a strip
        STRIP_SIZES: tuple(sizes),
        SAMPLE_FORMAT: (3 if little.kind == "f" else 1,) * channels,
    }
    directory.tagtype[STRIPS] = 4  # 32 bits, also where 16 would do
    if dpi is not None:
        tags |= {282: dpi[0], 283: dpi[1], 296: 2}  # across, down, for an inch
    if profile is not None:
        tags[_PROFILE] = profile
        directory.tagtype[_PROFILE] = 7  # bytes
    for tag, value in tags.items():
        directory[tag] = value
    directory.save(stream)
    stream.writelines(strips)


def blocks(pixels: Pixels) -> Iterator[Pixels]:
    """Yield the rows of an image, many at a time."""
    step = max(1, _BLOCK // pixels.shape[1])
    for top in range(0, len(pixels), step):
        yield pixels[top : top + step]
