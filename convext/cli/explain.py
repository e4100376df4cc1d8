"""The command ``convext explain``: the ways of computing a convolution, and the one taken."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from typing import get_args

from .._support.messages import line_width, print_line, translate
from ..ops.explanations import Operation, explain, table
from .arguments import Parser, add_shared, integer_from
from .help import wrap

DESCRIPTION = (
    "Print which ways of computing a convolution, or a gradient of it, there are for these sizes, "
    "what each is predicted to take, and which one is taken. Nothing is convolved."
)
EXAMPLE = "convext explain --input 64 56 56 --kernels 64 64 3 3 --padding same"


def add_arguments(parser: Parser) -> None:
    """Add the operation, the sizes and the options."""
    count = integer_from(1)
    add = parser.add_argument
    add(
        "operation",
        metavar="OPERATION",
        nargs="?",
        type=_not_a_size,
        choices=get_args(Operation),
        default="conv2d",
        help="conv2d (the default), conv2d_input_grad or conv2d_kernel_grad",
    )
    add(
        "--input",
        type=count,
        nargs=3,
        metavar=("C", "H", "W"),
        required=True,
        help="the size of a sample of the input",
    )
    add(
        "--kernels",
        type=count,
        nargs=4,
        metavar=("K", "C", "H", "W"),
        required=True,
        help="the size of the kernels: how many, channels of a group, height and width",
    )
    add("--samples", type=count, default=1, metavar="N", help="how many samples (default: 1)")
    text = "pixels from one window to the next (default: 1)"
    add("--stride", type=count, default=1, metavar="S", help=text)
    text = "pixels from one tap of a kernel to the next (default: 1)"
    add("--dilation", type=count, default=1, metavar="D", help=text)
    add_shared(
        parser,
        "--padding",
        metavar="P",
        help="zeros around the input: how many on every side, valid (none, the default) or same",
    )
    text = "groups that channels and kernels are shared out to (default: 1)"
    add("--groups", type=count, default=1, metavar="G", help=text)
    text = "the type of the arrays (default: float64)"
    add("--dtype", choices=("float32", "float64"), default="float64", help=text)
    add_shared(parser, "--threads")


def _not_a_size(text: str) -> str:
    """Return the name of an operation: a number in its place is one that --input does not take."""
    if text.isdecimal():
        raise ArgumentTypeError(
            f"a size too many, {text}: --input takes C H W, and --samples how many samples"
        )
    return text


def run(options: Namespace) -> None:
    """Print the table."""
    explanation = explain(
        options.operation,
        (options.samples, *options.input),
        tuple(options.kernels),
        stride=options.stride,
        padding=options.padding,
        dilation=options.dilation,
        groups=options.groups,
        dtype=options.dtype,
        num_threads=options.threads,
    )
    for line in table(explanation, translate, wrap, line_width()):
        print_line(line)
