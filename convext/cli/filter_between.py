"""The filter between two files: reading them, solving, and judging what is left."""

from __future__ import annotations

import math
import warnings
from argparse import Namespace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .._support.checks import as_kernel_shape, samples_in_blocks
from .._support.memory import available_memory
from .._support.messages import format_size, say, translate
from ..image.pillow_files import is_image, read_header
from ..solve.jpeg import Fit, find_kernel, rounding_error
from ..solve.kernels import solve_kernels, without_border
from ..solve.least_squares import Matrix, Solution
from ..solve.masks import Data
from ..solve.verdict import SolvedPair, Verdict, judge, standard_errors
from ..train.progress import waiting
from .arrays import Samples, load_samples

# How often the verdict has the pixels, in float64.
COPIES = 8

# What rounding to whole numbers leaves, as a root mean square.
ROUNDING = 1 / math.sqrt(12)


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
    from_coefficients: bool  # of a JPEG file

    @property
    def groups(self) -> int:
        """How many parts the channels form."""
        return int(self.before.shape[1] // self.kernels.shape[1])


def find_filter(options: Namespace) -> Filter | None:
    """Load the files and solve; only the first of several ranks looks at what is left."""
    before, after = _load_pair(options)
    size = as_kernel_shape(options.kernel_shape)
    _check_sizes(before.shape, after.shape, size, options)
    pair = Data(before, after, _unsaturated(after, options))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", np.exceptions.RankWarning)
        pair, parts, solutions, counts = _solve(pair, size, options)
    if not options.ranks.first:
        return None
    warned = sorted({str(warning.message) for warning in caught})
    if len(parts[0].after) < len(after):
        say(
            "The verdict is from {some} of {all} samples, evenly spaced: no memory for all",
            some=len(parts[0].after),
            all=len(after),
        )
    loss = float(np.average([solution.loss for solution in solutions], weights=counts))
    files = (options.before, before), (options.after, after)
    jpeg = [rounding_error(file, image[0]) if is_image(file) else 0.0 for file, image in files]
    errors = None
    centre = solutions[0].centre
    fit = None if warned else _fit_coefficients(before, after, size, centre, options)
    if fit is not None:
        parts[0], errors = _fitted(parts[0], fit)
        loss = float(np.square(parts[0].residual()).sum()) / parts[0].counted
    # What JPEG files have lost makes the kernel of their pixels another by more than its errors.
    elif not warned and not any(jpeg):
        errors = np.concatenate(
            [
                standard_errors(part) * math.sqrt(part.counted / count)
                for part, count in zip(parts, counts, strict=True)
            ]
        )
    biases = [part.bias for part in parts if part.bias is not None]
    clear = pair.mask
    return Filter(
        before,
        pair.targets,
        np.concatenate([part.kernels for part in parts]),
        np.concatenate(biases) if biases else None,
        loss,
        min(solution.rank for solution in solutions),
        max(solution.condition for solution in solutions),
        centre,
        sum(counts),
        0 if clear is None else clear.size - int(np.count_nonzero(clear)),
        warned,
        _judge(parts, jpeg, options),
        errors,
        fit is not None,
    )


def _solve(
    pair: Data, size: tuple[int, int], options: Namespace
) -> tuple[Data, list[SolvedPair], list[Solution], list[int]]:
    """Solve for all channels together, or for one after the other.

    The mask is where AFTER is not saturated. With the solutions comes the pair without its border,
    what is to be judged of it, and how many elements of the target each solution has counted.
    """
    parts, solutions, counts = [], [], []
    each = [slice(c, c + 1) for c in range(pair.inputs.shape[1])]
    for some in each if options.per_channel else [slice(None)]:
        part = pair.channels(some)
        solution = solve_kernels(
            part.inputs,
            part.targets,
            size,
            bias=options.bias,
            l2=options.l2,
            mask=part.mask if options.ignore_saturated else None,
            num_threads=options.threads,
            comm=options.ranks,
        )
        if solution.centre is not None:  # that of the other channels, too
            pair = pair.inside(without_border(pair.inputs.shape, size, solution.centre))
            part = pair.channels(some)
        shown = _samples_in_memory(part)
        mask = shown.mask if options.ignore_saturated else None
        parts.append(SolvedPair(*shown[:2], mask, shown.mask, solution.kernels, solution.bias))
        solutions.append(solution)
        counted = part if options.ignore_saturated else part._replace(mask=None)
        counts.append(int(counted.counts.sum()))
    return pair, parts, solutions, counts


def _samples_in_memory(data: Data) -> Data:
    """Return evenly spaced samples, as many as there is memory to judge them, at least one."""
    needed = COPIES * 8 * (data.inputs.size + data.targets.size)
    some = slice(None, None, min(len(data.inputs), -(-needed // max(1, available_memory()))))
    mask = None if data.mask is None else data.mask[some]
    return Data(data.inputs[some], data.targets[some], mask)


def _judge(parts: list[SolvedPair], jpeg: list[float], options: Namespace) -> Verdict:
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


def _fit_coefficients(
    before: Samples,
    after: Samples,
    size: tuple[int, int],
    centre: tuple[int, int] | None,
    options: Namespace,
) -> Fit | None:
    """Return what fits the coefficients of a JPEG file, if AFTER is a grey one."""
    grey = before.shape[1] == after.shape[1] == 1
    files = options.before, options.after
    wanted = options.fit == "coefficients" and options.l2 == 0
    if not (grey and wanted and all(map(is_image, files))):
        return None
    with waiting(
        translate("Fitting the coefficients of JPEG files (--fit pixels is quick)")
    ) as tick:
        levels = before[0, 0] * 255, after[0, 0] * 255
        return find_kernel(*levels, files, size, options.bias, centre, tick)


def _fitted(part: SolvedPair, fit: Fit) -> tuple[SolvedPair, Matrix | None]:
    """Return a pair with the kernel that fits coefficients, and its standard errors, if known."""
    taps, shape = part.kernels.size, part.kernels.shape
    bias = None if part.bias is None else fit.weights[taps:] / 255
    part = part._replace(kernels=fit.weights[:taps].reshape(shape), bias=bias)
    return part, None if fit.errors is None else fit.errors[:taps].reshape(shape)


def levels_of(file: str, values: Samples) -> int | None:
    """Return of how many levels above 0 the values of an image are; None for arrays."""
    if not is_image(file):
        return None
    for levels in (255, 65535):
        if np.abs(values * levels - np.rint(values * levels)).max() < 1e-6:
            return levels
    return None


def _unsaturated(after: Samples, options: Namespace) -> npt.NDArray[np.bool_] | None:
    """Return where values are not at the limits of their range, of which None is known.

    An image of 8 or 16 bits ends at 0 and 1, and integers where their type does. Of other arrays it
    is assumed, if asked, that they end at 0, unless they are negative somewhere, and at their
    largest value.
    """
    if (
        is_image(options.after)
        and read_header(options.after, max_pixels=options.max_pixels).bits < 32
    ):
        low, high = 0.0, 1.0
    elif after.dtype.kind in "iu":
        low, high = np.iinfo(after.dtype).min, np.iinfo(after.dtype).max
    elif options.ignore_saturated:
        limits = [(block.min(), block.max()) for _, block in samples_in_blocks(after)]
        low, high = min(low for low, _ in limits), max(high for _, high in limits)
        low = 0.0 if low >= 0 else -math.inf
    else:
        return None
    parts = [(block > low) & (block < high) for _, block in samples_in_blocks(after)]
    return np.concatenate(parts)


def _load_pair(options: Namespace) -> tuple[Samples, Samples]:
    """Return both files as samples; an image whose channels are all the same has one."""
    files = {"BEFORE": options.before, "AFTER": options.after}
    before, after = pair = [
        load_samples(file, name, options.channels, options.max_pixels)
        for name, file in files.items()
    ]
    grey = [
        is_image(file) and array.shape[1] == 3 and bool((array[:, :1] == array[:, 1:]).all())
        for file, array in zip(files.values(), pair, strict=True)
    ]
    if options.per_channel and not all(grey):
        if before.shape[1] != after.shape[1]:
            raise ValueError(
                "--per-channel needs as many channels before as after, "
                f"got {before.shape[1]} and {after.shape[1]}"
            )
        return before, after
    for i, file in enumerate(files.values()):
        if grey[i]:
            say("{file} is grey: one of its three equal channels was taken", file=file)
            pair[i] = pair[i][:, :1]
    return pair[0], pair[1]


def _check_sizes(
    before: tuple[int, ...],
    after: tuple[int, ...],
    size: tuple[int, int],
    options: Namespace,
) -> None:
    """Raise ValueError unless the sizes of both files fit, with the kernels or without."""
    if before[0] != after[0]:
        raise ValueError(
            f"BEFORE ({options.before}) has {before[0]} samples but AFTER ({options.after}) has "
            f"{after[0]}"
        )
    if size[0] > before[2] or size[1] > before[3]:
        raise ValueError(
            f"kernels of {format_size(size)} do not fit BEFORE of {format_size(before[2:])}"
        )
    valid = tuple(n - k + 1 for n, k in zip(before[2:], size, strict=True))
    if after[2:] not in (before[2:], valid):
        given, found = format_size(before[2:]), format_size(after[2:])
        raise ValueError(
            f"BEFORE ({options.before}) is {given} and AFTER ({options.after}) is {found}: for "
            f"kernels of {format_size(size)}, AFTER must be {given}, or {format_size(valid)} "
            "without its border"
        )
