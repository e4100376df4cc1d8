"""The command ``convext solve``: the filter between two files, and what is said about it."""

from __future__ import annotations

import argparse
import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._support.checks import as_kernel_shape
from .._support.messages import counted, line_width, print_line, say, translate, translate_error
from .._version import __version__
from ..image.arrays import load_samples
from ..image.files import is_image, read_header
from ..kernels_file import save_kernels
from ..ops.operations import conv2d
from ..plotting import plot_solution
from ..solve.fractions import common_fraction
from ..solve.jpeg import find_kernel, rounding_error
from ..solve.kernels import solve_kernels, without_border
from ..solve.least_squares import Matrix
from ..solve.verdict import LARGER, Problem, Trial, Verdict, judge, standard_errors
from ..train.progress import waiting

# The values of at most so many kernels, and of so many channels of each, are printed.
MOST_SHOWN = 9

DECIMALS = 5

# What rounding to whole numbers leaves, as a root mean square.
ROUNDING = 1 / math.sqrt(12)

Samples = npt.NDArray[Any]


class Filter(NamedTuple):
    """A filter that was found between two files."""

    before: Samples  # (N, C, H, W)
    after: Samples  # (N, K, OH, OW), without its border
    kernels: Matrix  # (K, C, kh, kw)
    bias: Matrix | None
    loss: float
    rank: int
    condition: float
    centre: tuple[int, int] | None  # of the window, where AFTER is as large as BEFORE
    counted: int  # elements of the target
    saturated: int  # and those that may have been clipped
    warnings: list[str]
    verdict: Verdict
    errors: Matrix | None  # standard errors of the kernels, where they are known
    from_coefficients: bool = False  # of a JPEG file

    @property
    def groups(self) -> int:
        """How many parts the channels form."""
        return int(self.before.shape[1] // self.kernels.shape[1])


def find_filter(options: argparse.Namespace) -> Filter:
    """Load the files and solve."""
    before, whole = _load_pair(options)
    size = as_kernel_shape(options.kernel_shape)
    _check_sizes(before.shape, whole.shape, size, options)
    ends_at_1 = False
    if is_image(options.after):
        ends_at_1 = read_header(options.after, max_pixels=options.max_pixels).bits < 32
    after, unsaturated = whole, _unsaturated(whole, ends_at_1, options)
    centre, parts, solutions = None, [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", np.exceptions.RankWarning)
        for some in _channels(before.shape[1], options.per_channel):
            mask = unsaturated if options.ignore_saturated else None
            solution = solve_kernels(
                before[:, some],
                after[:, some],
                size,
                bias=options.bias,
                l2=options.l2,
                mask=None if mask is None else mask[:, some],
                num_threads=options.threads,
            )
            if solution.centre is not None:  # that of the other channels, too
                centre = solution.centre
                inside = without_border(before.shape, size, centre)
                after = after[inside]
                unsaturated = None if unsaturated is None else unsaturated[inside]
            clear = None if unsaturated is None else unsaturated[:, some]
            mask = clear if options.ignore_saturated else None
            part = Problem(
                before[:, some], after[:, some], mask, clear, solution.kernels, solution.bias
            )
            parts.append(part)
            solutions.append(solution)
    counts = [part.counted for part in parts]
    biases = [solution.bias for solution in solutions if solution.bias is not None]
    found = Filter(
        before,
        after,
        np.concatenate([solution.kernels for solution in solutions]),
        np.concatenate(biases) if biases else None,
        float(np.average([solution.loss for solution in solutions], weights=counts)),
        min(solution.rank for solution in solutions),
        max(solution.condition for solution in solutions),
        centre,
        sum(counts),
        0 if unsaturated is None else unsaturated.size - int(np.count_nonzero(unsaturated)),
        sorted({str(warning.message) for warning in caught}),
        Verdict("unknown", 0.0, 0.0, []),
        None,
    )
    fitted = _by_coefficients(found, parts[0], whole, options)
    if fitted is not None:
        found, parts[0] = fitted
    jpeg = [
        rounding_error(file, image[0]) if is_image(file) else 0.0
        for file, image in ((options.before, before), (options.after, whole))
    ]
    # What JPEG files have lost makes the kernel of their pixels another by more than its errors.
    if fitted is None and not found.warnings and not any(jpeg):
        found = found._replace(errors=np.concatenate([standard_errors(part) for part in parts]))
    return found._replace(verdict=_judge(parts, jpeg, options))


def _judge(parts: list[Problem], jpeg: list[float], options: argparse.Namespace) -> Verdict:
    """Return what is to be said about the channel of which the least is explained."""
    after = parts[0].after
    levels = levels_of(options.after, after)
    if levels is None and _are_whole_numbers(after):
        levels = 1
    rounding = 0.0 if levels is None else ROUNDING / levels
    verdicts = []
    for part in parts:
        gain = math.sqrt(float(np.square(part.kernels).sum(axis=(1, 2, 3)).max()))
        verdicts.append(judge(part, rounding, math.hypot(gain * jpeg[0], jpeg[1])))
    return max(verdicts, key=lambda verdict: verdict.error / max(verdict.yardstick, 1e-300))


def _are_whole_numbers(array: Samples) -> bool:
    """Return whether values are rounded to whole numbers, as the first ones are."""
    first = array[0, :, :100]
    return array.dtype.kind in "iu" or bool((first == np.rint(first)).all() and first.any())


def _by_coefficients(
    found: Filter, part: Problem, after: Samples, options: argparse.Namespace
) -> tuple[Filter, Problem] | None:
    """Return the filter that fits what a JPEG file knows of a grey image, if it is one."""
    grey = found.before.shape[1] == after.shape[1] == 1
    files = options.before, options.after
    wanted = options.fit == "coefficients" and options.l2 == 0 and not found.warnings
    if not (grey and wanted and all(map(is_image, files))):
        return None
    with waiting(
        translate("Fitting the coefficients of JPEG files (--fit pixels is quick)")
    ) as tick:
        fit = find_kernel(
            found.before[0, 0] * 255,
            after[0, 0] * 255,
            files,
            found.kernels.shape[2:],
            options.bias,
            found.centre,
            tick,
        )
    if fit is None:
        return None
    taps = found.kernels.size
    kernels = fit.weights[:taps].reshape(found.kernels.shape)
    bias = fit.weights[taps:] / 255 if options.bias else None
    part = part._replace(kernels=kernels, bias=bias)
    errors = None if fit.errors is None else fit.errors[:taps].reshape(kernels.shape)
    squares = float(np.square(part.residual()).sum())
    filter_found = found._replace(
        kernels=kernels,
        bias=bias,
        loss=squares / part.counted,
        errors=errors,
        from_coefficients=True,
    )
    return filter_found, part


def show_filter(found: Filter, levels: int | None) -> None:
    """Print the kernels, as fractions where they can be no others, and how well they fit."""
    if found.from_coefficients:
        say("AFTER is a JPEG file: the kernel was fitted to its rounded coefficients")
    size = _size(found.kernels.shape[2:])
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
    for number, kernel in enumerate(found.kernels[:MOST_SHOWN], 1):
        for channel, weights in enumerate(kernel[:MOST_SHOWN], 1):
            say("kernel {number}, channel {channel}:", number=number, channel=channel)
            rounded = np.round(weights, DECIMALS) + 0.0  # no -0
            print_line(np.array2string(rounded, suppress_small=True, max_line_width=line_width()))
        fraction = None
        if found.errors is not None and not unexplained:
            fraction = common_fraction(kernel, found.errors[number - 1])
        if fraction is not None:
            say("nearly {fraction}", fraction=fraction)
        if found.bias is not None:
            say("bias {bias}", bias=_with_levels(float(found.bias[number - 1]), levels))
    if len(found.kernels) > MOST_SHOWN:
        say("... and {rest}", rest=counted(len(found.kernels) - MOST_SHOWN, "more kernel"))
    say(
        "error left: {error}, root mean square of {count} values",
        error=_with_levels(math.sqrt(found.loss), levels),
        count=found.counted,
    )
    _show_verdict(found, levels)
    for message in found.warnings:
        say("warning: {message}", message=translate_error(message))


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
            size=_size(tuple(n + LARGER for n in found.kernels.shape[2:])),
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


def show_saturated(found: Filter, ignored: bool) -> None:
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


def save_filter(found: Filter, options: argparse.Namespace) -> None:
    """Write the files that were asked for."""
    if options.out is not None:
        record = {
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
        save_kernels(options.out, found.kernels, record)
    if options.plot is not None:
        sample = found.before[0]
        predicted = conv2d(sample, found.kernels, bias=found.bias, groups=found.groups)
        plot_solution(sample, found.after[0], predicted, found.kernels, options.plot)


def levels_of(file: str, values: Samples) -> int | None:
    """Return of how many levels above 0 the values of an image are; None for arrays."""
    if not is_image(file):
        return None
    for levels in (255, 65535):
        if np.abs(values * levels - np.rint(values * levels)).max() < 1e-6:
            return levels
    return None


def _with_levels(value: float, levels: int | None) -> str:
    if levels is None:
        return f"{value:.5g}"
    in_levels = f"{value * levels:.3g}"
    return translate(
        "{value} ({share} of {levels})", value=f"{value:.5g}", share=in_levels, levels=levels
    )


def _unsaturated(
    after: Samples, ends_at_1: bool, options: argparse.Namespace
) -> npt.NDArray[np.bool_] | None:
    """Return where values are not at the limits of their range, of which None is known.

    An image of 8 or 16 bits ends at 0 and 1, and integers where their type does. Of other arrays it
    is assumed, if asked, that they end at 0, unless they are negative somewhere, and at their
    largest value.
    """
    if ends_at_1:
        low, high = 0.0, 1.0
    elif after.dtype.kind in "iu":
        low, high = np.iinfo(after.dtype).min, np.iinfo(after.dtype).max
    elif options.ignore_saturated:
        low, high = (0.0 if after.min() >= 0 else -math.inf), after.max()
    else:
        return None
    return np.asarray((after > low) & (after < high))


def _channels(count: int, each: bool) -> list[slice]:
    """Return which channels are solved for together: all, or one after the other."""
    return [slice(c, c + 1) for c in range(count)] if each else [slice(None)]


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _load_pair(options: argparse.Namespace) -> tuple[Samples, Samples]:
    """Return both files as samples; an image whose channels are all the same has one."""
    before, after = (
        load_samples(file, name, options, mmap=True)
        for file, name in ((options.before, "BEFORE"), (options.after, "AFTER"))
    )
    grey = [
        is_image(file) and array.shape[1] == 3 and bool((array[:, :1] == array[:, 1:]).all())
        for file, array in ((options.before, before), (options.after, after))
    ]
    if options.per_channel and not all(grey):
        if before.shape[1] != after.shape[1]:
            raise ValueError(
                "--per-channel needs as many channels before as after, "
                f"got {before.shape[1]} and {after.shape[1]}"
            )
        return before, after
    if grey[0]:
        say("{file} is grey: one of its three equal channels was taken", file=options.before)
        before = before[:, :1]
    if grey[1]:
        say("{file} is grey: one of its three equal channels was taken", file=options.after)
        after = after[:, :1]
    return before, after


def _check_sizes(
    before: tuple[int, ...],
    after: tuple[int, ...],
    size: tuple[int, int],
    options: argparse.Namespace,
) -> None:
    """Raise ValueError unless the sizes of both files fit, with the kernels or without."""
    if before[0] != after[0]:
        raise ValueError(
            f"BEFORE ({options.before}) has {before[0]} samples but AFTER ({options.after}) has "
            f"{after[0]}"
        )
    if size[0] > before[2] or size[1] > before[3]:
        raise ValueError(f"kernels of {_size(size)} do not fit BEFORE of {_size(before[2:])}")
    valid = tuple(n - k + 1 for n, k in zip(before[2:], size, strict=True))
    if after[2:] not in (before[2:], valid):
        raise ValueError(
            f"BEFORE ({options.before}) is {_size(before[2:])} and AFTER ({options.after}) is "
            f"{_size(after[2:])}: for kernels of {_size(size)}, AFTER must be {_size(before[2:])}, "
            f"or {_size(valid)} without its border"
        )
