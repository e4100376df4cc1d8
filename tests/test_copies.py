"""Copies by copy, deepcopy, pickle and other processes: as their originals, and independent."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
from strategies import random_values

import convext


def by_pickle(original, protocol):
    return pickle.loads(pickle.dumps(original, protocol))


def by_read_only_buffers(original):
    buffers = []
    data = pickle.dumps(original, 5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


MEANS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "read-only buffers": by_read_only_buffers,
    **{
        f"pickle {p}": partial(by_pickle, protocol=p) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}
by_each_means = pytest.mark.parametrize("means", MEANS.values(), ids=MEANS)
random_copies = pytest.mark.parametrize(
    "count", [20, pytest.param(500, marks=pytest.mark.slow)], ids=["few", "many"]
)


def in_another_process(function, arguments):
    """Return function(argument) for each argument, from a process that begins with an import."""
    with get_context("spawn").Pool(1) as pool:
        return pool.map(function, arguments)


# ---------------------------------------------------------------- prepared kernels


def random_prepared(rng):
    """Return images, kernels for them, prepared kernels, and their options."""
    groups = int(rng.choice([1, 1, 1, 2]))
    channels, filters = groups * rng.integers(1, 20, 2)
    size = rng.choice([1, 2, 3, 3, 5, 7, 9])
    dtype = str(rng.choice(["float32", "float64"]))
    kernels = random_values(rng, (filters, channels // groups, size, size), dtype)
    if rng.random() < 0.2:  # separable
        channels, groups, kernels = 1, 1, np.ones((2, 1, size, size), dtype)
    options = {
        "bias": random_values(rng, (len(kernels),), dtype) if rng.random() < 0.5 else None,
        "groups": groups,
        "stride": int(rng.integers(1, 3)),
        "padding": int(rng.integers(3)),
    }
    shape = (channels, *rng.integers(size, 40, 2))
    images = random_values(rng, shape, dtype)
    return images, kernels, convext.prepare_kernels(kernels, **options), options


@random_copies
@by_each_means
def test_copies_of_prepared_kernels_give_their_results_before_and_after_use(means, count):
    rng = np.random.default_rng(7)
    for _ in range(count):
        images, kernels, prepared, options = random_prepared(rng)
        expected = convext.conv2d(images, kernels, **options)
        copies = [means(prepared)]
        convext.conv2d(images, prepared, num_threads=int(rng.integers(1, 4)))
        copies += [means(prepared), means(means(prepared)), prepared]
        del prepared
        for copied in copies:
            result = convext.conv2d(images, copied, num_threads=int(rng.integers(1, 4)))
            assert np.array_equal(result, expected)
            assert not copied.kernels.flags.writeable


def convolve(pair):
    return convext.conv2d(*pair)


@random_copies
def test_prepared_kernels_can_be_sent_to_another_process(count):
    rng = np.random.default_rng(8)
    cases = [random_prepared(rng) for _ in range(count)]
    pairs = [(images, prepared) for images, _, prepared, _ in cases]
    expected = [convolve(pair) for pair in pairs]
    results = in_another_process(convolve, pairs)
    assert all(map(np.array_equal, results, expected))


def test_prepared_kernels_do_not_change():
    prepared = convext.prepare_kernels(np.ones((1, 1, 3, 3)))
    for name in ("kernels", "bias", "stride", "padding", "dilation", "groups", "algorithm"):
        with pytest.raises(AttributeError, match=f"{name} cannot be set"):
            setattr(prepared, name, getattr(prepared, name))


class NamedKernels(convext.PreparedKernels):
    name = "none"


@by_each_means
def test_copies_keep_the_class_and_what_it_adds(means):
    named = NamedKernels(np.ones((1, 1, 2, 2)), None, 1, 0, 1, 1, "auto")
    named.name = "box"
    copied = means(named)
    assert type(copied) is NamedKernels
    assert copied.name == "box"
    copied.name = "another"
    assert named.name == "box"


# ---------------------------------------------------------------- networks


def random_model(rng):
    """Return a model, images and targets: not built, built, compiled or trained."""
    dtype = str(rng.choice(["float32", "float64"]))
    channels, *filters = (int(n) for n in rng.integers(1, 4, rng.integers(2, 5)))
    residual = bool(rng.random() < 0.2)
    if residual:
        filters[-1] = channels
    layers = [
        convext.Conv2D(
            count,
            int(rng.integers(1, 4)),
            activation=str(rng.choice(["linear", "relu", "tanh"])),
            use_bias=bool(rng.random() < 0.7),
        )
        for count in filters
    ]
    model = convext.Sequential(
        layers,
        residual=residual,
        dtype=dtype,
        seed=int(rng.integers(100)),
        data_format=str(rng.choice(["channels_first", "channels_last"])),
        input_channels=channels if rng.random() < 0.5 else None,
    )
    rate = float(rng.choice([0.001, 0.01]))
    schedule = convext.schedules.reduce_on_plateau(rate, patience=1, min_delta=0.5)
    optimizers = [convext.SGD(rate, momentum=0.9), convext.Adam(rate), convext.Adam(schedule)]
    metrics = ["mae"] if rng.random() < 0.3 else None
    model.compile(optimizers[rng.integers(3)], str(rng.choice(["mse", "mae"])), metrics)
    layers[0].trainable = bool(rng.random() < 0.8)
    size = 1 + sum(layer.kernel_size[0] - 1 for layer in layers)
    x = rng.standard_normal((5, channels, size + 3, size + 2)).astype(dtype)
    y = rng.standard_normal((5, filters[-1], 4, 3)).astype(dtype)
    if model.data_format == "channels_last":
        x, y = np.moveaxis(x, 1, -1), np.moveaxis(y, 1, -1)
    if rng.random() < 0.5:
        model.fit(x, y, batch_size=2, epochs=2, verbose=0)
    return model, x, y


def go_on(model, x, y):
    """Train a model further; return its losses, weights and predictions."""
    losses = model.fit(x, y, batch_size=2, epochs=3, initial_epoch=1, verbose=0).history
    return [*losses.values(), *model.get_weights(), model.predict(x), model.evaluate(x, y)]


def equal(first, second):
    return len(first) == len(second) and all(map(np.array_equal, first, second))


@random_copies
@by_each_means
def test_a_copied_model_is_trained_on_with_the_same_bits_and_alone(means, count, tmp_path):
    rng = np.random.default_rng(11)
    for _ in range(count):
        model, x, y = random_model(rng)
        copied, untouched = means(model), means(model)
        expected = go_on(model, x, y)
        saved = model.get_weights(), model.predict(x)
        assert equal(go_on(copied, x, y), expected)
        go_on(copied, x, y)
        assert equal(model.get_weights(), saved[0])
        assert np.array_equal(model.predict(x), saved[1])
        assert equal(go_on(untouched, x, y), expected)
        copied.save(tmp_path / "model.npz")
        loaded = convext.load_model(tmp_path / "model.npz")
        assert np.array_equal(loaded.predict(x), copied.predict(x))
        for layer, kernel in zip(copied.layers, copied.get_weights()[:1], strict=False):
            assert np.array_equal(layer.kernel, kernel)


def train_on(case):
    return go_on(*case)


@random_copies
def test_models_can_be_sent_to_another_process(count):
    rng = np.random.default_rng(12)
    cases = [random_model(rng) for _ in range(count)]
    results = in_another_process(train_on, cases)
    assert all(equal(result, go_on(*case)) for result, case in zip(results, cases, strict=True))


@by_each_means
def test_a_model_can_be_copied_in_a_callback(means):
    rng = np.random.default_rng(13)
    x, y = rng.random((4, 1, 8, 8)), rng.random((4, 2, 6, 6))
    model = convext.build_model(2, (3, 3), 1, seed=0)
    copies, weights = [], []

    def keep(report):
        copies.append(means(report.model))
        weights.append(report.model.get_weights())

    model.fit(x, y, batch_size=2, epochs=4, callbacks=[keep], verbose=0)
    assert all(equal(copied.get_weights(), w) for copied, w in zip(copies, weights, strict=True))
    copies[1].fit(x, y, batch_size=2, epochs=4, initial_epoch=2, verbose=0)
    assert equal(copies[1].get_weights(), model.get_weights())


class Denoiser(convext.Sequential):
    """A model that keeps one of its layers under a name of its own."""

    def __init__(self, filters):
        self.last = convext.Conv2D(1, 3, padding="same")
        super().__init__([convext.Conv2D(filters, 3, padding="same"), self.last], residual=True)


@by_each_means
def test_a_copy_of_a_subclass_keeps_which_layer_is_which(means):
    model = Denoiser(2)
    model.build(1)
    copied = means(model)
    assert type(copied) is Denoiser
    assert copied.last is copied.layers[1]
    assert copied.last is not model.last
    copied.last.kernel[...] = 0
    copied.last.bias[...] = 0
    image = np.ones((1, 5, 5), np.float32)
    assert np.array_equal(copied.predict(image), image)
    assert not np.array_equal(model.predict(image), image)


# ---------------------------------------------------------------- layers


def test_a_layer_is_part_of_one_model():
    layer = convext.Conv2D(2, 3)
    with pytest.raises(ValueError, match=r"Conv2D\(2, \(3, 3\)\) can be part of a model only once"):
        convext.Sequential([layer, layer])
    first, second = convext.Sequential([layer], seed=0), convext.Sequential([layer], seed=1)
    x = np.ones((1, 5, 5), np.float32)
    expected = first.predict(x)
    for give in (second.predict, lambda _: convext.Sequential([layer])):
        with pytest.raises(ValueError, match="can be part of a model only once: add a copy"):
            give(x)
    assert np.array_equal(first.predict(x), expected)
    alike = convext.Sequential()
    alike.layers += [convext.Conv2D(1, 3)] * 2
    with pytest.raises(ValueError, match="can be part of a model only once"):
        alike.build(1)


def test_a_layer_of_a_model_that_is_gone_can_be_taken():
    layer = convext.Conv2D(2, 3)
    first = convext.Sequential([layer], seed=0)
    x = np.ones((1, 5, 5), np.float32)
    expected = first.predict(x)
    del first
    assert np.array_equal(convext.Sequential([layer], seed=1).predict(x), expected)


@by_each_means
def test_a_copied_layer_takes_its_weights_to_another_model(means):
    rng = np.random.default_rng(14)
    x, y = rng.random((4, 1, 8, 8), np.float32), rng.random((4, 2, 6, 6), np.float32)
    model = convext.build_model(2, (3, 3), 1, seed=0)
    model.fit(x, y, verbose=0)
    weights, expected = model.get_weights(), model.predict(x)
    other = convext.Sequential([means(model.layers[0])])
    assert np.array_equal(other.predict(x), expected)
    other.compile("sgd")
    other.fit(x, y, verbose=0)
    assert not equal(other.get_weights(), weights)
    assert equal(model.get_weights(), weights)
    with pytest.raises(ValueError, match=r"brings kernels of the shape \(2, 1, 3, 3\), but an"):
        convext.Sequential([means(model.layers[0])], input_channels=3)


def test_weights_that_are_set_on_a_layer_are_the_model_s():
    model = convext.Sequential([convext.Conv2D(1, 1)], input_channels=1)
    layer = model.layers[0]
    layer.kernel, layer.bias = np.full((1, 1, 1, 1), 3), [1]
    assert model.predict(np.ones((1, 1, 1)))[0, 0, 0] == 4
    assert [float(w.ravel()[0]) for w in model.get_weights()] == [3, 1]
    with pytest.raises(ValueError, match=r"kernel must be of the shape \(1, 1, 1, 1\), got the"):
        layer.kernel = np.ones((1, 1, 3, 3))
    bare = convext.Sequential([convext.Conv2D(1, 1, use_bias=False)], input_channels=1)
    with pytest.raises(ValueError, match="bias must be None"):
        bare.layers[0].bias = np.ones(1)


def test_a_built_model_is_not_built_again():
    model = convext.Sequential([convext.Conv2D(2, 3)], input_channels=3)
    weights = model.get_weights()
    model.build(3)
    assert equal(model.get_weights(), weights)
    with pytest.raises(ValueError, match="the model is built for 3 channels, got 1"):
        model.build(1)


# ---------------------------------------------------------------- patch statistics


@random_copies
@by_each_means
def test_copied_statistics_go_on_with_the_same_bits_and_alone(means, count):
    rng = np.random.default_rng(16)
    for _ in range(count):
        channels, filters, height, width = (int(n) for n in rng.integers(1, 4, 4))
        bias, masked = (bool(b) for b in rng.random(2) < 0.5)
        original = convext.PatchStatistics(channels, filters, (height, width), bias=bias)
        x = rng.standard_normal((2, channels, 8, 9))
        y = rng.standard_normal((2, filters, 9 - height, 10 - width))
        mask = rng.random(y.shape) < 0.8 if masked else None
        for _ in range(rng.integers(3)):
            original.update(x, y, mask)
        before = contents(original)
        copied = means(original)
        assert contents(copied) == before
        for statistics in (copied, original):
            assert contents(original) == before
            statistics.update(x[:, :, ::-1], y)
        assert contents(copied) == contents(original)
        assert np.array_equal(copied.solve(1e-3).kernels, original.solve(1e-3).kernels)


# ---------------------------------------------------------------- everything else


def report(epoch, loss, model=None):
    kernels = np.full((1, 1, 2, 2), loss)
    return convext.EpochReport(epoch, loss, 0.1, 0.01, kernels, val_loss=loss / 2, model=model)


def used_history():
    history = convext.History()
    history(report(1, 0.5))
    return history


def used_statistics():
    rng = np.random.default_rng(15)
    statistics = convext.PatchStatistics(1, 1, (2, 2), bias=True)
    statistics.update(rng.random((2, 1, 9, 9)), rng.random((2, 1, 8, 8)))
    return statistics


def used_stopping():
    stopping = convext.EarlyStopping(2, monitor="val_loss")
    stopping(report(1, 0.5))
    return stopping


def used_schedule():
    schedule = convext.schedules.reduce_on_plateau(0.5, 0.1, 1)
    for loss in (1.0, 1.0):
        schedule.observe(loss)
    return schedule


def divergence():
    error = convext.DivergenceError(
        "the loss is inf",
        kernels=np.ones((1, 1, 2, 2)),
        epoch=3,
        loss=np.inf,
        learning_rate=1.0,
        stable_learning_rate=0.5,
    )
    error.note = "added later"
    return error


def one_model():
    return convext.build_model(1, (2, 2), 1, seed=3)


def use_callback(callback):
    callback(report(2, 0.75))
    return callback


# What makes an object, and what uses it, changing it where that is possible.
OBJECTS = {
    "SGD": (lambda: convext.SGD(used_schedule(), momentum=0.5, layer_multipliers=[1.0]), repr),
    "Adam": (lambda: convext.Adam(0.1, clipnorm=1.0), repr),
    "Conv2D": (lambda: convext.Conv2D(2, (1, 3), activation="relu"), repr),
    "DivergenceError": (divergence, str),
    "EarlyStopping": (used_stopping, use_callback),
    "EpochReport": (
        lambda: report(1, 0.5, one_model()),
        lambda r: r.model.predict(np.ones((1, 4, 4))),
    ),
    "Explanation": (lambda: convext.explain("conv2d", (3, 9, 9), (2, 3, 3, 3)), str),
    "History": (used_history, use_callback),
    "ModelCheckpoint": (lambda: convext.ModelCheckpoint("best.npz", "loss", True), repr),
    "PatchStatistics": (
        used_statistics,
        lambda s: s.update(np.ones((1, 5, 5)), np.ones((1, 4, 4))),
    ),
    "PreparedKernels": (lambda: convext.prepare_kernels(np.ones((1, 1, 3, 3)), (1, 8, 8)), repr),
    "Sequential": (
        one_model,
        lambda model: model.fit(np.ones((4, 1, 4, 4)), np.ones((4, 1, 3, 3)), verbose=0),
    ),
    "Solution": (lambda: used_statistics().solve(), repr),
    "StopTraining": (lambda: convext.StopTraining("enough"), str),
    "ReduceOnPlateau": (used_schedule, lambda schedule: schedule.observe(1.0)),
    "step_decay": (lambda: convext.schedules.step_decay(0.1), lambda schedule: schedule(5)),
}


def contents(value):
    """Return what an object holds as plain data that can be compared; not what it makes again."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, (list, tuple)):
        return [contents(item) for item in value]
    if isinstance(value, dict):
        passing = ("_kept", "_steps", "_model", "_guard", "_lock")
        return {str(k): contents(v) for k, v in value.items() if k not in passing}
    if isinstance(value, partial):
        return [contents(value.func), contents(value.args)]
    if isinstance(value, BaseException):
        return [type(value), value.args, contents(vars(value))]
    if type(value).__module__.startswith("convext") and hasattr(value, "__dict__"):
        return [type(value), contents(vars(value))]
    if type(value).__name__ == "Update":
        return [value.iterations, contents(value.first), contents(value.second)]
    return value


def test_every_public_class_has_an_entry():
    classes = [name for name in convext.__all__ if isinstance(getattr(convext, name), type)]
    assert classes
    assert set(classes) <= set(OBJECTS)


@by_each_means
@pytest.mark.parametrize("name", OBJECTS)
def test_copies_hold_the_same_and_go_their_own_ways(name, means):
    make, use = OBJECTS[name]
    original = make()
    expected = contents(original)
    copied = means(original)
    assert type(copied) is type(original)
    assert contents(copied) == expected
    use(copied)
    after_use = contents(copied)
    assert contents(original) == expected
    use(original)
    assert contents(original) == after_use
    assert contents(means(original)) == after_use
