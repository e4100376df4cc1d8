"""The command ``convext generate``: a random data set in two files."""

from __future__ import annotations

from argparse import Namespace

from ..ops.data import generate_random_data
from .arguments import Parser, add_shared, integer_from

# The textbook's data set.
SAMPLES, CHANNELS, IMAGE_SIZE = 100, 3, (28, 28)
NUM_KERNELS, KERNEL_SHAPE = 2, (2, 2)

DESCRIPTION = (
    "Write input data and target output, random and uniform on [0, 1), as two .npy files. "
    "The defaults are the data set that `convext train` trains on."
)
EXAMPLE = "convext generate\n  convext train input_data.npy target_output.npy"


def add_arguments(parser: Parser) -> None:
    """Add files and shapes."""
    height, width = IMAGE_SIZE
    add = parser.add_argument
    for name, file, text in (
        ("input", "input_data.npy", "the file to write the input data to"),
        ("target", "target_output.npy", "the file to write the target output to"),
    ):
        help = f"{text} (default: {file})"
        add(name, metavar=name.upper(), nargs="?", default=file, help=help)
    for option, sizes, default, help in (
        (
            "--input-shape",
            ("N", "C", "H", "W"),
            (SAMPLES, CHANNELS, height, width),
            "shape of the input data (default: 100 3 28 28)",
        ),
        (
            "--target-shape",
            ("N", "K", "OH", "OW"),
            (SAMPLES, NUM_KERNELS, height - 1, width - 1),
            "shape of the target output (default: 100 2 27 27)",
        ),
    ):
        add(option, type=integer_from(1), nargs=4, metavar=sizes, default=default, help=help)
    add_shared(parser, "--seed", help="the seed of the random numbers (default: 0)")


def run(options: Namespace) -> None:
    """Write both files."""
    generate_random_data(
        tuple(options.input_shape),
        tuple(options.target_shape),
        options.input,
        options.target,
        seed=options.seed,
    )
