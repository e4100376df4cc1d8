"""The linear algebra of least squares: the weights with the smallest sum of squared errors.

Let X have a row for each pixel of the target and a column for each tap (the patch matrix), and Y a
column for each kernel. Nothing here sees X: it is known by G = X^T X, or by the triangle R of its
QR decomposition.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._support.interruption import interruptible
from .._support.messages import warn

Matrix = npt.NDArray[np.float64]

EPSILON = float(np.finfo(np.float64).eps)

# Of unknowns whose pixels differ by more than this, squares of some are rounding errors of others.
FARTHEST = 2.0**24


@dataclass(frozen=True, eq=False)
class Solution:
    """The best kernels, and how well they are determined. Threads may share it.

    Attributes
    ----------
    kernels : numpy.ndarray, (num_kernels, C, kh, kw)
        The kernels with the smallest mean squared error; float64.
    bias : numpy.ndarray, (num_kernels,), or None
        What is added to the results of each; None where no bias was asked for.
    loss : float
        The mean squared error that is left.
    rank : int
        How many numbers of a kernel (and its bias) the data determine. Below their count, the
        kernels are those of the smallest norm among the best ones.
    condition : float
        The condition number of the patch matrix, the ratio of its largest to its smallest singular
        value: by what errors of the data may be multiplied in the kernels. Infinite where the rank
        is not full.
    centre : (int, int), or None
        Where the target is as large as the input: which pixel of its window, down and across, an
        element of the target was taken for. Even kernels have two middles.
    """

    kernels: Matrix
    bias: Matrix | None
    loss: float
    rank: int
    condition: float
    centre: tuple[int, int] | None = None


class Weights(NamedTuple):
    """The solution of one system: a column of `values` for each right-hand side."""

    values: Matrix  # (unknowns, right-hand sides)
    rank: int
    condition: float


class NormalEquations:
    """G w = b for a symmetric G without negative eigenvalues, decomposed.

    To the diagonal of G, the sums of `num_rows` rows of X, a ridge is added. `rank` is that of X,
    and `condition` its condition number, the square root of that of G; both without the ridge.
    `spread` is the ratio of the smallest to the largest eigenvalue of G with its ridge, where the
    unknowns are scaled so that the diagonal is 1: that much, over the precision of float64, errors
    may grow. Scaled so, unknowns of different units (a bias and pixels of 16 bits) do not look like
    an ill-conditioned problem. Where G is singular to rounding, the smallest weights are taken,
    without scaling unless the units are so far apart that one would be lost beside another.
    """

    def __init__(self, products: Matrix, ridge: Matrix, num_rows: int) -> None:
        tolerance = _tolerance(len(products), num_rows)
        values = interruptible(np.linalg.eigvalsh, products)
        self.rank, ratio = _rank(values, tolerance)

        system = products + np.diag(ridge)
        diagonal = np.sqrt(np.diag(system))
        self._scale = 1 / np.where(diagonal > 0, diagonal, 1)
        values, vectors = interruptible(
            np.linalg.eigh, system * self._scale * self._scale[:, np.newaxis]
        )
        full_rank, self.spread = _rank(values, tolerance)
        sizes = diagonal[diagonal > 0]
        if len(sizes) and sizes.max() > FARTHEST * sizes.min():
            self.rank = self.rank if np.any(ridge) else full_rank
        elif full_rank < len(values):
            self._scale = np.ones(len(values))
            values, vectors = interruptible(np.linalg.eigh, system)
        kept = values > tolerance * max(values[-1], 0)
        self._values, self._vectors = values[kept], vectors[:, kept]
        if self.spread and not np.any(ridge):
            # Unscaled, G may look worse than it is, and its smallest eigenvalue be lost.
            self.rank, ratio = len(products), max(ratio, tolerance)
        self.condition = math.sqrt(1 / ratio) if ratio else math.inf

    def solve(self, right: Matrix) -> Matrix:
        """Return the weights for right-hand sides (unknowns, count)."""
        scale = self._scale[:, np.newaxis]
        coordinates = self._vectors.T @ (right * scale) / self._values[:, np.newaxis]
        weights: Matrix = (self._vectors @ coordinates) * scale
        return weights


class Systems:
    """The normal equations of all kernels together, or of each one: G is (1 or K, ...).

    `rank`, `condition` and `spread` are the worst of all.
    """

    def __init__(self, products: Matrix, ridge: Matrix, num_rows: int) -> None:
        size = len(ridge)
        check_memory(6 * 8 * size**2, f"the normal equations of {size} unknowns")
        self._systems = [NormalEquations(system, ridge, num_rows) for system in products]
        self.rank = min(system.rank for system in self._systems)
        self.condition = max(system.condition for system in self._systems)
        self.spread = min(system.spread for system in self._systems)

    def solve(self, right: Matrix) -> Matrix:
        """Return the weights (K, unknowns) for right-hand sides (K, unknowns)."""
        if len(self._systems) == 1:
            return self._systems[0].solve(right.T).T
        return np.array(
            [
                system.solve(side[:, np.newaxis])[:, 0]
                for system, side in zip(self._systems, right, strict=True)
            ]
        )


def solve_rows(
    rows: Matrix, num_unknowns: int, ridge: Matrix, num_rows: int
) -> tuple[Weights, Matrix]:
    """Solve the problem of rows [X Y], or of the triangle of their QR decomposition.

    The first `num_unknowns` columns are those of X, which has `num_rows` rows. Returned are the
    smallest weights with the smallest sum of squared residuals, plus ridge * weights², and that
    sum, without the ridge, for each column of Y.
    """
    columns, sides = rows[:, :num_unknowns], rows[:, num_unknowns:]
    left, singular, right = interruptible(np.linalg.svd, columns, full_matrices=False)
    rank, ratio = _rank(singular[::-1], _tolerance(num_unknowns, num_rows))
    if not np.any(ridge):
        values = right[:rank].T @ ((left[:, :rank].T @ sides) / singular[:rank, np.newaxis])
    elif len(rows) > num_unknowns:
        extended = np.vstack([columns, np.diag(np.sqrt(ridge))])
        zeros = np.zeros((num_unknowns, sides.shape[1]))
        values = interruptible(np.linalg.lstsq, extended, np.vstack([sides, zeros]), rcond=None)[0]
    else:
        values = _of_few_rows(columns, sides, ridge)
    determined = ratio > 0 and rank == num_unknowns
    with np.errstate(over="ignore", under="ignore"):
        squares: Matrix = np.sum((sides - columns @ values) ** 2, axis=0)
    return Weights(values, rank, 1 / ratio if determined else math.inf), squares


def _of_few_rows(rows: Matrix, sides: Matrix, ridge: Matrix) -> Matrix:
    """Return weights with a ridge, which is one number, but for a last unknown that costs nothing.

    Nothing as large as unknowns times unknowns is needed.
    """
    # Without what the last column explains, its unknown follows from the others.
    last = rows[:, -1:] if ridge[-1] == 0 else np.zeros((len(rows), 1))
    explained, of_sides = (last.T @ a / max(np.square(last).sum(), 1e-300) for a in (rows, sides))
    rest = rows - last @ explained
    left, singular, right = interruptible(np.linalg.svd, rest, full_matrices=False)
    with np.errstate(divide="ignore", over="ignore"):
        factors = 1 / (singular + ridge[0] / singular)
    values: Matrix = right.T @ (factors[:, np.newaxis] * (left.T @ (sides - last @ of_sides)))
    if ridge[-1] == 0:
        values[-1] = of_sides - explained[:, :-1] @ values[:-1]
    return values


def check_memory(needed: int, what: str) -> None:
    """Raise MemoryError when more bytes are needed than this machine, or a limit, has."""
    if needed > _memory():
        raise MemoryError(
            f"{what} take {needed} bytes ({needed / 2**30:.1f} GiB), there are {_memory():.0f}: "
            "take smaller kernels"
        )


@cache
def _memory() -> float:
    """Return how many bytes there are, for this machine or its container."""
    limits = [math.inf]
    with suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(ValueError, OSError), open(f"/sys/fs/cgroup/{file}") as stream:
            limits.append(int(stream.read()))
    return min(limits)


def add_rows(rows: Matrix, more: Matrix) -> Matrix:
    """Return rows and more of them, or the triangle that stands for all where they are too many.

    It is that of their QR decomposition.
    """
    combined = np.vstack([rows, more])
    if len(combined) <= combined.shape[1]:
        return combined
    triangle: Matrix = interruptible(np.linalg.qr, combined, mode="r")
    return triangle


def warn_of_rank(rank: int, num_unknowns: int) -> None:
    """Warn that the kernels are not determined by the data, where they are not."""
    if rank < num_unknowns:
        warn(
            f"the data determine only {rank} of the {num_unknowns} numbers of a kernel: of all "
            "kernels that fit equally well, those of the smallest norm are returned",
            np.exceptions.RankWarning,
        )


def _tolerance(num_unknowns: int, num_rows: int) -> float:
    """Return below which share of the largest, a value may be nothing but rounding errors.

    On flat images, whose errors are the least random, they grow with the square root of the rows.
    """
    return EPSILON * (10 * num_unknowns + math.sqrt(num_rows))


def _rank(ascending: npt.NDArray[np.floating[Any]], tolerance: float) -> tuple[int, float]:
    """Return how many values are above zero, and the ratio of the extremes, 0 unless all are."""
    largest = float(ascending[-1])
    rank = int(np.count_nonzero(ascending > tolerance * largest)) if largest > 0 else 0
    return rank, float(ascending[0]) / largest if rank == len(ascending) else 0.0
