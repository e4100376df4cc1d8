"""How much faster more threads are: the time on one thread over that on several.

Run as ``python -m benchmarks.scaling``; the thread counts take turns, of a few calls each, of which
the first one does not count: threads that were not needed for a while are asleep, and wake up in
50 to 100 microseconds. Shapes of less than 0.1 GFLOP are left out.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time

import convext

from .shapes import REFERENCE

MIN_FLOPS = 1e8
CALLS_OF_A_TURN = 8
OPERATIONS = ("forward", "kernel gradient", "input gradient")


def main():
    """Print a line for each shape and operation, and the geometric means."""
    cpus = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each entry (default 0.5)")
    parser.add_argument(
        "--threads", type=int, nargs="+", metavar="N", default=powers_of_two(cpus)[1:] or [1]
    )
    arguments = parser.parse_args()
    counts = [1, *(n for n in arguments.threads if n > 1)]
    print(f"{arguments.dtype}, {cpus} CPUs, {convext.get_config()['isa']}")
    print(f"{'images -> kernels':<36}{'operation':<18}{'us, 1 thread':>12}", end="")
    print(*(f"{f'x{n}':>7}" for n in counts[1:]))
    speedups = {n: [] for n in counts[1:]}
    for case in REFERENCE:
        if case.flops < MIN_FLOPS:
            continue
        functions = operations(case, arguments.dtype)
        for name in OPERATIONS:
            times = measure(functions[name], counts, arguments.seconds)
            for n in counts[1:]:
                speedups[n].append(times[1] / times[n])
            print(f"{case.name:<36}{name:<18}{times[1] * 1e6:12.0f}", end="")
            print(*(f"{times[1] / times[n]:7.2f}" for n in counts[1:]), flush=True)
    for n, values in speedups.items():
        print(
            f"{n} threads: geometric mean {math.exp(statistics.fmean(map(math.log, values))):.2f}"
        )


def powers_of_two(most):
    """Return 1, 2, 4, ... up to `most`."""
    return [2**i for i in range(most.bit_length()) if 2**i <= most]


def operations(case, dtype):
    """Return the three operations, as functions of the number of threads."""
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
    }


def measure(function, counts, seconds):
    """Return the median time for each number of threads; they take turns."""
    times = {n: [] for n in counts}
    begin = time.perf_counter()
    while len(times[1]) < 3 * CALLS_OF_A_TURN or time.perf_counter() - begin < seconds:
        for n in counts:
            function(n)
            for _ in range(CALLS_OF_A_TURN):
                start = time.perf_counter()
                function(n)
                times[n].append(time.perf_counter() - start)
    return {n: statistics.median(values) for n, values in times.items()}


if __name__ == "__main__":
    main()
