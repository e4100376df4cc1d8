"""What the error that is left between two images says: rounding, noise, or not this filter.

The yardsticks are what rounding leaves, to levels or in JPEG files, and what is left where nothing
happens in the image: that is noise. Where much more is left, other explanations are tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..config import get_num_threads
from ..ops.operations import conv2d
from .least_squares import Matrix
from .masks import Data, Flags
from .products import kernel_gradient
from .sums import Sums, sums_of
from .unknowns import Unknowns

Images = npt.NDArray[Any]
Mask = Flags | None

# Rows and columns, in the middle, of what is looked at.
LARGEST = 640

# Rows and columns of tiles that errors of taps are taken from; and rows and columns of pixels in
# the tiles among which flat parts are looked for.
TILES = 8
TILE = 8

# An error that is a larger multiple of a yardstick is not explained by it.
FAR = 1.6

# Something else explains a pair if it leaves less than this share of the error.
LESS = 0.7

# Others are named, too, whose error is no larger multiple of that of the best.
ALSO = 1.5

# How many more rows and columns a larger kernel has that is tried.
LARGER = 4

# A part is flat where it varies less than this share of the whole.
FLAT = 0.3

CURVE_POINTS = 64


class SolvedPair(NamedTuple):
    """A pair of images, and the kernels found between them."""

    before: Images  # (N, C, H, W)
    after: Images  # (N, K, OH, OW), what a convolution without padding is compared with
    mask: Mask  # (N, K or 1, OH, OW)
    unclipped: Mask  # where values of the image after are not at the ends of their range
    kernels: Matrix  # (K, C, kh, kw)
    bias: Matrix | None

    def middle(self, largest: int) -> SolvedPair:
        """Return at most so many rows and columns in the middle of the first sample."""
        starts = [max(0, n - largest) // 2 for n in self.after.shape[2:]]
        rows, columns = (slice(start, start + largest) for start in starts)
        part = slice(1), slice(None), rows, columns
        return self._replace(
            before=np.asarray(self.under(rows, columns)[:1], np.float64),
            after=np.asarray(self.after[part], np.float64),
            mask=None if self.mask is None else self.mask[part],
            unclipped=None if self.unclipped is None else self.unclipped[part],
        )

    def under(self, rows: slice, columns: slice) -> Images:
        """Return the pixels that a rectangle of the image after depends on."""
        kh, kw = self.kernels.shape[2:]
        below, right = rows.stop + kh - 1, columns.stop + kw - 1
        return self.before[:, :, rows.start : below, columns.start : right]

    def predicted(self) -> Matrix:
        """Return what the kernels make of the image."""
        return np.asarray(conv2d(self.before, self.kernels, bias=self.bias), np.float64)

    def residual(self) -> Matrix:
        """Return how far that is from the image after, 0 where it does not count."""
        difference = self.predicted() - self.after
        return difference if self.mask is None else np.where(self.mask, difference, 0.0)

    @property
    def data(self) -> Data:
        """The pair without the kernels."""
        return Data(self.before, self.after, self.mask)

    @property
    def counted(self) -> int:
        """How many elements of the target count, for all kernels."""
        return int(self.data.counts.sum())


class Trial(NamedTuple):
    """Another explanation, and the error that it leaves."""

    name: Literal[
        "size", "bias", "clipped", "both", "shift", "curve", "median", "maximum", "minimum"
    ]
    error: float
    value: tuple[int, int] | None = None  # the size, or how far AFTER is shifted down and across


class Verdict(NamedTuple):
    """What the error that is left may be."""

    kind: Literal["rounding", "jpeg", "noise", "unknown", "unexplained"]
    error: float  # root mean square
    yardstick: float  # what there would be, if that is all
    trials: list[Trial]  # what explains the pair better, the best first


def judge(pair: SolvedPair, rounding: float, jpeg: float) -> Verdict:
    """Say what the error of kernels may be.

    `rounding` and `jpeg` are the root mean squares of what rounding to levels leaves, and of what
    the rounding of coefficients in JPEG files may leave.
    """
    part = pair.middle(LARGEST)
    error = _error_of(part)
    floor = 1e-6 * float(np.sqrt(np.mean(np.square(part.after))))
    known = max(math.hypot(rounding, jpeg), floor)
    if error <= FAR * known or part.counted <= part.kernels[0].size:
        return Verdict(
            "jpeg" if error > FAR * max(rounding, floor) else "rounding", error, known, []
        )
    trials = sorted(
        (trial for trial in _trials(part, known) if trial.error < LESS * error),
        key=lambda trial: trial.error,
    )
    if trials:
        best = max(trials[0].error, known)
        near = [trial for trial in trials if trial.error <= ALSO * best]
        return Verdict("unexplained", error, known, near)
    noise = _noise(part)
    if noise is None:
        return Verdict("unknown", error, known, [])
    noise = max(noise, known)
    return Verdict("noise" if error <= FAR * noise else "unexplained", error, noise, [])


def standard_errors(pair: SolvedPair) -> Matrix:
    """Return the standard errors of the kernels' entries, (K, C, kh, kw).

    They are the larger of two: those of errors that are independent from pixel to pixel, and those
    that the differences between parts of the image show.
    """
    part = pair.middle(LARGEST)
    sums = _sums(part)
    residual = part.residual()
    taps = sums.unknowns.num_taps
    gradients = [_products(part, residual, tile) for tile in _tiles(part)]
    result = np.empty((len(pair.kernels), taps))
    for k in range(len(result)):
        inverse = np.linalg.pinv(sums.products[k % len(sums.products)], hermitian=True)
        left = max(1, int(sums.counts[k]) - len(inverse))
        variance = np.square(residual[:, k]).sum() / left
        steps = np.array([of_tile[k] for of_tile in gradients]) @ inverse[:, :taps]
        between = np.square(steps).sum(axis=0)
        result[k] = np.sqrt(np.maximum(variance * np.diag(inverse)[:taps], between))
    share = part.counted / pair.counted
    return (result * math.sqrt(share)).reshape(pair.kernels.shape)


def _tiles(part: SolvedPair) -> Iterator[tuple[slice, slice]]:
    edges = [np.linspace(0, n, min(TILES, n) + 1).astype(int) for n in part.after.shape[2:]]
    for top, bottom in zip(edges[0], edges[0][1:], strict=False):
        for left, right in zip(edges[1], edges[1][1:], strict=False):
            yield slice(top, bottom), slice(left, right)


def _products(part: SolvedPair, residual: Matrix, tile: tuple[slice, slice]) -> Matrix:
    """Return the products of what each unknown meets with the residual of a tile, (K, unknowns)."""
    inside = np.ascontiguousarray(residual[(..., *tile)])
    patches = np.ascontiguousarray(part.under(*tile))
    sums = kernel_gradient(patches, inside, part.kernels.shape[2:], 1)
    sums = sums.reshape(len(sums), -1)
    if part.bias is None:
        return sums
    return np.column_stack([sums, inside.sum(axis=(0, 2, 3))])


def _error_of(pair: SolvedPair) -> float:
    squares = np.square(pair.residual())
    return math.sqrt(float(squares.sum()) / max(1, pair.counted))


def _solved(
    pair: SolvedPair, size: tuple[int, ...] | None = None, bias: bool | None = None
) -> tuple[float, Matrix]:
    """Return the error of the best kernels, and these; by default like those that were found.

    It is what they would leave of other pixels: with as many unknowns as equations, nothing is left
    of these.
    """
    sums = _sums(pair, size, bias)
    count, unknowns = int(sums.counts.min()), sums.unknowns.of_kernel
    if count <= unknowns:
        return math.inf, np.zeros((1, 1, *sums.unknowns.kernel_shape))
    weights = sums.systems(np.zeros(unknowns)).solve(sums.cross_products)
    kernels, _ = sums.unknowns.split(weights)
    return math.sqrt(sums.loss(weights) * count / (count - unknowns)), kernels


def _sums(pair: SolvedPair, size: tuple[int, ...] | None = None, bias: bool | None = None) -> Sums:
    height, width = size or pair.kernels.shape[2:]
    bias = pair.bias is not None if bias is None else bias
    channels, kernels = pair.before.shape[1], pair.after.shape[1]
    unknowns = Unknowns(channels, kernels, (height, width), bias, 1, 0, 1)
    return sums_of(unknowns, pair.data, get_num_threads())


def _trials(part: SolvedPair, known: float) -> Iterator[Trial]:
    """Try what else may have been done."""
    kh, kw = part.kernels.shape[2:]
    half = slice(LARGER // 2, -(LARGER // 2))
    if min(part.after.shape[2:]) > 2 * LARGER:
        larger = kh + LARGER, kw + LARGER
        error, _ = _solved(_with_target(part, (..., half, half)), larger)
        yield Trial("size", error, larger)
    straight = _straight(part)
    alone = [trial for trial in straight if trial.name != "both"]
    # Where one of them helps, what is said then tells whether the other does, too.
    helps = any(trial.error < LESS * _error_of(part) for trial in alone)
    yield from alone if helps else straight
    clear = part if part.mask is not None else part._replace(mask=part.unclipped)
    curve = _error_with_curve(clear)
    least = min([_error_of(clear), *(trial.error for trial in straight)])
    # A straight line is a curve, too.
    if curve < LESS * least and least > FAR * known:
        yield Trial("curve", curve)
    yield from _shifted(part)
    yield from _ranked(part)


def _straight(part: SolvedPair) -> list[Trial]:
    """Try a bias, and to leave out what may have been clipped."""
    with_bias = part.bias is not None
    trials = [] if with_bias else [Trial("bias", _solved(part, bias=True)[0])]
    if part.mask is None and part.unclipped is not None and not part.unclipped.all():
        unclipped = part._replace(mask=part.unclipped)
        trials.append(Trial("clipped", _solved(unclipped)[0]))
        if not with_bias:
            trials.append(Trial("both", _solved(unclipped, bias=True)[0]))
    return trials


def _with_target(part: SolvedPair, inside: tuple[Any, ...]) -> SolvedPair:
    """Return a pair with a part of the image after, of which the image before stays."""
    mask = None if part.mask is None else part.mask[inside]
    return part._replace(after=part.after[inside], mask=mask)


def _shifted(part: SolvedPair) -> Iterator[Trial]:
    """Try the shift that the phases of both spectra show, beyond what the kernel reaches."""
    kh, kw = part.kernels.shape[2:]
    height, width = part.after.shape[2:]
    source = part.before[0].mean(axis=0)[kh // 2 :, kw // 2 :][:height, :width]
    target = part.after[0].mean(axis=0)
    window = np.outer(np.hanning(height), np.hanning(width))
    spectra = [np.fft.rfft2((image - image.mean()) * window) for image in (source, target)]
    cross = spectra[1] * np.conj(spectra[0])
    peaks = np.abs(np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-30), s=(height, width)))
    row, column = np.unravel_index(int(np.argmax(peaks)), peaks.shape)
    down = int(row) - height * (int(row) > height // 2)
    across = int(column) - width * (int(column) > width // 2)
    if max(abs(down) - kh // 2, abs(across) - kw // 2) <= 0:
        return
    if 2 * abs(down) >= height or 2 * abs(across) >= width:
        return
    # Elements of the target, and the pixels that they were before the shift.
    rows, columns = (
        (slice(max(0, n), min(size, size + n)), slice(max(0, -n), min(size, size - n)))
        for n, size in ((down, height), (across, width))
    )
    moved = _with_target(part, (..., rows[0], columns[0]))
    error, kernels = _solved(moved._replace(before=part.under(rows[1], columns[1])))
    # Where the kernel is not in the middle of its window, the shift is another.
    weights = np.abs(kernels).sum(axis=(0, 1))
    rows_of, columns_of = np.indices(weights.shape) * weights / max(float(weights.sum()), 1e-300)
    down -= round(float(rows_of.sum())) - kh // 2
    across -= round(float(columns_of.sum())) - kw // 2
    yield Trial("shift", error, (down, across))


def _error_with_curve(part: SolvedPair) -> float:
    """Return the error when a curve of the predicted values comes after the kernels."""
    squares, predicted = 0.0, part.predicted()
    for k in range(predicted.shape[1]):
        counted = ... if part.mask is None else part.mask[:, k % part.mask.shape[1]]
        values, targets = predicted[:, k][counted].ravel(), part.after[:, k][counted].ravel()
        if not len(values):
            continue
        order = np.argsort(values, kind="stable")
        for some in np.array_split(targets[order], min(CURVE_POINTS, max(1, len(order) // 8))):
            # Between the points, the curve is a straight line.
            line = np.linspace(-1, 1, len(some)) if len(some) > 1 else np.zeros(len(some))
            rest = some - some.mean() - line * (line @ some) / max(line @ line, 1)
            squares += float(rest @ rest)
    return math.sqrt(squares / max(1, part.counted))


def _ranked(part: SolvedPair) -> Iterator[Trial]:
    """Try filters that sort the pixels of a window, on a part of the image."""
    kernels, channels, kh, kw = part.kernels.shape
    if kernels != channels or kh * kw == 1 or part.mask is not None:
        return
    part = part.middle(min(96, *part.after.shape[2:]))
    after = part.after[0]
    windows = np.lib.stride_tricks.sliding_window_view(part.before[0], (kh, kw), axis=(1, 2))
    windows = windows.reshape(*after.shape, kh * kw)
    # Only what no kernel does as well on this part says something.
    least, _ = _solved(part, bias=True)

    def error(rank: Callable[..., Matrix]) -> float:
        return math.sqrt(float(np.mean(np.square(rank(windows, axis=-1) - after))))

    trials = (
        Trial("median", error(np.median)),
        Trial("maximum", error(np.max)),
        Trial("minimum", error(np.min)),
    )
    yield from (trial for trial in trials if trial.error < LESS * least)


def _noise(part: SolvedPair) -> float | None:
    """Return the error in flat parts of the image, each without its mean; None without such."""
    shape = part.after.shape
    rows, columns = (n // TILE for n in shape[2:])
    if rows * columns < 20:
        return None

    def tiles(images: Matrix) -> Matrix:
        cut = images[0, :, : rows * TILE, : columns * TILE]
        cut = cut.reshape(len(cut), rows, TILE, columns, TILE)
        return np.asarray(np.var(cut, axis=(2, 4)).mean(axis=0)).ravel()

    activity = tiles(part.predicted())
    order = np.argsort(activity)[: len(activity) // 5]
    if activity[order].mean() > FLAT**2 * float(np.var(part.predicted())):
        return None
    return math.sqrt(float(tiles(part.residual())[order].mean()))
