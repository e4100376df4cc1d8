"""What is said about a filter that was found between two files."""

from __future__ import annotations

import math

import numpy as np

from .._support.checks import RealArray
from .._support.messages import format_size, line_width, say, translate, translate_error
from ..solve.fractions import common_fraction
from ..solve.verdict import LARGER, Trial
from .filter_between import Filter
from .show import print_kernels

# Kernels whose values are printed, and channels of each.
MOST_SHOWN = 9

DECIMALS = 5


def show_filter(found: Filter, levels: int | None, ignored: bool) -> None:
    """Print the kernels, as fractions where they can be no others, and how well they fit.

    `ignored`: values that may have been clipped were.
    """
    if found.from_coefficients:
        say("AFTER is a JPEG file: the kernel was fitted to its rounded coefficients")
    size = format_size(found.kernels.shape[2:])
    unexplained = found.verdict.kind == "unexplained"
    if unexplained:
        say("No kernel of {size} explains this pair. The nearest one is:", size=size)
    if found.centre is not None and any(n % 2 == 0 for n in found.kernels.shape[2:]):
        row, column = (n + 1 for n in found.centre)
        say(
            "of the middles of a {size} kernel, that in row {row} and column {column} fits AFTER",
            size=size,
            row=row,
            column=column,
        )

    def show_more(index: int) -> None:
        fraction = None
        if found.errors is not None and not unexplained:
            fraction = common_fraction(found.kernels[index], found.errors[index])
        if fraction is not None:
            say("nearly {fraction}", fraction=fraction)
        if found.bias is not None:
            say("bias {bias}", bias=_with_levels(float(found.bias[index]), levels))

    print_kernels(found.kernels, MOST_SHOWN, _rounded, show_more)
    say(
        "error left: {error}, root mean square of {count} values",
        error=_with_levels(math.sqrt(found.loss), levels),
        count=found.counted,
    )
    _show_verdict(found, levels)
    for message in found.warnings:
        say("warning: {message}", message=translate_error(message))
    _show_saturated(found, ignored)


def _rounded(values: RealArray) -> str:
    rounded = np.round(values, DECIMALS)
    rounded[rounded == 0] = 0  # no -0
    return np.array2string(rounded, suppress_small=True, max_line_width=line_width())


def _show_verdict(found: Filter, levels: int | None) -> None:
    """Print what the error that is left may be, and what else to try."""
    verdict = found.verdict
    yardstick = _with_levels(verdict.yardstick, levels)
    if verdict.kind == "rounding" and levels is not None:
        say("no more than rounding to {levels} levels leaves", levels=levels + 1)
    elif verdict.kind == "jpeg":
        say("no more than the rounding in JPEG files may leave: {error}", error=yardstick)
    elif verdict.kind == "noise":
        say("as much as in flat parts, {error}: noise, which no kernel explains", error=yardstick)
    elif verdict.kind == "unknown":
        say("noise, or what no kernel makes: without flat parts there is no telling")
    elif verdict.kind == "unexplained" and not verdict.trials:
        say("in flat parts it is {error}: there is more than noise", error=yardstick)
        say(
            "a kernel of {size}, a bias, a shift and a curve of brightness do not help: a far "
            "larger one might, or the filter may be none that is linear",
            size=format_size(n + LARGER for n in found.kernels.shape[2:]),
        )
    for trial in verdict.trials:
        _show_trial(trial, _with_levels(trial.error, levels), found.kernels.shape[2:])


def _show_trial(trial: Trial, error: str, size: tuple[int, ...]) -> None:
    first, second = trial.value or (0, 0)
    if trial.name == "size":
        say(
            "a larger kernel leaves {error}: try --kernel-shape {height} {width}",
            error=error,
            height=first,
            width=second,
        )
    elif trial.name == "bias":
        say("with a bias, {error} is left: try --bias", error=error)
    elif trial.name == "clipped":
        say("where nothing was clipped, {error} is left: try --ignore-saturated", error=error)
    elif trial.name == "both":
        say(
            "where nothing was clipped, with a bias, {error} is left: try --bias "
            "--ignore-saturated",
            error=error,
        )
    elif trial.name == "curve":
        say(
            "with a curve of brightness, such as a gamma, behind the kernel, {error} is left: undo "
            "it first",
            error=error,
        )
    elif trial.name == "shift":
        say(
            "AFTER is shifted by {down} pixels down and {across} to the right, which leaves "
            "{error}: shift it back, or try --kernel-shape {height} {width}",
            error=error,
            down=first,
            across=second,
            height=2 * (abs(first) + size[0] // 2) + 1,
            width=2 * (abs(second) + size[1] // 2) + 1,
        )
    elif trial.name == "median":
        say("a median filter leaves {error}: that is not linear", error=error)
    elif trial.name == "maximum":
        say("a maximum filter (dilation) leaves {error}: that is not linear", error=error)
    else:
        say("a minimum filter (erosion) leaves {error}: that is not linear", error=error)


def _show_saturated(found: Filter, ignored: bool) -> None:
    """Say how many target values may have been clipped."""
    if found.saturated == 0:
        return
    done = translate("they were left out") if ignored else translate("see --ignore-saturated")
    if found.from_coefficients:
        done = translate("the fit allowed for it")
    say(
        "{count} values of AFTER ({share}) are 0 or at the maximum, where they may have been "
        "clipped: {done}",
        count=found.saturated,
        share=f"{found.saturated / found.after.size:.1%}",
        done=done,
    )


def _with_levels(value: float, levels: int | None) -> str:
    if levels is None:
        return f"{value:.5g}"
    in_levels = f"{value * levels:.3g}"
    return translate(
        "{value} ({share} of {levels})", value=f"{value:.5g}", share=in_levels, levels=levels
    )
