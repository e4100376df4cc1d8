"""The kernel between two grey images of which the second is, or both are, JPEG files.

A JPEG file does not hold pixels: of the discrete cosine transform of each block of 8x8 pixels, it
holds which multiple of a step each coefficient is nearest to. So the kernel is fitted to these
coefficients, each of which says that the true one lies in an interval of known width, by maximum
likelihood; the errors have a scale of their own for each of the 64 frequencies. What the filter
makes brighter than white or darker than black is cut off before, in the image that is predicted.

Where the first image is a JPEG file, too, its coefficients are known only as well. Taken as they
are, their errors would make the kernel too small (errors in variables); what is expected of them,
given their interval and how the others of the same frequency are distributed (Laplace: most are
small), does not. But it may also be that the second image was made from the pixels of that file:
then these are clearly the more likely ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._support.atomic_files import FilePath
from ..image.images import jpeg_steps, jpeg_tables
from .least_squares import Matrix

BLOCK = 8  # pixels, as JPEG has it
SIZE = BLOCK * BLOCK
MIDDLE, WHITE = 128.0, 255.0

# Pixels under all taps of the blocks that are looked at, and the fewest blocks.
MAX_VALUES = 6_000_000
MIN_BLOCKS = 16

# Of a smaller step, decoding rounds away which multiple a coefficient was.
EXACT_STEP = 3
ROUNDS_OF_DECODING = 4

# Near black and white, what a block's coefficients have lost makes it uncertain what was cut off.
MARGIN = 4.0

# The pixels before are taken as they are if that brings the logarithm of the likelihood, which is
# negative, nearer to 0 by this factor: by 5 % and more where it was so, by 0.2 % at most where it
# was not.
CLEARLY = 0.98

# Scales of the errors, in levels: at least that of rounding; and by what they change at a time, at
# first and later.
MIN_SCALE = 0.16
FAR = (0.5, 0.8, 0.93, 1.0, 1.07, 1.25, 2.0)
NEAR = (0.93, 1.0, 1.07)
SOFTNESS_FACTORS = (0.7, 1.0, 1.4)

MAX_STEPS = 40
TOLERANCE = 1e-5  # of the kernel's entries


class Fit(NamedTuple):
    """The kernel that was found."""

    weights: Matrix  # those of the kernel, then the bias in levels, if there is one
    log_likelihood: float
    errors: Matrix | None  # their standard errors, where the pixels before are known


def find_kernel(
    before: Matrix,
    after: Matrix,
    files: tuple[FilePath, FilePath],
    shape: tuple[int, int],
    bias: bool,
    centre: tuple[int, int] | None = None,
    tick: Callable[[], object] = bool,
) -> Fit | None:
    """Return the most likely kernel between two grey images, (H, W) in levels from 0 to 255.

    `centre` is where in its window a pixel of the second image is, if that is as large as the
    first; `tick` is called after each step. None where the second is no JPEG file, or has too few
    blocks that know the kernel.
    """
    steps = jpeg_steps(files[1])
    if steps is None:
        return None
    steps_before = jpeg_steps(files[0])
    as_it_is = _fit(_Blocks.cut(before, after, shape, bias, centre, steps), tick)
    if steps_before is None or as_it_is is None:
        return as_it_is
    expected = expected_pixels(before, steps_before)
    as_expected = _fit(_Blocks.cut(expected, after, shape, bias, centre, steps), tick)
    if as_expected is None or as_it_is.log_likelihood > CLEARLY * as_expected.log_likelihood:
        return as_it_is
    return as_expected._replace(errors=None)


def _cosines() -> Matrix:
    """Return the matrix of the orthonormal cosine transform (DCT-II) of a block, row by row."""
    k, i = np.mgrid[:BLOCK, :BLOCK]
    cosines = np.cos((2 * i + 1) * k * np.pi / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    cosines[0] /= np.sqrt(2)
    return np.kron(cosines, cosines)


COSINES = _cosines()


def into_blocks(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the whole blocks of an image, row by row: (blocks, 64)."""
    rows, columns = (n // BLOCK for n in image.shape)
    whole = image[: rows * BLOCK, : columns * BLOCK]
    return whole.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2).reshape(-1, SIZE)


