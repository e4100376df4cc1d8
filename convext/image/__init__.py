"""Images as arrays: reading and writing, luminance, patches, and how far two images are apart.

Reading and writing needs Pillow, which is in the ``images`` extra.
"""

from .images import (
    IMAGE_SUFFIXES,
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
