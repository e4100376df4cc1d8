"""Images as arrays: reading and writing, luminance, patches, and how far two images are apart.

Reading and writing needs Pillow, which is in the ``images`` extra.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .._support.atomic_files import FilePath
from .._support.checks import (
    LARGEST_SIZE,
    as_numeric_array,
    check_dimensions,
    integer,
    integer_pair,
)
from ..ops.losses import mse_loss
from ..ops.shapes import IMAGES, Pair
from . import pillow_files
from .pictures import as_floats, as_picture, load_picture, save_strips, strips_of

# Where Pillow keeps which of a JPEG file's tables a component uses.
_TABLE_OF_COMPONENT = 3

IMAGE_SUFFIXES = pillow_files.SUFFIXES


def load_image(
    file: FilePath, *, page: int | None = None, max_pixels: int | None = None
) -> npt.NDArray[np.float64]:
    """Read an image as an array, with values in [0, 1] where it has 8 or 16 bits.

    Grey images give one channel, all others three (red, green, blue): palettes and other colour
    spaces are converted. Transparency is dropped, the colours under it are kept as they are
    stored. The image is turned as its EXIF orientation says. 8-bit values are divided by 255 and
    16-bit values by 65535, without loss; integers of 32 bits and floating-point values stay as
    they are, whatever their range.

    Parameters
    ----------
    file : path
        A PNG, JPEG, TIFF, BMP, GIF, WebP, PPM or PGM file. Other formats are read as Pillow reads
        them, which may mean 8 bits where the file has more.
    page : int, optional
        Which image of a file with several, 0 for the first. Without it the first is read, with a
        warning where there are others.
    max_pixels : int, optional
        The largest image to read; by default Pillow's limit, 178,956,970 pixels.

    Returns
    -------
    numpy.ndarray
        float64, (C, H, W) with C = 1 or 3.

    Raises
    ------
    OSError
        From the system, unchanged: FileNotFoundError, IsADirectoryError, PermissionError.
    ValueError
        The file is not an image, is damaged or too large, or has no such page.
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
    return load_picture(file, page, max_pixels).rows()


def save_image(
    file: FilePath, array: npt.ArrayLike, *, bits: int | None = None, like: FilePath | None = None
) -> None:
    """Write an array as an image; values outside [0, 1] are clipped.

    A failure leaves an older file as it was.

    Parameters
    ----------
    file : path
        The file to write: .png, .jpg, .jpeg, .tif or .tiff.
    array : array_like
        (C, H, W): grey when C is 1, red, green and blue when it is 3. Floats in [0, 1], or
        integers of type uint8 (0 to 255) or uint16 (0 to 65535).
    bits : 8, 16 or 32, optional
        Of each value. By default those of `like`, or of the type of integers, or 8. JPEG holds 8
        bits, PNG 16 at most. 32, for TIFF files, are floating-point values, not clipped.
    like : path, optional
        An image: the new one gets its bits, its ICC profile, where that is for as many channels,
        and its resolution.

    Raises
    ------
    TypeError
        `array` does not hold real numbers, or integers of another type.
    ValueError
        `array` has another shape or holds NaN, the suffix is unknown, or `bits` does not go with
        it.
    OSError
        The folder does not exist or is not writable, or the disk is full.
    ImportError
        Pillow is missing.

    Warns
    -----
    UserWarning
        The file cannot hold as many bits as `like` or the type of `array` has.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_image(f"{folder}/red.png", np.array([[[1.5]], [[0.0]], [[-1.0]]]))
    ...     load_image(f"{folder}/red.png").ravel()
    array([1., 0., 0.])
    """
    pillow_files.format_of(file)
    picture = as_picture("array", array)
    channels, height, width = picture.shape
    own = 16 if picture.largest == 65535 else 8
    strips = ((a, picture.rows(a, b)) for a, b in strips_of(height, channels * width))
    save_strips(file, picture.shape, strips, bits=bits, like=like, own_bits=own)


