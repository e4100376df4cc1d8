"""How much faster two worker processes of Dask are than one, on kernels of a large array.

Run as ``python -m benchmarks.dask``. Workers have one thread each. The images are random, made
block by block, and the targets are convolutions of them; nothing is read from a disk.

The measurements take turns, and a figure is the median of its rounds. Beside it stands what the
machine has to give, "of": how much more gets done when each of two workers computes the whole, at
the same time. All are workers of one cluster, since clusters that wait take time, too. Then follow
the CPU times of all processes, what workers have sent each other, and how large the graph was.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import pickle
import time

import dask.array as da
import numpy as np
from distributed import Client

import convext
import convext.dask


def main():
    """Print times, their ratio, and what was sent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2, help="of the images (default 2)")
    parser.add_argument("--chunk", type=int, default=2048, help="rows and columns (default 2048)")
    parser.add_argument("--image", type=int, default=4096, help="rows and columns (default 4096)")
    parser.add_argument("--kernel", type=int, default=5, help="rows and columns (default 5)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    tasks = dict(problem(arguments, 0).dask)
    graph = len(pickle.dumps(tasks)) / 1e6
    print(f"{arguments.gigabytes} GB of images, {len(tasks)} tasks, {graph:.2f} MB of graph")
    seeds = itertools.count()
    times = {"one": [], "two": [], "both": []}
    spent = {name: [] for name in times}
    with cluster(2) as client:
        first, second = client.scheduler_info()["workers"]
        for _ in range(1 + arguments.rounds):
            for name, groups in (
                ("one", [[first]]),
                ("two", [[first, second]]),
                ("both", [[first], [second]]),
            ):
                # Other images each time, since workers remember results for a while.
                lazies = [problem(arguments, next(seeds)) for _ in groups]
                before = cpu_seconds(client)
                times[name].append(seconds(client, lazies, groups))
                spent[name].append(np.subtract(cpu_seconds(client), before))
        sent = client.run(transfers)
    one, two, both = (np.array(each[1:]) for each in times.values())
    print(f"one worker   {np.median(one):7.2f} s{in_words(spent['one'])}")
    print(f"two workers  {np.median(two):7.2f} s{in_words(spent['two'])}")
    print(f"x{np.median(one / two):.2f} of {np.median(2 * one / both):.2f}")
    messages, total = (sum(each) / len(times["two"]) for each in zip(*sent.values(), strict=True))
    print(f"sent between two workers, each time: {messages:.0f} messages, {total / 1e6:.2f} MB")


def problem(arguments, seed):
    """Return the kernels of images, still to be computed."""
    size = arguments.image
    # An even number, of which each of two workers can have half.
    count = 2 * max(1, round(arguments.gigabytes * 1e9 / (16 * size**2)))
    generator = da.random.default_rng(seed)
    chunks = (1, 1, arguments.chunk, arguments.chunk)
    images = generator.random((count, 1, size, size), chunks=chunks)
    kernels = np.random.default_rng(0).random((1, 1, arguments.kernel, arguments.kernel))
    targets = convext.dask.conv2d(images, kernels, padding="same")
    return convext.dask.solve_kernels(images, targets, kernels.shape[2:], padding="same")


def cluster(workers):
    """Return a client of worker processes."""
    return Client(
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
        set_as_default=False,
    )


def seconds(client, lazies, groups):
    """Return the time until groups of workers have a result each."""
    start = time.perf_counter()
    pairs = zip(lazies, groups, strict=True)
    futures = [client.compute(lazy, workers=workers) for lazy, workers in pairs]
    losses = [future.result().loss for future in futures]
    taken = time.perf_counter() - start
    assert max(losses) < 1e-9
    return taken


def cpu_seconds(client):
    """Return the CPU times of this process, which has the scheduler, and of each worker."""
    return [time.process_time(), *client.run(time.process_time).values()]


def in_words(spent):
    """Return the medians of the CPU times, after the first round."""
    scheduler, *workers = np.median(spent[1:], axis=0)
    each = " and ".join(f"{taken:.2f}" for taken in workers)
    return f", CPU time of the workers {each} s, of scheduler and client {scheduler:.2f}"


def transfers(dask_worker):
    """Return how many messages a worker has sent to others, and their bytes."""
    return dask_worker.transfer_outgoing_count_total, dask_worker.transfer_outgoing_bytes_total


if __name__ == "__main__":
    main()
