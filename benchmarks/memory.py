"""The memory that the operations need beside their arrays, in MiB for each thread.

For every reference shape and two large images, each in a process of its own: the peak of resident
memory during a call, less what was resident before it, where all arrays and prepared kernels were,
and less the result where that is new. Run as ``python -m benchmarks.memory``; Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import numpy as np

import convext

from .shapes import REFERENCE, Case

LARGE = [Case((1, 1, 8192, 8192), 1, 5, 1, 2), Case((1, 3, 8192, 8192), 1, 15, 1, 7)]
LIMIT = 32
MIB = 2**20


def main():
    """Print a line for each shape; fail if one is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    worst = 0.0
    print(f"{arguments.dtype}, {arguments.threads} thread(s); MiB for each thread")
    names = ("forward", "prepared", "kernel", "input")
    print(f"{'images -> kernels':<36}", *(f"{name:>9}" for name in names))
    for case in LARGE + REFERENCE:
        sizes = []
        for operation in OPERATIONS:
            with context.Pool(1) as pool:
                work = (case, operation, arguments.dtype, arguments.threads)
                sizes.append(pool.apply(extra_memory, work) / arguments.threads / MIB)
        worst = max(worst, *sizes)
        forward, prepared, kernel, input_ = sizes
        print(
            f"{case.name:<36}{forward:9.1f}{prepared:10.1f}{kernel:9.1f}{input_:9.1f}", flush=True
        )
    print(f"largest: {worst:.1f} MiB for each thread (limit {LIMIT})")
    return int(worst >= LIMIT)


def forward(arrays, case, options):
    """Return the forward convolution, into an array that is there."""
    out = np.ones(case.output_shape, arrays.images.dtype)
    return out, lambda: convext.conv2d(arrays.images, arrays.kernels, out=out, **options)


def prepared_forward(arrays, case, options):
    """Return the same with prepared kernels, which are there before."""
    threads = options.pop("num_threads")
    kernels = convext.prepare_kernels(arrays.kernels, case.shape, **options)
    out = np.ones(case.output_shape, arrays.images.dtype)
    return out, lambda: convext.conv2d(arrays.images, kernels, out=out, num_threads=threads)


def kernel_gradient(arrays, case, options):
    """Return the gradient with respect to the kernels."""
    size = (case.size, case.size)
    result = np.ones(case.kernels_shape, arrays.images.dtype)
    return result, lambda: convext.conv2d_kernel_grad(
        arrays.images, arrays.gradient, size, **options
    )


def input_gradient(arrays, case, options):
    """Return the gradient with respect to the input."""
    return None, lambda: convext.conv2d_input_grad(
        arrays.gradient, arrays.kernels, case.shape, **options
    )


OPERATIONS = (forward, prepared_forward, kernel_gradient, input_gradient)


def extra_memory(case, operation, dtype, threads):
    """Return the bytes of resident memory that a call adds to its arrays at its peak."""
    options = {
        "stride": case.stride,
        "padding": case.padding,
        "groups": case.groups,
        "num_threads": threads,
    }
    arrays = case.arrays(dtype)
    small = Case((1, case.shape[1], 16, 16), case.num_kernels, 1, groups=case.groups)
    out, call = operation(arrays, case, options)
    # What the first call of all brings along, such as the threads, is not the operation's.
    convext.conv2d(*small.arrays(dtype)[:2], groups=case.groups, num_threads=threads)
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    result = call()
    added = peak() - before
    return added - (0 if result is out else result.nbytes)


def resident():
    """Return the resident memory, in bytes."""
    return _status("VmRSS:")


def peak():
    """Return the peak of resident memory since it began anew, in bytes."""
    return _status("VmHWM:")


def _status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    raise SystemExit(main())
