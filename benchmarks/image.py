"""One kernel on a large grey image, beside what the machine allows.

The time of `convext.conv2d` for 5x5 on 1080x1920, beside that of copying the input to the output
(`numpy.copyto`) plus that of the arithmetic at the peak, all in turns in one process. Run as
``python -m benchmarks.image``.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import convext

from . import peak
from .libraries import Settings

SHAPE = (1, 1080, 1920)
SIZE = 5
ROUNDS = 300


def main():
    """Print the times in microseconds, and the ratio, for both types."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print("             convext    copy  arithmetic   ratio   (microseconds, medians)")
    for dtype in ("float32", "float64"):
        convolution, copy, arithmetic = (1e6 * seconds for seconds in measure(dtype))
        ratio = convolution / (copy + arithmetic)
        print(f"{dtype:<9}{convolution:11.0f}{copy:8.0f}{arithmetic:12.0f}{ratio:8.2f}", flush=True)


def measure(dtype):
    """Return the seconds that the convolution, the copy and the arithmetic take."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal(SHAPE).astype(dtype)
    kernel = convext.prepare_kernels(rng.standard_normal((1, 1, SIZE, SIZE)).astype(dtype))
    out = convext.conv2d(image, kernel, num_threads=1)
    copied = np.empty_like(image)
    median = medians(
        {
            "convext": lambda: convext.conv2d(image, kernel, out=out, num_threads=1),
            "copy": lambda: np.copyto(copied, image),
            "peak": start_peak(dtype),
        }
    )
    flops = 2 * out.size * SIZE**2
    return median["convext"], median["copy"], flops * median["peak"] / peak.flops(1)


def start_peak(dtype):
    """Return the loop of multiply-adds for one thread."""
    peak.start(Settings(dtype, 1, "auto"))
    return peak.operations(None, None)["peak"]


def medians(functions):
    """Return the median time of each function; they take turns."""
    times = {name: [] for name in functions}
    for turn in range(ROUNDS):
        for name, function in functions.items():
            if name == "peak" and turn % 10:
                continue
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
