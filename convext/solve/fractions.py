"""Kernels as common fractions, such as 1/16 × [1 2 1; 2 4 2; 1 2 1]."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LARGEST_DENOMINATOR = 256

# The share of random kernels that may look like a fraction.
CHANCE = 1e-3

# How many standard errors an entry may be away: more than four, since what rounding leaves is not
# independent of the pixels.
DEVIATIONS = 8.0

# With a sum of squared deviations that is larger by the square of this, in standard errors, another
# fraction is out of the question.
CLEARLY = 4.0

# Numerators that are nearer than this to whole numbers are whole numbers.
ROUNDING = 1e-9


class CommonFraction(NamedTuple):
    """Whole numbers over one denominator."""

    numerators: npt.NDArray[np.int64]
    denominator: int

    def __str__(self) -> str:
        """Return it with rows that are separated by semicolons, channels by a bar."""
        channels = self.numerators.reshape(-1, *self.numerators.shape[-2:])
        text = " | ".join("; ".join(" ".join(map(str, row)) for row in rows) for rows in channels)
        factor = "" if self.denominator == 1 else f"1/{self.denominator} × "
        return f"{factor}[{text}]"


def common_fraction(
    kernel: npt.NDArray[np.float64], errors: npt.NDArray[np.float64] | float = 0.0
) -> CommonFraction | None:
    """Return the common fraction that a kernel is, if its standard errors allow no other.

    It is that with the smallest denominator, up to 256, that the errors allow. None where a random
    kernel might be as near to a fraction with such a denominator or a smaller one, and where
    another fraction, of less than twice the denominator, is allowed as well.
    """
    values, deviations = kernel.ravel(), np.broadcast_to(errors, kernel.shape).ravel()
    if not (np.isfinite(deviations).all() and np.rint(values * LARGEST_DENOMINATOR).any()):
        return None
    denominators = np.arange(1, LARGEST_DENOMINATOR + 1)[:, np.newaxis]
    scaled = values * denominators
    numerators = np.rint(scaled)
    bounds = denominators * DEVIATIONS * deviations + ROUNDING
    distances = DEVIATIONS * np.abs(scaled - numerators) / bounds
    fits = distances.max(axis=1) <= DEVIATIONS
    squares = np.square(distances).sum(axis=1)
    for i in np.flatnonzero(fits):
        near = slice(i + 1, min(2 * i + 1, LARGEST_DENOMINATOR))
        others = np.flatnonzero(fits[near]) + i + 1
        others = others[
            np.any(
                numerators[others] * (i + 1) != numerators[i] * (others[:, np.newaxis] + 1), axis=1
            )
        ]
        if np.any(squares[i] - squares[others] > _clearly(squares[others], len(values))):
            continue  # another one is far nearer
        # What share of random kernels would be allowed, for any denominator up to this one. That an
        # entry is small says nothing.
        chance = (i + 1) * np.prod(np.minimum(2 * bounds[i][numerators[i] != 0], 1))
        allowed = squares[others] - squares[i] <= _clearly(squares[i], len(values))
        if chance > CHANCE or allowed.any() or not numerators[i].any():
            return None
        whole = numerators[i].reshape(kernel.shape).astype(np.int64)
        return CommonFraction(whole, int(i) + 1)
    return None


def _clearly(squares: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Return how much larger a sum of squared deviations is of what is to be out of the question.

    Where even those of the best are larger than they should be, more is allowed of the others.
    """
    return CLEARLY**2 * np.maximum(squares / count, 1)
