"""The command ``convext show``: kernels, and how they were trained."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Mapping

import numpy as np

from .._support.checks import RealArray
from .._support.messages import (
    columns,
    counted,
    format_loss,
    format_size,
    line_width,
    print_line,
    say,
    translate,
)
from ..kernels_file import Record, are_numbers, load_kernels
from ..plotting import plot_kernels, plot_training
from .arguments import Parser, add_shared
from .outputs import check_outputs

# Kernels whose values are printed, and channels of each.
_MOST_SHOWN = 4

DESCRIPTION = "Print the shape of the kernels, the record of their training, and their values."
EXAMPLE = "convext show kernels.npz --plot kernels.png"


def add_arguments(parser: Parser) -> None:
    """Add the kernels and the file to draw them to."""
    add_shared(parser, "kernels")
    add_shared(parser, "--plot", help="draw the kernels: a .png, .pdf or .svg file")


def run(options: Namespace) -> None:
    """Print and draw."""
    check_outputs([], [options.kernels], options.plot)
    kernels, record = load_kernels(options.kernels)
    say(
        "{file}: {kernels} of {size} ({dtype})",
        file=options.kernels,
        kernels=counted(len(kernels), "kernel"),
        size=format_size(kernels.shape[1:]),
        dtype=kernels.dtype,
    )
    _show_record(record)
    print_kernels(kernels, _MOST_SHOWN, _as_text)
    if options.plot is not None:
        if losses := _losses(record):
            plot_training(losses, kernels, options.plot)
        else:
            plot_kernels(kernels, options.plot)
        say("Plot: {file}", file=options.plot)


def _show_record(record: Record) -> None:
    if not record:
        return
    say("training record:")
    width = max(len(name) for name in record)
    for name, value in record.items():
        text = json.dumps(value, ensure_ascii=False)
        losses = _losses(record) if name == "losses" else []
        if losses:
            text = translate(
                "{first} to {last} ({epochs})",
                first=format_loss(losses[0]),
                last=format_loss(losses[-1]),
                epochs=counted(len(losses), "epoch"),
            )
        print_line(_shorten(f"  {name:<{width}}  {text}"))


def _shorten(text: str) -> str:
    """Return text that fits on a line and does nothing to a terminal but print."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    width = line_width()
    if columns(plain) <= width:
        return plain
    plain = plain[: width - 3]
    while columns(plain) > width - 3:
        plain = plain[:-1]
    return f"{plain}..."


def _losses(record: Mapping[str, object]) -> list[float]:
    """Return the losses in a record, which may hold anything; none where they are not numbers."""
    losses = record.get("losses")
    return losses if isinstance(losses, list) and are_numbers(losses) else []


def print_kernels(
    kernels: RealArray,
    most: int,
    as_text: Callable[[RealArray], str],
    after: Callable[[int], object] = bool,
) -> None:
    """Print the values of the first kernels, at most `most`, and of as many channels of each.

    `as_text` writes a channel, (kh, kw); `after` is called with the index of each kernel after it.
    """
    for index, kernel in enumerate(kernels[:most]):
        for channel, values in enumerate(kernel[:most], 1):
            say("kernel {number}, channel {channel}:", number=index + 1, channel=channel)
            print_line(as_text(values))
        if len(kernel) > most:
            say("... and {rest}", rest=counted(len(kernel) - most, "more channel"))
        after(index)
    if len(kernels) > most:
        say("... and {rest}", rest=counted(len(kernels) - most, "more kernel"))


def _as_text(values: RealArray) -> str:
    return np.array2string(values, precision=4, threshold=100, max_line_width=line_width())
