"""What the tests of MPI run on several ranks: `mpiexec -n 2 python tests/mpi_program.py PART FILE`.

Without mpiexec, a part that computes something does so in one process.
"""

from __future__ import annotations

import itertools
import os
import sys
import warnings

import numpy as np
import pytest

import convext
from convext._support import ranks as support
from convext.solve import blocks

PART, FILE = sys.argv[1:]
COMM = None
if "PMI_SIZE" in os.environ:
    from mpi4py import MPI

    COMM = MPI.COMM_WORLD
RANK = 0 if COMM is None else COMM.rank

# Several blocks of small data.
blocks.MAX_ELEMENTS = 3000
support.SECONDS_TO_FAIL = 0.5

RNG = np.random.default_rng(0)
X, Y = RNG.random((21, 1, 12, 11)), RNG.random((21, 2, 8, 7))


def flat(*arrays):
    """Return all numbers of some arrays."""
    return np.concatenate([np.ravel(array) for array in arrays])


def solutions():
    """Yield least squares: of samples, of one image, with masks, centred, of few pixels."""
    x = RNG.random((5, 2, 30, 40))
    kernels = RNG.random((3, 2, 3, 4))
    exact = convext.conv2d(x, kernels, padding="same")
    y = exact + RNG.normal(size=exact.shape)
    masks = RNG.random((5, 1, 30, 40)) < 0.9, RNG.random((5, 3, 30, 40)) < 0.9
    same = {"padding": "same", "bias": True}

    def solve(x, y, *arguments, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", np.exceptions.RankWarning)
            found = convext.solve_kernels(x, y, *arguments, comm=COMM, **options)
        bias = np.zeros(0) if found.bias is None else found.bias
        return flat(found.kernels, bias, [found.loss, found.rank])

    yield "same size", lambda: solve(x, y, (2, 3))
    yield "bias", lambda: solve(x, y, (3, 4), **same)
    yield "mask", lambda: solve(x, y, 3, mask=masks[0], l2=0.01, **same)
    yield "mask of each", lambda: solve(x, y, 3, mask=masks[1], **same)
    yield "strided", lambda: solve(x, y[:, :, ::2, ::2], 3, stride=2, padding=1)
    yield "large mean", lambda: solve(x, y + 1e5, (3, 4), **same)
    yield "refined", lambda: solve(x, exact + 1e3, (3, 4), **same)[:-2]
    yield "huge", lambda: solve(x * 1e200, y, 3)
    yield "undetermined", lambda: solve(np.ones_like(x), y, 3)
    yield "few", lambda: solve(x[:1, :, :6, :6], y[:1, :, :3, :3], 4)
    yield "one image", lambda: solve(x[:1], y[:1], 3)


def results():
    """Save what all trainings and solutions give, and whether that is the same on all ranks."""
    found = {}
    for part in (solutions,):
        for name, compute in part():
            found[f"{part.__name__}, {name}"] = np.ravel(compute())
    if COMM is not None:
        for name, values in found.items():
            assert len({each.tobytes() for each in COMM.allgather(values)}) == 1, name
    if RANK == 0:
        np.savez(FILE, **found)


def sums():
    """Sums are those of NumPy in the order of the ranks, bit by bit."""
    with support.together(COMM) as ranks:
        for shape in [(1,), (7, 3), (3, 50001), (200_000,)]:
            each = [np.random.default_rng(rank).normal(size=shape) for rank in range(ranks.size)]
            expected = each[0].copy()
            for values in each[1:]:
                expected += values
            for order in "CF":
                own = each[ranks.rank].copy(order)
                ranks.add(own)
                if shape != (1,):
                    assert np.array_equal(own, expected), shape
                np.testing.assert_allclose(own, expected, 1e-14)
        assert ranks.gather("x" * ranks.rank) == ["x" * rank for rank in range(ranks.size)]
        shares = ranks.gather([*range(10)][ranks.part(10)])
        assert [*itertools.chain(*shares)] == [*range(10)]
        # One on each CPU at least, and no more threads than CPUs.
        cpus, here = ranks.cpus()
        assert here == ranks.size
        assert convext.config.resolve_num_threads(None, ranks) == max(1, cpus // here)
        assert convext.config.resolve_num_threads(3, ranks) == 3


def errors():
    """What is wrong on all ranks, or differs between them, is an error on all."""
    nan = X.copy()
    nan[20, 0, 3, 3] = np.nan
    solve = convext.solve_kernels
    wrong = [
        ("l2 is 1.0 on rank 1", lambda: solve(X, Y, 5, l2=float(RANK == 1), comm=COMM)),
        ("input_data contains 1 values", lambda: solve(nan, Y, 5, comm=COMM)),
        ("comm must be an intracommunicator", lambda: solve(X, Y, 5, comm=3)),
    ]
    for pattern, call in wrong:
        with pytest.raises((ValueError, TypeError, ArithmeticError), match=pattern):
            call()


if __name__ == "__main__":
    globals()[PART]()
