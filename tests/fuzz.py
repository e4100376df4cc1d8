"""Run random cases by the thousand; best under sanitizers, see .ci/sanitize.

    python -m tests.fuzz
    python -m tests.fuzz --kinds training fit --seed 7 --count 500
    python -m tests.fuzz --minutes 30

They are of all compiled code, of damaged files, and of calls with wrong arguments.

A case is its kind, the seed and its number, whatever else is run. What fails is printed with its
parameters and the command that runs it alone. A worker that a sanitizer or a signal ends is
replaced, and goes on with the next case.
"""

from __future__ import annotations

import argparse
import faulthandler
import math
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from itertools import count, islice

# The reference's own products need no threads beside those of the cases.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import random_cases

import convext

# A case takes a fraction of one.
MOST_SECONDS = 600


class Run:
    """All cases of a run, and what is known of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.until = options.until or (
            time.time() + 60 * options.minutes if options.minutes else math.inf
        )
        self.done = 0
        self.failed: list[tuple[str, int]] = []
        self.told = time.monotonic()

    def share(self, worker: int, skip: int) -> Iterator[tuple[str, int]]:
        """Yield the cases of one of the workers, but for those that were begun before."""
        options = self.options
        numbers = count() if options.minutes else range(options.count)
        cases = ((kind, options.first + number) for number in numbers for kind in options.kinds)
        for case in islice(cases, worker + skip * options.jobs, None, options.jobs):
            if time.time() >= self.until:
                return
            yield case

    def work(self, worker: int) -> None:
        """Run the cases of a worker here; say on standard output when one begins or fails."""
        for kind, index in self.share(worker, self.options.skip):
            print("begin", kind, index, flush=True)
            faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
            parameters = random_cases.parameters_of(kind, self.options.seed, index)
            try:
                random_cases.check(kind, parameters)
            except Exception:
                traceback.print_exc()
                print("failed", flush=True)

    def attend(self, worker: int) -> None:
        """Have the cases of a worker run in processes of its own."""
        begun, case, status = 0, ("worker", worker), 1
        while status != 0:
            before = begun
            command = [sys.executable, __file__, *sys.argv[1:]]
            more = ["--worker", str(worker), "--skip", str(begun), "--until", str(self.until)]
            with subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith("begin"):
                        _, kind, index = line.split()
                        case = kind, int(index)
                        begun += 1
                        self.count()
                    else:
                        self.fail(case, "failed")
            status = process.returncode
            if status != 0:
                self.fail(case, f"ended the process, status {status}")
                if begun == before:
                    return  # it ends before its first case

    def count(self) -> None:
        """Count a case, and tell how many there are, now and then."""
        self.done += 1
        if time.monotonic() > self.told + 30:
            self.told = time.monotonic()
            print(f"{self.done} cases, {len(self.failed)} failed", flush=True)

    def fail(self, case: tuple[str, int], how: str) -> None:
        """Note and print a case that failed."""
        self.failed.append(case)
        kind, index = case
        seed = self.options.seed
        known = kind in random_cases.KINDS
        print(
            f"{kind} {index} of seed {seed} {how}: "
            f"{random_cases.parameters_of(kind, seed, index) if known else ''}\n"
            f"    python -m tests.fuzz --kinds {kind} --seed {seed} --first {index} --count 1",
            flush=True,
        )

    def report(self) -> str:
        """Return one line about the run."""
        kinds = ", ".join(self.options.kinds)
        return f"{self.done} cases ({kinds}), seed {self.options.seed}: {len(self.failed)} failed"


def main() -> int:
    """Run the cases in several processes; the exit status tells whether one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = list(random_cases.KINDS)
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, metavar="KIND",
                        help=f"of {', '.join(kinds)} (default: all)")  # fmt: skip
    parser.add_argument("--count", type=int, default=4200, help="cases of each (default 4200)")
    parser.add_argument("--minutes", type=float, help="go on for as long instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    run = Run(parser.parse_args())
    if run.options.worker is not None:
        run.work(run.options.worker)
        return 0
    print(f"convext in {os.path.dirname(convext.__file__)}", flush=True)
    threads = [
        threading.Thread(target=run.attend, args=(worker,)) for worker in range(run.options.jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(run.report())
    options = run.options
    all_done = options.minutes or run.done == options.count * len(options.kinds)
    return 0 if all_done and not run.failed else 1


if __name__ == "__main__":
    sys.exit(main())
