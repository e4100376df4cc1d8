"""Images and arrays in files, with their channels first."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .._support.array_files import NumericArray, is_archive, load_array
from .._support.checks import check_dimensions
from .._support.large_arrays import loaded
from .._support.stored_arrays import is_pattern
from ..image.images import load_image
from ..image.pillow_files import is_image
from ..ops.data import as_samples
from ..ops.shapes import IMAGES, seems_channels_last

Samples = npt.NDArray[Any]
Channels = Literal["first", "last"] | None


def load_samples(file: str, name: str, channels: Channels, max_pixels: int | None) -> Samples:
    """Return an image or an array as samples, (N, C, H, W); a .npy file is mapped."""
    if is_image(file):
        return load_image(file, max_pixels=max_pixels)[np.newaxis]
    array = load_images_array(file, name, channels, mmap=True)
    return array if array.ndim == 4 else array[np.newaxis]


def load_images_array(
    file: str, name: str, channels: Channels, *, mmap: bool = False
) -> NumericArray:
    """Return an array of images, (C, H, W) or (N, C, H, W); one of two dimensions is grey."""
    if is_pattern(file):
        array = as_samples(name, file) if mmap else loaded(as_samples(name, file))
    else:
        array = load_array(file, name, mmap=mmap and not is_archive(file, name))
    if array.ndim == 2:
        array = array[np.newaxis]
    label = f"{name} ({file})"
    check_dimensions(label, array.shape, IMAGES)
    return channels_first(label, array, channels)


def channels_first(label: str, array: NumericArray, channels: Channels) -> NumericArray:
    """Return images of a file with their channels before rows and columns.

    `channels` says where the file has them; where it does not, and the shape looks as if they came
    last, that is an error.
    """
    if channels == "last":
        return np.moveaxis(array, -1, -3)
    if channels is None and seems_channels_last(array.shape):
        raise ValueError(
            f"{label} has the shape {array.shape}, as if the channels came last: give "
            "--channels-last, or --channels-first if they do not"
        )
    return array
