"""The command ``convext solve``: the filter between two files."""

from __future__ import annotations

import math
from argparse import Namespace

from .._support.interruption import save_anywhere, telling
from .._support.messages import say
from .._version import __version__
from ..kernels_file import save_kernels
from ..ops.operations import conv2d
from ..plotting import plot_solution
from .arguments import Parser, add_channels, add_shared, number_from_zero
from .filter_between import Filter, find_filter, levels_of
from .filter_report import show_filter
from .outputs import check_outputs

DESCRIPTION = (
    "Find the kernels that turn BEFORE into AFTER with the smallest mean squared error, "
    "exactly: without a learning rate, and without epochs.\n\n"
    "Each is an image (.png, .jpg, .tif and others), with values in [0, 1], or an array, "
    "(C, H, W), (N, C, H, W) or, if grey, (H, W), in a .npy or .npz file. Where AFTER is as "
    "large as BEFORE, its border is left out. Colour images give kernels from every colour to "
    "every colour, or, with --per-channel, one kernel for each. Where AFTER is a grey JPEG "
    "file, the kernel is fitted to the rounded coefficients in it, which allows for clipping, "
    "too."
)
EXAMPLE = "convext solve before.png after.png --kernel-shape 3 3 --bias --ignore-saturated"


def add_arguments(parser: Parser) -> None:
    """Add both files, the kernel and what it is fitted to."""
    add = parser.add_argument
    add("before", metavar="BEFORE", help="the image or array before")
    add("after", metavar="AFTER", help="the image or array after")
    text = "height and width of the kernels, or one number for both"
    add_shared(parser, "--kernel-shape", required=True, help=text)
    add("--bias", action="store_true", help="the filter may add a number, too")
    add(
        "--l2",
        type=number_from_zero,
        default=0.0,
        metavar="X",
        help="add X times the squared kernel values to what is minimized (default: 0)",
    )
    add(
        "--ignore-saturated",
        action="store_true",
        help="leave out where AFTER is 0 or at its maximum: there it may have been clipped",
    )
    add(
        "--per-channel",
        action="store_true",
        help="a kernel for each channel, which sees that channel alone",
    )
    add(
        "--fit",
        choices=("coefficients", "pixels"),
        default="coefficients",
        help="what of a grey JPEG file the kernel is fitted to: its coefficients (the default), or "
        "the pixels, which is quick",
    )
    add_channels(parser)
    add_shared(parser, "--threads", "--max-pixels")
    add_shared(parser, "--out", help="the kernels file to write")
    add_shared(
        parser,
        "--plot",
        help="draw before, after, what the kernels make of it, the difference and the kernels: a "
        ".png, .pdf or .svg file",
    )


def run(options: Namespace) -> None:
    """Find the filter, say what it is, and write the files that were asked for."""
    inputs = [options.before, options.after]
    options.ranks.once(lambda: check_outputs([options.out], inputs, options.plot))
    found = find_filter(options)
    if found is None:
        return
    show_filter(found, levels_of(options.after, found.after), options.ignore_saturated)
    if options.out is not None:
        record = _record(found, options)
        place, error = save_anywhere(
            lambda file: save_kernels(file, found.kernels, record), options.out
        )
        if error is not None:
            raise telling(error, f"the kernels are in {place}")
        say("Kernels: {file}", file=options.out)
    if options.plot is not None:
        sample = found.before[0]
        predicted = conv2d(sample, found.kernels, bias=found.bias, groups=found.groups)
        plot_solution(sample, found.after[0], predicted, found.kernels, options.plot)
        say("Plot: {file}", file=options.plot)


def _record(found: Filter, options: Namespace) -> dict[str, object]:
    return {
        "version": __version__,
        "before": options.before,
        "after": options.after,
        "bias": None if found.bias is None else found.bias.tolist(),
        "l2": options.l2,
        "ignore_saturated": options.ignore_saturated,
        "per_channel": options.per_channel,
        "from_coefficients": found.from_coefficients,
        "loss": found.loss,
        "rank": found.rank,
        "condition": found.condition if math.isfinite(found.condition) else None,
    }
