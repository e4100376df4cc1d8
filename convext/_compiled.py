"""Loads the compiled code, and with it OpenMP, so that waiting threads soon give up their CPU.

By default a thread of GCC's OpenMP library that waits for another one spins for milliseconds. Where
the other has lost its CPU to another process, the spinning keeps it from getting one back, and a
convolution of a third of a millisecond takes ten (see docs/measurements.md). The library reads its
settings once, when it is loaded; the environment is put back then.
"""

from __future__ import annotations

import os

# Turns of the waiting loop: a tenth of a millisecond. Threads that sleep between two calls take
# long to wake, and may wake on the CPU of the one that calls them.
SPIN_COUNT = "4000"

_set_here = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()
if _set_here:
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
try:
    # The second brings the loops that use OpenMP, and so the library.
    from . import _dispatch, _forward
finally:
    if _set_here:
        del os.environ["GOMP_SPINCOUNT"]

__all__ = ["_dispatch", "_forward"]
