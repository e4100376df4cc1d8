"""How much faster more threads are: the time on one thread over that on several.

Run as ``python -m benchmarks.scaling``. Shapes of less than 0.1 GFLOP are left out.

Beside each figure stands what the machine has to give, "of": how much more gets done when as many
calls, each on one thread and on data of its own, run at the same time. It is less than the number
of threads where these wait for memory that they share, or for a CPU that others use.

The measurements take turns, of a few calls each, of which the first one does not count: threads
that were not needed for a while are asleep, and wake up in 50 to 100 microseconds. A round is a
turn of everything; a figure is the median of the rounds, which lie seconds apart. Each thread has
a CPU of its own, since a system may let threads that begin together wait on one for a while.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import convext

from .shapes import REFERENCE

MIN_FLOPS = 1e8
CALLS_OF_A_TURN = 8

# The environment variable that names the CPUs of OpenMP's threads, once these are bound to them.
PINNED_CPUS = "CONVEXT_BENCHMARK_CPUS"


def main():
    """Print a line for each shape and operation, and the geometric means."""
    if PINNED_CPUS not in os.environ:
        sys.exit(run_with_pinned_threads())
    cpus = len(cpus_of_threads())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--shapes", default="", help="only those with this in their name")
    parser.add_argument("--rounds", type=int, default=9, help="of turns (default 9)")
    parser.add_argument(
        "--threads", type=int, nargs="+", metavar="N", default=powers_of_two(cpus)[1:] or [1]
    )
    arguments = parser.parse_args()
    counts = [n for n in arguments.threads if n > 1]
    if max([1, *counts]) > cpus:
        parser.error(f"--threads {max(counts)}: there are {cpus} CPUs")
    cases = [
        case for case in REFERENCE if case.flops >= MIN_FLOPS and case.matches(arguments.shapes)
    ]
    if not cases:
        parser.error(f"--shapes {arguments.shapes}: no shape has this in its name")
    entries = [
        Entry(case, name, arguments.dtype, max([1, *counts]))
        for case in cases
        for name in ("forward", "kernel gradient", "input gradient")
    ]
    for _ in range(arguments.rounds):
        for entry in entries:
            entry.take_turns(counts)
    print(f"{arguments.dtype}, {cpus} CPUs, {convext.get_config()['isa']}")
    print(f"{'images -> kernels':<36}{'operation':<18}{'us, 1 thread':>12}", end="")
    print(*(f"{f'x{n}':>7}{'of':>6}" for n in counts))
    for entry in entries:
        print(f"{entry.case.name:<36}{entry.name:<18}{entry.microseconds():12.0f}", end="")
        print(*(f"{entry.speedup(n):7.2f}{entry.ceiling(n):6.2f}" for n in counts))
    for n in counts:
        speedup = statistics.geometric_mean(entry.speedup(n) for entry in entries)
        ceiling = statistics.geometric_mean(entry.ceiling(n) for entry in entries)
        print(f"{n} threads: geometric mean {speedup:.2f} of {ceiling:.2f}")


def run_with_pinned_threads():
    """Run this once more, with each thread of OpenMP on a CPU, and return the exit status."""
    cpus = sorted(os.sched_getaffinity(0))
    binding = {
        "OMP_PROC_BIND": "true",
        "OMP_PLACES": ",".join(f"{{{cpu}}}" for cpu in cpus),
        PINNED_CPUS: " ".join(map(str, cpus)),
    }
    command = [sys.executable, "-m", "benchmarks.scaling", *sys.argv[1:]]
    return subprocess.run(command, env=os.environ | binding, check=False).returncode


def cpus_of_threads():
    """Return the CPU of each thread of OpenMP."""
    return [int(cpu) for cpu in os.environ[PINNED_CPUS].split()]


def powers_of_two(most):
    """Return 1, 2, 4, ... up to `most`."""
    return [2**i for i in range(most.bit_length()) if 2**i <= most]


class Entry:
    """An operation on a shape, and what was measured of it: a list for each number of threads."""

    def __init__(self, case, name, dtype, most_threads):
        self.case, self.name = case, name
        self.functions = [operation(case, name, dtype) for _ in range(most_threads)]
        self.times = []
        self.speedups = {}
        self.ceilings = {}

    def take_turns(self, counts):
        """Measure everything once."""
        self.times.append(turn(self.functions[0], 1))
        for n in counts:
            alone = turn(self.functions[0], 1)
            together = turn(self.functions[0], n)
            side_by_side = turns_side_by_side(self.functions[:n])
            self.speedups.setdefault(n, []).append(alone / together)
            self.ceilings.setdefault(n, []).append(sum(alone / t for t in side_by_side))

    def microseconds(self):
        """Return the time of a call on one thread."""
        return 1e6 * statistics.median(self.times)

    def speedup(self, n):
        """Return how much faster `n` threads are."""
        return statistics.median(self.speedups[n])

    def ceiling(self, n):
        """Return how much more `n` calls at the same time get done."""
        return statistics.median(self.ceilings[n])


def operation(case, name, dtype):
    """Return an operation, as a function of the number of threads, with data of its own."""
    images, kernels, gradient = case.arrays(dtype)
    options = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
    size = (case.size, case.size)
    return {
        "forward": lambda n: convext.conv2d(images, kernels, **options, num_threads=n),
        "kernel gradient": lambda n: convext.conv2d_kernel_grad(
            images, gradient, size, **options, num_threads=n
        ),
        "input gradient": lambda n: convext.conv2d_input_grad(
            gradient, kernels, case.shape, **options, num_threads=n
        ),
    }[name]


def turn(function, num_threads):
    """Return the median time of a few calls."""
    function(num_threads)
    times = []
    for _ in range(CALLS_OF_A_TURN):
        start = time.perf_counter()
        function(num_threads)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def turns_side_by_side(functions):
    """Return the median times of functions that run at the same time, on one thread each."""
    barrier = Barrier(len(functions))

    def wait_and_measure(function, cpu):
        function(1)  # OpenMP brings a thread that it sees for the first time to the first CPU
        os.sched_setaffinity(0, {cpu})
        barrier.wait()
        return turn(function, 1)

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(wait_and_measure, functions, cpus_of_threads()))


if __name__ == "__main__":
    main()
