"""The command ``convext apply``: an array or an image convolved with kernels."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterator

import numpy as np

from .._support.atomic_files import atomic_write
from .._support.checks import RealArray, as_float64
from .._support.messages import say
from ..image.images import save_image
from ..image.pictures import Picture, load_picture, save_strips, strips_of
from ..image.pillow_files import FORMATS, is_image, suffix_of
from ..kernels_file import Record, are_numbers, load_kernels
from ..ops.operations import conv2d
from ..ops.shapes import Padding, check_channels, resolve
from ..solve.blocks import padded_rows
from .arguments import Parser, add_channels, add_shared
from .arrays import load_images_array
from .outputs import check_outputs

Strips = Iterator[tuple[int, RealArray]]


DESCRIPTION = (
    "Convolve INPUT with the kernels and write the result to OUTPUT.\n\n"
    "Each is an array, (C, H, W), (N, C, H, W) or, if grey, (H, W), or an image (.png, .jpg, "
    ".tif; INPUT also .bmp, .gif, .webp, .ppm, .pgm and others) with values in [0, 1]. Kernels "
    "with one channel are applied to each channel of a colour image. Arrays are written as "
    ".npy; images keep the bits, the ICC profile and the resolution of INPUT, but no "
    "transparency."
)
EXAMPLE = "convext apply kernels.npz photo.png filtered.png --padding same"


def add_arguments(parser: Parser) -> None:
    """Add kernels, both files, and how they are read."""
    add_shared(parser, "kernels")
    parser.add_argument("input", metavar="INPUT", help="an array or an image")
    parser.add_argument("output", metavar="OUTPUT", help="the file to write")
    add_shared(
        parser,
        "--padding",
        help="zeros around the input: valid (none, the default), same (the output is as large "
        "as the input), or how many",
    )
    add_channels(parser)
    add_shared(parser, "--page", "--max-pixels")


def run(options: Namespace) -> None:
    """Read, convolve and write."""
    if suffix_of(options.output) not in {".npy", *FORMATS}:
        raise ValueError(
            f"OUTPUT must end in .npy, or be an image, got {options.output}; images are written as "
            f"{', '.join(FORMATS)}"
        )
    check_outputs([options.output], [options.kernels, options.input])
    kernels, record = load_kernels(options.kernels)
    bias, groups = _bias(record, kernels), len(kernels) if record.get("per_channel") is True else 1
    to_image, clipped = not options.output.lower().endswith(".npy"), 0.0
    if is_image(options.input):
        picture = load_picture(options.input, options.page, options.max_pixels)
        shape, strips = _convolve_image(picture, kernels, bias, options.padding, groups)
        if to_image:
            clipped = save_strips(options.output, shape, strips, like=options.input)
        else:
            _save_array(options.output, _collect(shape, strips))
    else:
        array = load_images_array(options.input, "input_data", options.channels)
        result = conv2d(array, kernels, bias=bias, padding=options.padding, groups=groups)
        shape = result.shape
        if to_image:
            save_image(options.output, result)
            clipped = float(np.mean((result < 0) | (result > 1)))
        else:
            last = options.channels == "last"
            _save_array(options.output, np.moveaxis(result, -3, -1) if last else result)
    say("Wrote {file}: {shape}", file=options.output, shape=shape)
    if clipped:
        say("{share} of the values lay outside [0, 1] and were clipped", share=f"{clipped:.1%}")


def _bias(record: Record, kernels: RealArray) -> list[float] | None:
    """Return the bias in a record, which may hold anything; none where it is not one."""
    bias = record.get("bias")
    if not isinstance(bias, list) or len(bias) != len(kernels):
        return None
    return bias if are_numbers(bias) else None


def _convolve_image(
    picture: Picture,
    kernels: RealArray,
    bias: list[float] | None,
    padding: Padding,
    groups: int,
) -> tuple[tuple[int, ...], Strips]:
    """Return the shape of the result, and its rows in strips from above to below.

    Kernels of one channel are applied to each channel by itself.
    """
    count, channels, kh, kw = kernels.shape
    each = groups == 1 and channels == 1 and picture.shape[0] > 1
    if not each:
        check_channels(picture.shape, kernels.shape, groups)
    how = resolve(
        picture.shape, kernels.shape, stride=1, padding=padding, dilation=1, groups=groups
    )
    rows, columns = how.output_shape
    results = (
        (count,) if not each else picture.shape[:1] if count == 1 else (picture.shape[0], count)
    )

    def strips() -> Strips:
        planes = np.moveaxis(picture.pixels, -1, 0)[np.newaxis]
        values = max(picture.shape[0], math.prod(results)) * columns
        for begin, end in strips_of(rows, values, least=8 * kh):
            part = as_float64(padded_rows(planes, begin, (end - begin, columns), (kh, kw), how))
            part = part.reshape(-1, 1, *part.shape[2:]) if each else part[0]
            result = conv2d(part / picture.largest, kernels, bias=bias, groups=groups)
            yield begin, result.reshape(*results, end - begin, columns)

    return (*results, rows, columns), strips()


def _collect(shape: tuple[int, ...], strips: Strips) -> RealArray:
    result = np.empty(shape)
    for begin, rows in strips:
        result[..., begin : begin + rows.shape[-2], :] = rows
    return result


def _save_array(file: str, array: RealArray) -> None:
    with atomic_write(file) as stream:
        np.save(stream, array)
