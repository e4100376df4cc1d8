"""Hours of mixed work in one process, of which the results and the memory must stay as they are.

    python -m tests.soak --minutes 60

Threads call what stands in tests/test_threads.py, one public name or another, and in
tests/other_work.py, and compare with what they got at the beginning; now and then a child is
forked, which does the same. The exit status tells whether a result was another one, a call took too
long, or memory grew: what the process has, and what of it is in use, which the allocator's own
habits do not change.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import live_memory
import stopwatch
import test_threads as entries
from other_work import WORK

import convext

# From when all has been called often until the end.
MOST_GROWTH = live_memory.State(resident=20 << 20, allocated=4 << 20, blocks=50_000)
# No call takes a second alone; threads wait for each other.
MOST_SECONDS = 60
CALLS_OF_A_CHILD = 20
# A child that goes on for longer hangs.
SECONDS_OF_A_CHILD = 600
MOST_FAILURES = 20


class Nowhere(io.TextIOBase):
    """Output that nobody reads: it keeps nothing, and has no lock that a forked child waits for."""

    def write(self, text: str) -> int:
        """Forget the text."""
        return len(text)


class Soak:
    """The work under way, and what is known of it."""

    def __init__(self, folder: Path, minutes: float, seed: int, out: TextIO) -> None:
        self.out = out
        self.seed = seed
        self.calls: Counter[str] = Counter()
        self.failures: list[str] = []
        self.told = 0
        self.work = {}
        convext.set_num_threads(2)
        kinds = {**entries.ENTRIES, **WORK}
        for name in sorted(set(kinds) - entries.PLOTS - {"show_config"}):
            own = folder / name
            own.mkdir()
            call = kinds[name](own)
            self.work[name] = call, call()
        self.until = time.monotonic() + 60 * minutes

    def call(self, chosen: random.Random, names: Sequence[str]) -> None:
        """Call something, and compare."""
        name = chosen.choice(names)
        call, expected = self.work[name]
        started = stopwatch.seconds()
        try:
            if name in entries.MAY_REFUSE:
                with entries.refusable():
                    call()  # counts the epochs that it is told of
            elif not entries.same(call(), expected):
                self.failures.append(f"{name}: another result")
        except Exception:
            self.failures.append(f"{name}: {traceback.format_exc()}")
        seconds = stopwatch.seconds() - started
        if seconds > MOST_SECONDS:
            self.failures.append(f"{name}: took {seconds:.0f} s")
        self.calls[name] += 1

    def call_often(self, thread: int) -> None:
        """Call one thing after the other until the time is over."""
        chosen = random.Random(f"{self.seed} {thread}")
        while time.monotonic() < self.until and len(self.failures) < MOST_FAILURES:
            self.call(chosen, list(self.work))

    def fork(self, number: int) -> None:
        """Let a forked child call some things."""
        child = multiprocessing.get_context("fork").Process(target=self._in_child, args=(number,))
        child.start()
        child.join(SECONDS_OF_A_CHILD)
        if child.exitcode != 0:
            self.failures.append(f"child {number}: exit status {child.exitcode}")
            child.kill()
        child.join()
        self.calls["children"] += 1

    def _in_child(self, number: int) -> None:
        faulthandler.dump_traceback_later(SECONDS_OF_A_CHILD, exit=True, file=self.out)
        before, chosen = len(self.failures), random.Random(f"{self.seed} child {number}")
        # Dask's own locks may have been held by another thread of the parent, and stay so here.
        names = [name for name in self.work if not name.startswith("dask.")]
        for _ in range(CALLS_OF_A_CHILD):
            self.call(chosen, names)
        for failure in self.failures[before:]:
            print(failure, file=self.out)
        os._exit(len(self.failures) > before)

    def watch(self, begun: float, settled: float) -> live_memory.State:
        """Fork children until the time is over; return how memory grew since it had settled."""
        first, told = None, begun
        while time.monotonic() < self.until and len(self.failures) < MOST_FAILURES:
            self.fork(self.calls["children"])
            time.sleep(0.5)
            # The caches of libraries fill at the beginning.
            if first is None and time.monotonic() > settled:
                first = live_memory.State.now()
            if time.monotonic() > told + 60:
                told = time.monotonic()
                self.tell(f"{self.calls.total()} calls, {live_memory.State.now()}")
        last = live_memory.State.now()
        return last.since(first or last)

    def tell(self, text: str) -> None:
        """Print the failures that were not printed before, and a text."""
        count = len(self.failures)
        print(*self.failures[self.told : count], text, sep="\n", file=self.out)
        self.told = count


def main() -> int:
    """Work, and tell what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60, help="how long (default 60)")
    parser.add_argument("--threads", type=int, default=4, help="of Python (default 4)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    nowhere = Nowhere()
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        soak = Soak(Path(folder), options.minutes, options.seed, out)
        threads = [
            threading.Thread(target=soak.call_often, args=(i,)) for i in range(options.threads)
        ]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        grown = soak.watch(begun, begun + 6 * options.minutes)
        for thread in threads:
            thread.join()
    for name, most in MOST_GROWTH._asdict().items():
        if getattr(grown, name) > most:
            soak.failures.append(f"memory grew: {grown}, and may by {MOST_GROWTH}")
            break
    soak.tell(
        f"{soak.calls.total() - soak.calls['children']} calls in {options.threads} threads, "
        f"{soak.calls['children']} forked children of {CALLS_OF_A_CHILD}, "
        f"grown by {grown}, {len(soak.failures)} failures"
    )
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
