"""Images as arrays: reading and writing, luminance, patches, and how far two images are apart.

Reading and writing needs Pillow, which is in the ``images`` extra.
"""

from . import images
from .images import (
    extract_patches,
    image_suffix,
    jpeg_steps,
    jpeg_tables,
    load_image,
    load_images,
    luminance,
    psnr,
    replace_luminance,
    save_image,
)

#: Suffixes of the files that are read as images, in lower case.
IMAGE_SUFFIXES = images.IMAGE_SUFFIXES

__all__ = [
    "IMAGE_SUFFIXES",
    "extract_patches",
    "image_suffix",
    "jpeg_steps",
    "jpeg_tables",
    "load_image",
    "load_images",
    "luminance",
    "psnr",
    "replace_luminance",
    "save_image",
]
