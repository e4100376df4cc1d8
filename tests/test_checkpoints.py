"""A training that was stopped goes on from its checkpoint with the bits of one that was not."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import convext
from convext import EarlyStopping, History, ModelCheckpoint, schedules
from convext.cli.main import main
from convext.train import checkpoint

RNG = np.random.default_rng(0)
X, Y = RNG.random((40, 1, 12, 11)), RNG.random((40, 2, 10, 9))
EPOCHS = 12


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder, and English; nobody waits for the disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setenv("CONVEXT_LANG", "en")
    return tmp_path


def train(callbacks=(), epochs=EPOCHS, x=X, y=Y, kernel_shape=3, **options):
    options = {"seed": 3, "learning_rate": 0.1} | options
    return convext.train_model(
        x, y, len(y[0]), kernel_shape, num_epochs=epochs, callbacks=callbacks, verbose=False,
        **options,
    )  # fmt: skip


def make_model(optimizer=None, loss="mse", metrics=(), filters=4, **options):
    layers = [convext.Conv2D(filters, 3, activation="relu"), convext.Conv2D(2, 1)]
    model = convext.Sequential(layers, seed=5, **options)
    model.compile(optimizer or convext.Adam(0.01), loss, metrics)
    return model


def fit(callbacks=(), epochs=EPOCHS, x=X, y=Y, model=None, **options):
    model = model or make_model()
    model.fit(x, y, epochs=epochs, callbacks=callbacks, verbose=0, **options)
    return np.concatenate([array.ravel() for array in model.get_weights()])


def plateau():
    return schedules.reduce_on_plateau(0.1, 0.5, 1, min_delta=0.01)


def batches(generator):
    order = generator.permutation(len(X))
    return ((X[part], Y[part]) for part in order.reshape(8, -1))


# What is trained, as a function of callbacks and other options.
TRAININGS = {
    "direct": lambda *a, **o: train(*a, method="direct", **o),
    "statistics": lambda *a, **o: train(*a, method="statistics", **o),
    "statistics of batches": lambda *a, **o: train(*a, method="statistics", batch_size=7, **o),
    "shuffled": lambda *a, **o: train(*a, shuffle=True, batch_size=6, **o),
    "cosine": lambda *a, **o: train(*a, learning_rate=schedules.cosine_decay(0.1, EPOCHS), **o),
    "plateau": lambda *a, **o: train(*a, learning_rate=plateau(), shuffle=True, **o),
    "float32": lambda *a, **o: train(*a, x=X.astype("f4"), y=Y.astype("f4"), **o),
    "given kernels": lambda *a, **o: train(*a, kernels=np.ones((2, 1, 3, 3)), **o),
    "large": lambda *a, **o: train(*a, kernel_shape=(7, 5), y=Y[:, :, :6, :7], **o),
    "fit": fit,
    "momentum": lambda *a, **o: fit(
        *a, model=make_model(convext.SGD(plateau(), momentum=0.9, nesterov=True)), batch_size=5, **o
    ),
    "float64": lambda *a, **o: fit(*a, model=make_model(dtype="float64"), batch_size=8, **o),
    "validation": lambda *a, **o: fit(*a, validation_split=0.25, sample_weight=np.arange(40), **o),
    "metrics": lambda *a, **o: fit(*a, model=make_model(metrics=["mae"], residual=False), **o),
    "generator": lambda *a, **o: fit(*a, x=batches, y=None, validation_data=(X[:9], Y[:9]), **o),
    "one layer": lambda *a, **o: fit(*a, model=one_layer(), batch_size=3, **o),
}  # fmt: skip


def one_layer():
    model = convext.build_model(2, 3, 1, seed=1)
    model.compile(convext.Adam(schedules.step_decay(0.02, 0.5, 3), clipnorm=1.0))
    return model


def stop_in(epoch):
    def stop(report):
        if report.epoch == epoch:
            raise KeyboardInterrupt

    return stop


def temporary_files():
    return [name for name in os.listdir() if name.endswith(".tmp")]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_that_is_stopped_again_and_again_has_the_bits_of_one_that_is_not(name):
    rng = np.random.default_rng(sum(map(ord, name)))

    def run(*callbacks, **options):
        history = History()
        stopping = EarlyStopping(4, 1e-3, restore_best_weights=True)
        result = TRAININGS[name]([history, stopping, *callbacks], **options)
        return result, history, stopping

    expected, told, best = run()
    options = {"checkpoint": "run.npz", "resume": True}
    ends = sorted(rng.choice(len(told.loss), 3) + 1)
    for end in ends:
        with pytest.raises(KeyboardInterrupt):
            run(stop_in(end), checkpoint_every=1, **options)
    result, history, stopping = run(checkpoint_every=int(rng.integers(1, 5)), **options)
    # Once more, where nothing is left to be done.
    again, once_more, stopped = run(stop_in(len(told.loss)), **options)
    for weights, seen, stop in (result, history, stopping), (again, once_more, stopped):
        np.testing.assert_array_equal(weights, expected)
        assert seen.history == told.history
        assert seen.epoch == told.epoch
        np.testing.assert_array_equal(seen.kernels, told.kernels)
        assert (stop.best_loss, stop.best_epoch) == (best.best_loss, best.best_epoch)
    assert sorted(os.listdir()) == ["run-previous.npz", "run.npz"]


def test_without_a_checkpoint_the_training_begins_anew_and_says_so(capsys):
    options = {"checkpoint": "run.npz", "resume": True, "seed": 0}
    first = convext.train_model(X, Y, 2, 3, 0.1, 2, **options)
    assert "There is no run.npz yet: the training begins anew\n" in capsys.readouterr().out
    second = convext.train_model(X, Y, 2, 3, 0.1, 4, method="direct", **options)
    out = capsys.readouterr().out
    assert out.startswith("Going on after epoch 2: run.npz\nEpoch: 3, ")
    np.testing.assert_array_equal(first, convext.train_model(X, Y, 2, 3, 0.1, 2, seed=0))
    np.testing.assert_array_equal(
        second, convext.train_model(X, Y, 2, 3, 0.1, 4, seed=0, method="direct")
    )


def test_without_resume_an_older_checkpoint_is_replaced():
    train(checkpoint="run.npz", seed=1)
    result = train(checkpoint="run.npz", epochs=2)
    np.testing.assert_array_equal(result, train(epochs=2))
    np.testing.assert_array_equal(result, train(epochs=2, checkpoint="run.npz", resume=True))


def test_a_thread_can_train_with_a_checkpoint():
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(train, checkpoint="run.npz", epochs=5).result()
        second = pool.submit(train, checkpoint="run.npz", epochs=9, resume=True).result()
    np.testing.assert_array_equal(first, train(epochs=5))
    np.testing.assert_array_equal(second, train(epochs=9))


def test_an_error_leaves_the_state_before_it():
    def fail(report):
        time.sleep(0.12 if report.epoch == 7 else 0)
        if report.epoch == 8:
            raise RuntimeError("the callback")

    with pytest.raises(RuntimeError, match="the callback"):
        train([fail], checkpoint="run.npz")
    seen = []
    result = train([lambda report: seen.append(report.epoch)], checkpoint="run.npz", resume=True)
    assert seen == [*range(8, EPOCHS + 1)]
    np.testing.assert_array_equal(result, train())


def test_seeds_that_nobody_gave_are_those_of_the_checkpoint():
    expected = fit(model=seedless(3), checkpoint="fit.npz")
    resumed = fit(model=seedless(4), checkpoint="fit.npz", resume=True)
    np.testing.assert_array_equal(resumed, expected)


def seedless(seed):
    np.random.seed(seed)
    model = convext.Sequential([convext.Conv2D(2, 3)])
    model.compile("sgd")
    return model


def test_a_callback_with_a_state_has_it_again_and_others_begin_anew():
    class Counter:
        def __init__(self):
            self.seen = {"epochs": [], "best": np.inf, "kernels": np.zeros(3)}

        def __call__(self, report):
            self.seen["epochs"].append((report.epoch, "even" if report.epoch % 2 == 0 else None))
            self.seen["kernels"] = report.kernels
            self.seen["best"] = np.float32(0.5)
            self.seen["many"] = many_kinds

        def get_state(self):
            return self.seen

        def set_state(self, state):
            self.seen, self.loaded = state, dict(state)

    large = 2**63
    many_kinds = {
        "arrays": [np.arange(2)] * 20, "numbers": [*range(30), large], "more": [-1, large] * 20,
        "largest": [10**30] * 20, "mixed": [1, 2.0, None, "x", True] * 9, "texts": ["a", "b"] * 9,
        "same": ["a"] * 20, "dictionaries": [{"a": [1.5, np.inf, -0.0]}] * 20, "none": [],
        "floats": [0.1, -0.0, np.inf, 1e300] * 9, "flags": [True, False] * 9, "ints": [*range(40)],
    }  # fmt: skip
    counter, plain = Counter(), []
    options = {"checkpoint": "run.npz", "checkpoint_every": 2, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        train([Counter(), stop_in(5)], **options)
    result = train([counter, lambda report: plain.append(report.epoch)], **options)
    assert [epoch for epoch, _ in counter.seen["epochs"]] == [*range(1, EPOCHS + 1)]
    assert counter.seen["best"] == 0.5
    many = counter.loaded["many"]
    assert [*map(np.ndarray.tolist, many.pop("arrays"))] == [[0, 1]] * 20
    assert repr(many) == repr({name: many_kinds[name] for name in many})
    np.testing.assert_array_equal(counter.seen["kernels"], result)
    assert plain == [*range(5, EPOCHS + 1)]


@pytest.mark.parametrize("value", [np.ones(2, complex), np.array(["a"]), {1: 2}, {3}, object()])
def test_a_state_that_cannot_be_read_again_is_not_written(value):
    epochs = []

    class Odd:
        def __call__(self, report):
            pass

        def get_state(self):
            return {"value": value}

    with pytest.raises(TypeError, match="a state"):
        train([Odd()], checkpoint="run.npz")
    assert os.listdir() == []
    with pytest.raises(TypeError, match=r"Odd.get_state\(\): "):
        train([epochs.append, Odd()], epochs=10**6, checkpoint="run.npz", checkpoint_every=10**6)
    assert len(epochs) == 1


def test_a_rate_that_a_callback_has_set_stays_set():
    def halve(report):
        if report.epoch in (3, 6):
            report.model.optimizer.learning_rate /= 2

    expected = fit([halve])
    options = {"checkpoint": "fit.npz", "checkpoint_every": 1, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        fit([halve, stop_in(5)], **options)
    np.testing.assert_array_equal(fit([halve], **options), expected)


def test_a_model_checkpoint_knows_what_was_best():
    def spoil(report):
        if report.epoch == 6:
            report.model.optimizer.learning_rate = 2.0

    def run(*callbacks, **options):
        best = ModelCheckpoint("best.npz", "loss", save_best_only=True)
        fit([best, spoil, *callbacks], model=make_model(convext.SGD(0.05)), **options)
        return best.best_loss, best.best_epoch, convext.load_model("best.npz").get_weights()

    loss, epoch, weights = run()
    os.remove("best.npz")
    assert 1 < epoch < 11
    options = {"checkpoint": "fit.npz", "checkpoint_every": 1, "resume": True}
    for end in (epoch + 1, 11):
        with pytest.raises(KeyboardInterrupt):
            run(stop_in(end), **options)
    resumed = run(**options)
    assert resumed[:2] == (loss, epoch)
    for a, b in zip(resumed[2], weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_between_two_names_there_is_the_previous_checkpoint(monkeypatch):
    """Where a training is killed when the old file has its new name, and the new one not yet."""
    expected = train()
    replace, calls = os.replace, []

    def fail(source, target):
        calls.append(target)
        if len(calls) == 5:  # the first checkpoint is one name, each other two
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        patch.setattr("convext.train.checkpoint.Checkpoint.ended", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            train(checkpoint="run.npz", checkpoint_every=2)
    assert len(calls) == 5
    assert not os.path.exists("run.npz")
    seen = []
    go_on = lambda report: seen.append(report.epoch)  # noqa: E731
    result = train([go_on], checkpoint="run.npz", resume=True)
    np.testing.assert_array_equal(result, expected)
    assert seen == [*range(5, EPOCHS + 1)]


def test_a_link_stays_one(folder):
    (folder / "far").mkdir()
    os.symlink("far/state", "run.npz")
    expected = train(checkpoint="run.npz", checkpoint_every=5)
    assert sorted(os.listdir("far")) == ["state", "state-previous"]
    assert os.path.islink("run.npz")
    np.testing.assert_array_equal(train(checkpoint="run.npz", resume=True), expected)


# What another training must have in common with the one that wrote the checkpoint


def changed(array, index):
    array = array.copy()
    array[index] += 1e-9
    return array


OTHER = {
    "checksum of input_data is ": {"x": changed(X, (17, 0, 3, 4))},
    "checksum of target_output is ": {"y": changed(Y, (39, 1, 9, 8))},
    "type of input_data is float32, and was float64": {"x": X.astype(np.float32)},
    r"shape of input_data is \[39, 1, .*\], and was \[40, 1, ": {"x": X[:-1], "y": Y[:-1]},
    r"padding_before is \[1, 1\], and was \[0, 0\]": {"padding": 1, "dilation": 2},
    r"dilation is \[2, 2\], and was \[1, 1\]": {"padding": ((0, 2), (0, 2)), "dilation": 2},
    "batch_size is 4, and was 1": {"batch_size": 4},
    "shuffle is True, and was False": {"shuffle": True},
    "seed is 4, and was 3": {"seed": 4},
    "seed is None, and was 3": {"seed": None},
    "learning_rate is 0.2, and was 0.1": {"learning_rate": 0.2},
    r"learning_rate is step_decay\(initial_rate=0.1, drop=0.5, every=10\), and was 0.1": {
        "learning_rate": schedules.step_decay(0.1)
    },
    "method is direct, and was statistics": {"method": "direct"},
    "type of kernels is float64, and was None": {"kernels": np.ones((2, 1, 3, 3))},
    r"callbacks is .*EarlyStopping\(patience=3, .*, and was .*\(patience=4": {
        "callbacks": [EarlyStopping(3)]
    },
    r"callbacks is \[\], and was": {"callbacks": []},
}  # fmt: skip


@pytest.mark.parametrize("difference", OTHER)
def test_what_differs_in_another_training_is_named(difference):
    options = {"method": "statistics", "checkpoint": "run.npz"}
    train(callbacks=[EarlyStopping(4)], **options)
    before = Path("run.npz").read_bytes()
    changes = {"callbacks": [EarlyStopping(4)]} | options | OTHER[difference]
    with pytest.raises(
        ValueError, match=r"checkpoint \(run.npz\) is of another training: "
    ) as error:
        train(resume=True, **changes)
    assert re.search(difference, str(error.value))
    assert Path("run.npz").read_bytes() == before


OTHER_FITS = {
    "function is fit, and was train_model": None,
    r"layers\[0\] is Conv2D\(5, \(3, 3\), activation='relu'\), and was Conv2D\(4, ": {
        "model": make_model(filters=5)
    },
    "loss is mae, and was mse": {"model": make_model(loss="mae")},
    "dtype is float64, and was float32": {"model": make_model(dtype="float64")},
    "optimizer is SGD, and was Adam": {"model": make_model(convext.SGD(0.01))},
    "beta_1 is 0.5, and was 0.9": {"model": make_model(convext.Adam(0.01, 0.5))},
    "learning_rate is 0.1, and was 0.01": {"model": make_model(convext.Adam(0.1))},
    "shuffle is False, and was True": {"shuffle": False},
    "checksum of sample_weight is": {"sample_weight": np.arange(1, 41)},
    "initial_epoch is 1, and was 0": {"initial_epoch": 1},
    "validation checksum of y is": {"validation_data": (X, changed(Y, 0))},
    "validation batch_size is None, and was 32": {"validation_data": None},
}


@pytest.mark.parametrize("difference", OTHER_FITS)
def test_what_differs_in_another_fit_is_named(difference):
    options = {"checkpoint": "run.npz", "validation_data": (X, Y), "sample_weight": np.arange(40)}
    if OTHER_FITS[difference] is None:
        train(checkpoint="run.npz")
    else:
        fit(**options)
    with pytest.raises(
        ValueError, match=r"checkpoint \(run.npz\) is of another training: "
    ) as error:
        fit(resume=True, **options | (OTHER_FITS[difference] or {}))
    assert re.search(difference, str(error.value))


@pytest.mark.parametrize("size", [(100, 3, 300, 301), (3, 1, 2500, 2501)])
def test_large_data_are_told_apart_by_a_part_of_them(size):
    x = np.zeros(size, np.uint8)
    y = np.zeros((size[0], 1, *size[2:]), np.uint8)
    model = convext.Sequential([convext.Conv2D(1, 1, kernel_initializer="zeros")])
    model.compile("sgd")
    options = {"batch_size": 10**7, "shuffle": False, "checkpoint": "run.npz"}
    fit(x=x, y=y, epochs=1, model=model, **options)
    fit(x=x, y=y, epochs=1, model=model, resume=True, **options)
    begun = time.perf_counter()
    x[:, :, ::2] = 1
    with pytest.raises(ValueError, match="checksum of x"):
        fit(x=x, y=y, epochs=1, model=model, resume=True, **options)
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"resume": True, "checkpoint": None}, ValueError, "resume needs a checkpoint"),
        ({"checkpoint": None, "checkpoint_every": 2}, ValueError, "checkpoint_every needs a"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be at least 1, got 0"),
        ({"checkpoint_every": 1.5}, TypeError, r"or of seconds as in '30s', got 1.5 \(float\)"),
        ({"checkpoint_every": None}, TypeError, "or of seconds as in '30s', got None"),
        ({"checkpoint_every": "30m"}, ValueError, "or of seconds as in '30s', got '30m'"),
        ({"checkpoint_every": "-1s"}, ValueError, "or of seconds as in '30s', got '-1s'"),
        ({"checkpoint_every": "nans"}, ValueError, "or of seconds as in '30s', got 'nans'"),
        ({"checkpoint": "no/run.npz"}, FileNotFoundError, "its folder does not exist"),
        ({"checkpoint": "."}, IsADirectoryError, "is a folder"),
        ({"checkpoint": 3}, TypeError, "a file must be given by its name, .* got int"),
    ],
)
@pytest.mark.parametrize("run", [train, fit])
def test_bad_arguments_are_named(run, options, error, message):
    with pytest.raises(error, match=message):
        run(**{"checkpoint": "run.npz"} | options)


@pytest.mark.parametrize("name", ["run.npz", "run-previous.npz"])
def test_a_file_that_is_something_else_is_not_replaced(name):
    np.savez(name, np.ones(3))
    with pytest.raises(ValueError, match=rf"{name}\) is a file that convext did not write as one"):
        train(checkpoint="run.npz")
    assert np.load(name)["arr_0"].sum() == 3


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_beside_that_is_something_else_is_not_replaced(resume):
    train(checkpoint="run.npz", epochs=2)
    np.savez("run-previous.npz", np.ones(3))
    with pytest.raises(ValueError, match=r"run-previous.npz\) is a file that convext did not wr"):
        train(checkpoint="run.npz", resume=resume)
    assert np.load("run-previous.npz")["arr_0"].sum() == 3


@pytest.mark.parametrize("name", ["run.npz", "run-previous.npz"])
def test_a_file_that_comes_there_during_a_training_is_not_replaced(name):
    def put(report):
        if report.epoch == 3:
            np.savez(name, np.ones(3))

    said = r"checkpoint of epoch \d+ could not be written: .* is a file that convext did not"
    with pytest.warns(UserWarning, match=said):
        trained = train([put], checkpoint="run.npz", checkpoint_every=1)
    np.testing.assert_array_equal(trained, train())
    assert np.load(name)["arr_0"].sum() == 3


def test_a_callback_that_goes_to_another_folder_does_not_take_the_checkpoint_along(folder):
    (folder / "elsewhere").mkdir()

    class Go:
        def on_train_begin(self, logs):
            os.chdir(folder / "elsewhere")

    def stop(report):
        os.chdir(folder / "elsewhere")
        if report.epoch == 5:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        train([stop], checkpoint="run.npz", checkpoint_every=1)
    assert os.listdir() == []
    for callback in (Go(), lambda report: os.chdir(folder / "elsewhere")):
        os.chdir(folder)
        shutil.copy("run.npz", "copy.npz")
        seen = []
        calls = [lambda report, seen=seen: seen.append(report.epoch), callback]
        result = train(calls, checkpoint="copy.npz", checkpoint_every=1, resume=True)
        np.testing.assert_array_equal(result, train())
        assert seen[0] == 5
        os.chdir(folder)
        for file in ("copy.npz", "copy-previous.npz"):
            os.remove(file)
    assert os.listdir("elsewhere") == []


def test_a_network_of_another_seed_is_another_training():
    def network(seed, of_layer=None):
        layers = [convext.Conv2D(2, 3, seed=of_layer)]
        model = convext.Sequential(layers, seed=seed)
        model.compile("adam")
        return model

    fit(model=network(0), checkpoint="run.npz", epochs=1)
    with pytest.raises(ValueError, match="training: seed is 3, and was 0"):
        fit(model=network(3), checkpoint="run.npz", resume=True)
    with pytest.raises(ValueError, match=r"layers\[0\] is .*seed=3"):
        fit(model=network(0, 3), checkpoint="run.npz", resume=True)


def test_what_a_partial_is_given_by_name_tells_it_from_others():
    class Falling:
        def __call__(self, epoch, first):
            return first / (1 + epoch)

    for falling in (Falling(), lambda epoch, first: first / (1 + epoch)):
        train(learning_rate=partial(falling, first=0.1), checkpoint="run.npz", epochs=1)
        with pytest.raises(ValueError, match=r"\(first=0.2\), and was .*\(first=0.1\)"):
            train(learning_rate=partial(falling, first=0.2), checkpoint="run.npz", resume=True)


def test_more_epochs_than_asked_for_are_an_error():
    train(checkpoint="run.npz")
    with pytest.raises(ValueError, match="is of epoch 12, more than the 7 asked for"):
        train(epochs=7, checkpoint="run.npz", resume=True)


@pytest.mark.parametrize("kind", ["x", "validation_data"])
def test_iterators_cannot_go_back(kind):
    given = iter([(X, Y)] * 99)
    options = {"x": given, "y": None, "steps_per_epoch": 1}
    if kind != "x":
        options = {"validation_data": given, "validation_steps": 1}
    with pytest.raises(ValueError, match=f"{kind} is an iterator, which cannot go back"):
        fit(checkpoint="run.npz", **options)


# Damaged files


def test_of_a_damaged_checkpoint_the_older_one_is_named():
    expected = train(checkpoint="run.npz", checkpoint_every=5)
    whole = Path("run.npz").read_bytes()
    rng = np.random.default_rng(1)
    good = r"run-previous.npz, of epoch 10, is good: rename it to run.npz to go on$"
    refused = accepted = 0
    for attempt in range(60):
        data = bytearray(whole)
        if attempt % 3:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        else:
            del data[rng.integers(len(data)) :]
        Path("run.npz").write_bytes(data)
        try:
            result = train(checkpoint="run.npz", resume=True)
        except ValueError as error:
            refused += re.search(good, str(error)) is not None
        else:  # what is damaged means nothing
            accepted += 1
            np.testing.assert_array_equal(result, expected)
    assert refused + accepted == 60
    assert refused > 40
    os.replace("run-previous.npz", "run.npz")
    np.testing.assert_array_equal(train(checkpoint="run.npz", resume=True), expected)


def test_where_both_are_damaged_no_one_is_good():
    train(checkpoint="run.npz", checkpoint_every=5)
    for name in ("run.npz", "run-previous.npz"):
        os.truncate(name, 300)
    with pytest.raises(ValueError, match=r"damaged.*; run-previous.npz, the one before it, is dam"):
        train(checkpoint="run.npz", resume=True)
    os.remove("run-previous.npz")
    with pytest.raises(ValueError, match=r"damaged.*; there is no older one"):
        train(checkpoint="run.npz", resume=True)


def rewritten(change):
    """Write the checkpoint anew with another description, and all its checksums right."""
    with np.load("run.npz") as members:
        arrays = dict(members)
    config = json.loads(str(arrays.pop("config")))
    change(config, arrays)
    np.savez("run.npz", config=np.array(json.dumps(config)), **arrays)


@pytest.mark.parametrize(
    "change",
    [
        lambda c, a: c.pop("state"),
        lambda c, a: c.pop("epoch"),
        lambda c, a: c.pop("settings"),
        lambda c, a: c.update(epoch=-1),
        lambda c, a: c.update(epoch="3"),
        lambda c, a: c.update(arrays=10**9),
        lambda c, a: c.update(arrays="x"),
        lambda c, a: c.update(state=[]),
        lambda c, a: c["state"]["items"].pop("run"),
        lambda c, a: c["state"]["items"].update(run=3),
        lambda c, a: c["state"]["items"]["run"]["items"].pop("before"),
        lambda c, a: c["state"]["items"]["run"]["items"].update(kernels={"array": 99}),
        lambda c, a: c["state"]["items"]["run"]["items"].update(kernels={"array": "x"}),
        lambda c, a: c["state"]["items"]["run"]["items"].update(generator={"items": {}}),
        lambda c, a: c["state"]["items"].update(parts=[]),
        lambda c, a: a.update(array_0=np.ones((9, 9))),
        lambda c, a: a.update(array_0=a["array_0"].astype("f4")),
        lambda c, a: a.update(array_0=np.array(["text"])),
        lambda c, a: a.update(array_1=np.array(["text"])),
    ],
)
def test_a_checkpoint_that_lies_is_an_error(change):
    train([History()], checkpoint="run.npz", shuffle=True)
    rewritten(change)
    with pytest.raises((ValueError, TypeError), match=r"checkpoint|epoch"):
        train([History()], checkpoint="run.npz", shuffle=True, resume=True)


def test_nothing_is_unpickled():
    class Trap:
        def __reduce__(self):
            return os.mkdir, ("trapped",)

    train(checkpoint="run.npz")
    with np.load("run.npz") as members:
        arrays = dict(members)
    arrays["array_0"] = np.array([Trap()], dtype=object)
    np.savez("run.npz", **arrays)
    with pytest.raises(ValueError, match="holds pickled Python objects, which are never loaded"):
        train(checkpoint="run.npz", resume=True)
    assert not os.path.exists("trapped")


@pytest.mark.parametrize("ends", ["at its end", "by Ctrl-C", "when there is space again"])
def test_a_disk_that_is_full_does_not_end_a_training(ends, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "run.npz")

    whole = checkpoint.atomic_write

    def callback(report):
        if report.epoch == 5:
            monkeypatch.setattr(checkpoint, "atomic_write", full)
        if report.epoch == 7 and ends == "by Ctrl-C":
            raise KeyboardInterrupt
        if report.epoch == 7 and ends == "when there is space again":
            monkeypatch.setattr(checkpoint, "atomic_write", whole)

    ending = pytest.raises(KeyboardInterrupt) if ends == "by Ctrl-C" else nullcontext()
    with (
        pytest.warns(UserWarning, match=r"checkpoint of epoch \d+ could not be written: .*space"),
        ending,
    ):
        trained = train([callback], checkpoint="run.npz", checkpoint_every=1)
    if ends != "by Ctrl-C":
        np.testing.assert_array_equal(trained, train())
    with np.load("run.npz") as arrays:
        record = json.loads(str(arrays["config"]))
    assert record["epoch"] == (EPOCHS if ends == "when there is space again" else 4)


# The command line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--resume", "resume needs a checkpoint: give the name of its file"),
        ("--checkpoint-every 3", "checkpoint_every needs a checkpoint: give the name of its file"),
        (
            "--checkpoint run.npz --checkpoint-every 3m",
            "checkpoint_every must be a number of epochs, or of seconds as in '30s', got '3m'",
        ),
        (
            "--checkpoint run.npz --checkpoint-every 0",
            "checkpoint_every must be at least 1, got 0",
        ),
        ("--checkpoint no/run.npz", "no/run.npz: its folder does not exist"),
        ("--checkpoint a.npz --out a.npz", "a.npz would overwrite a.npz, which is used as well"),
        (
            "--checkpoint a.npz --out a-previous.npz",
            "a-previous.npz would overwrite a-previous.npz, which is used as well",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["train", "train-images"])
def test_what_is_wrong_with_options_is_said(kind, options, message, images, capsys):
    folders = ["before", "after"] if kind == "train-images" else []
    assert main([kind, *folders, *options.split()]) == 2
    assert capsys.readouterr().err == f"convext: error: {message}\n"


def test_other_images_and_patches_are_another_training(images, folder, capsys):
    options = ["--checkpoint", "run.npz", "--resume", "--layers", "1x3", "--quiet"]
    arguments = ["train-images", "before", "after", *options, "--epochs", "1"]
    assert main(arguments) == 0
    assert main([*arguments, "--stride", "7"]) == 2
    assert "is of another training: batches is" in capsys.readouterr().err
    assert main([*arguments, "--learning-rate", "0.01"]) == 2
    told = "cosine_decay(initial_rate=0.01, num_epochs=1, final_rate=0.0), and was cosine_decay("
    assert told in capsys.readouterr().err
    assert main([*arguments[:-1], "2"]) == 2  # the rate falls to 0 in the last epoch
    assert re.search("num_epochs=2, .* and was .*num_epochs=1", capsys.readouterr().err)
    whole = (folder / "before" / "1.png").read_bytes()
    (folder / "before" / "1.png").write_bytes((folder / "after" / "1.png").read_bytes())
    assert main(arguments) == 2
    assert re.search("checksums of images is", capsys.readouterr().err)
    (folder / "before" / "1.png").write_bytes(whole)
    assert main(arguments) == 0
    assert convext.load_model("model.npz").count_params() == 10


def test_the_best_model_is_there_before_a_training_goes_on(images, folder, capsys):
    options = ["--checkpoint", "run.npz", "--layers", "1x3", "--quiet", "--epochs", "1"]
    arguments = ["train-images", "before", "after", *options]
    assert main([*arguments, "--out", "run-best.npz"]) == 2
    assert "would overwrite run-best.npz" in capsys.readouterr().err
    (folder / "run-best.npz").write_text("something else")
    assert main(arguments) == 2
    assert "model (run-best.npz) cannot be read" in capsys.readouterr().err
    assert (folder / "run-best.npz").read_text() == "something else"
    os.remove("run-best.npz")
    assert main(arguments) == 0
    os.remove("run-best.npz")
    assert main([*arguments, "--resume"]) == 2
    assert "run-best.npz, the best model so far" in capsys.readouterr().err
    assert main(arguments) == 0


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_checkpoint_that_cannot_be_written_is_told_in_both_languages(
    language, monkeypatch, capsys
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run.npz")

    monkeypatch.setenv("CONVEXT_LANG", language)
    monkeypatch.setattr(checkpoint, "atomic_write", full)
    assert main(["train", "--checkpoint", "run.npz", "--epochs", "2", "--quiet"]) == 0
    expected = {
        "en": "convext: warning: the checkpoint of epoch 2 could not be written: run.npz: No space "
        "left on device\n",
        "zh": "convext: 警告: 第 2 轮的检查点无法写入: run.npz: 磁盘空间不足\n",
    }
    assert capsys.readouterr().err == expected[language]


def test_another_training_is_told_in_chinese_as_well(monkeypatch, capsys):
    arguments = ["train", "--checkpoint", "run.npz", "--epochs", "2", "--quiet"]
    assert main(arguments) == 0
    monkeypatch.setenv("CONVEXT_LANG", "zh")
    assert main([*arguments, "--resume", "--seed", "1"]) == 2
    assert "检查点（run.npz）属于另一次训练" in capsys.readouterr().err
    os.truncate("run.npz", 900)
    train(checkpoint="other.npz", checkpoint_every=5)
    os.rename("other-previous.npz", "run-previous.npz")
    assert main([*arguments, "--resume"]) == 2
    told = "已损坏.*更早的 run-previous.npz（第 10 轮）完好: 改名为 run.npz 即可继续"
    assert re.search(told, capsys.readouterr().err)


# Signals

# A training of each kind, in a process of its own, whose result is in result.npz.
PROGRAM = """
import os
import sys
import numpy as np
import convext

