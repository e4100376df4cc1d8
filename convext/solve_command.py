"""The command ``convext solve``: the filter between two files, and what is said about it."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._array_files import is_archive, load_array
from ._checks import check_dimensions
from ._image_files import is_image, read_header
from ._jpeg import find_kernel
from ._version import __version__
from .fractions import common_fraction
from .image import load_image
from .kernels_file import save_kernels
from .least_squares import Matrix
from .messages import counted, line_width, print_line, say, translate, translate_error
from .operations import conv2d
from .plotting import plot_solution
from .shapes import IMAGES
from .solve import solve_kernels, without_border

# The values of at most so many kernels, and of so many channels of each, are printed.
MOST_SHOWN = 9

DECIMALS = 5

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
    counted: int  # elements of the target
    saturated: int  # and those that may have been clipped
    warnings: list[str]
    from_coefficients: bool = False  # of a JPEG file

    @property
    def groups(self) -> int:
        """How many parts the channels form."""
        return int(self.before.shape[1] // self.kernels.shape[1])


def find_filter(options: argparse.Namespace) -> Filter:
    """Load the files and solve."""
    before, after = (_load(options, name) for name in ("before", "after"))
    size = tuple(options.kernel_shape)
    if options.per_channel and before.shape[1] != after.shape[1]:
        raise ValueError(
            "--per-channel needs as many channels before as after, "
            f"got {before.shape[1]} and {after.shape[1]}"
        )
    ends_at_1 = False
    if is_image(options.after):
        ends_at_1 = read_header(options.after, max_pixels=options.max_pixels).bits < 32
    unsaturated = _unsaturated(after, ends_at_1, options.ignore_saturated)
    inside = after[without_border(before.shape, after.shape, size)]
    mask = unsaturated if options.ignore_saturated else None
    solutions, counts = [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", np.exceptions.RankWarning)
        for source, target, counted in _channels(before, after, mask, options.per_channel):
            border = without_border(source.shape, target.shape, size)
            counts.append(target[border].size if counted is None else counted[border].sum())
            solutions.append(
                solve_kernels(
                    source,
                    target,
                    size,
                    bias=options.bias,
                    l2=options.l2,
                    mask=counted,
                    num_threads=options.threads,
                )
            )
    biases = [solution.bias for solution in solutions if solution.bias is not None]
    losses = [solution.loss for solution in solutions]
    saturated = 0
    if unsaturated is not None:
        border = without_border(before.shape, after.shape, size)
        saturated = inside.size - int(np.count_nonzero(unsaturated[border]))
    found = Filter(
        before,
        inside,
        np.concatenate([solution.kernels for solution in solutions]),
        np.concatenate(biases) if biases else None,
        float(np.average(losses, weights=counts)),
        min(solution.rank for solution in solutions),
        max(solution.condition for solution in solutions),
        int(sum(counts)),
        saturated,
        sorted({str(warning.message) for warning in caught}),
    )
    counted = np.ones(inside.shape, bool)
    if mask is not None:
        counted = mask[without_border(before.shape, after.shape, size)]
    return _by_coefficients(found, after, counted, options)


def _by_coefficients(
    found: Filter, after: Samples, counted: npt.NDArray[np.bool_], options: argparse.Namespace
) -> Filter:
    """Return the filter that fits what a JPEG file knows of a grey image, if it is one."""
    grey = found.before.shape[1] == after.shape[1] == 1
    files = options.before, options.after
    if not (grey and all(map(is_image, files))) or options.l2 > 0 or found.warnings:
        return found
    pixels, target = found.before[0, 0] * 255, after[0, 0] * 255
    fit = find_kernel(pixels, target, files, found.kernels.shape[2:], options.bias)
    if fit is None:
        return found
    taps = found.kernels.size
    kernels = fit.weights[:taps].reshape(found.kernels.shape)
    bias = fit.weights[taps:] / 255 if options.bias else None
    errors = conv2d(found.before, kernels, bias=bias) - found.after
    return found._replace(
        kernels=kernels,
        bias=bias,
        loss=float(np.mean(np.square(errors[counted]))),
        from_coefficients=True,
    )


def show_filter(found: Filter, levels: int | None) -> None:
    """Print the kernels, as fractions where they are near one, and how well they fit."""
    if found.from_coefficients:
        say("AFTER is a JPEG file: the kernel was fitted to its rounded coefficients")
    for number, kernel in enumerate(found.kernels[:MOST_SHOWN], 1):
        for channel, weights in enumerate(kernel[:MOST_SHOWN], 1):
            say("kernel {number}, channel {channel}:", number=number, channel=channel)
            rounded = np.round(weights, DECIMALS) + 0.0  # no -0
            print_line(np.array2string(rounded, suppress_small=True, max_line_width=line_width()))
        fraction = common_fraction(kernel)
        if fraction is not None:
            say("nearly {fraction}", fraction=fraction)
        if found.bias is not None:
            bias = _with_levels(float(found.bias[number - 1]), levels)
            say("bias {bias}", bias=bias)
    if len(found.kernels) > MOST_SHOWN:
        say("... and {rest}", rest=counted(len(found.kernels) - MOST_SHOWN, "more kernel"))
    say(
        "error left: {error}, root mean square of {count} values",
        error=_with_levels(math.sqrt(found.loss), levels),
        count=found.counted,
    )
    for message in found.warnings:
        say("warning: {message}", message=translate_error(message))


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


def _load(options: argparse.Namespace, name: str) -> Samples:
    """Return an image or an array as samples; a .npy file is mapped."""
    file = getattr(options, name)
    if is_image(file):
        return load_image(file, max_pixels=options.max_pixels)[np.newaxis]
    array = load_array(file, name, mmap=not is_archive(file, name))
    check_dimensions(f"{name} ({file})", array.shape, IMAGES)
    return array if array.ndim == 4 else array[np.newaxis]


def _unsaturated(after: Samples, ends_at_1: bool, asked: bool) -> npt.NDArray[np.bool_] | None:
    """Return where values are not at the limits of their range, of which None is known.

    An image of 8 or 16 bits ends at 0 and 1, and integers where their type does. Of other arrays it
    is assumed, if asked, that they end at 0, unless they are negative somewhere, and at their
    largest value.
    """
    if ends_at_1:
        low, high = 0.0, 1.0
    elif after.dtype.kind in "iu":
        low, high = np.iinfo(after.dtype).min, np.iinfo(after.dtype).max
    elif asked:
        low, high = (0.0 if after.min() >= 0 else -math.inf), after.max()
    else:
        return None
    return np.asarray((after > low) & (after < high))


def _channels(
    before: Samples, after: Samples, mask: npt.NDArray[np.bool_] | None, each: bool
) -> Iterator[tuple[Samples, Samples, npt.NDArray[np.bool_] | None]]:
    """Yield the arrays, or each channel of them."""
    if not each:
        yield before, after, mask
        return
    for channel in range(before.shape[1]):
        one = slice(None), slice(channel, channel + 1)
        yield before[one], after[one], None if mask is None else mask[one]