def coefficients_of(blocks: Matrix, steps: Matrix) -> Matrix:
    """Return the coefficients that a file held, (blocks, 64), from the pixels it was decoded to.

    Pixels at black or white may have been cut off: they are what the coefficients say, if that is
    beyond. Where steps are so small that decoding rounds away which multiple of them it was, the
    coefficients are those of the pixels.
    """
    shown = blocks - MIDDLE
    black, white = blocks <= 0, blocks >= WHITE
    values = shown
    for _ in range(ROUNDS_OF_DECODING):
        coefficients: Matrix = values @ COSINES.T
        exact = np.rint(coefficients / steps) * steps
        coefficients = np.where(steps >= EXACT_STEP, exact, coefficients)
        decoded = coefficients @ COSINES
        values = np.where(black, np.minimum(decoded, shown), shown)
        values = np.where(white, np.maximum(decoded, shown), values)
    return coefficients


def expected_pixels(pixels: Matrix, steps: Matrix) -> Matrix:
    """Return what is expected of the pixels that were saved as a JPEG file, given the file."""
    coefficients = coefficients_of(into_blocks(pixels), steps)
    levels = np.rint(coefficients / steps)
    for frequency in range(1, SIZE):  # the mean, which comes first, is as likely here as there
        shift = _towards_zero(np.abs(levels[:, frequency]), steps[frequency])
        coefficients[:, frequency] -= np.sign(levels[:, frequency]) * shift
    rows, columns = (n // BLOCK for n in pixels.shape)
    restored = (coefficients @ COSINES + MIDDLE).reshape(rows, columns, BLOCK, BLOCK)
    result = pixels.copy()
    whole = rows * BLOCK, columns * BLOCK
    result[: whole[0], : whole[1]] = restored.swapaxes(1, 2).reshape(whole)
    return result


def _towards_zero(levels: Matrix, step: float) -> float:
    """Return how far below the middle of its interval a coefficient is to be expected.

    The rate of the Laplace distribution is the most likely one; t is what it falls to in a step.
    """
    nonzero = np.count_nonzero(levels)
    if nonzero == 0:
        return 0.0
    t = np.linspace(0.0005, 0.9995, 2000)
    likelihood = (
        (levels.size - nonzero) * np.log1p(-np.sqrt(t))
        + nonzero * np.log1p(-t)
        + (levels.sum() - nonzero / 2) * np.log(t)
    )
    rate = -np.log(t[np.argmax(likelihood)]) / step
    return float(step / 2 / np.tanh(rate * step / 2) - 1 / rate)


def rounding_error(file: FilePath, image: npt.NDArray[Any]) -> float:
    """Return the root mean square of what a JPEG file's rounding has changed, of 1; else 0.

    `image`, (C, H, W), is what was read from it. Where a coefficient is zero, its distribution
    (Laplace, as often zero as this one) says how large it may have been.
    """
    tables = jpeg_tables(file)
    if not tables or min(image.shape[1:]) < BLOCK:
        return 0.0
    steps = tables[0]
    levels = np.abs(np.rint((into_blocks(image.mean(axis=0)) * WHITE - MIDDLE) @ COSINES.T / steps))
    nonzero = (np.count_nonzero(levels, axis=0) + 0.5) / (len(levels) + 1)
    rate = -np.log(nonzero)  # over half a step, as which all is measured
    within = (2 / rate**2 - (1 + 2 / rate + 2 / rate**2) * nonzero) / (1 - nonzero)
    squares = steps**2 / 4 * (nonzero / 3 + (1 - nonzero) * within)
    return float(np.sqrt(squares.mean())) / WHITE


def _fit(blocks: _Blocks | None, tick: Callable[[], object]) -> Fit | None:
    """Climb to the most likely kernel, by damped Newton steps (Levenberg, Marquardt)."""
    if blocks is None:
        return None
    try:
        errors = Errors(np.ones(SIZE), 1.0)
        weights = _fit_pixels(blocks)
        for _ in range(8):
            errors = blocks.likelier(weights, errors, FAR)
        likelihood = blocks.log_likelihood(weights, errors)
        damping = 1e-4
        for _ in range(MAX_STEPS):
            tick()
            gradient, curvature, _ = blocks.derivatives(weights, errors)
            damped = curvature + damping * np.diag(np.diag(curvature))
            step = np.linalg.solve(damped, gradient)
            if np.abs(step).max() < TOLERANCE:
                break
            if not blocks.log_likelihood(weights + step, errors) >= likelihood:
                damping *= 10
                continue
            weights, damping = weights + step, damping / 10
            errors = blocks.likelier(weights, errors, NEAR)
            likelihood = blocks.log_likelihood(weights, errors)
        _, curvature, slopes = blocks.derivatives(weights, errors)
        inverse = np.linalg.inv(curvature)
        # What blocks show, if that is more: their errors are not as independent as is assumed.
        between = np.square(slopes @ inverse).sum(axis=0)
        deviations = np.sqrt(np.maximum(np.diag(inverse), between))
    except np.linalg.LinAlgError:
        return None
    return Fit(weights, likelihood, deviations) if np.isfinite(weights).all() else None


def _sigmoid(x: Matrix) -> Matrix:
    return 0.5 * (1 + np.tanh(x / 2))


def _softplus(x: Matrix) -> Matrix:
    """Return log(1 + exp(x)), in less than half the time of numpy.logaddexp."""
    result: Matrix = np.maximum(x, 0) + np.log(1 + np.exp(-np.abs(x)))
    return result


def _fit_pixels(blocks: _Blocks) -> Matrix:
    """Return the kernel that is most likely if pixels have independent, logistic errors.

    Pixels near black and white say only that the prediction is not between. In the kernel and the
    inverse of the scale, each over the scale, the likelihood is concave (Olsen, 1978): whatever
    the start, Newton's method finds the top.
    """
    under = blocks.under.reshape(-1, blocks.under.shape[-1])
    pixels = blocks.after.ravel()
    dark, bright = pixels <= MARGIN, pixels >= WHITE - MARGIN
    limits = np.where(dark, MARGIN, np.where(bright, WHITE - MARGIN, pixels))
    inside = ~(dark | bright)
    columns = np.column_stack([-under, limits])
    unknowns = np.zeros(columns.shape[1])
    unknowns[-1] = 0.1
    value = -np.inf
    step = np.zeros_like(unknowns)
    for _ in range(60):
        trial = unknowns + step
        z = columns @ trial
        new = -np.inf
        if trial[-1] > 0:
            each = -np.where(bright, 0, _softplus(-z)) - np.where(dark, 0, _softplus(z))
            new = float(each.sum() + inside.sum() * np.log(trial[-1]))
        if not new >= value:
            step /= 2
            if np.abs(step).max() < 1e-12:
                break
            continue
        if new - value < 1e-3:
            unknowns = trial
            break
        unknowns, value = trial, new
        p = _sigmoid(z)
        slope = np.where(bright, 0, 1 - p) - np.where(dark, 0, p)
        bend = p * (1 - p) * np.where(inside, 2, 1)
        gradient = columns.T @ slope
        gradient[-1] += inside.sum() / trial[-1]
        curvature = (columns * bend[:, np.newaxis]).T @ columns
        curvature[-1, -1] += inside.sum() / trial[-1] ** 2
        step = np.linalg.solve(curvature, gradient)
    weights: Matrix = unknowns[:-1] / unknowns[-1]
    return weights


class Errors(NamedTuple):
    """Scales of the errors, which are logistic."""

    scales: Matrix  # of the 64 frequencies
    softness: float  # of pixels before they are cut off, in levels


class _Blocks(NamedTuple):
    """Blocks of the second image, and the pixels of the first that each tap meets there."""

    under: Matrix  # (blocks, 64, taps), a constant 1 for the bias last
    after: Matrix  # (blocks, 64)
    low: Matrix  # (blocks, 64), where the intervals begin in which the coefficients lie
    high: Matrix  # and where they end

    @classmethod
    def cut(
        cls,
        before: Matrix,
        after: Matrix,
        shape: tuple[int, int],
        bias: bool,
        centre: tuple[int, int] | None,
        steps: Matrix,
    ) -> _Blocks | None:
        """Take blocks evenly from where the kernel does not reach beyond the image."""
        top, left = centre or (0, 0)
        windows = np.lib.stride_tricks.sliding_window_view(before, shape)
        first = [-(-n // BLOCK) * BLOCK for n in (top, left)]
        last = [
            (n + offset) // BLOCK * BLOCK
            for n, offset in zip(windows.shape[:2], (top, left), strict=True)
        ]
        corners = [
            (y, x) for y in range(first[0], last[0], BLOCK) for x in range(first[1], last[1], BLOCK)
        ]
        taps = shape[0] * shape[1]
        most = max(MIN_BLOCKS, MAX_VALUES // (taps * SIZE))
        if len(corners) * SIZE < 4 * taps or len(corners) < MIN_BLOCKS:
            return None
        chosen = np.linspace(0, len(corners) - 1, min(most, len(corners))).round().astype(int)
        under = np.ones((len(chosen), SIZE, taps + bias))
        values = np.empty((len(chosen), SIZE))
        for i, (y, x) in enumerate(corners[c] for c in chosen):
            block = windows[y - top : y - top + BLOCK, x - left : x - left + BLOCK]
            under[i, :, :taps] = block.reshape(SIZE, taps)
            values[i] = after[y : y + BLOCK, x : x + BLOCK].ravel()
        middle = coefficients_of(values, steps)
        middle[:, 0] += MIDDLE * BLOCK
        return cls(under, values, middle - steps / 2, middle + steps / 2)

    def predicted(self, weights: Matrix, softness: float) -> Matrix:
        """Return the coefficients of the blocks that are expected of a kernel.

        What is cut off of a pixel with an error is not what is cut off of the pixel.
        """
        pixels = self.under @ weights
        expected = pixels + softness * (
            _softplus(-pixels / softness) - _softplus((pixels - WHITE) / softness)
        )
        result: Matrix = expected @ COSINES.T
        return result

    def _log_likelihoods(self, predicted: Matrix, scales: Matrix) -> Matrix:
        """Return those of the 64 frequencies."""
        upper, lower = (self.high - predicted) / scales, (self.low - predicted) / scales
        of_width = np.log(-np.expm1(lower[0] - upper[0]))
        values: Matrix = of_width - _softplus(-upper) - _softplus(lower)
        sums: Matrix = values.sum(axis=0)
        return sums

    def log_likelihood(self, weights: Matrix, errors: Errors) -> float:
        """Return that of all coefficients."""
        predicted = self.predicted(weights, errors.softness)
        return float(self._log_likelihoods(predicted, errors.scales).sum())

    def likelier(self, weights: Matrix, errors: Errors, factors: tuple[float, ...]) -> Errors:
        """Change the scales, and then the softness, to the most likely ones by these factors."""
        predicted = self.predicted(weights, errors.softness)
        trials = np.array([np.maximum(errors.scales * f, MIN_SCALE) for f in factors])
        values = np.array([self._log_likelihoods(predicted, trial) for trial in trials])
        scales = np.take_along_axis(trials, values.argmax(axis=0)[np.newaxis], axis=0)[0]
        candidates = [Errors(scales, max(errors.softness * f, MIN_SCALE)) for f in SOFTNESS_FACTORS]
        return max(candidates, key=lambda candidate: self.log_likelihood(weights, candidate))

    def derivatives(self, weights: Matrix, errors: Errors) -> tuple[Matrix, Matrix, Matrix]:
        """Return the gradient of the log-likelihood, and its negative expected curvature.

        With them come the parts of the gradient from each block.
        """
        pixels, (scales, softness) = self.under @ weights, errors
        left = _sigmoid(pixels / softness) - _sigmoid((pixels - WHITE) / softness)
        taps = COSINES @ (self.under * left[..., np.newaxis])
        predicted = self.predicted(weights, softness)
        above = _sigmoid((self.high - predicted) / scales)
        below = _sigmoid((self.low - predicted) / scales)
        slopes = np.einsum("bfu,bf->bu", taps, (above + below - 1) / scales)
        bend = (above * (1 - above) + below * (1 - below)) / scales**2
        bent = (taps * bend[..., np.newaxis]).reshape(-1, len(weights))
        return slopes.sum(axis=0), bent.T @ taps.reshape(-1, len(weights)), slopes
