"""Call one thing after the other, again and again, and print what each keeps of memory.

Run by test_kept_memory.py with an allocator that keeps nothing itself. Of each name, the growth
from one lot of calls to the next is printed, as a line of JSON.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import numpy as np
from live_memory import State
from other_work import WORK
from soak import Nowhere
from test_threads import ENTRIES, KERNELS, PLOTS, X, same

import convext

LOTS, CALLS = int(sys.argv[1]), int(sys.argv[2])
# CPython remembers where attributes of types were found, and keeps the names until others come.
forget_names = getattr(sys, "_clear_type_cache", lambda: None)


def fork(_):
    """Have a child call something."""

    def in_child():
        os._exit(not same(convext.conv2d(X, KERNELS, num_threads=2), expected))

    def call():
        child = multiprocessing.get_context("fork").Process(target=in_child)
        child.start()
        child.join()
        assert child.exitcode == 0

    expected = convext.conv2d(X, KERNELS)
    return call


def interrupt(_):
    """End operations that would take long from the handler of a signal."""
    image, kernels = np.ones((1, 2000, 2000)), np.ones((8, 1, 31, 31))
    data, target = np.ones((4, 3, 900, 900)), np.ones((4, 3, 892, 892))
    operations = [
        lambda: convext.conv2d(image, kernels, algorithm="direct", num_threads=2),
        lambda: convext.train_model(data, target, 3, (9, 9), 1e-9, 99, method="direct", seed=0),
        lambda: convext.solve_kernels(data, target, (9, 9)),
    ]

    def stop(*_):
        raise TimeoutError

    def call():
        ended = 0
        for operation in operations:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with suppress(TimeoutError):
                operation()
                ended += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert ended == 0

    signal.signal(signal.SIGALRM, stop)
    return call


def bounded_caches():
    """Return the functions that remember so many results and no more."""
    wrappers = [o for o in gc.get_objects() if isinstance(o, functools._lru_cache_wrapper)]
    return [w for w in wrappers if w.cache_info().maxsize is not None]


def memory(caches):
    """Return how much is in use beside what is remembered for a while."""
    for cache in caches:
        cache.cache_clear()
    forget_names()
    return State.now().allocated


def leak(_):
    """Keep what is smallest, of C's and of Python's."""
    library = ctypes.CDLL(None)
    kept = []

    def call():
        library.malloc(1)
        kept.append(object())

    return call


def growths(call):
    """Return how much is kept after each lot of calls but the first."""
    kept = np.zeros(LOTS + 1, np.int64)
    call()
    caches = bounded_caches()
    for i in range(LOTS + 1):
        for _ in range(CALLS):
            call()
        kept[i] = memory(caches)
    return np.diff(kept).tolist()


KINDS = {**ENTRIES, **WORK, "forked child": fork, "interrupted": interrupt, "leak": leak}


def main():
    """Print what each name keeps."""
    warnings.simplefilter("ignore")
    convext.set_num_threads(2)
    out = sys.stdout
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(Nowhere()),
        redirect_stderr(Nowhere()),
    ):
        for name in sorted(set(sys.argv[3:] or KINDS) - PLOTS):
            own = Path(folder, name)
            own.mkdir()
            print(json.dumps([name, growths(KINDS[name](own))]), file=out, flush=True)


if __name__ == "__main__":
    main()
