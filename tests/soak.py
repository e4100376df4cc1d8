"""Hours of mixed work in one process, of which the results and the memory must stay as they are.

    python -m tests.soak --minutes 60

Threads call what stands in tests/test_threads.py, one public name or another, and compare with what
they got at the beginning; now and then a child is forked, which does the same. The exit status
tells whether a result was another one, a call took too long, or memory grew.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import io
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import test_threads as entries

import convext

# Of resident memory, from when all has been called often until the end.
MOST_GROWTH = 20 << 20
# No call takes a second alone; a busy machine makes it several.
MOST_SECONDS = 60
CALLS_OF_A_CHILD = 20


class Soak:
    """The work under way, and what is known of it."""

    def __init__(self, folder: Path, minutes: float, seed: int) -> None:
        self.until = time.monotonic() + 60 * minutes
        self.seed = seed
        self.calls: Counter[str] = Counter()
        self.failures: list[str] = []
        self.work = {}
        convext.set_num_threads(2)
        for name in sorted(set(entries.ENTRIES) - entries.PLOTS - {"show_config"}):
            own = folder / name
            own.mkdir()
            call = entries.ENTRIES[name](own)
            self.work[name] = call, call()

    def call(self, chosen: random.Random, names: Sequence[str]) -> None:
        """Call something, and compare."""
        name = chosen.choice(names)
        call, expected = self.work[name]
        started = time.monotonic()
        try:
            if name in entries.MAY_REFUSE:
                with entries.refusable():
                    call()  # counts the epochs that it is told of
            elif not entries.same(call(), expected):
                self.failures.append(f"{name}: another result")
        except Exception:
            self.failures.append(f"{name}: {traceback.format_exc()}")
        if time.monotonic() > started + MOST_SECONDS:
            self.failures.append(f"{name}: took {time.monotonic() - started:.0f} s")
        self.calls[name] += 1

    def call_often(self, thread: int) -> None:
        """Call one thing after the other until the time is over."""
        chosen = random.Random(f"{self.seed} {thread}")
        while time.monotonic() < self.until and len(self.failures) < 20:
            self.call(chosen, list(self.work))

    def fork(self, number: int) -> None:
        """Let a forked child call some things."""
        child = multiprocessing.get_context("fork").Process(target=self._in_child, args=(number,))
        child.start()
        child.join(2 * MOST_SECONDS)
        if child.exitcode != 0:
            self.failures.append(f"child {number}: exit status {child.exitcode}")
            child.kill()
        child.join()
        self.calls["children"] += 1

    def _in_child(self, number: int) -> None:
        faulthandler.dump_traceback_later(2 * MOST_SECONDS, exit=True)
        before, chosen = len(self.failures), random.Random(f"{self.seed} child {number}")
        # Dask's own locks may have been held by another thread of the parent, and stay so here.
        names = [name for name in self.work if not name.startswith("dask.")]
        for _ in range(CALLS_OF_A_CHILD):
            self.call(chosen, names)
        for failure in self.failures[before:]:
            print(failure, file=sys.stderr)
        os._exit(len(self.failures) > before)


def resident() -> int:
    """Return how many bytes of memory this process has."""
    gc.collect()
    with open("/proc/self/statm") as status:
        return int(status.read().split()[1]) * resource.getpagesize()


def main() -> int:
    """Work, and tell what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60, help="how long (default 60)")
    parser.add_argument("--threads", type=int, default=4, help="of Python (default 4)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        soak = Soak(Path(folder), options.minutes, options.seed)
        threads = [
            threading.Thread(target=soak.call_often, args=(i,)) for i in range(options.threads)
        ]
        for thread in threads:
            thread.start()
        first, begun, told = 0, soak.until - 60 * options.minutes, time.monotonic()
        while any(thread.is_alive() for thread in threads):
            soak.fork(soak.calls["children"])
            time.sleep(0.5)
            # The caches of libraries fill at the beginning.
            if not first and time.monotonic() > begun + 6 * options.minutes:
                first = resident()
            if time.monotonic() > told + 60:
                told = time.monotonic()
                print(
                    f"{soak.calls.total()} calls, {resident() >> 20} MB, "
                    f"{len(soak.failures)} failures",
                    file=out,
                )
        grown = resident() - first
    if grown > MOST_GROWTH:
        soak.failures.append(f"memory grew by {grown >> 20} MB")
    print(*soak.failures, sep="\n", file=out)
    print(
        f"{soak.calls.total() - soak.calls['children']} calls in {options.threads} threads, "
        f"{soak.calls['children']} forked children of {CALLS_OF_A_CHILD}, "
        f"{grown / 2**20:+.1f} MB, {len(soak.failures)} failures",
        file=out,
    )
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
