"""The kernel between two images that were both saved as JPEG files, of a filter that sharpens.

Such a filter shows in the second file what the first has lost. So the pixels before are unknowns,
too: they and the kernel are drawn from what both files leave possible, by Hamiltonian Monte Carlo,
and the kernels are averaged. A file says in which interval each coefficient of a block lies; of
those before, small ones are the likelier, by a Laplace distribution with a scale for each
frequency, times one for each block and band of frequencies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ._jpeg import BLOCK, COSINES, MIDDLE, WHITE, coefficients_of, expected_pixels, into_blocks
from .least_squares import Matrix
from .operations import conv2d, conv2d_input_grad, conv2d_kernel_grad

Singles = npt.NDArray[np.floating[Any]]  # of single precision, enough here, twice as fast

AMPLIFIES = 1.5  # the sum of the kernel's entries without their signs, at least
LARGEST = 512  # pixels of each side, in the middle
DRAWS, FIRST = 70, 8  # of all, and before the kernel moves
STEPS = 40  # from a draw to the next, on average
STEP = 0.3  # about, of the width of the softest walls

# How wide the walls of intervals are. Errors of encoders and of rounded pixels; of the second file
# a share of the step, as what has narrow walls takes long to explore; and those of the means of
# blocks, which know little about detail.
NARROW, ROUNDED, SHARE, OF_MEANS = 0.05, 0.16, 0.1, 3.0

TIE = 1 / 16  # encoders round to eighths first, and then halves away from 0

# Blocks with less than 3 coefficients from the sixth diagonal on are noise, of unknown kind.
FINE, DETAILS = 5, 3
FEWEST = 10_000  # pixels in the others

DIAGONAL = np.add.outer(np.arange(BLOCK), np.arange(BLOCK)).ravel()
BANDS = np.eye(5, dtype=np.float32)[DIAGONAL // 3]
TRANSFORM = COSINES.astype(np.float32)


def improved(
    weights: Matrix,
    before: Matrix,
    after: Matrix,
    steps: list[Matrix],
    shape: tuple[int, int],
    centre: tuple[int, int] | None,
    tick: Callable[[], object],
) -> Matrix:
    """Return a better kernel, with its bias, if any, if it is one that sharpens."""
    if np.abs(weights[: shape[0] * shape[1]]).sum() < AMPLIFIES:
        return weights
    corner = [max(0, n - LARGEST) // 2 // BLOCK * BLOCK for n in before.shape]
    part = tuple(slice(n, n + LARGEST) for n in corner)
    tops = list(centre or (0, 0))
    chain = _Chain(weights, before[part], after[part], steps, shape, tops)
    if np.count_nonzero(chain.counted) < FEWEST:
        return weights
    try:
        found = chain.average(tick)
    except np.linalg.LinAlgError:
        return weights
    return found if np.isfinite(found).all() else weights


def _image(blocks: Singles, rows: int) -> Singles:
    """Undo into_blocks."""
    tiles = blocks.reshape(rows, -1, BLOCK, BLOCK).swapaxes(1, 2)
    return tiles.reshape(rows * BLOCK, -1)


class _Intervals:
    """Those of coefficients, with soft walls, but the variance of hard ones."""

    def __init__(self, middle: Matrix, steps: Matrix, walls: Matrix) -> None:
        variance = steps**2 / 12 + (ROUNDED**2 - walls**2) * np.pi**2 / 3
        half = np.sqrt(3 * np.maximum(variance, steps**2 / 48))
        self.sharpness = (0.5 / walls).astype(np.float32)
        levels = np.rint(middle / steps)
        low = middle - half - TIE * np.where(levels > 0, 1, -1)
        high = middle + half - TIE * np.where(levels < 0, -1, 1)
        self.low, self.high = ((x * self.sharpness).astype(np.float32) for x in (low, high))

    def slope(self, values: Singles) -> tuple[Singles, Singles]:
        """Return the derivative of the log-likelihood, and the negative second one."""
        scaled = values * self.sharpness
        high, low = np.tanh(self.high - scaled), np.tanh(self.low - scaled)
        return (high + low) * self.sharpness, (2 - high**2 - low**2) * self.sharpness**2


class _Chain:
    """The coefficients before, and the kernel, as they move."""

    def __init__(
        self,
        weights: Matrix,
        before: Matrix,
        after: Matrix,
        steps: list[Matrix],
        shape: tuple[int, int],
        tops: list[int],
    ) -> None:
        self.random = np.random.default_rng(0)
        self.weights, self.shape, self.taps = weights, shape, shape[0] * shape[1]
        self.rows, columns = (n // BLOCK for n in before.shape)
        # Blocks after that are made from whole blocks before: where, and how many.
        skipped = [-top % BLOCK for top in tops]
        counts = [
            (n * BLOCK - size + 1 - skip) // BLOCK
            for n, size, skip in zip((self.rows, columns), shape, skipped, strict=True)
        ]
        self.valid = tuple(slice(s, s + n * BLOCK) for s, n in zip(skipped, counts, strict=True))
        starts = [s + top for s, top in zip(skipped, tops, strict=True)]
        inner = tuple(slice(s, s + n * BLOCK) for s, n in zip(starts, counts, strict=True))

        known = coefficients_of(into_blocks(after[inner]), steps[1])
        walls = np.maximum(np.where(steps[1] < 3, 2**0.5, 1) * ROUNDED, SHARE * steps[1])
        walls[0] = OF_MEANS
        self.after = _Intervals(known, steps[1], walls)
        known = coefficients_of(into_blocks(before), steps[0])
        levels = np.rint(known / steps[0])
        sure = steps[0] > 1
        known = np.where(sure, levels * steps[0], known)
        self.before = _Intervals(known, steps[0], np.where(sure, NARROW, ROUNDED))
        self.detailed = np.count_nonzero(levels[:, DIAGONAL >= FINE], axis=1) >= DETAILS
        mask = np.kron(
            self.detailed.reshape(self.rows, columns), np.ones((BLOCK, BLOCK), np.float32)
        )
        self.counted = mask[inner]

        expected = into_blocks(expected_pixels(before, steps[0])) - MIDDLE
        self.values = (expected @ COSINES.T).astype(np.float32)
        self.activity = np.ones_like(self.values)
        self._adapt()

    def average(self, tick: Callable[[], object]) -> Matrix:
        """Draw kernels, and return the mean of the second half of their way."""
        path: list[Matrix] = []
        waves = TRANSFORM.reshape(-1, 1, BLOCK, BLOCK)
        padding = self.shape[0] - 1, self.shape[1] - 1
        for draw in range(DRAWS):
            tick()
            responses = conv2d(waves, self._kernel(), padding=padding)
            gain = np.square(responses).sum(axis=(1, 2, 3))
            stiffness = gain * self.after.sharpness**2 + self.before.sharpness**2
            scale = (STEP / np.sqrt(stiffness)).astype(np.float32)
            speed = self.random.standard_normal(self.values.shape, np.float32)
            root = STEP * np.linalg.cholesky(np.linalg.inv(self._information()))
            turn = self.random.standard_normal(len(self.weights))
            steps = int(min(STEPS, 8 + 2 * draw) * self.random.uniform(0.5, 1.5))
            for step in range(steps):
                share = np.float32(1 if step else 0.5)  # half a step first, then leapfrog
                slope, of_weights = self._slopes()
                speed += share * scale * slope
                self.values += scale * speed
                if draw >= FIRST:
                    turn += share * (root.T @ of_weights)
                    self.weights = self.weights + root @ turn
                    path.append(self.weights)
            self._adapt()
        mean: Matrix = np.mean(path[len(path) // 2 :], axis=0)
        return mean

    def _adapt(self) -> None:
        """Draw the activity of each band of each block, given the frequencies' scales."""
        sizes = np.abs(self.values)
        among = (sizes / self.activity)[self.detailed]
        scales = np.maximum(among.sum(axis=0) / (len(among) + 1), 0.03)
        scales[0] = np.inf  # of the mean, all values are as likely
        shapes = BANDS.sum(axis=0) + 1
        rates = self.random.gamma(shapes, size=(len(sizes), len(shapes)))
        activity = ((sizes / scales) @ BANDS + 1) / rates
        self.activity = (activity @ BANDS.T).astype(np.float32)
        self.rates = (1 / (scales * self.activity)).astype(np.float32)

    def _kernel(self) -> Singles:
        return self.weights[: self.taps].reshape(1, 1, *self.shape).astype(np.float32)

    def _predicted(self) -> tuple[Singles, Singles, Singles]:
        """Return the pixels before, the coefficients after, and which pixels say something."""
        pixels = (_image(self.values @ TRANSFORM, self.rows) + np.float32(MIDDLE))[None, None]
        after = conv2d(pixels, self._kernel())[0, 0][self.valid]
        after = after + np.float32(self.weights[self.taps :].sum() - MIDDLE)
        shown = np.clip(after, -MIDDLE, WHITE - MIDDLE)
        return pixels, into_blocks(shown) @ TRANSFORM.T, (shown == after) * self.counted

    def _slopes(self) -> tuple[Singles, Singles]:
        """Return the gradients of the log-density in the coefficients and the kernel."""
        pixels, after, counted = self._predicted()
        slope, _ = self.after.slope(after)
        rows = counted.shape[0] // BLOCK
        whole = [n - size + 1 for n, size in zip(pixels.shape[2:], self.shape, strict=True)]
        errors = np.zeros((1, 1, *whole), np.float32)
        errors[0, 0][self.valid] = _image(slope @ TRANSFORM, rows) * counted
        back = conv2d_input_grad(errors, self._kernel(), pixels.shape)[0, 0]
        result = into_blocks(back) @ TRANSFORM.T + self.before.slope(self.values)[0]
        result -= np.sign(self.values) * self.rates
        of_weights = conv2d_kernel_grad(pixels, errors, self.shape).ravel()
        if len(self.weights) > self.taps:
            of_weights = np.append(of_weights, errors.sum())
        return result, of_weights

    def _information(self) -> Matrix:
        """Return what the second file would say about the kernel, were the pixels known."""
        pixels, after, counted = self._predicted()
        weight = np.sqrt(self.after.slope(after)[1])
        windows = np.lib.stride_tricks.sliding_window_view(pixels[0, 0], self.shape)[self.valid]
        columns = [
            (into_blocks(windows[..., i, j] * counted) @ TRANSFORM.T * weight).ravel()
            for i, j in np.ndindex(self.shape)
        ]
        if len(self.weights) > self.taps:
            columns.append((into_blocks(counted) @ TRANSFORM.T * weight).ravel())
        matrix = np.stack(columns).astype(np.float64)
        return matrix @ matrix.T
