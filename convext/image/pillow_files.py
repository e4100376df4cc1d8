"""Image files, by Pillow: their pixels as they are stored, and what a new file keeps of an old one.

All problems of a file are a ValueError that names it.
"""

from __future__ import annotations

import math
import mimetypes
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from .._support.atomic_files import FilePath, atomic_write, path_of
from .._support.checks import LARGEST_SIZE
from .._support.messages import warn
from .._support.sharing import lock_of_process
from .._support.streams import read_file
from . import tiff
from .tiff import (
    BITS_PER_SAMPLE,
    ORIENTATION,
    PHOTOMETRIC,
    PLANAR,
    SAMPLE_FORMAT,
    Pixels,
    blocks,
    upright,
)

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# The files that are taken for images; and what images are written as.
_NAMES = "apng avif bmp gif jfif jp2 jpe jpeg jpg pbm pfm pgm png pnm ppm tga tif tiff webp"
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split(" "))
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
# Bits of a value. 32 bits are floating-point numbers.
DEPTHS = {"PNG": (8, 16), "JPEG": (8,), "TIFF": (8, 16, 32)}
TYPES: dict[int, type[Any]] = {8: np.uint8, 16: np.uint16, 32: np.float32}

# Pillow's modes without colour; all other modes are converted to RGB.
_EIGHT_BIT_MODE = {"1": "L", "L": "L", "LA": "L", "La": "L"}

# Pixels that are copied or compressed at a time.
_BLOCK = 1 << 20

_LIMIT_LOCK = lock_of_process()


class Header(NamedTuple):
    """What is known of an image before its pixels are read."""

    size: tuple[int, int]  # height and width, upright
    bits: int
    profile: bytes | None  # ICC
    dpi: tuple[float, float] | None


def suffix_of(file: FilePath) -> str:
    """Return the suffix of a file, in lower case."""
    return os.path.splitext(path_of(file))[1].lower()


def is_image(file: FilePath) -> bool:
    """Return whether the name of a file is that of an image that can be read."""
    return suffix_of(file) in SUFFIXES


def format_of(file: FilePath) -> str:
    """Return the format that the name of an image to be written says, or raise ValueError."""
    suffix = suffix_of(file)
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise ValueError(f"the name of an image must end in one of {known}, got {path_of(file)}")
    return FORMATS[suffix]


def image_files(folder: FilePath) -> list[str]:
    """Return the names of the image files in a folder, in order.

    Hidden files are passed over, and so is what has another suffix, with a warning unless that is
    known to be no image's.
    """
    entries = (entry for entry in os.scandir(path_of(folder)) if not entry.is_dir())
    visible = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    names = [name for name in visible if is_image(name)]
    skipped = [
        name
        for name in visible
        if not is_image(name)
        and (mimetypes.guess_type(name)[0] or "image").startswith("image")
        and name.lower() not in {"thumbs.db", "desktop.ini"}
    ]
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        warn(
            f"{path_of(folder)}: {', '.join(skipped[:3])}{more} skipped, which cannot be read as "
            "images",
        )
    if not names:
        raise ValueError(f"{path_of(folder)} holds no image ({', '.join(sorted(SUFFIXES))})")
    return names


def pillow() -> Any:
    """Return Pillow's main module, or say how to install it."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError('images need Pillow: pip install "convext[images]"') from None
    return Image


@contextmanager
def opened(
    file: FilePath, page: int | None = None, max_pixels: int | None = None
) -> Iterator[ImageFile]:
    """Open an image file with Pillow, at a page; problems of the block name the file as well."""
    with (
        read_file(path_of(file), private=True) as stream,
        _named_problems(file, max_pixels),
        _pixel_limit(max_pixels),
    ):
        image = pillow().open(stream)
        if page is not None:
            tiff.check_page(page, _count(image))
            image.seek(page)
        if max_pixels is not None and image.width * image.height > max_pixels:
            raise pillow().DecompressionBombError
        yield image


@contextmanager
def _named_problems(file: FilePath, max_pixels: int | None) -> Iterator[None]:
    """Turn all problems with an image into a ValueError that names its file."""
    name = path_of(file)
    try:
        yield
    except MemoryError:
        raise
    except pillow().UnidentifiedImageError:
        raise ValueError(f"{name} is not an image that Pillow can read") from None
    except pillow().DecompressionBombError:
        limit = max_pixels or 2 * pillow().MAX_IMAGE_PIXELS
        raise ValueError(
            f"{name} has more than {limit:,} pixels: allow more by max_pixels (--max-pixels)"
        ) from None
    except Exception as error:  # decoders raise many kinds for a damaged image
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


@contextmanager
def _pixel_limit(max_pixels: int | None) -> Iterator[None]:
    """Lift Pillow's own limit, which holds for the whole process, where another one is given."""
    if max_pixels is None:
        yield
        return
    image_module = pillow()
    with _LIMIT_LOCK:
        limit, image_module.MAX_IMAGE_PIXELS = image_module.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            image_module.MAX_IMAGE_PIXELS = limit


