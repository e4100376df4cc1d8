"""Patch statistics beside NumPy, masks, and a data set that is larger than the memory.

``python -m benchmarks.least_squares speed`` compares `PatchStatistics.update` with the matrix of
all patches and matrix products, on a 1080p image in float64.
``python -m benchmarks.least_squares masks`` solves with masks that leave out more and more, beside
without one. The bar is 1.3 times the time of that, of half of the elements 2.5 times.
``python -m benchmarks.least_squares stream`` writes a data set to a file and solves it in a process
that may not allocate more than a limit.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import convext

from . import peak

MIB = 1 << 20
GB = 10**9

# Grey and colour, as the textbooks have them: channels and kernel size.
IMAGES = [(1, 15), (3, 5), (1, 5)]
HEIGHT, WIDTH = 1080, 1920

# Which part of the target masks leave out, and how much longer it may take.
LEFT_OUT = {0.001: 1.3, 0.01: 1.3, 0.1: 1.3, 0.5: 2.5, 0.9: 1.3, 0.99: 1.3}
SQUARES = [(512, 7), (512, 15), (1024, 21)]

# Samples on disk.
SAMPLE = 256
NOISE = 0.01
KERNEL = 5


def numpy_statistics(image, target, size):
    """Return G, B and the squared targets from the matrix of all patches."""
    windows = sliding_window_view(image, (size, size), axis=(1, 2))
    patches = np.moveaxis(windows, 0, 2).reshape(-1, len(image) * size * size)
    flat = target.ravel()
    return patches.T @ patches, patches.T @ flat, flat @ flat


def convext_statistics(image, target, size, threads):
    """Return the same, in as many threads as NumPy's."""
    sums = convext.PatchStatistics(len(image), 1, (size, size))
    sums.update(image, target, num_threads=threads)
    return sums.products[0], sums.cross_products[0], sums.squares[0]


def fastest(function, repeats):
    """Return what a function returns and the least time that it took."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return result, min(times)


def peak_mib():
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def speed(arguments):
    """Compare in processes of their own, whose BLAS has as many threads."""
    environment = os.environ | {
        name: str(arguments.threads) for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    }
    print("image, kernel         NumPy    convext   ratio   extra memory   relative difference")
    for channels, size in IMAGES:
        command = [sys.executable, "-m", "benchmarks.least_squares", "image"]
        values = str(channels), str(size), str(arguments.threads), str(arguments.repeats)
        subprocess.run([*command, *values], check=True, env=environment)


def image(arguments):
    """Measure one image."""
    rng = np.random.default_rng(0)
    channels, size = arguments.channels, arguments.size
    picture = rng.random((channels, HEIGHT, WIDTH))
    target = rng.random((1, HEIGHT - size + 1, WIDTH - size + 1))
    convext_statistics(picture[:, :99, :99], target[:, : 100 - size, : 100 - size], size, 1)
    before = peak_mib()
    found, seconds = fastest(
        lambda: convext_statistics(picture, target, size, arguments.threads), arguments.repeats
    )
    extra = peak_mib() - before
    expected, numpy_seconds = fastest(lambda: numpy_statistics(picture, target, size), 1)
    difference = max(
        np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in zip(found, expected, strict=True)
    )
    print(
        f"{channels}x{HEIGHT}x{WIDTH}, {size:>2}x{size:<2} {numpy_seconds:9.3f} s "
        f"{seconds:8.4f} s {numpy_seconds / seconds:6.0f}x {extra:10.1f} MiB {difference:15.1e}"
    )


def masks(arguments):
    """Compare solutions with masks with those without, in turns."""
    rng = np.random.default_rng(0)
    print("image, kernel     no mask   left out: times of no mask")
    for side, size in SQUARES:
        image = rng.random((1, side, side))
        target = convext.conv2d(image, rng.random((1, 1, size, size)))
        target += NOISE * rng.standard_normal(target.shape)
        counted = {None: None} | {part: rng.random(target.shape) >= part for part in LEFT_OUT}
        times = {part: [] for part in counted}
        for _ in range(arguments.repeats):
            for part, mask in counted.items():
                start = time.perf_counter()
                convext.solve_kernels(image, target, (size, size), mask=mask)
                times[part].append(time.perf_counter() - start)
        medians = {part: statistics.median(seconds) for part, seconds in times.items()}
        ratios = {part: medians[part] / medians[None] for part in LEFT_OUT}
        shown = "  ".join(
            f"{part:.1%}: {ratio:.2f}{'' if ratio <= LEFT_OUT[part] else ' (slow)'}"
            for part, ratio in ratios.items()
        )
        print(f"{side}x{side}, {size:>2}x{size:<2} {medians[None]:8.3f} s   {shown}", flush=True)


def stream(arguments):
    """Write the data set and solve it, each in a process of its own."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        command = [sys.executable, "-m", "benchmarks.least_squares"]
        subprocess.run([*command, "write", folder, str(arguments.gigabytes)], check=True)
        limits = str(arguments.limit), str(arguments.threads)
        subprocess.run([*command, "solve", folder, *limits], check=True)


