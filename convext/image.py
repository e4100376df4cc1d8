"""Images as arrays: reading and writing, luminance, patches, and how far two images are apart.

Reading and writing needs Pillow, which is in the ``images`` extra.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from ._checks import as_numeric_array, check_dimensions, integer, integer_pair
from .files import FilePath, atomic_write
from .losses import mse_loss
from .shapes import IMAGES, Pair

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

# How Pillow calls the formats, and with which options they are written.
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
}

IMAGE_SUFFIXES = frozenset(_FORMATS)

# Pillow's modes without colour; all other modes are converted to RGB.
_EIGHT_BIT_MODE = {"1": "L", "L": "L", "LA": "L", "La": "L"}

# An EXIF tag; and where Pillow keeps which of a JPEG file's tables a component uses.
_ORIENTATION = 274
_TABLE_OF_COMPONENT = 3

# TIFF tags.
_BITS_PER_SAMPLE = 258
_PLANAR_CONFIGURATION = 284


def load_image(file: FilePath) -> npt.NDArray[np.float64]:
    """Read an image as an array with values in [0, 1].

    Grey images give one channel, all others three (red, green, blue): palettes and other colour
    spaces are converted. Transparency is dropped, the colours under it are kept as they are
    stored. The image is turned as its EXIF orientation says. 8-bit values are divided by 255 and
    16-bit values by 65535, without loss; floating-point values must lie in [0, 1]. Of a file with
    several images, the first is read.

    Parameters
    ----------
    file : path
        A PNG, JPEG or TIFF file. Other formats are read as Pillow reads them, which may mean
        8 bits where the file has more.

    Returns
    -------
    numpy.ndarray
        float64, (C, H, W) with C = 1 or 3.

    Raises
    ------
    OSError
        From the system, unchanged: FileNotFoundError, IsADirectoryError, PermissionError.
    ValueError
        The file is not an image, is damaged, or has values that are not understood.
    ImportError
        Pillow is missing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_image(f"{folder}/grey.png", np.array([[[0.0, 0.2], [0.4, 1.0]]]))
    ...     load_image(f"{folder}/grey.png")
    array([[[0. , 0.2],
            [0.4, 1. ]]])
    """
    pillow = _pillow()
    with open(file, "rb") as stream:
        try:
            pixels = _read_pixels(stream)
        except MemoryError:
            raise
        except pillow.UnidentifiedImageError:
            raise ValueError(f"{os.fspath(file)} is not an image that Pillow can read") from None
        except Exception as error:  # decoders raise many kinds for a damaged image
            raise ValueError(f"{os.fspath(file)} cannot be read as an image: {error}") from error
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))


def save_image(file: FilePath, array: npt.ArrayLike) -> None:
    """Write an array as an 8-bit image; values outside [0, 1] are clipped.

    A failure leaves an older file as it was.

    Parameters
    ----------
    file : path
        The file to write: .png, .jpg, .jpeg, .tif or .tiff.
    array : array_like
        (C, H, W): grey when C is 1, red, green and blue when it is 3.

    Raises
    ------
    TypeError
        `array` does not hold real numbers.
    ValueError
        `array` has another shape or holds NaN, or the suffix is unknown.
    OSError
        The folder does not exist or is not writable, or the disk is full.
    ImportError
        Pillow is missing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_image(f"{folder}/red.png", np.array([[[1.5]], [[0.0]], [[-1.0]]]))
    ...     load_image(f"{folder}/red.png").ravel()
    array([1., 0., 0.])
    """
    pillow = _pillow()
    name, options = _FORMATS[image_suffix(file)]
    pixels = as_numeric_array("array", array)
    check_dimensions("array", pixels.shape, {3: "(C, H, W)"})
    if len(pixels) not in (1, 3):
        raise ValueError(
            f"an image has 1 channel (grey) or 3 (colour), got {len(pixels)} "
            f"(shape {pixels.shape}); other arrays can be saved as .npy"
        )
    if np.isnan(pixels).any():
        raise ValueError(f"array holds NaN, which {os.fspath(file)} cannot")
    rounded = np.rint(np.clip(pixels, 0, 1) * 255.0).astype(np.uint8)
    image = pillow.fromarray(rounded[0] if len(pixels) == 1 else rounded.transpose(1, 2, 0))
    with atomic_write(file) as stream:
        image.save(stream, format=name, **options)


def load_images(folder: FilePath) -> dict[str, npt.NDArray[np.float64]]:
    """Read all images in a folder.

    Parameters
    ----------
    folder : path
        Where they are: files with the suffixes .png, .jpg, .jpeg, .tif and .tiff.

    Returns
    -------
    dict
        The images as `load_image` reads them, by the names of their files, in the order of these.

    Raises
    ------
    OSError
        From the system, unchanged: FileNotFoundError, NotADirectoryError, PermissionError.
    ValueError
        There is no image, or one that cannot be read.
    ImportError
        Pillow is missing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_image(f"{folder}/b.png", np.ones((1, 2, 3)))
    ...     save_image(f"{folder}/a.png", np.ones((3, 4, 5)))
    ...     {name: image.shape for name, image in load_images(folder).items()}
    {'a.png': (3, 4, 5), 'b.png': (1, 2, 3)}
    """
    names = sorted(
        name for name in os.listdir(folder) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
    )
    if not names:
        raise ValueError(f"{os.fspath(folder)} holds no image ({', '.join(_FORMATS)})")
    return {name: load_image(os.path.join(folder, name)) for name in names}


def luminance(image: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the luminance of images: the Y of YCbCr, from 16/255 for black to 235/255 for white.

    Parameters
    ----------
    image : array_like, (3, H, W) or (N, 3, H, W)
        Red, green and blue in [0, 1]. Images of one channel are returned as they are.

    Returns
    -------
    numpy.ndarray, (1, H, W) or (N, 1, H, W)

    Raises
    ------
    TypeError, ValueError
        `image` does not hold real numbers, or has another shape.

    References
    ----------
    Recommendation ITU-R BT.601, which super-resolution is measured by.

    Examples
    --------
    >>> white = np.ones((3, 1, 1))
    >>> (luminance(white) * 255).round(9)
    array([[[235.]]])
    """
    colours = as_numeric_array("image", image)
    check_dimensions("image", colours.shape, IMAGES)
    if colours.shape[-3] == 1:
        return colours.astype(np.float64)
    if colours.shape[-3] != 3:
        raise ValueError(f"image must have 1 channel or 3, got {colours.shape[-3]}")
    red, green, blue = np.moveaxis(colours.astype(np.float64), -3, 0)
    grey = (16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255
    return np.expand_dims(grey, -3)


def replace_luminance(image: npt.ArrayLike, new: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return a colour image with another luminance and the same chroma.

    Parameters
    ----------
    image : array_like, (3, H, W) or (1, H, W)
        Red, green and blue; of a grey image, the result is `new`.
    new : array_like, (1, H, W)
        What `luminance` of the result is to be.

    Returns
    -------
    numpy.ndarray, of the shape of `image`
        Values may lie outside [0, 1].

    Examples
    --------
    >>> image = np.array([0.2, 0.4, 0.6]).reshape(3, 1, 1)
    >>> replace_luminance(image, luminance(image) + 0.1).ravel().round(3)
    array([0.316, 0.516, 0.716])
    """
    colours = as_numeric_array("image", image)
    change = as_numeric_array("new", new).astype(np.float64) - luminance(colours)
    # Luminance is stored on 219 of 255 levels; chroma depends on differences of colours alone.
    return colours + change * (255 / 219 if colours.shape[-3] == 3 else 1)


def psnr(image: npt.ArrayLike, reference: npt.ArrayLike, border: int = 0) -> float:
    """Return the peak signal-to-noise ratio in decibels: 10 log10(1 / mean squared error).

    Parameters
    ----------
    image, reference : array_like, (C, H, W)
        Of one shape, with values in [0, 1].
    border : int, default 0
        So many pixels on each side are left out.

    Returns
    -------
    float
        Infinity where both are equal.

    Raises
    ------
    TypeError, ValueError
        The shapes differ, or the border leaves nothing.

    Examples
    --------
    >>> round(psnr(np.zeros((1, 8, 8)), np.full((1, 8, 8), 0.1)), 9)
    20.0
    """
    images = [as_numeric_array(n, a) for n, a in (("image", image), ("reference", reference))]
    border = integer("border", border, minimum=0)
    for name, array in zip(("image", "reference"), images, strict=True):
        check_dimensions(name, array.shape, IMAGES)
    if 2 * border >= min(images[0].shape[-2:]):
        raise ValueError(f"a border of {border} leaves nothing of an image {images[0].shape}")
    inner = slice(border, -border or None)
    error = mse_loss(*(array[..., inner, inner] for array in images))
    return 10 * math.log10(1 / error) if error > 0 else math.inf


def extract_patches(
    images: npt.ArrayLike | Iterable[npt.ArrayLike], size: Pair, stride: Pair | None = None
) -> npt.NDArray[Any]:
    """Cut images into patches of one size.

    Parameters
    ----------
    images : array_like, (C, H, W) or (N, C, H, W), or iterable of (C, H, W)
        One image, or several, which need not have one size. Smaller ones give no patch.
    size : int or (int, int)
        Height and width of a patch.
    stride : int or (int, int), optional
        Pixels from one patch to the next, down and across; by default `size`, so that they do not
        overlap.

    Returns
    -------
    numpy.ndarray, (M, C, height, width)
        In the type of the images, those of one image after those of the one before, row by row.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or value, or no image gives a patch.

    Examples
    --------
    >>> image = np.arange(16).reshape(1, 4, 4)
    >>> extract_patches(image, 2)[:, 0].tolist()
    [[[0, 1], [4, 5]], [[2, 3], [6, 7]], [[8, 9], [12, 13]], [[10, 11], [14, 15]]]
    >>> extract_patches([image, image], 3, stride=1).shape
    (8, 1, 3, 3)
    """
    size = integer_pair("size", size, minimum=1)
    step = size if stride is None else integer_pair("stride", stride, minimum=1)
    if isinstance(images, np.ndarray) and images.ndim == 3:
        images = images[np.newaxis]
    cut = []
    for i, image in enumerate(cast("Iterable[npt.ArrayLike]", images)):
        pixels = as_numeric_array(f"images[{i}]", image)
        check_dimensions(f"images[{i}]", pixels.shape, {3: IMAGES[3]})
        if pixels.shape[1] < size[0] or pixels.shape[2] < size[1]:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(pixels, size, axis=(1, 2))
        windows = windows[:, :: step[0], :: step[1]].transpose(1, 2, 0, 3, 4)
        cut.append(windows.reshape(-1, len(pixels), *size))
    if not cut:
        raise ValueError(f"no image is as large as a patch of {size[0]}x{size[1]}")
    return np.concatenate(cut)


def image_suffix(file: FilePath) -> str:
    """Return the suffix of an image file, in lower case.

    Raises
    ------
    ValueError
        It is not that of an image that can be written.

    Examples
    --------
    >>> image_suffix("photo.PNG")
    '.png'
    """
    suffix = os.path.splitext(os.fspath(file))[1].lower()
    if suffix not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise ValueError(f"the name of an image must end in one of {known}, got {os.fspath(file)}")
    return suffix


def jpeg_steps(file: FilePath) -> npt.NDArray[np.float64] | None:
    """Return the steps to which a grey JPEG file rounds the coefficients of its blocks, (64,).

    None for other files, and where the image is turned after it has been read.
    """
    with _pillow().open(file) as image:
        upright = image.getexif().get(_ORIENTATION, 1) == 1
        if image.format != "JPEG" or image.mode != "L" or not upright:
            return None
        table = image.layer[0][_TABLE_OF_COMPONENT]
        return np.asarray(image.quantization[table], np.float64)


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError('images need Pillow: pip install "convext[images]"') from None
    return Image


def _read_pixels(stream: IO[bytes]) -> npt.NDArray[np.float64]:
    """Return the image in a stream, in [0, 1]: (H, W) when grey, else (H, W, 3)."""
    image = _pillow().open(stream)
    raw_mode = _raw_mode(image)
    if image.mode == "F":
        return _within_unit_range(_upright(image))
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG"):
        return _upright(image) / 65535
    if image.mode == "I":
        raise ValueError(f"the range of its integers ({raw_mode}) is not known")
    tags = getattr(image, "tag_v2", {})  # of a TIFF file
    if tags.get(_PLANAR_CONFIGURATION) == 2 and 16 in tags.get(_BITS_PER_SAMPLE, ()):
        raise ValueError("16-bit TIFF images with separate planes are not supported")
    if ";16" in raw_mode and image.mode in {"RGB", "RGBA"}:
        return _read_16_bit_colour(stream, raw_mode) / 65535
    return _upright(image.convert(_EIGHT_BIT_MODE.get(image.mode, "RGB"))) / 255


def _raw_mode(image: ImageFile) -> str:
    """Return how Pillow calls the layout of the values in the file."""
    arguments = image.tile[0].args if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _upright(image: Image) -> npt.NDArray[Any]:
    """Return the pixels of an image, turned as its EXIF orientation says."""
    from PIL import ImageOps

    return np.asarray(ImageOps.exif_transpose(image))


def _within_unit_range(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    if not (np.all(values >= 0) and np.all(values <= 1)):
        raise ValueError("its floating-point values do not all lie in [0, 1]")
    return values.astype(np.float64)


def _read_16_bit_colour(stream: IO[bytes], raw_mode: str) -> npt.NDArray[np.int64]:
    """Return 16-bit values of a colour image, of which Pillow itself keeps only the high bytes.

    Told that the values have the other byte order, it keeps the low bytes.
    """
    if raw_mode == "LA;16B":
        high_and_low = _read_as(stream, "RGBA").astype(np.int64)
        return high_and_low[:, :, 0] * 256 + high_and_low[:, :, 1]
    colours, _, order = raw_mode.partition(";16")
    other_order = {"B": "L", "L": "B", "N": "B" if np.little_endian else "L"}[order]
    if colours == "RGBa":
        raise ValueError("16-bit colours that are multiplied by their alpha are not supported")
    high = _read_as(stream, raw_mode).astype(np.int64)
    low = _read_as(stream, f"{colours};16{other_order}")
    return (high * 256 + low)[:, :, :3]


def _read_as(stream: IO[bytes], raw_mode: str) -> npt.NDArray[np.uint8]:
    """Return the bytes of an image whose values are read in the layout `raw_mode`."""
    stream.seek(0)
    image = _pillow().open(stream)
    image.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in image.tile
    ]
    return _upright(image)
