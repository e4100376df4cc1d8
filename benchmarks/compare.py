"""convext beside PyTorch: forward convolution and both gradients, on layers of all kinds.

Run as ``python -m benchmarks.compare [--threads N] [--dtype float32|float64]``; needs the ``bench``
extra. Both libraries get the same data and take turns; the results are compared before they are
timed. Times are medians in microseconds, ratios are PyTorch's time over convext's.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import numpy as np
import torch

import convext

from .textbook import cpu_name

# (input shape, kernels, kernel size, stride, padding)
SHAPES = [
    ((100, 3, 28, 28), 2, 2, 1, 0),
    ((1, 3, 512, 512), 8, 3, 1, 0),
    ((1, 1, 1080, 1920), 1, 5, 1, 0),
    ((1, 1, 512, 512), 1, 15, 1, 0),
    ((16, 1, 33, 33), 64, 9, 1, 0),
    ((16, 64, 25, 25), 32, 5, 1, 0),
    ((64, 32, 26, 26), 64, 3, 1, 0),
    ((1, 64, 224, 224), 64, 3, 1, 1),
    ((1, 256, 56, 56), 256, 3, 1, 1),
    ((1, 64, 56, 56), 64, 3, 1, 1),
    ((1, 256, 14, 14), 256, 3, 1, 1),
    ((1, 512, 14, 14), 512, 3, 1, 1),
    ((1, 3, 224, 224), 64, 7, 2, 3),
    ((1, 64, 56, 56), 256, 1, 1, 0),
    ((1, 128, 56, 56), 128, 3, 2, 1),
    ((1, 2048, 7, 7), 512, 1, 1, 0),
    ((1, 512, 7, 7), 512, 3, 1, 1),
    ((4, 64, 40, 40), 64, 3, 1, 1),
]

# Each operation is timed for about so long, in turns with its peer.
SECONDS = 0.3


def operations(shape, num_kernels, size, stride, padding, dtype, threads):
    """Return, for each operation, its name and a function of each library."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal(shape).astype(dtype)
    kernels = rng.standard_normal((num_kernels, shape[1], size, size)).astype(dtype)
    options = {"stride": stride, "padding": padding, "num_threads": threads}
    gradient = rng.standard_normal(convext.conv2d(images, kernels, **options).shape).astype(dtype)
    x, w, g = (torch.from_numpy(array) for array in (images, kernels, gradient))

    def backward(index):
        wanted = [index == i for i in range(3)]
        return torch.ops.aten.convolution_backward(
            g, x, w, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, wanted
        )[index]

    yield (
        "forward",
        lambda: convext.conv2d(images, kernels, **options),
        lambda: torch.conv2d(x, w, stride=stride, padding=padding),
    )
    yield (
        "kernel gradient",
        lambda: convext.conv2d_kernel_grad(images, gradient, (size, size), **options),
        lambda: backward(1),
    )
    yield (
        "input gradient",
        lambda: convext.conv2d_input_grad(gradient, kernels, shape, **options),
        lambda: backward(0),
    )


def check(ours, theirs, dtype):
    """Raise AssertionError unless both libraries computed the same."""
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    expected = theirs().numpy()
    error = np.abs(ours() - expected).max() / np.abs(expected).max()
    assert error < tolerance, f"results differ by {error:.1e}"


def time_in_turns(*functions):
    """Return the median time of each function in microseconds."""
    times = [[] for _ in functions]
    begin = time.perf_counter()
    while len(times[0]) < 3 or time.perf_counter() - begin < SECONDS:
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            taken.append((time.perf_counter() - start) * 1e6)
    return [statistics.median(taken) for taken in times]


def main():
    """Print a line for each shape and the geometric mean of all ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{cpu_name()}; {arguments.dtype}, {arguments.threads} thread(s)")
    print(
        f"convext {convext.__version__} ({convext.get_config()['isa']}), torch {torch.__version__}"
    )
    print(f"{'input, kernels':<36} operation         convext  PyTorch  ratio")
    ratios = []
    for shape, num_kernels, size, stride, padding in SHAPES:
        name = f"{','.join(map(str, shape))} -> {num_kernels}, {size}x{size} s{stride} p{padding}"
        for operation, ours, theirs in operations(
            shape, num_kernels, size, stride, padding, arguments.dtype, arguments.threads
        ):
            check(ours, theirs, arguments.dtype)
            our_time, their_time = time_in_turns(ours, theirs)
            ratios.append(their_time / our_time)
            print(f"{name:<36} {operation:<15} {our_time:9.0f} {their_time:8.0f} {ratios[-1]:6.2f}")
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"geometric mean {mean:.2f}, worst {min(ratios):.2f}, best {max(ratios):.1f}")


if __name__ == "__main__":
    main()