os.fsync = lambda _: None
if sys.argv[1] in ("train", "train-images"):
    from convext.cli.main import main

    sys.exit(main(sys.argv[1:]))
kind, epochs = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(0)
x, y = rng.random((60, 1, 24, 24)), rng.random((60, 2, 22, 22))
history, stopping = convext.History(), convext.EarlyStopping(10**6, restore_best_weights=True)
options = {"callbacks": [history, stopping], "resume": True, "checkpoint": "run.npz"}
options["checkpoint_every"] = 1 if len(sys.argv) < 4 else sys.argv[3]
print("begun", flush=True)
if kind == "train_model":
    rate = convext.schedules.reduce_on_plateau(0.1, 0.5, 5)
    method = "direct" if epochs % 2 else "statistics"
    weights = convext.train_model(
        x, y, 2, 3, rate, epochs, seed=1, shuffle=True, batch_size=4, verbose=False, method=method,
        **options,
    )
else:
    layers = [convext.Conv2D(6, 3, padding="same", activation="relu"), convext.Conv2D(2, 3)]
    model = convext.Sequential(layers, seed=2)
    model.compile(convext.Adam(convext.schedules.cosine_decay(0.01, 40)))
    model.fit(x, y, 8, epochs, 0, validation_split=0.2, **options)
    weights = np.concatenate([array.ravel() for array in model.get_weights()])
