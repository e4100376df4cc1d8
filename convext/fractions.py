"""Kernels as common fractions, such as 1/16 × [1 2 1; 2 4 2; 1 2 1]."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LARGEST_DENOMINATOR = 256

# Of random kernels, so large a share may look like a fraction.
CHANCE = 1e-3

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


def common_fraction(kernel: npt.NDArray[np.float64]) -> CommonFraction | None:
    """Return the simplest common fraction that the entries of a kernel are near, if there is one.

    Parameters
    ----------
    kernel : numpy.ndarray, (C, kh, kw) or (kh, kw)

    Returns
    -------
    CommonFraction or None
        With the denominator, up to 256, for which it is the least likely that a random kernel would
        be so near: the fewer entries there are that are not zero, and the larger the denominator,
        the nearer they must be.

    Examples
    --------
    >>> blur = np.array([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    >>> print(common_fraction(blur + 0.001))
    1/16 × [1 2 1; 2 4 2; 1 2 1]
    >>> common_fraction(np.array([[0.123, 0.456, 0.789]])) is None
    True
    """
    denominators = np.arange(1, LARGEST_DENOMINATOR + 1)
    scaled = kernel.ravel() * denominators[:, np.newaxis]
    numerators = np.rint(scaled)
    counts = np.count_nonzero(numerators, axis=1)
    # Distances from whole numbers are at most 1/2. The square makes a sum over all denominators of
    # what is likely for each.
    distances = np.maximum(np.abs(scaled - numerators).max(axis=1), ROUNDING)
    chances = (2 * distances) ** counts * denominators**2
    best = int(np.argmin(np.where(counts > 0, chances, np.inf)))
    if counts[best] == 0 or chances[best] > CHANCE:
        return None
    return CommonFraction(
        numerators[best].reshape(kernel.shape).astype(np.int64), int(denominators[best])
    )
