"""Data of eight times the memory, beside the same data in memory.

``python -m benchmarks.blocks`` writes a data set, and trains, fits, predicts and solves with it: in
processes that may not allocate more than an eighth of it, which read it in blocks, and in others
that have it in memory, in turns. The bar is 80 % of the speed in memory, or of that at which the
file can be read, whichever is less; what is read more than once counts as often. Before each
reading the system forgets what it has of the files, so that the first comes from the disk;
``--cached`` leaves them there. Linux only.
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

import convext

from .least_squares import read

MB = 10**6
SAMPLE = 128
BAR = 0.8

# Bytes that a process may allocate at least: Python, NumPy and threads take most of them.
LEAST = 150 * MB


def write(folder, megabytes):
    """Write samples and what a kernel makes of them, with noise, in float32."""
    side = SAMPLE - 2
    count = megabytes * MB // (4 * (SAMPLE**2 + side**2))
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((1, 1, 3, 3)).astype(np.float32)
    shapes = {"x": (count, 1, SAMPLE, SAMPLE), "y": (count, 1, side, side)}
    x, y = (
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape)
        for name, shape in shapes.items()
    )
    for first in range(0, count, 64):
        some = slice(first, first + 64)
        x[some] = rng.random(x[some].shape, np.float32)
        y[some] = convext.conv2d(x[some], kernel) + 0.01 * rng.standard_normal(y[some].shape)
    x.flush()
    y.flush()


def forget(files):
    """Let the system drop what it keeps of files."""
    for file in files:
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds_to_read(files):
    """Return how long it takes to read files."""
    start = time.perf_counter()
    read(files)
    return time.perf_counter() - start


def bytes_read():
    """Return how many bytes this process has read."""
    return int(Path("/proc/self/io").read_text().split()[1])


def network(strides=1):
    """Return a network whose layers take about as long as reading."""
    layers = [convext.Conv2D(8, 2, activation="relu"), convext.Conv2D(1, 2, strides=strides)]
    model = convext.Sequential(layers, seed=0)
    model.compile("sgd")
    return model


USES = {
    "train": lambda x, y, limit: convext.train_model(
        x, y, 1, (3, 3), 0.01, 3, seed=0, method="direct", verbose=False, max_memory=limit
    ),
    "train, shuffled": lambda x, y, limit: convext.train_model(
        x, y, 1, (3, 3), 0.01, 3, seed=0, method="direct", shuffle=True, verbose=False,
        max_memory=limit,
    ),
    "fit": lambda x, y, limit: network().fit(x, y, verbose=0, max_memory=limit),
    "predict": lambda x, y, limit: network(strides=16).predict(x),
    "solve": lambda x, y, limit: convext.solve_kernels(x, y, (3, 3)),
}  # fmt: skip


def use(folder, name, limit, threads):
    """Print how many seconds a use takes, and how many bytes it reads; 0 is no limit."""
    convext.set_num_threads(threads)
    tiny = np.random.default_rng(0).random((4, 1, 64, 64), np.float32)
    USES[name](tiny, tiny[:, :, 1:-1, 1:-1], None)
    files = [str(folder / f"{part}.npy") for part in "xy"]
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    arrays = files if limit else [np.load(file) for file in files]
    before, begin = bytes_read(), time.perf_counter()
    USES[name](*arrays, limit // 4 if limit else None)
    print(time.perf_counter() - begin, bytes_read() - before)


def measure(folder, name, limit, threads):
    """Return the seconds and the bytes of a use in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.blocks", "--use", name, "--folder", str(folder)]
    command += ["--limit", str(limit), "--threads", str(threads)]
    seconds, taken = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()
    return float(seconds), int(taken)


def main():
    """Print a line for each use; fail where one is below the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cached", action="store_true", help="read files from the system's cache")
    parser.add_argument("--threads", type=int, default=convext.get_num_threads())
    parser.add_argument("--folder", type=Path, help="where there is room")
    parser.add_argument("--use", choices=USES, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.use:
        use(options.folder, options.use, options.limit, options.threads)
        return 0
    if options.megabytes * MB // 8 < LEAST:
        parser.error(f"--megabytes must be at least {8 * LEAST // MB}")
    failed = False
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write(folder, options.megabytes)
        files = [folder / "x.npy", folder / "y.npy"]
        size = sum(file.stat().st_size for file in files)
        limit = size // 8
        print(f"{size / 1e9:.2f} GB, of which {limit / MB:.0f} MB may be allocated")
        print("                  in memory   in blocks   bytes read, and their time   of the bar's")
        for use_name in USES:
            times = {0: [], limit: []}
            reading = {"first": [], "again": []}
            for _ in range(options.repeats):
                for kind, seconds in times.items():
                    if not options.cached:
                        forget(files)
                    if kind == limit:
                        for seconds_of in reading.values():
                            seconds_of.append(seconds_to_read(files))
                        if not options.cached:
                            forget(files)
                    spent, taken = measure(folder, use_name, kind, options.threads)
                    seconds.append(spent)
            inside, outside = (statistics.median(seconds) for seconds in times.values())
            first, again = (statistics.median(seconds) for seconds in reading.values())
            of_file = (first * min(taken, size) + again * max(0, taken - size)) / size
            speed = max(inside, of_file) / outside
            failed |= speed < BAR
            print(
                f"{use_name:<17}{inside:8.2f} s {outside:9.2f} s {taken / 1e9:10.2f} GB "
                f"{of_file:8.2f} s {speed:20.2f}",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
