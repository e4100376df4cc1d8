"""A server: many threads of Python call at the same time.

Run as ``python -m benchmarks.callers``. A line is an operation: calls in a second of one thread
that calls alone, how many times as many all threads together make, the median time of their calls,
and how many times longer one in a hundred takes at least.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np

import convext


def main():
    """Print a line for each operation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--callers", type=int, default=64, help="threads of Python (default 64)")
    parser.add_argument("--seconds", type=float, default=4, help="for each figure (default 4)")
    arguments = parser.parse_args()
    print(f"{convext.get_num_threads()} threads, {arguments.callers} callers")
    print(f"{'':<32}{'calls/s of 1':>14}{'all':>7}{'median ms':>12}{'p99':>7}")
    for name, call in operations().items():
        alone = calls_of(call, 1, arguments.seconds)
        times = calls_of(call, arguments.callers, arguments.seconds)
        again = calls_of(call, 1, arguments.seconds)
        rate = (len(alone) + len(again)) / 2
        median = statistics.median(times)
        last = np.quantile(times, 0.99)
        print(
            f"{name:<32}{rate / arguments.seconds:14.0f}{len(times) / rate:7.2f}"
            f"{1000 * median:12.2f}{last / median:7.2f}",
            flush=True,
        )


def operations():
    """Return functions without arguments by name."""
    rng = np.random.default_rng(1)
    layer = rng.random((1, 64, 56, 56), np.float32), rng.random((64, 64, 3, 3), np.float32)
    small = rng.random((1, 3, 32, 32), np.float32), rng.random((8, 3, 5, 5), np.float32)
    photograph = rng.random((1, 1, 1080, 1920), np.float32), rng.random((1, 1, 5, 5), np.float32)
    image = rng.random((1, 1, 256, 256), np.float32)
    model = convext.Sequential(
        [
            convext.Conv2D(64, 9, 1, padding="same", activation="relu"),
            convext.Conv2D(32, 1, 64, activation="relu"),
            convext.Conv2D(1, 5, 32, padding="same"),
        ]
    )
    return {
        "conv2d 64,56,56 -> 64 3x3": lambda: convext.conv2d(*layer, padding="same"),
        "conv2d 3,32,32 -> 8 5x5": lambda: convext.conv2d(*small),
        "conv2d 1,1080,1920 -> 1 5x5": lambda: convext.conv2d(*photograph),
        "predict SRCNN 256x256": lambda: model.predict(image),
    }


def calls_of(call, callers, seconds):
    """Return how long each call took that so many threads began within so many seconds."""
    barrier = Barrier(callers)

    def make_calls():
        times = []
        call()
        barrier.wait()
        start = last = time.perf_counter()
        while last < start + seconds:
            before, last = last, time.perf_counter()
            call()
            last = time.perf_counter()
            times.append(last - before)
        return times

    with ThreadPoolExecutor(callers) as pool:
        futures = [pool.submit(make_calls) for _ in range(callers)]
        return [t for future in futures for t in future.result()]


if __name__ == "__main__":
    main()