def read_header(file: FilePath, max_pixels: int | None = None) -> Header:
    """Return the size of an image, and what is to be kept of it beside the pixels."""
    info: dict[Any, Any]
    if (plain := _read_plain_tiff(file, None, max_pixels)) is not None:
        (height, width, _), bits, info, turn = plain[0].shape, 32, plain[2], 1
    else:
        with opened(file, None, max_pixels) as image:
            (width, height), bits, info = image.size, _bits(image), image.info
            turn = orientation(image)
    dpi: Any = info.get("dpi")
    if turn >= 5:
        height, width, dpi = width, height, dpi and dpi[::-1]
    try:
        dpi = (float(dpi[0]), float(dpi[1]))  # rational numbers, in TIFF
        dpi = dpi if all(0 < number < 1e6 for number in dpi) else None
    except (TypeError, ValueError, ZeroDivisionError):
        dpi = None
    return Header((height, width), bits, info.get("icc_profile") or None, dpi)


def read(
    file: FilePath, page: int | None = None, max_pixels: int | None = None
) -> tuple[Pixels, int]:
    """Return the pixels (H, W, C), C = 1 or 3, as they are stored, and which value stands for 1."""
    plain = _read_plain_tiff(file, page, max_pixels)
    if plain is not None:
        pixels, count, largest = *plain[:2], 1
    else:
        with opened(file, page, max_pixels) as image:
            # A phone's JPEG file may hold a small second image, which is no page.
            count = 1 if image.format == "MPO" else _count(image)
            pixels, largest = _read_pixels(image)
            pixels = upright(np.atleast_3d(pixels), orientation(image))
    if page is None and count > 1:
        name = path_of(file)
        warn(
            f"{name} holds {count} images, of which the first was read: see page (--page of apply "
            "and enhance)",
        )
    return pixels, largest


def _read_plain_tiff(file: FilePath, page: int | None, max_pixels: int | None) -> tiff.Plain | None:
    limit = max_pixels or 2 * (pillow().MAX_IMAGE_PIXELS or LARGEST_SIZE)
    with read_file(path_of(file)) as stream, _named_problems(file, max_pixels):
        return tiff.read(stream, page, limit)


def orientation(image: ImageFile) -> int:
    """Return how EXIF says that an image is to be turned; 1, not at all, where EXIF is damaged."""
    try:
        # Pillow turns TIFF images itself. For PNG, its own method would read all pixels first.
        exif = pillow().Image.getexif(image)
        value = 1 if image.format == "TIFF" else exif.get(ORIENTATION, 1)
    except Exception:  # as many kinds as there are ways to damage a file
        return 1
    return value if value in range(1, 9) else 1


def _count(image: ImageFile) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # what follows the first image is damaged
        return 1


def _bits(image: ImageFile) -> int:
    """Return how many bits a value has in the file: 8, also for less; 16; or 32."""
    if image.mode == "F" or (image.mode == "I" and image.format not in {"PNG", "PPM"}):
        return 32
    if image.mode.startswith("I") or ";16" in _raw_mode(image) or _ppm_maximum(image) > 255:
        return 16
    return 8


def _raw_mode(image: ImageFile) -> str:
    """Return how Pillow calls the layout of the values in the file."""
    arguments = image.tile[0].args if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _ppm_maximum(image: ImageFile) -> int:
    """Return the largest value of a binary PPM or PGM file; 0 for other files."""
    if image.format != "PPM" or not image.tile or image.tile[0].codec_name != "ppm":
        return 0
    return int(cast("tuple[Any, ...]", image.tile[0].args)[-1])


def _read_pixels(image: ImageFile) -> tuple[Pixels, int]:
    """Return (H, W) or (H, W, 3), not yet upright, and the value that stands for 1."""
    bits, raw_mode, tags = _bits(image), _raw_mode(image), getattr(image, "tag_v2", {})
    if bits == 32:
        values = _copy(image)
        unsigned = image.mode == "I" and tags.get(SAMPLE_FORMAT, (1,))[0] == 1
        return (values.view(np.uint32) if unsigned and tags else values), 1
    if tags.get(PLANAR) == 2 and 16 in tags.get(BITS_PER_SAMPLE, ()):
        raise ValueError("16-bit TIFF images with separate planes are not supported")
    if tags.get(SAMPLE_FORMAT, (1,))[0] == 2:
        raise ValueError("signed integers of 8 bits are not supported")
    if (maximum := _ppm_maximum(image)) > 255:
        return _read_16_bit_ppm(image, maximum), maximum
    if bits == 16 and image.mode.startswith("I"):
        values, largest = _copy(image).astype(np.uint16), 4095 if raw_mode == "I;12" else 65535
        return (largest - values if tags.get(PHOTOMETRIC) == 0 else values), largest
    if bits == 16 and image.mode in {"RGB", "RGBA"}:
        return _read_16_bit_colour(image, raw_mode)
    return _copy(image, _EIGHT_BIT_MODE.get(image.mode, "RGB")), 255


