"""How much faster two ranks of one thread are than one, and what adding up their gradients takes.

Run as ``python -m benchmarks.mpi``, which starts the ranks itself; ``pip install "convext[mpi]"``.
``fit``, ``solve`` or ``sums`` measures one part alone, in a minute or two.

Measured are epochs of SRCNN 9-1-5 in batches of several sizes, and the kernels between arrays of
half a gigabyte each, which all ranks make. The measurements take turns, and a figure is the median
of the rounds. Beside it stands what the machine has to give, "of": how much more gets done when two
ranks do the same at the same time, each for itself. The others wait asleep while one works alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import convext
from convext._support.ranks import together

from .networks import NETWORKS, data

SRCNN = NETWORKS["SRCNN 9-1-5"]
SAMPLES, BATCHES = 1536, (128, 32, 16, 8, 4)
IMAGES, SIZE, KERNEL = 128, 1024, 5
BYTES_OF_SUMS = [2**power for power in range(3, 27, 2)]


def main():
    """Start the ranks, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help="fit, solve or sums (default all)")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sizes, for fit")
    arguments = parser.parse_args()
    if "PMI_SIZE" in os.environ:
        measure(arguments)
        return
    mpiexec = shutil.which("mpiexec") or Path(sys.executable).with_name("mpiexec")
    command = [mpiexec, "-n", str(arguments.ranks), sys.executable, "-m", "benchmarks.mpi"]
    names = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"
    one_thread = os.environ | dict.fromkeys(names, "1")
    subprocess.run([*command, *sys.argv[1:]], check=True, env=one_thread)


def measure(arguments):
    """Print the figures, on the first rank."""
    from mpi4py import MPI

    parts = arguments.parts or ["fit", "solve", "sums"]
    with together(MPI.COMM_WORLD, "the benchmark") as ranks:
        for batch in arguments.batches if "fit" in parts else ():
            compare(ranks, f"fit {batch}", fit_work(batch), arguments.rounds)
        if "solve" in parts:
            compare(ranks, "solve", solve_work(), arguments.rounds)
        for size in BYTES_OF_SUMS if "sums" in parts else ():
            taken = seconds_of_sums(ranks, size)
            if ranks.first:
                quickest, median = 1e6 * min(taken), 1e6 * statistics.median(taken)
                print(f"sum of {size:10,} bytes {quickest:9.1f} us, median {median:9.1f}")


def compare(ranks, name, work, rounds):
    """Print how much faster some work is on all ranks than on one."""
    from mpi4py import MPI

    one, shared, each = take_turns(ranks, work, MPI.COMM_SELF, rounds)
    faster = statistics.median(a[0] / b[0] for a, b in zip(one, shared, strict=True))
    given = statistics.median(ranks.size * a[0] / b[0] for a, b in zip(one, each, strict=True))
    walls = [statistics.median(wall for wall, _ in part) for part in (one, shared)]
    best, cpu = (min(a[i] for a in one) / min(b[i] for b in shared) for i in range(2))
    if ranks.first:
        print(
            f"{name:8} one rank {walls[0]:6.3f} s, {ranks.size} ranks {walls[1]:6.3f} s: "
            f"x{faster:.2f} of {given:.2f}; "
            f"of the quickest rounds x{best:.2f}, of their CPU time x{cpu:.2f}",
            flush=True,
        )


def take_turns(ranks, work, alone, rounds):
    """Return how long the first rank takes, all together, and each the whole for itself."""
    times = [], [], []
    for number in range(1 + rounds):
        works = [
            lambda: ranks.first and work(alone),
            lambda: work(ranks),
            lambda: work(alone),
        ]
        for part, each in zip(times, works, strict=True):
            taken = seconds(ranks, each)
            if number > 0:
                part.append(taken)
    return times


def seconds_of_sums(ranks, size):
    """Return what adding up so many bytes takes, several times."""
    values = np.zeros(size // 8)
    # As many as take some hundredths of a second, of which all ranks must know.
    taken = max(ranks.gather(seconds(ranks, lambda: ranks.add(values))[0]))
    count = max(1, min(1000, int(0.03 / taken)))
    return [
        seconds(ranks, lambda: [ranks.add(values) for _ in range(count)])[0] / count
        for _ in range(7)
    ]


def seconds(ranks, work):
    """Return the time until all ranks have done their work, and the most CPU time that one took."""
    ranks.gather(None)
    start, cpu = time.perf_counter(), time.process_time()
    work()
    cpu = max(ranks.gather(time.process_time() - cpu))
    return time.perf_counter() - start, cpu


def fit_work(batch):
    """Return what takes an epoch of steps of a network with a communicator."""
    x, y = data(SRCNN._replace(batch=(SAMPLES, *SRCNN.batch[1:])))
    layers = [convext.Conv2D(*layer, activation="relu") for layer in SRCNN.layers[:-1]]
    model = convext.Sequential([*layers, convext.Conv2D(*SRCNN.layers[-1])], seed=0)
    model.compile()
    return lambda comm: model.fit(x, y, batch, epochs=1, verbose=0, comm=comm)


def solve_work():
    """Return what finds the kernel between two arrays with a communicator."""
    rng = np.random.default_rng(0)
    before = rng.random((IMAGES, 1, SIZE, SIZE), np.float32)
    after = convext.conv2d(before, rng.random((1, 1, KERNEL, KERNEL), np.float32))
    return lambda comm: convext.solve_kernels(before, after, KERNEL, comm=comm)


if __name__ == "__main__":
    main()
