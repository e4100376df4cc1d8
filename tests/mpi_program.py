"""What the tests of MPI run on several ranks: `mpiexec -n 2 python tests/mpi_program.py PART FILE`.

Without mpiexec, a part that computes something does so in one process.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import warnings

import numpy as np
import pytest

import convext
from convext._support import ranks as support
from convext.solve import blocks

PART, FILE = sys.argv[1:]
COMM = None
if "PMI_SIZE" in os.environ:
    from mpi4py import MPI

    COMM = MPI.COMM_WORLD
RANK = 0 if COMM is None else COMM.rank

# Several blocks of small data.
blocks.MAX_ELEMENTS = 3000
support.SECONDS_TO_FAIL = 0.5

RNG = np.random.default_rng(0)
X, Y = RNG.random((21, 1, 12, 11)), RNG.random((21, 2, 8, 7))


def network(learning_rate=0.01, **options):
    """Return a compiled network of two layers, in float64."""
    layers = [convext.Conv2D(4, 3, activation="tanh"), convext.Conv2D(2, 3, use_bias=False)]
    model = convext.Sequential(layers, dtype="float64", **options)
    model.compile(convext.Adam(learning_rate), "mse", metrics=["mae"])
    return model


def flat(*arrays):
    """Return all numbers of some arrays."""
    return np.concatenate([np.ravel(array) for array in arrays])


def fitted(model, *data, **options):
    """Return the weights after a training, and what was measured in it."""
    history = model.fit(*data, verbose=0, comm=COMM, **options).history
    return flat(*model.get_weights(), *history.values())


def given(generator):
    """Yield batches of 5 to 7 samples."""
    order = generator.permutation(len(X))
    for part in np.split(order, [5, 12]):
        yield X[part], Y[part], 1.0 + part


def fits():
    """Yield trainings of networks: Adam, SGD, shuffled, weighted, on one layer, of batches."""
    first = convext.Sequential([convext.Conv2D(1, 1)], seed=RANK)  # to draw a seed each
    np.random.seed(RANK)
    yield "seeds of its own", lambda: fitted(network(), X, Y, 8, 2) if COMM else np.zeros(0)
    assert first.layers
    np.random.seed(0)
    yield "shuffled", lambda: fitted(network(), X, Y, 8, 4, validation_split=0.2)
    yield "batch of one", lambda: fitted(network(), X[:4], Y[:4], 1, 2, shuffle=False)
    weights = {"sample_weight": np.arange(21.0), "validation_data": (X[:3], Y[:3])}
    yield "weighted", lambda: fitted(network(), X, Y, 10, 3, **weights)
    yield "given", lambda: fitted(network(), given, epochs=3, validation_data=lambda: [(X, Y)])
    single = convext.Sequential([convext.Conv2D(2, 5, activation="relu")], dtype="float64", seed=1)
    single.compile(convext.SGD(0.1, momentum=0.9), "mse")
    yield "one layer", lambda: fitted(single, X, Y, 4, 3)


def trainings():
    """Yield trainings of kernels."""
    options = {"seed": 3, "verbose": False, "comm": COMM}
    train = convext.train_model
    yield "train_model", lambda: train(X, Y, 2, 5, 0.05, 4, batch_size=2, shuffle=True, **options)
    for name, samples in (("x", X), ("y", Y)):
        if RANK == 0:
            np.save(f"{FILE}.{name}.npy", samples)
    if COMM is not None:
        COMM.Barrier()
    files = f"{FILE}.x.npy", f"{FILE}.y.npy"
    for memory in ("1GB", "20KB"):
        of_files = options | {"batch_size": 8, "shuffle": True, "max_memory": memory}
        yield f"files, {memory}", lambda more=of_files: train(*files, 2, 5, 0.05, 2, **more)
        more = {"max_memory": memory, "validation_split": 0.2}
        yield f"fit of files, {memory}", lambda m=more: fitted(network(seed=4), *files, 8, 2, **m)
    schedule = convext.schedules.reduce_on_plateau(0.2, 0.5, 1)
    more = options | {"stride": 2, "padding": 1, "batch_size": 30}
    yield "strided", lambda: train(X, Y[:, :, :6, :6], 2, 3, schedule, 6, **more)


def solutions():
    """Yield least squares: of samples, of one image, with masks, centred, of few pixels."""
    x = RNG.random((5, 2, 30, 40))
    kernels = RNG.random((3, 2, 3, 4))
    exact = convext.conv2d(x, kernels, padding="same")
    y = exact + RNG.normal(size=exact.shape)
    masks = RNG.random((5, 1, 30, 40)) < 0.9, RNG.random((5, 3, 30, 40)) < 0.9
    same = {"padding": "same", "bias": True}

    def solve(x, y, *arguments, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", np.exceptions.RankWarning)
            found = convext.solve_kernels(x, y, *arguments, comm=COMM, **options)
        bias = np.zeros(0) if found.bias is None else found.bias
        return flat(found.kernels, bias, [found.loss, found.rank])

    yield "same size", lambda: solve(x, y, (2, 3))
    yield "bias", lambda: solve(x, y, (3, 4), **same)
    yield "mask", lambda: solve(x, y, 3, mask=masks[0], l2=0.01, **same)
    yield "mask of each", lambda: solve(x, y, 3, mask=masks[1], **same)
    yield "strided", lambda: solve(x, y[:, :, ::2, ::2], 3, stride=2, padding=1)
    yield "large mean", lambda: solve(x, y + 1e5, (3, 4), **same)
    yield "refined", lambda: solve(x, exact + 1e3, (3, 4), **same)[:-2]
    yield "huge", lambda: solve(x * 1e200, y, 3)
    yield "undetermined", lambda: solve(np.ones_like(x), y, 3)
    yield "few", lambda: solve(x[:1, :, :6, :6], y[:1, :, :3, :3], 4)
    yield "one image", lambda: solve(x[:1], y[:1], 3)


def results():
    """Save what all trainings and solutions give, and whether that is the same on all ranks."""
    found = {}
    for part in (fits, trainings, solutions):
        for name, compute in part():
            found[f"{part.__name__}, {name}"] = np.ravel(compute())
    if COMM is not None:
        for name, values in found.items():
            assert len({each.tobytes() for each in COMM.allgather(values)}) == 1, name
    if RANK == 0:
        np.savez(FILE, **found)


def sums():
    """Sums are those of NumPy in the order of the ranks, bit by bit."""
    with support.together(COMM, "sums") as ranks:
        for shape in [(1,), (7, 3), (3, 50001), (200_000,)]:
            each = [np.random.default_rng(rank).normal(size=shape) for rank in range(ranks.size)]
            expected = each[0].copy()
            for values in each[1:]:
                expected += values
            for order in "CF":
                own = each[ranks.rank].copy(order)
                ranks.add(own)
                if shape != (1,):
                    assert np.array_equal(own, expected), shape
                np.testing.assert_allclose(own, expected, 1e-14)
        assert ranks.gather("x" * ranks.rank) == ["x" * rank for rank in range(ranks.size)]
        shares = ranks.gather([*range(10)][ranks.part(10)])
        assert [*itertools.chain(*shares)] == [*range(10)]
        # One on each CPU at least, and no more threads than CPUs.
        cpus, here = ranks.cpus()
        assert here == ranks.size
        assert convext.config.resolve_num_threads(None, ranks) == max(1, cpus // here)
        assert convext.config.resolve_num_threads(3, ranks) == 3


def callbacks():
    """Rank 0 calls the callbacks; all follow what these do."""

    class Calls:
        epochs = 0

        def on_train_begin(self, logs):
            assert RANK == 0

        def __call__(self, report):
            self.epochs = report.epoch
            if report.epoch == 2:
                report.model.set_weights([np.ones_like(a) for a in report.model.get_weights()])
                report.model.optimizer.learning_rate = 0.0
            if report.epoch == 4:
                raise convext.StopTraining

    for where in (0, None):
        model, calls, history = network(), Calls(), convext.History()
        kept = convext.ModelCheckpoint(FILE, "loss")
        model.fit(X, Y, 8, 9, "auto", [calls, kept, history], comm=COMM)
        assert calls.epochs == (4 if RANK == 0 else 0)
        assert history.epoch == [1, 2, 3, 4]
        assert history.learning_rate == [0.01, 0.01, 0, 0]
        assert all((array == 1).all() for array in model.get_weights()), where
    weights = []
    for epochs in (1, 9):
        np.random.seed(0)
        model = network()
        best = convext.EarlyStopping(2, 10.0, restore_best_weights=True)
        assert len(model.fit(X, Y, 8, epochs, 0, [best], comm=COMM).loss) == min(epochs, 3)
        weights.append(flat(*model.get_weights()))
    assert np.array_equal(*weights)
    assert len({each.tobytes() for each in COMM.allgather(weights[1])}) == 1
    sys.stdout.write(f"files: {os.path.exists(FILE)}\n")


def resumed():
    """A training that goes on from a checkpoint has the bits of one that never stopped."""
    made = []
    for epochs in ((6,), (2, 6)):
        name = f"{FILE}-{len(epochs)}.npz"
        for number in epochs:
            np.random.seed(5 + RANK)
            model = network(convext.schedules.cosine_decay(0.01, 6), name="resumed")
            options = {"checkpoint": name, "checkpoint_every": 1, "resume": True, "comm": COMM}
            model.fit(X, Y, 8, number, 0, **options)
        made.append(flat(*model.get_weights()))
    assert len(epochs) == 2
    assert np.array_equal(*made)


def errors():
    """What is wrong on all ranks, or differs between them, is an error on all."""
    nan = X.copy()
    nan[20, 0, 3, 3] = np.nan
    fit, train, solve = network().fit, convext.train_model, convext.solve_kernels
    quiet = {"verbose": False, "comm": COMM}

    def each_its_own():
        if RANK == 0:
            solve(X, Y, 5, comm=COMM)
        else:
            train(X, Y, 2, 5, **quiet)

    wrong = [
        ("number of epochs is 6 on rank 1", lambda: train(X, Y, 2, 5, 0.1, 5 + RANK, **quiet)),
        ("number of epochs is 2 on rank 1", lambda: fit(X, Y, 8, 1 + RANK, 0, comm=COMM)),
        ("function is train_model on rank 1, and solve_kernels", each_its_own),
        ("x has 20 samples|y must have", lambda: fit(X[1:], Y, comm=COMM)),
        ("batch_size is .* on rank 1", lambda: fit(X, Y, 8 + RANK, comm=COMM)),
        ("checksum of x is", lambda: fit(X + RANK, Y, comm=COMM)),
        ("shape of y is|shape of x is", lambda: fit(X[RANK:], Y[RANK:], 8, comm=COMM)),
        ("learning_rate", lambda: network(0.1 + RANK).fit(X, Y, comm=COMM)),
        (r"x\[20\] contains 1 value", lambda: fit(nan, Y, verbose=0, comm=COMM)),
        ("batch 1 of x", lambda: fit(lambda: [(X, Y)] * (1 + RANK), verbose=0, comm=COMM)),
        ("batch 0 of x", lambda: fit(lambda: [(X + RANK, Y)], verbose=0, comm=COMM)),
        ("statistics", lambda: train(X, Y, 2, 5, method="statistics", comm=COMM)),
        (r"NaN .* first at \(20, 0, 3, 3\)", lambda: train(nan, Y, 2, 5, comm=COMM)),
        ("up to .* is stable", lambda: train(X, Y, 2, 5, 1e3, verbose=False, comm=COMM)),
        ("l2 is 1.0 on rank 1", lambda: solve(X, Y, 5, l2=float(RANK == 1), comm=COMM)),
        ("input_data contains 1 values", lambda: solve(nan, Y, 5, comm=COMM)),
        ("comm must be an intracommunicator", lambda: fit(X, Y, comm=3)),
    ]
    for pattern, call in wrong:
        with pytest.raises((ValueError, TypeError, ArithmeticError), match=pattern):
            call()


def threads():
    """Ranks may be given different numbers of threads."""
    kernels = []
    for number in (None, 1 if RANK == 1 else None):
        options = {"seed": 0, "verbose": False, "num_threads": number, "comm": COMM}
        kernels.append(convext.train_model(X, Y, 2, 5, 0.05, 2, **options))
    convext.set_num_threads(1 + RANK)
    kernels.append(convext.train_model(X, Y, 2, 5, 0.05, 2, seed=0, verbose=False, comm=COMM))
    assert len({each.tobytes() for each in kernels}) == 1


def stopped():
    """An error of a callback ends the program that rank 0 runs."""

    def callback(report):
        raise OSError("the disk of rank 0 is gone")

    options = {"seed": 0, "verbose": False, "callbacks": [callback], "comm": COMM}
    convext.train_model(X, Y, 2, 5, 0.05, 2, **options)
    with open(FILE, "w") as file:
        file.write("as if nothing had happened")


def alone():
    """Batches of which rank 1 fails to make the third, as PART says."""
    for number in range(10**6):
        if RANK == 1 and number == 3:
            if PART == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if PART == "interrupted":
                os.kill(os.getpid(), signal.SIGINT)
            raise OSError("the disk of rank 1 is gone")
        yield X, Y


if __name__ == "__main__":
    if PART in ("killed", "interrupted", "failing"):
        network().fit(alone, epochs=10**6, verbose=0, comm=COMM)
    else:
        globals()[PART]()
