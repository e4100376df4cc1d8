"""Work beside single public names, as `ENTRIES` of test_threads.py has those; results are equal.

Commands, checkpoints, files in parts, each way of convolving, errors, and threads that end.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import numpy as np
from test_larger_than_memory import Sliced
from test_threads import FIRST_USES, KERNELS, X, Y, trained_model

import convext
from convext.cli.main import main


def in_own_folder(call):
    """Return what makes such a call in a folder of its own: `call(own, folder)`."""

    def make(folder):
        np.save(folder / "x.npy", X)
        np.save(folder / "y.npy", Y)
        for i, (inputs, targets) in enumerate(zip(np.split(X, 3), np.split(Y, 3), strict=True)):
            np.save(folder / f"x-{i}.npy", inputs)
            np.save(folder / f"y-{i}.npy", targets)

        def work():
            with TemporaryDirectory(dir=folder) as own:
                return call(Path(own), folder)

        return work

    return make


def commands(own, folder):
    files = f"{folder}/x.npy", f"{folder}/y.npy"
    kernels, options = f"{own}/kernels.npz", ["--kernel-shape", "3", "--out"]
    return [
        main(["train", *files, "--epochs", "2", *options, f"{own}/trained.npz"]),
        main(["solve", *files, *options, kernels]),
        main(["apply", kernels, files[0], f"{own}/applied.npy"]),
        main(["show", kernels]),
        main(["explain", "--input", "3", "40", "40", "--kernels", "4", "3", "3", "3"]),
        main(["train", f"{own}/none.npy", files[1]]),
    ]


def train_with_checkpoint(own, folder):
    for epochs in (2, 4):
        result = convext.train_model(
            X, Y, 3, (3, 3), 0.01, epochs, seed=5, verbose=False,
            checkpoint=own / "training.npz", checkpoint_every=1, resume=True,
        )  # fmt: skip
    return result


def fit_with_checkpoint(own, folder):
    for epochs in (1, 2):
        model = trained_model()
        model.fit(X, Y, 2, epochs, 0, checkpoint=own / "fit.npz", checkpoint_every=1, resume=True)
    return model.get_weights()


def train_on_shards(own, folder):
    return convext.train_model(
        str(folder / "x-*.npy"), str(folder / "y-*.npy"), 3, (3, 3), 0.01, 2, seed=5, verbose=False
    )


def solve_in_parts(own, folder):
    mapped = np.load(folder / "x.npy", mmap_mode="r")
    first = convext.solve_kernels(mapped, Sliced(Y), (3, 3)).kernels
    return first, convext.solve_kernels(Sliced(X), Y, (3, 3)).kernels


def stop_trainings(own, folder):
    stopped = []
    for error in (convext.StopTraining("enough"), OverflowError("of a callback")):

        def stop(_, error=error):
            raise error

        for train in (
            lambda: convext.train_model(
                X, Y, 3, (3, 3), 0.01, 2, seed=5, verbose=False, callbacks=[stop]
            ),
            lambda: trained_model().fit(X, Y, 2, 2, 0, callbacks=[stop]),
        ):
            try:
                train()
            except OverflowError as raised:
                stopped.append(str(raised))
    return stopped


def fail(own, folder):
    (own / "damaged.npy").write_bytes((folder / "x.npy").read_bytes()[:-1])
    messages = []
    for call in (
        lambda: convext.conv2d(X, KERNELS[:, :1]),
        lambda: convext.conv2d(X, KERNELS, stride=0),
        lambda: convext.conv2d_kernel_grad(X, Y, (30, 3)),
        lambda: convext.solve_kernels(X, Y[:1], (3, 3)),
        lambda: convext.solve_kernels(Sliced(X, 3), Y, (3, 3)),
        lambda: trained_model().predict("images"),
        lambda: convext.load_data(folder / "x.npy", own / "damaged.npy"),
        lambda: convext.train_model(X, np.full_like(Y, np.inf), 3, (3, 3), 0.01, 2, verbose=False),
        lambda: convext.train_model(X, Y, 3, (3, 3), 1e300, 9, verbose=False, seed=5),
    ):
        try:
            call()
        except (ValueError, TypeError, OSError, ArithmeticError) as error:
            messages.append(type(error).__name__)
    return messages


def each_way(folder):
    """Convolve in each way that keeps kernels, with scratch memory of each size."""
    rng = np.random.default_rng(1)
    uses = [
        (rng.standard_normal(shape, np.float32), rng.standard_normal(kernels, np.float32), options)
        for shape, kernels, options in FIRST_USES
    ]

    def convolve():
        results = []
        for images, kernels, options in uses:
            prepared = convext.prepare_kernels(kernels, **options)
            output = convext.conv2d(images, prepared)
            results += output, convext.conv2d(images, kernels, num_threads=1, **options)
            results.append(convext.conv2d_kernel_grad(images, output, kernels.shape[2:]))
            results.append(convext.conv2d_input_grad(output, kernels, images.shape))
        return results

    return convolve


def new_shapes(folder):
    """Convolve images of shapes that were not there before, or long ago."""
    sizes = itertools.cycle(range(200, 500))  # NumPy keeps the memory of smaller arrays

    def convolve():
        results = [
            convext.conv2d(np.ones((1, 5, next(sizes))), np.ones((1, 1, 3, 3))) for _ in range(30)
        ]
        return all((result == 9).all() for result in results)

    return convolve


def thread_that_ends(folder):
    def run():
        results = []
        thread = Thread(target=lambda: results.append(convext.conv2d(X, KERNELS, num_threads=2)))
        thread.start()
        thread.join()
        return results

    return run


WORK = {
    "commands": in_own_folder(commands),
    "each way": each_way,
    "errors": in_own_folder(fail),
    "fit with checkpoint": in_own_folder(fit_with_checkpoint),
    "new shapes": new_shapes,
    "solve in parts": in_own_folder(solve_in_parts),
    "stopped trainings": in_own_folder(stop_trainings),
    "thread that ends": thread_that_ends,
    "train on shards": in_own_folder(train_on_shards),
    "train with checkpoint": in_own_folder(train_with_checkpoint),
}
