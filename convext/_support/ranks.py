"""Processes that compute together, by MPI: the ranks of a communicator of mpi4py.

What ranks do together, they must all begin, in the same order. Sums are taken in the order of the
ranks, so that they have the same bits for the same number of ranks.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

# Up to this size, all ranks get the values of all and add them: one message is quicker than two.
GATHERED_BYTES = 1 << 18

# Waiting for others, a rank looks again and again at first, then with pauses. On a busy machine a
# pause lasts until another process has had its turn, some milliseconds, for each message of a sum:
# so ranks that compute look for a share of the time that they have computed since they last waited.
_SHARE_OF_LOOKING = 0.25
_LEAST_SECONDS_OF_LOOKING = 0.002
_MOST_SECONDS_OF_LOOKING = 0.02
_PAUSE = 5e-5

# Where a rank has failed, the others have so long to fail, too: by the same bad argument, by
# Ctrl-C. First they may write a checkpoint.
SECONDS_TO_FAIL = 5.0

# What mpiexec has not passed on when a job ends, is lost.
_SECONDS_TO_PRINT = 0.3

# Messages that an interruption has left under way, which may still arrive: they keep their memory.
_abandoned: list[Any] = []

# When this process has last waited for others.
_waited = time.monotonic()


class Ranks:
    """The ranks that share a computation, seen from one of them; without a communicator, it alone.

    All methods but `part` are for all ranks together. The `first` one reports, calls callbacks and
    writes files.
    """

    def __init__(self, comm: Any = None) -> None:
        self._comm = comm
        self.rank: int = 0 if comm is None else comm.Get_rank()
        self.size: int = 1 if comm is None else comm.Get_size()
        self.first = self.rank == 0

    def part(self, count: int) -> slice:
        """Return this rank's share of so many things, which the ranks have one after the other."""
        return slice(*(count * rank // self.size for rank in (self.rank, self.rank + 1)))

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Replace values by the sums of those of all ranks, in the order of these."""
        if self.size == 1:
            return
        flat = values.ravel()  # a copy, unless the values are contiguous
        if self.size * flat.nbytes <= GATHERED_BYTES:
            parts = np.empty((self.size, flat.size))
            _wait(self._comm.Iallgather(flat, parts))
            np.add.reduce(parts, axis=0, out=flat)
        else:  # each rank adds a part of the values
            sent, parts = np.zeros((2, self.size, -(-flat.size // self.size)))
            sent.ravel()[: flat.size] = flat
            _wait(self._comm.Ialltoall(sent, parts))
            _wait(self._comm.Iallgather(np.add.reduce(parts, axis=0), sent))
            flat[:] = sent.ravel()[: flat.size]
        values[...] = flat.reshape(values.shape)

    def take(self, values: npt.NDArray[Any]) -> None:
        """Replace values, contiguous, by those of the first rank."""
        if self.size > 1:
            _wait(self._comm.Ibcast(values.reshape(-1).view(np.uint8), 0))

    def gather(self, value: T) -> list[T]:
        """Return what all ranks give, in their order."""
        if self.size == 1:
            return [value]
        sent, sizes = pickle.dumps(value), np.empty(self.size, np.int64)
        _wait(self._comm.Iallgather(np.array([len(sent)]), sizes))
        ends = np.cumsum(sizes)
        received = np.empty(int(ends[-1]), np.uint8)
        _wait(self._comm.Iallgatherv(bytearray(sent), [received, (sizes, ends - sizes)]))
        return [pickle.loads(part.tobytes()) for part in np.split(received, ends[:-1])]

    def once(self, function: Callable[[], T]) -> T:
        """Return what a function gives, or raise its error; it runs on the first rank alone."""
        if self.size == 1:
            return function()
        result = pickle.dumps(_outcome(function) if self.first else None)
        size = np.array([len(result)])
        self.take(size)
        received = np.frombuffer(result.ljust(int(size[0]))[: int(size[0])], np.uint8).copy()
        self.take(received)
        value, failure = pickle.loads(received.tobytes())
        if failure is not None:
            raise failure
        given: T = value
        return given

    def attempt(self, function: Callable[[], T]) -> T:
        """Return what a function gives, or raise its error, if need be that of another rank."""
        value, failure = _outcome(function)
        if failures := [each for each in self.gather(failure) if each is not None]:
            raise failure or failures[0]
        given: T = value
        return given

    def check_same(self, settings: Callable[[], dict[str, Any]]) -> None:
        """Raise ValueError, on all ranks, where one has other data or options than the first."""
        if self.size == 1:
            return
        first, *others = self.gather(settings())
        for rank, theirs in enumerate(others, 1):
            for name in {**first, **theirs}:
                its, expected = theirs.get(name), first.get(name)
                if its != expected:
                    raise ValueError(
                        f"all ranks must be given the same: {name} is {its} on rank {rank}, and "
                        f"{expected} on rank 0"
                    )

    def cpus(self) -> tuple[int, int]:
        """Return how many CPUs the ranks on this machine may use, and how many ranks these are."""
        from mpi4py import MPI

        local = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        ours = (
            os.sched_getaffinity(0)
            if hasattr(os, "sched_getaffinity")
            else set(range(os.cpu_count() or 1))
        )
        cpus = local.allgather(ours)
        local.Free()
        return len(set().union(*cpus)), len(cpus)


ALONE = Ranks()


@contextmanager
def together(
    comm: Any, called: str, tell: Callable[[BaseException, int], int] | None = None
) -> Iterator[Ranks]:
    """Let the ranks of a communicator share what the block does; None is this process alone.

    All must have `called` the same: others would wait for messages that never come. Where some
    fail, and not all, the job ends: `tell` says so, and returns its exit status.
    """
    if isinstance(comm, Ranks):  # of a block around this one
        yield comm
        return
    if comm is not None and (not hasattr(comm, "Is_inter") or comm.Is_inter()):
        raise TypeError(f"comm must be an intracommunicator of mpi4py, got {comm!r}")
    if comm is None or comm.Get_size() == 1:
        yield ALONE
        return
    # Apart from other messages; the second is for ranks that have failed.
    own, failed = _duplicate(comm), _duplicate(comm)
    try:
        shared = Ranks(own)
        shared.check_same(lambda: {"function": called})
        yield shared
    except BaseException as error:
        if _wait(failed.Ibarrier(), time.monotonic() + SECONDS_TO_FAIL):
            raise
        status = (tell or _print_traceback)(error, own.Get_rank())
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        time.sleep(_SECONDS_TO_PRINT)
        comm.Abort(status)
        raise  # MPI may need a while to end this process
    finally:
        own.Free()
        failed.Free()


def launched() -> Any:
    """Return the communicator of the processes that mpiexec has started; None for one alone."""
    # What MPICH and its kin, and Open MPI, say of their number.
    sizes = [os.environ.get(name, "1") for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")]
    started = max(int(size) for size in sizes if size.isdecimal())
    if started == 1:
        return None
    try:
        from mpi4py import MPI
    except ImportError:
        raise ImportError(
            f"{started} processes were started together, which needs mpi4py: "
            'pip install "convext[mpi]"'
        ) from None
    if MPI.COMM_WORLD.Get_size() != started:
        raise RuntimeError(
            f"{started} processes were started together, of which mpi4py sees "
            f"{MPI.COMM_WORLD.Get_size()}: is it of another MPI than mpiexec?"
        )
    return MPI.COMM_WORLD


def _duplicate(comm: Any) -> Any:
    copy, request = comm.Idup()
    _wait(request)
    return copy


def _outcome(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """Return what a function gives, and its error."""
    try:
        return function(), None
    except Exception as error:
        return None, error


def _print_traceback(error: BaseException, rank: int) -> int:
    lines = f"rank {rank} has failed, which ends the job:\n", *traceback.format_exception(error)
    print("".join(lines), end="", file=sys.stderr)
    return 1


def _wait(request: Any, until: float | None = None) -> bool:
    """Wait for a message, or until a time at most; return whether it has arrived.

    Unlike the waiting of MPI, Ctrl-C ends it, and it leaves the CPU to others after a while.
    """
    global _waited  # noqa: PLW0603
    now = time.monotonic()
    share = _SHARE_OF_LOOKING * (now - _waited)
    looking = now + max(_LEAST_SECONDS_OF_LOOKING, min(share, _MOST_SECONDS_OF_LOOKING))
    try:
        while not request.Test():
            now = time.monotonic()
            if until is not None and now > until:
                return False
            if now > looking:
                time.sleep(_PAUSE)
    except BaseException:
        _abandoned.append(request)
        raise
    _waited = time.monotonic()
    return True