np.savez("result.npz", weights=weights, loss=history.loss, best=stopping.best_loss)
"""


@pytest.fixture
def images(folder):
    """Two folders of images."""
    pillow = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for name in ("before", "after"):
        (folder / name).mkdir()
        for number in range(3):
            pixels = rng.integers(0, 256, (60, 70), np.uint8)
            pillow.fromarray(pixels).save(folder / name / f"{number}.png")


def command(kind, epochs, *every):
    if kind in ("train_model", "fit"):
        return [sys.executable, "-c", PROGRAM, kind, str(epochs), *every]
    options = {
        "train-images": ["before", "after", "--layers", "4x5,1x3"],
        "train": ["--kernel-shape", "5", "--schedule", "plateau", "--shuffle", "--batch-size", "9"],
    }[kind]
    options += ["--out", "result.npz", "--checkpoint", "run.npz", "--resume"]
    options += ["--checkpoint-every", *(every or ["1"]), "--epochs", str(epochs)]
    return [sys.executable, "-c", PROGRAM, kind, *options]


def start(*arguments):
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    return process


def result():
    with np.load("result.npz") as members:
        found = dict(members)
    if "record" in found:  # of convext train, which has the seconds that it took
        record = json.loads(str(found.pop("record")))
        found["losses"] = np.array(record["losses"])
    return found


def equal(one, other):
    """Whether two results have the same bits."""
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def killed_and_resumed(kind, epochs, most, seconds, rng):
    """Kill a training at random moments and start it again until it is done."""
    kills = 0
    while True:
        process = start(kind, epochs)
        delay = rng.uniform(0, seconds) if kills < most else 60
        try:
            _, error = process.communicate(timeout=delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        assert (process.returncode, error) == (0, "")
        return kills, result()


@pytest.mark.parametrize(
    ("kind", "runs"),
    [
        *((kind, 2) for kind in ("train", "fit", "train-images")),
        *(
            pytest.param(kind, 50, marks=pytest.mark.slow)
            for kind in ("train", "train_model", "fit", "train-images")
        ),
    ],
)
def test_a_training_that_is_killed_goes_on_with_the_same_bits(kind, runs, images, folder):
    """Each of so many runs is killed at a random moment, the many ones at up to three."""
    rng = np.random.default_rng(len(kind))
    epochs = {"train": 40, "train_model": 61, "fit": 40, "train-images": 12}[kind]
    reference, begun = start(kind, epochs), time.monotonic()
    assert (reference.communicate()[1], reference.returncode) == ("", 0)
    seconds, expected, kills = time.monotonic() - begun, result(), 0
    run = 0
    # A busy machine is slower or faster than it was: some runs may end before they are killed.
    while run < runs or kills < runs / 2:
        assert run < 5 * runs
        run += 1
        for file in folder.glob("*.npz"):
            file.unlink()
        again, found = killed_and_resumed(kind, epochs, 1 + 2 * (runs > 2), seconds, rng)
        assert equal(found, expected), f"run {run}"
        best = ["run-best.npz"] if kind == "train-images" else []
        files = sorted(["result.npz", "run.npz", "run-previous.npz", *best])
        assert sorted(file.name for file in folder.iterdir() if file.is_file()) == files
        kills += again
    print(f"{kind}: {run} runs, killed {kills} times, all with the same bits")


@pytest.mark.parametrize(
    ("kind", "stop"),
    [("train", signal.SIGTERM), ("train_model", signal.SIGINT), ("fit", signal.SIGTERM)],
)
def test_signals_leave_a_checkpoint_within_a_second(kind, stop, folder):
    process = start(kind, 10**6 + 1, "1000s")
    time.sleep(0.4)
    assert not os.path.exists("run.npz")
    begun = time.time()
    process.send_signal(stop)
    process.communicate(timeout=60)
    assert os.stat("run.npz").st_mtime - begun < 1
    assert process.returncode != 0
    if kind == "train":
        assert process.returncode == 128 + stop
    with np.load("run.npz") as members:
        epoch = json.loads(str(members["config"]))["epoch"]
    assert epoch > 0
    # An odd number, so that it is the same method.
    end = epoch + 5 + epoch % 2
    found = []
    for _ in range(2):
        process = start(kind, end, "1000s")
        assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
        found.append(result())
        for file in folder.glob("*.npz"):
            file.unlink()
    assert equal(*found)