def load_images(
    folder: FilePath, *, max_pixels: int | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """Read all images in a folder.

    Parameters
    ----------
    folder : path
        Where they are: files with the suffixes of images (`IMAGE_SUFFIXES`), in either case.
        Hidden files (``._0.jpg``) are passed over.
    max_pixels : int, optional
        The largest image to read, as in `load_image`.

    Returns
    -------
    dict
        The images as `load_image` reads them, by the names of their files, in the order of these.

    Raises
    ------
    OSError, ValueError, ImportError
        As `load_image` does; and where there is no image.

    Warns
    -----
    UserWarning
        Files were skipped that may be images, by their names.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_image(f"{folder}/b.png", np.ones((1, 2, 3)))
    ...     save_image(f"{folder}/a.png", np.ones((3, 4, 5)))
    ...     {name: image.shape for name, image in load_images(folder).items()}
    {'a.png': (3, 4, 5), 'b.png': (1, 2, 3)}
    """
    return {
        name: load_image(os.path.join(folder, name), max_pixels=max_pixels)
        for name in pillow_files.image_files(folder)
    }


def luminance(image: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the luminance of images: the Y of YCbCr, from 16/255 for black to 235/255 for white.

    Parameters
    ----------
    image : array_like, (3, H, W) or (N, 3, H, W)
        Red, green and blue: floats in [0, 1], uint8 (0 to 255) or uint16 (0 to 65535). Images of
        one channel are returned as they are, as floats.

    Returns
    -------
    numpy.ndarray, (1, H, W) or (N, 1, H, W)

    Raises
    ------
    TypeError, ValueError
        `image` does not hold real numbers, or integers of another type, or has another shape.

    References
    ----------
    Recommendation ITU-R BT.601, which super-resolution is measured by.

    Examples
    --------
    >>> white = np.ones((3, 1, 1))
    >>> (luminance(white) * 255).round(9)
    array([[[235.]]])
    """
    colours = as_floats("image", image)
    check_dimensions("image", colours.shape, IMAGES)
    if colours.shape[-3] == 1:
        return colours.astype(np.float64)
    if colours.shape[-3] != 3:
        raise ValueError(f"image must have 1 channel or 3, got {colours.shape[-3]}")
    red, green, blue = np.moveaxis(colours.astype(np.float64, copy=False), -3, 0)
    grey = (16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255
    return np.expand_dims(grey, -3)


def replace_luminance(image: npt.ArrayLike, new: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return a colour image with another luminance and the same chroma.

    Parameters
    ----------
    image : array_like, (3, H, W) or (1, H, W)
        Red, green and blue, as in `luminance`; of a grey image, the result is `new`.
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
    colours = as_floats("image", image)
    change = as_floats("new", new).astype(np.float64, copy=False) - luminance(colours)
    # Luminance is stored on 219 of 255 levels; chroma depends on differences of colours alone.
    return colours + change * (255 / 219 if colours.shape[-3] == 3 else 1)


def psnr(image: npt.ArrayLike, reference: npt.ArrayLike, border: int = 0) -> float:
    """Return the peak signal-to-noise ratio in decibels: 10 log10(1 / mean squared error).

    Parameters
    ----------
    image, reference : array_like, (C, H, W)
        Of one shape: floats in [0, 1], or integers of type uint8 (0 to 255) or uint16 (0 to
        65535), also one of each.
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
    images = []
    for name, given in ("image", image), ("reference", reference):
        images.append(as_floats(name, given))
        check_dimensions(name, images[-1].shape, IMAGES)
    border = integer("border", border, minimum=0)
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
    pillow_files.format_of(file)
    return pillow_files.suffix_of(file)


def jpeg_steps(file: FilePath) -> npt.NDArray[np.float64] | None:
    """Return the steps to which a grey JPEG file rounds the coefficients of its blocks, (64,).

    None for other files, and where the image is turned after it has been read.
    """
    with pillow_files.opened(file, max_pixels=LARGEST_SIZE) as image:
        upright = pillow_files.orientation(image) == 1
        if image.format != "JPEG" or image.mode != "L" or not upright:
            return None
        jpeg: Any = image
        table = jpeg.layer[0][_TABLE_OF_COMPONENT]
        return np.asarray(jpeg.quantization[table], np.float64)


def jpeg_tables(file: FilePath) -> list[npt.NDArray[np.float64]]:
    """Return the steps of each table of a JPEG file, that of the luminance first; else none."""
    with pillow_files.opened(file, max_pixels=LARGEST_SIZE) as image:
        tables = getattr(image, "quantization", None) if image.format == "JPEG" else None
        return [np.asarray(tables[i], np.float64) for i in sorted(tables)] if tables else []
