"""The processes that mpiexec has started for a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .._support.ranks import Ranks, launched, together


@contextmanager
def job(tell: Callable[[BaseException, int], int]) -> Iterator[Ranks]:
    """Let them share what the block does; from now on, only the first of several prints.

    Where one fails alone, `tell` says why, and returns the exit status of all.
    """
    outputs = sys.stdout, sys.stderr

    def end(error: BaseException, rank: int) -> int:
        sys.stdout, sys.stderr = outputs
        return tell(error, rank)

    with together(launched(), "convext", end) as ranks:
        if not ranks.first:
            sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        yield ranks
