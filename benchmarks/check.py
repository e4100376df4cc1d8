"""What the check of the pixels takes.

Run as ``python -m benchmarks.check``. "auto", which transforms safe pixels alone, and the way that
it takes, asked for by name, which transforms all, take turns, in one thread, with the same arrays.
A line has a shape, the microseconds that the way by name takes, and how many percent more "auto"
takes, by the medians and by the minima of all turns.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from functools import partial

import numpy as np

import convext

# Input, number of kernels, taps, padding and stride of convolutions.
SHAPES = {
    "winograd": [
        ((1, 64, 56, 56), 64, (3, 3), 1, 1),
        ((1, 256, 14, 14), 256, (3, 3), 1, 1),
        ((1, 16, 112, 112), 16, (3, 3), 1, 1),
        ((16, 64, 25, 25), 32, (5, 5), 0, 1),
        ((1, 128, 56, 56), 128, (3, 3), 1, 2),
        ((1, 64, 112, 112), 64, (5, 5), 2, 2),
        ((16, 1, 33, 33), 64, (9, 9), 0, 1),
        ((1, 64, 28, 28), 64, (7, 7), 3, 1),
    ],
    "fft": [
        ((1, 1, 512, 512), 1, (15, 15), 7, 1),
        ((1, 1, 512, 512), 1, (31, 31), 15, 1),
        ((1, 3, 256, 256), 3, (17, 17), 8, 1),
        ((1, 16, 64, 64), 16, (11, 11), 5, 1),
    ],
    "kernel gradient": [
        ((64, 32, 26, 26), 64, (3, 3), 0, 1),
        ((4, 64, 40, 40), 64, (3, 3), 1, 1),
        ((1, 256, 14, 14), 256, (3, 3), 1, 1),
    ],
}
KINDS = [*SHAPES, "input gradient"]


def main():
    """Measure shapes that are fixed, or random ones that "auto" transforms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--random", type=int, metavar="COUNT", help="so many random shapes")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--turns", type=int, default=200, help="at least (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    kinds = arguments.kind or KINDS
    print(f"{arguments.dtype}: microseconds, and what the check takes: median, minimum")
    if arguments.random is None:
        cases = ((kind, shape) for kind in kinds for shape in SHAPES.get(kind, SHAPES["winograd"]))
    else:
        cases = ((kind, shape) for kind in kinds for shape in draw(rng, kind, arguments.random))
    for kind, shape in cases:
        auto, named = calls(kind, shape, arguments.dtype)
        if not takes_the_way(kind, auto, named):
            print(f"{kind:16} {text_of(shape):36} goes another way")
            continue
        print(line(kind, shape, *measure(auto, named, arguments.turns)), flush=True)


def draw(rng, kind, count):
    """Return random shapes for which "auto" may take the way."""
    shapes = []
    for _ in range(count):
        way = rng.choice(("winograd", "fft")) if kind == "input gradient" else kind
        if way == "fft":
            channels, kernels, most = rng.choice((1, 1, 3, 8)), rng.choice((1, 3, 8)), 400
            taps = (rng.randint(7, 40), rng.randint(7, 40))
            stride = 1
        else:
            channels, kernels, most = rng.randint(8, 200), rng.randint(8, 200), 60
            stride = 1 if way == "kernel gradient" else rng.choice((1, 1, 2))
            taps = (rng.choice((3, 3, 5)),) * 2 if way == "winograd" else (3, 3)
            if way == "winograd" and rng.random() < 0.3:
                channels, taps, stride = rng.randint(1, 32), (rng.randint(6, 9),) * 2, 1
        size = rng.randint(max(8, *taps), most), rng.randint(max(8, *taps), most)
        samples = rng.randint(1, max(1, 4_000_000 // (channels * kernels * size[0] * size[1])))
        shapes.append(
            ((min(samples, 64), channels, *size), kernels, taps, rng.choice((0, 1, 2)), stride)
        )
    return shapes


def calls(kind, shape, dtype):
    """Return the calls of the operation: "auto", and the way by its name."""
    (n, c, *size), kernels, taps, padding, stride = shape
    rng = np.random.default_rng(0)
    x = rng.random((n, c, *size), np.float32).astype(dtype)
    k = rng.standard_normal((kernels, c, *taps)).astype(dtype)
    options = {"padding": padding, "stride": stride, "num_threads": 1}
    out = convext.conv2d(x, k, algorithm="direct", **options)
    grad = rng.standard_normal(out.shape).astype(dtype)
    if kind == "kernel gradient":
        call = partial(convext.conv2d_kernel_grad, x, grad, taps, **options)
    elif kind == "input gradient":
        call = partial(convext.conv2d_input_grad, grad, k, x.shape, **options)
    else:
        call = partial(convext.conv2d, x, k, out=out, **options)
    ways = ["winograd"] if kind in ("winograd", "kernel gradient") else ["fft"]
    if kind == "input gradient":
        ways = ["winograd", "fft"]
    auto = call().copy()
    for way in ways:
        try:
            if (call(algorithm=way) == auto).all():
                return call, partial(call, algorithm=way)
        except ValueError:
            pass
    return call, None


def takes_the_way(kind, auto, named):
    """Whether "auto" transforms: else there is nothing to measure."""
    return named is not None and (auto().copy() != auto(algorithm="direct")).any()


def measure(auto, named, turns):
    """Return the times of both, in nanoseconds."""
    times = {auto: [], named: []}
    begin = time.perf_counter()
    while len(times[auto]) < turns or time.perf_counter() - begin < 0.5:
        for call in (auto, named, named, auto):
            start = time.perf_counter_ns()
            call()
            times[call].append(time.perf_counter_ns() - start)
    return times[auto], times[named]


def line(kind, shape, auto, named):
    """Say what was measured of a shape."""
    more = [
        100 * (statistic(auto) / statistic(named) - 1) for statistic in (statistics.median, min)
    ]
    return (
        f"{kind:16} {text_of(shape):36} {statistics.median(named) / 1000:9.0f}"
        f" {more[0]:6.1f} % {more[1]:6.1f} %"
    )


def text_of(shape):
    """Describe a convolution in a few words."""
    images, kernels, taps, padding, stride = shape
    text = f"{'x'.join(map(str, images))} -> {kernels}, {'x'.join(map(str, taps))}"
    return text + f" p{padding}" * (padding > 0) + f" s{stride}" * (stride > 1)


if __name__ == "__main__":
    main()
