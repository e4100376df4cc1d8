"""Training of networks, beside PyTorch and Keras: SRCNN 9-1-5, DnCNN, and the textbook's model.

Each library runs in a process of its own, one at a time, in turns; of each, the fastest step (of
Keras and the textbook's model: the fastest epoch) counts. Run as

    python -m benchmarks.networks --threads 2
    python -m benchmarks.networks --networks textbook --tensorflow .venv-tensorflow/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Network(NamedTuple):
    """Layers (filters, kernel size), all but the last with ReLU, and the samples of a batch."""

    layers: tuple[tuple[int, int], ...]
    padding: str
    batch: tuple[int, int, int, int]
    steps: int  # that are timed


NETWORKS = {
    "SRCNN 9-1-5": Network(((64, 9), (32, 1), (1, 5)), "valid", (128, 1, 33, 33), 12),
    "DnCNN, 7 layers": Network((*((64, 3),) * 6, (1, 3)), "same", (32, 1, 40, 40), 6),
}

# 100 samples of 3x28x28, two 2x2 kernels with bias and ReLU, Adam, batch size 1.
TEXTBOOK = "textbook"
TEXTBOOK_EPOCHS = {"convext": 100, "pytorch": 5, "keras": 5}


def output_shape(network: Network) -> tuple[int, ...]:
    """Return the shape of a batch of outputs."""
    count, _, height, width = network.batch
    lost = sum(size - 1 for _, size in network.layers) if network.padding == "valid" else 0
    return count, network.layers[-1][0], height - lost, width - lost


def fastest(step: Callable[[], Any], count: int) -> float:
    """Return the seconds of the fastest of so many steps, after two to warm up."""
    seconds = []
    for _ in range(count + 2):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds[2:])


def data(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch of random inputs and targets."""
    rng = np.random.default_rng(0)
    return rng.random(network.batch, np.float32), rng.random(output_shape(network), np.float32)


def textbook_data() -> tuple[np.ndarray, np.ndarray]:
    """Return the textbook's data set."""
    rng = np.random.RandomState(0)
    x, y = rng.rand(100, 3, 28, 28), rng.rand(100, 2, 27, 27)
    return x.astype(np.float32), y.astype(np.float32)


def convext_seconds(name: str, threads: int) -> float:
    """Time convext: the seconds of a step, or of an epoch of the textbook's model."""
    import convext

    convext.set_num_threads(threads)
    if name == TEXTBOOK:
        x, y = textbook_data()
        model = convext.build_model(2, (2, 2), seed=0)
        history = model.fit(x, y, 1, TEXTBOOK_EPOCHS["convext"], verbose=0)
        return min(history.seconds)
    network = NETWORKS[name]
    last = len(network.layers) - 1
    layers = [
        convext.Conv2D(k, size, padding=network.padding, activation="relu" if i < last else None)
        for i, (k, size) in enumerate(network.layers)
    ]
    model = convext.Sequential(layers, seed=0)
    model.compile("adam", "mse")
    x, y = data(network)
    return fastest(lambda: model.fit(x, y, len(x), verbose=0), network.steps)


def pytorch_seconds(name: str, threads: int) -> float:
    """Time PyTorch: the seconds of a step, or of an epoch of the textbook's model."""
    import torch

    torch.set_num_threads(threads)
    if name == TEXTBOOK:
        module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 2), torch.nn.ReLU())
        x, y = (torch.from_numpy(array) for array in textbook_data())
        size, count = 1, TEXTBOOK_EPOCHS["pytorch"]
    else:
        network = NETWORKS[name]
        layers, channels = [], 1
        for k, kernel_size in network.layers:
            layers += [
                torch.nn.Conv2d(channels, k, kernel_size, padding=network.padding),
                torch.nn.ReLU(),
            ]
            channels = k
        module = torch.nn.Sequential(*layers[:-1])
        x, y = (torch.from_numpy(array) for array in data(network))
        size, count = len(x), network.steps
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    loss = torch.nn.MSELoss()

    def epoch() -> None:
        for i in range(0, len(x), size):
            optimizer.zero_grad()
            loss(module(x[i : i + size]), y[i : i + size]).backward()
            optimizer.step()

    return fastest(epoch, count)


def keras_seconds(name: str, threads: int) -> float:
    """Time Keras: the seconds of a step, or of an epoch of the textbook's model."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if name != TEXTBOOK:
        raise ValueError("Keras is measured on the textbook's model only")
    x, y = (np.moveaxis(array, 1, -1).copy() for array in textbook_data())
    model = keras.Sequential([keras.layers.Conv2D(2, (2, 2), activation="relu")])
    model.compile(optimizer="adam", loss="mse")
    return fastest(lambda: model.fit(x, y, batch_size=1, verbose=0), TEXTBOOK_EPOCHS["keras"])


LIBRARIES = {"convext": convext_seconds, "pytorch": pytorch_seconds, "keras": keras_seconds}


def measure(library: str, name: str, arguments: argparse.Namespace) -> float | None:
    """Run a library in a process of its own; None where it is not installed."""
    python = arguments.tensorflow if library == "keras" else sys.executable
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    script = [python, __file__, "--worker", library, "--networks", name]
    process = subprocess.run(
        [*script, "--threads", str(arguments.threads)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    if process.returncode:
        if "ModuleNotFoundError" in process.stderr:
            return None
        raise RuntimeError(process.stderr)
    return float(json.loads(process.stdout.splitlines()[-1]))


def compare(name: str, arguments: argparse.Namespace) -> None:
    """Measure the libraries in turns; print what they take."""
    peer = "keras" if name == TEXTBOOK else "pytorch"
    libraries = ["convext", peer] if peer == "pytorch" else ["convext", "keras", "pytorch"]
    seconds: dict[str, list[float]] = {library: [] for library in libraries}
    for _ in range(arguments.rounds):
        for library in libraries:
            taken = measure(library, name, arguments)
            if taken is not None:
                seconds[library].append(taken)
    own = min(seconds.pop("convext"))
    samples = 100 if name == TEXTBOOK else NETWORKS[name].batch[0]
    what = "an epoch" if name == TEXTBOOK else "a step"
    print(f"{name}: convext takes {own * 1e3:.3g} ms for {what}, {samples / own:,.0f} samples/s")
    for library, taken in seconds.items():
        if not taken:
            print(f"  {library} is not installed")
            continue
        other = min(taken)
        print(
            f"  {library}: {other * 1e3:.3g} ms, {samples / other:,.0f} samples/s; "
            f"convext is {other / own:.2f} times as fast"
        )


def main() -> None:
    """Measure what is asked for, or be the process of a library."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each library (default: 3)")
    parser.add_argument(
        "--networks", nargs="+", choices=[*NETWORKS, TEXTBOOK], default=[*NETWORKS, TEXTBOOK]
    )
    parser.add_argument(
        "--tensorflow", default=sys.executable, help="the Python that has TensorFlow"
    )
    parser.add_argument("--worker", choices=list(LIBRARIES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(LIBRARIES[arguments.worker](arguments.networks[0], arguments.threads)))
        return
    print(f"{platform.processor() or platform.machine()}, {arguments.threads} threads, float32")
    for name in arguments.networks:
        compare(name, arguments)


if __name__ == "__main__":
    main()
