"""Arguments that several commands have, and how their values are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .._support.checks import finite_number, integer
from .._support.messages import printable

if TYPE_CHECKING:
    from ..ops.shapes import Padding

_KERNEL_SHAPE = "--kernel-shape"


class UsageError(Exception):
    """The command line cannot be understood."""


class Parser(argparse.ArgumentParser):
    """A parser that leaves it to `main` to report errors, on one line."""

    def error(self, message: str) -> NoReturn:
        """Raise what the parser would print."""
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: Any = None) -> None:
        if message and file is not None:
            file.write(printable(message, file))


def add_integer(
    parser: Parser,
    option: str,
    metavar: str,
    text: str,
    default: int | None = None,
    minimum: int = 1,
) -> None:
    """Add an option whose value is an integer; `text` is its help."""
    parser.add_argument(
        option, type=integer_from(minimum), metavar=metavar, default=default, help=text
    )


def add_kernel_shape(parser: Parser, text: str, *, required: bool = False) -> None:
    """Add the height and width of kernels; see `with_both_sizes`."""
    parser.add_argument(
        _KERNEL_SHAPE,
        type=integer_from(1),
        nargs=2,
        metavar=("H", "W"),
        required=required,
        help=text,
    )


def with_both_sizes(arguments: Sequence[str]) -> list[str]:
    """Return arguments in which two numbers follow --kernel-shape, where there was one.

    Only what follows tells whether it was one, which argparse does not look at.

    Examples
    --------
    >>> with_both_sizes(["solve", "--kernel-shape", "3", "before.png", "after.png"])
    ['solve', '--kernel-shape', '3', '3', 'before.png', 'after.png']
    """
    line: list[str] = []
    for text in arguments:
        line += text.split("=", 1) if text.startswith(f"{_KERNEL_SHAPE}=") else [text]
    if _KERNEL_SHAPE in line:
        at = line.index(_KERNEL_SHAPE) + 1
        numbers = [text.lstrip("+-").isdecimal() for text in line[at : at + 2]]
        if numbers in ([True], [True, False]):
            line.insert(at, line[at])
    return line


def add_padding(parser: Parser, text: str) -> None:
    """Add the zeros around the input."""
    parser.add_argument("--padding", type=_padding, default="valid", help=text)


def add_learning_rate(parser: Parser, default: float, text: str) -> None:
    """Add the learning rate of the first epoch."""
    parser.add_argument("--learning-rate", type=_positive, default=default, metavar="LR", help=text)


def add_seed(parser: Parser, text: str = "the seed of all random numbers (default: 0)") -> None:
    """Add the seed."""
    add_integer(parser, "--seed", "S", text, default=0, minimum=0)


def add_threads(parser: Parser) -> None:
    """Add the number of threads."""
    add_integer(
        parser,
        "--threads",
        "T",
        "how many threads (default: OMP_NUM_THREADS, or all CPUs that it may use)",
    )


def add_channels(parser: Parser) -> None:
    """Add where arrays in files have their channels."""
    add = parser.add_mutually_exclusive_group().add_argument
    for where, order in (
        ("last", "(H, W, C) or (N, H, W, C)"),
        ("first", "(C, H, W) or (N, C, H, W)"),
    ):
        add(
            f"--channels-{where}",
            dest="channels",
            action="store_const",
            const=where,
            help=f"arrays in files are {order}",
        )


def add_page(parser: Parser) -> None:
    """Add which image of a file is read."""
    add_integer(
        parser,
        "--page",
        "N",
        "which image of a file with several, 0 for the first (the default)",
        minimum=0,
    )


def add_max_pixels(parser: Parser) -> None:
    """Add how large an image may be."""
    text = "the pixels of the largest image to read (default: 178956970)"
    add_integer(parser, "--max-pixels", "N", text)


def add_plot(parser: Parser, text: str) -> None:
    """Add the file that something is drawn to; `text` says what."""
    parser.add_argument("--plot", metavar="FILE", help=text)


def add_quiet(parser: Parser) -> None:
    """Add the wish for silence."""
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def integer_from(minimum: int) -> Callable[[str], int]:
    """Return what reads an integer of at least `minimum`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}") from None
        try:
            return integer("it", value, minimum=minimum)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def number_from_zero(text: str) -> float:
    """Return a number that is not negative."""
    try:
        return finite_number("it", float(text), minimum=0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a finite number of at least 0, got {text!r}"
        ) from None


def _positive(text: str) -> float:
    try:
        return finite_number("it", float(text), above=0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a finite number above 0, got {text!r}"
        ) from None


def _padding(text: str) -> Padding:
    if text == "valid":
        return "valid"
    if text == "same":
        return "same"
    try:
        return integer("it", int(text), minimum=0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected valid, same or an integer of at least 0, got {text!r}"
        ) from None
