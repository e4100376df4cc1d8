"""Run random cases of all compiled code by the thousand; best under sanitizers, see .ci/sanitize.

    python tests/fuzz.py
    python tests/fuzz.py --kinds training fit --seed 7 --count 500

A case is its kind, the seed and its number, whatever else is run. What fails is printed with its
parameters and the command that runs it alone. A worker that a sanitizer or a signal ends is
replaced, and goes on with the next case.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import subprocess
import sys
import threading
import time
import traceback

# The reference's own products need no threads beside those of the cases.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import random_cases

import convext

# A case takes a fraction of one.
MOST_SECONDS = 600


class Run:
    """All cases of a run, and what is known of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        numbers = range(options.first, options.first + options.count)
        self.cases = [(kind, index) for index in numbers for kind in options.kinds]
        self.done = 0
        self.failed: list[tuple[str, int]] = []
        self.told = time.monotonic()

    def share(self, worker: int) -> list[tuple[str, int]]:
        """Return the cases of one of the workers."""
        return self.cases[worker :: self.options.jobs]

    def work(self, worker: int) -> None:
        """Run the cases of a worker here; say on standard output when one begins or fails."""
        for kind, index in self.share(worker)[self.options.skip :]:
            print("begin", flush=True)
            faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
            parameters = random_cases.parameters_of(kind, self.options.seed, index)
            try:
                random_cases.check(kind, parameters)
            except Exception:
                traceback.print_exc()
                print("failed", flush=True)

    def attend(self, worker: int) -> None:
        """Have the cases of a worker run in processes of its own."""
        cases = self.share(worker)
        begun = 0
        while begun < len(cases):
            command = [sys.executable, __file__, *sys.argv[1:]]
            more = ["--worker", str(worker), "--skip", str(begun)]
            with subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith("begin"):
                        begun += 1
                        self.count()
                    else:
                        self.fail(cases[begun - 1], "failed")
            if process.returncode != 0 and begun == 0:
                self.failed.append(("worker", worker))
            if process.returncode == 0 or begun == 0:
                return
            self.fail(cases[begun - 1], f"ended the process, status {process.returncode}")

    def count(self) -> None:
        """Count a case, and tell how many there are, now and then."""
        self.done += 1
        if time.monotonic() > self.told + 30:
            self.told = time.monotonic()
            print(f"{self.done} of {len(self.cases)}, {len(self.failed)} failed", flush=True)

    def fail(self, case: tuple[str, int], how: str) -> None:
        """Note and print a case that failed."""
        self.failed.append(case)
        kind, index = case
        seed = self.options.seed
        print(
            f"{kind} {index} of seed {seed} {how}: "
            f"{random_cases.parameters_of(kind, seed, index)}\n"
            f"    python tests/fuzz.py --kinds {kind} --seed {seed} --first {index} --count 1",
            flush=True,
        )

    def report(self) -> str:
        """Return one line about the run."""
        kinds = ", ".join(f"{self.options.count} x {kind}" for kind in self.options.kinds)
        return f"{self.done} cases ({kinds}), seed {self.options.seed}: {len(self.failed)} failed"


def main() -> int:
    """Run the cases in several processes; the exit status tells whether one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = list(random_cases.KINDS)
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, metavar="KIND",
                        help=f"of {', '.join(kinds)} (default: all)")  # fmt: skip
    parser.add_argument("--count", type=int, default=4200, help="cases of each (default 4200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
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
    return 1 if run.failed or run.done != len(run.cases) else 0


if __name__ == "__main__":
    sys.exit(main())
