"""Images and arrays in files, as samples for the command line."""

from __future__ import annotations

import argparse
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .._support.array_files import is_archive, load_array
from .._support.checks import check_dimensions
from ..ops.data import channels_first
from ..ops.shapes import IMAGES
from .files import is_image
from .images import load_image

Samples = npt.NDArray[Any]


def load_samples(
    file: str, name: str, options: argparse.Namespace, *, mmap: bool = False
) -> Samples:
    """Return an image or an array as samples, (N, C, H, W); a .npy file may be mapped."""
    if is_image(file):
        return load_image(file, max_pixels=options.max_pixels)[np.newaxis]
    array = load_images_array(file, name, options.channels, mmap=mmap)
    return array if array.ndim == 4 else array[np.newaxis]


def load_images_array(
    file: str, name: str, channels: Literal["first", "last"] | None, *, mmap: bool = False
) -> Samples:
    """Return an array of images, (C, H, W) or (N, C, H, W); one of two dimensions is grey.

    `channels` says where the file has them; where it does not, and the shape looks as if they came
    last, that is an error.
    """
    array = load_array(file, name, mmap=mmap and not is_archive(file, name))
    if array.ndim == 2:
        array = array[np.newaxis]
    label = f"{name} ({file})"
    check_dimensions(label, array.shape, IMAGES)
    return channels_first(label, array, channels)
