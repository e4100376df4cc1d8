"""Arguments that several commands have, and how their values are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .._support.checks import finite_number, integer
from .._support.messages import printable

if TYPE_CHECKING:
    from ..ops.shapes import Padding


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


_INTEGER = {"type": integer_from(1)}

# What options that several commands have say of themselves; each command adds the rest.
_SHARED: dict[str, dict[str, Any]] = {
    "kernels": {"metavar": "KERNELS", "help": "a kernels file, or a 4-D array"},
    "--kernel-shape": _INTEGER | {"nargs": 2, "metavar": ("H", "W")},
    "--padding": {"type": _padding, "default": "valid"},
    "--epochs": _INTEGER | {"metavar": "N"},
    "--batch-size": _INTEGER | {"metavar": "B"},
    "--learning-rate": {"type": _positive, "metavar": "LR"},
    "--seed": {
        "type": integer_from(0),
        "default": 0,
        "metavar": "S",
        "help": "the seed of all random numbers (default: 0)",
    },
    "--threads": _INTEGER
    | {
        "metavar": "T",
        "help": "how many threads (default: OMP_NUM_THREADS, or all CPUs that it may use)",
    },
    "--page": {
        "type": integer_from(0),
        "metavar": "N",
        "help": "which image of a file with several, 0 for the first (the default)",
    },
    "--max-pixels": _INTEGER
    | {"metavar": "N", "help": "the pixels of the largest image to read (default: 178956970)"},
    "--checkpoint": {
        "metavar": "FILE",
        "help": "a .npz file to write the state of the training to, now and then and when it is "
        "interrupted; the one before is kept beside it",
    },
    "--checkpoint-every": {
        "metavar": "N",
        "help": "the epochs from one checkpoint to the next, or the seconds, as in 30s (the "
        "default)",
    },
    "--resume": {
        "action": "store_true",
        "help": "go on from the checkpoint, as if the training had never stopped; where there is "
        "none yet, begin anew",
    },
    "--out": {"metavar": "FILE"},
    "--plot": {"metavar": "FILE"},
    "--quiet": {"action": "store_true", "help": "print nothing but errors"},
}


def add_shared(parser: Parser, *options: str, **settings: Any) -> None:
    """Add options that several commands have; `settings` are those of this command."""
    for option in options:
        parser.add_argument(option, **_SHARED[option] | settings)


def add_channels(parser: Parser) -> None:
    """Add where arrays in files have their channels."""
    group = parser.add_mutually_exclusive_group()
    for where, order in (
        ("last", "(H, W, C) or (N, H, W, C)"),
        ("first", "(C, H, W) or (N, C, H, W)"),
    ):
        text = f"arrays in files are {order}"
        option = f"--channels-{where}"
        group.add_argument(option, dest="channels", action="store_const", const=where, help=text)


def checkpoint_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was given of the arguments of a training that are about its checkpoint."""
    names = ("checkpoint", "checkpoint_every", "resume")
    given = {name: getattr(options, name) for name in names if getattr(options, name)}
    if given.get("checkpoint_every", "").isdecimal():
        given["checkpoint_every"] = int(given["checkpoint_every"])
    return given


def checkpoint_files(options: argparse.Namespace) -> list[str]:
    """Return the files that a training writes its state to."""
    from ..train.checkpoint import files_of

    return [] if options.checkpoint is None else [*files_of(options.checkpoint)]


def with_both_sizes(arguments: Sequence[str]) -> list[str]:
    """Return arguments in which two numbers follow --kernel-shape, where there was one.

    Only what follows tells whether it was one, which argparse does not look at.

    Examples
    --------
    >>> with_both_sizes(["solve", "--kernel-shape", "3", "before.png", "after.png"])
    ['solve', '--kernel-shape', '3', '3', 'before.png', 'after.png']
    """
    option = "--kernel-shape"
    line: list[str] = []
    for text in arguments:
        line += text.split("=", 1) if text.startswith(f"{option}=") else [text]
    if option in line:
        at = line.index(option) + 1
        numbers = [text.lstrip("+-").isdecimal() for text in line[at : at + 2]]
        if numbers in ([True], [True, False]):
            line.insert(at, line[at])
    return line
