"""The values of kernels, printed."""

from __future__ import annotations

from collections.abc import Callable

from .._support.checks import RealArray
from .._support.messages import counted, print_line, say


def print_kernels(
    kernels: RealArray,
    most: int,
    as_text: Callable[[RealArray], str],
    after: Callable[[int], object] = bool,
) -> None:
    """Print the values of at most so many kernels, and of as many channels of each.

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