def _copy(image: ImageFile, mode: str | None = None) -> Pixels:
    """Return the values of an image, converted to a mode, without another copy in between."""
    image.load()
    image.info.pop("transparency", None)  # is left out, as alpha is; Pillow would warn of some
    width, height = image.size
    pixels: Pixels = np.empty(0)
    step = max(1, _BLOCK // width)
    for top in range(0, height, step):
        part = image.crop((0, top, width, min(top + step, height)))
        rows = np.asarray(part if mode in {None, part.mode} else part.convert(mode))
        if top == 0:
            pixels = np.empty((height, *rows.shape[1:]), rows.dtype.newbyteorder("="))
        pixels[top : top + step] = rows
    return pixels


def _read_16_bit_colour(image: ImageFile, raw_mode: str) -> tuple[Pixels, int]:
    """Return 16-bit values of a colour image, of which Pillow itself keeps only the high bytes.

    Told that the values have the other byte order, it keeps the low bytes.
    """
    if raw_mode == "LA;16B":
        high_and_low = _read_as(image, "RGBA")
        high, low = high_and_low[:, :, 0], high_and_low[:, :, 1]
    else:
        colours, _, order = raw_mode.partition(";16")
        other_order = {"B": "L", "L": "B", "N": "B" if np.little_endian else "L"}[order]
        if colours == "RGBa":
            raise ValueError("16-bit colours that are multiplied by their alpha are not supported")
        high = _read_as(image, raw_mode)[:, :, :3]
        low = _read_as(image, f"{colours};16{other_order}")[:, :, :3]
    pixels = high.astype(np.uint16)
    pixels <<= 8
    pixels |= low
    return pixels, 65535


def _read_16_bit_ppm(image: ImageFile, maximum: int) -> Pixels:
    """Return the values of a PPM or PGM file, which Pillow would scale."""
    stream = cast("IO[bytes]", image.fp)
    stream.seek(image.tile[0].offset)
    shape = (image.height, image.width, *((3,) if image.mode == "RGB" else ()))
    values = np.frombuffer(stream.read(2 * math.prod(shape)), ">u2")
    if values.size < math.prod(shape):
        raise ValueError("it is truncated")
    return np.minimum(values.reshape(shape), maximum, dtype=np.uint16)


def _read_as(image: ImageFile, raw_mode: str) -> npt.NDArray[np.uint8]:
    """Return the bytes of an image whose values are read in the layout `raw_mode`."""
    stream = cast("IO[bytes]", image.fp)
    stream.seek(0)
    again = pillow().open(stream)
    again.seek(image.tell())
    again.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in again.tile
    ]
    pixels = _copy(again)
    image.info.update(again.info)  # what follows the pixels may say how they are to be turned
    return pixels


def write(
    file: FilePath,
    pixels: Pixels,
    profile: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:
    """Write pixels (H, W, C) of a type that the format has, with a profile and a resolution."""
    name = format_of(file)
    with atomic_write(file) as stream:
        if name == "TIFF":
            tiff.write(stream, pixels, profile, dpi)
        elif pixels.dtype == np.uint16 and pixels.shape[2] == 3:
            _write_16_bit_png(stream, pixels, profile, dpi)
        else:
            options: dict[str, Any] = {"icc_profile": profile, "dpi": dpi}
            options = {k: v for k, v in options.items() if v is not None}
            if name == "JPEG":
                options |= {"quality": 95, "subsampling": 0}
            image = pillow().fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
            image.save(stream, format=name, **options)


def _write_16_bit_png(
    stream: IO[bytes],
    pixels: Pixels,
    profile: bytes | None,
    dpi: tuple[float, float] | None,
) -> None:
    """Write 16-bit colours, which Pillow cannot; each row as its difference from the one above."""

    def chunk(kind: bytes, data: bytes) -> None:
        check = struct.pack(">I", zlib.crc32(kind + data))
        stream.write(struct.pack(">I", len(data)) + kind + data + check)

    height, width, _ = pixels.shape
    stream.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    if profile is not None:
        chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if dpi is not None:
        chunk(b"pHYs", struct.pack(">IIB", *(round(d / 0.0254) for d in dpi), 1))
    packer = zlib.compressobj()
    above = np.zeros((1, 6 * width), np.uint8)
    for rows in blocks(pixels):
        values = rows.astype(">u2").view(np.uint8).reshape(len(rows), -1)
        differences = np.diff(values, axis=0, prepend=above)
        above = values[-1:]
        chunk(b"IDAT", packer.compress(np.insert(differences, 0, 2, axis=1).tobytes()))
    chunk(b"IDAT", packer.flush())
    chunk(b"IEND", b"")