def write(arguments):
    """Write samples and, with some noise, what a kernel makes of them, in float32."""
    bytes_of_sample = 4 * (SAMPLE**2 + (SAMPLE - KERNEL + 1) ** 2)
    count = int(arguments.gigabytes * GB / bytes_of_sample)
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((1, 1, KERNEL, KERNEL)).astype(np.float32)
    outputs = SAMPLE - KERNEL + 1
    shapes = {"before": (count, 1, SAMPLE, SAMPLE), "after": (count, 1, outputs, outputs)}
    files = {}
    for name, shape in shapes.items():
        files[name] = open(Path(arguments.folder, f"{name}.npy"), "wb")  # noqa: SIM115
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(files[name], header)
    for first in range(0, count, 64):
        samples = rng.random((min(64, count - first), 1, SAMPLE, SAMPLE), np.float32)
        files["before"].write(samples.data)
        targets = convext.conv2d(samples, kernel)
        targets += NOISE * rng.standard_normal(targets.shape, np.float32)
        files["after"].write(targets.data)
    for file in files.values():
        file.close()
    np.save(Path(arguments.folder, "kernel.npy"), kernel)


def solve(arguments):
    """Solve with the given limit on what is allocated."""
    folder = Path(arguments.folder)
    names = [folder / "before.npy", folder / "after.npy"]
    size = sum(name.stat().st_size for name in names)
    _, reading = fastest(lambda: read(names), 2)
    most = peak_flops(arguments.threads)
    limit = arguments.limit * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    before, after = convext.load_data(*names, mmap=True)
    start = time.perf_counter()
    solution = convext.solve_kernels(before, after, (KERNEL, KERNEL), num_threads=arguments.threads)
    seconds = time.perf_counter() - start
    products = after.size * (KERNEL * (2 * KERNEL - 1) + KERNEL**2)
    error = np.abs(solution.kernels - np.load(folder / "kernel.npy")).max()
    print(f"data set          {size / GB:.2f} GB in {len(before)} samples of {SAMPLE}x{SAMPLE}")
    print(
        f"peak memory       {peak_mib():.0f} MiB resident, {arguments.limit} MiB may be allocated"
    )
    print(f"solved in         {seconds:.2f} s, {size / seconds / GB:.2f} GB/s")
    print(
        f"read from cache   {size / reading / GB:.2f} GB/s: solved at {reading / seconds:.2f} of it"
    )
    print(
        f"multiply-adds     {2 * products / seconds / 1e9:.1f} GFLOP/s, "
        f"{2 * products / seconds / most:.2f} of the peak of {arguments.threads} threads"
    )
    print(f"kernels           off by {error:.1e} at most")
    print(f"error left        {np.sqrt(solution.loss):.6f}, of noise of {NOISE}")


def peak_flops(threads):
    """Return the peak in float64."""
    peak.start(argparse.Namespace(dtype="float64", threads=threads))
    loop = peak.operations(None, None)["peak"]
    return peak.flops(threads) / fastest(loop, 10)[1]


def read(names):
    """Read files through a small buffer."""
    buffer = bytearray(8 * MIB)
    for name in names:
        with open(name, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def main():
    """Run a command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="speed | masks | stream")
    command = commands.add_parser("speed")
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--repeats", type=int, default=5)
    command.set_defaults(run=speed)
    command = commands.add_parser("image")
    for name in ("channels", "size", "threads", "repeats"):
        command.add_argument(name, type=int)
    command.set_defaults(run=image)
    command = commands.add_parser("masks")
    command.add_argument("--repeats", type=int, default=3)
    command.set_defaults(run=masks)
    command = commands.add_parser("stream")
    command.add_argument("--gigabytes", type=float, default=4.0)
    command.add_argument("--limit", type=int, default=200, help="MiB that may be allocated")
    command.add_argument("--threads", type=int, default=convext.get_num_threads())
    command.add_argument("--folder", help="where there is room (default: that for temporary files)")
    command.set_defaults(run=stream)
    command = commands.add_parser("write")
    command.add_argument("folder")
    command.add_argument("gigabytes", type=float)
    command.set_defaults(run=write)
    command = commands.add_parser("solve")
    command.add_argument("folder")
    command.add_argument("limit", type=int)
    command.add_argument("threads", type=int)
    command.set_defaults(run=solve)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
