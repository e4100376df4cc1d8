"""Networks: their gradients against finite differences, and what fit, save and predict promise."""

from __future__ import annotations

import copy
import math
import os
import re
import signal
import threading
import tracemalloc

import numpy as np
import plain_network
import pytest

import convext
from convext import SGD, Adam, Conv2D, Sequential, schedules
from convext.train import _training

KERAS_NAMES = {"stride": "strides", "dilation": "dilation_rate"}


def make_model(layers, **options):
    """Return a model of layers (filters, kernel size, options of conv2d, activation)."""
    made = []
    for filters, size, given in layers:
        names = {KERAS_NAMES.get(name, name): value for name, value in given.items()}
        made.append(Conv2D(filters, size, **names))
    return Sequential(made, **{"seed": 0, "dtype": "float64", **options})


def with_bias(model, seed=5):
    """Give the biases values: where they are zero, mistakes with them would not show."""
    rng = np.random.default_rng(seed)
    model.set_weights(
        [w if w.ndim == 4 else rng.normal(0, 0.3, w.shape) for w in model.get_weights()]
    )
    return model


def data(model, shape, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.random(shape)
    return x, rng.random(model.predict(x).shape)


def gradient_of_fit(model, x, y, loss):
    """Return the gradient: the way that the weights go in a step of length 1."""
    before = model.get_weights()
    model.compile(SGD(1.0), loss)
    model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0)
    return [a - b for a, b in zip(before, model.get_weights(), strict=True)]


def check_gradient(layers, shape, loss="mse", **options):
    model = with_bias(make_model(layers, input_channels=shape[1], **options))
    x, y = data(model, shape)
    plain = [given for _, _, given in layers]
    residual = options.get("residual", False)

    def loss_of(weights):
        predicted = plain_network.predict(plain, weights, x, residual)
        return plain_network.LOSSES[loss](predicted - y)

    assert model.evaluate(x, y) == pytest.approx(loss_of(model.get_weights()), rel=1e-12) or (
        loss == "mae"
    )
    expected = plain_network.gradients(loss_of, model.get_weights())
    for a, b in zip(gradient_of_fit(model, x, y, loss), expected, strict=True):
        assert np.linalg.norm(a - b) < 1e-7 * np.linalg.norm(b)


ACTIVATIONS = sorted(plain_network.ACTIVATIONS)
OPTIONS = [
    {},
    {"use_bias": False},
    {"stride": 2},
    {"stride": (2, 3)},
    {"stride": 4},
    {"padding": "same"},
    {"padding": "same", "stride": 2},
    {"padding": 2},
    {"padding": ((0, 2), (1, 0))},
    {"dilation": 2},
    {"dilation": (1, 2), "padding": "same"},
    {"groups": 2},
    {"groups": 2, "stride": 2, "padding": "same", "dilation": (2, 1)},
]


@pytest.mark.parametrize("loss", ["mse", "mae"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_each_activation_against_finite_differences(activation, loss, isa):
    options = {"activation": activation}
    check_gradient([(3, (2, 3), options)], (3, 2, 7, 8), loss)
    check_gradient([(4, 3, options), (2, 1, options), (2, 2, options)], (3, 2, 7, 8), loss)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_with_each_option_against_finite_differences(options):
    layer = {"activation": "tanh", **options}
    last = {"activation": "linear"}
    check_gradient([(2, (3, 2), layer)], (2, 2, 9, 8))
    check_gradient([(4, (3, 2), layer), (2, 2, last)], (2, 2, 9, 8))
    check_gradient(
        [(2, 2, {"activation": "leaky_relu"}), (4, (3, 2), layer), (1, 1, last)], (2, 2, 9, 8)
    )


@pytest.mark.parametrize("padding", ["valid", "same", 1])
@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_gradients_with_a_residual_connection_against_finite_differences(padding, activation):
    first = {"activation": "relu", "padding": padding}
    last = {"activation": activation, "padding": padding}
    check_gradient([(3, 3, first), (2, (5, 3), last)], (2, 2, 9, 9), residual=True)


def test_gradients_of_wide_layers_agree_with_torch():
    """Layers large enough for Winograd's algorithm, many slices and threads."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: see the bench extra")
    options = {"activation": "relu", "padding": "same"}
    model = make_model([(40, 3, options), (32, 3, options), (2, 3, {})], input_channels=2)
    with_bias(model)
    x, y = data(model, (37, 2, 24, 25))
    weights = [torch.tensor(w, requires_grad=True) for w in model.get_weights()]
    values = torch.tensor(x)
    for i in (0, 2):
        values = torch.relu(
            torch.nn.functional.conv2d(values, weights[i], weights[i + 1], padding="same")
        )
    values = torch.nn.functional.conv2d(values, weights[4], weights[5])
    torch.mean((values - torch.tensor(y)) ** 2).backward()
    for a, b in zip(gradient_of_fit(model, x, y, "mse"), weights, strict=True):
        np.testing.assert_allclose(a, b.grad.numpy(), rtol=1e-9, atol=1e-14)


# Optimizers


def plain_sgd(rate, momentum=0.0, nesterov=False):
    velocity = {}

    def step(i, weights, gradient, _):
        v = velocity[i] = momentum * velocity.get(i, 0.0) - rate * gradient
        return weights + (momentum * v - rate * gradient if nesterov else v)

    return step


def plain_adam(rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    moments = {}

    def step(i, weights, gradient, t):
        m, v = moments.get(i, (0.0, 0.0))
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        moments[i] = m, v
        rate_now = rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        return weights - rate_now * m / (np.sqrt(v) + epsilon)

    return step


def shown(value):
    """Return how a parameter is shown; functions are numbered, since they have no other name."""
    return None if callable(value) else str(value)


@pytest.mark.parametrize(
    ("optimizer", "step"),
    [
        (SGD(0.1), plain_sgd(0.1)),
        (SGD(0.1, momentum=0.9), plain_sgd(0.1, 0.9)),
        (SGD(0.1, momentum=0.8, nesterov=True), plain_sgd(0.1, 0.8, True)),
        (Adam(0.01), plain_adam(0.01)),
        (Adam(0.1, 0.5, 0.9, 1e-3), plain_adam(0.1, 0.5, 0.9, 1e-3)),
    ],
    ids=shown,
)
def test_an_optimizer_takes_the_steps_of_its_formula(optimizer, step):
    model = make_model([(2, 2, {"activation": "tanh"})], input_channels=2)
    x, y = data(model, (3, 2, 5, 5))
    model.compile(optimizer)
    weights = model.get_weights()
    twin = make_model([(2, 2, {"activation": "tanh"})], input_channels=2)
    for t in range(1, 6):
        model.fit(x, y, batch_size=3, shuffle=False, verbose=0)
        twin.set_weights(weights)
        gradient = gradient_of_fit(twin, x, y, "mse")
        weights = [step(i, w, g, t) for i, (w, g) in enumerate(zip(weights, gradient, strict=True))]
        for a, b in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(
    ("clipping", "clip"),
    [
        ({"clipvalue": 0.01}, lambda g: [np.clip(a, -0.01, 0.01) for a in g]),
        ({"clipnorm": 0.02}, lambda g: [a * min(1, 0.02 / np.linalg.norm(a)) for a in g]),
        (
            {"global_clipnorm": 0.03},
            lambda g: [
                a * min(1, 0.03 / np.linalg.norm(np.concatenate([b.ravel() for b in g]))) for a in g
            ],
        ),
    ],
    ids=shown,
)
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_are_clipped(clipping, clip, layers):
    made = [(2, 2, {"activation": "tanh"})] * layers
    model, twin = (make_model(made, input_channels=2) for _ in range(2))
    x, y = data(model, (3, 2, 5, 5))
    before = model.get_weights()
    expected = clip(gradient_of_fit(twin, x, y, "mse"))
    model.compile(SGD(1.0, **clipping))
    model.fit(x, y, batch_size=3, shuffle=False, verbose=0)
    for a, b, g in zip(before, model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(a - b, g, rtol=1e-10, atol=1e-15)
        assert np.abs(g).max() > 0


def test_layers_have_learning_rates_of_their_own():
    made = [(3, 2, {"activation": "tanh"}), (1, 1, {})]
    model, twin = (make_model(made, input_channels=2) for _ in range(2))
    x, y = data(model, (3, 2, 5, 5))
    before = model.get_weights()
    gradient = gradient_of_fit(twin, x, y, "mse")
    model.compile(SGD(0.5, layer_multipliers=[1, 0.1]))
    model.fit(x, y, batch_size=3, shuffle=False, verbose=0)
    for a, b, g, rate in zip(
        before, model.get_weights(), gradient, [0.5, 0.5, 0.05, 0.05], strict=True
    ):
        np.testing.assert_allclose(a - b, rate * g, rtol=1e-10)


def test_the_learning_rate_follows_a_schedule():
    model = make_model([(2, 2, {})], input_channels=1)
    x, y = data(model, (4, 1, 5, 5))
    model.compile(SGD(schedules.step_decay(0.1, 0.5, 2)))
    history = model.fit(x, y, epochs=5, verbose=0)
    assert history.history["learning_rate"] == [0.1, 0.1, 0.05, 0.05, 0.025]


# The two ways to train a single layer, and train_model


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_small_layer_is_trained_as_any_other(activation, use_bias, dtype, monkeypatch, isa):
    """Fused steps against those that the rest of this file has checked."""
    from convext.nn import fitting

    def train():
        options = {"activation": activation, "use_bias": use_bias}
        model = make_model([(2, (2, 3), options)], dtype=dtype)
        model.compile(Adam(0.01))
        history = model.fit(x, y, batch_size=3, epochs=4, verbose=0)
        return history.loss, model.get_weights()

    rng = np.random.default_rng(0)
    x, y = rng.random((10, 3, 11, 19)), rng.random((10, 2, 10, 17))
    losses, weights = train()
    monkeypatch.setattr(fitting, "MAX_FUSED_BYTES", 0)
    expected_losses, expected = train()
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(losses, expected_losses, rtol=tolerance)
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_textbook_model_is_trained_an_epoch_at_a_time(dtype, monkeypatch, isa):
    """Steps of the general way take eight times as long as the fused ones."""
    from convext.nn import learning

    def general_step(*arguments):
        raise AssertionError("the general way was taken")

    monkeypatch.setattr(learning, "Step", general_step)
    rng = np.random.default_rng(0)
    x, y = rng.random((10, 3, 28, 28)), rng.random((10, 2, 27, 27))
    model = convext.build_model(2, (2, 2), dtype=dtype, seed=0)
    history = model.fit(x, y, 1, 2, verbose=0)
    assert history.loss[1] < history.loss[0]


def test_nothing_is_made_of_data_that_are_not_trained_an_epoch_at_a_time(monkeypatch):
    """Whether a layer is small enough is asked for shapes alone."""
    from convext.nn import fitting

    def no_trainer(*arguments):
        raise AssertionError("a trainer was made")

    monkeypatch.setattr(fitting, "Trainer", no_trainer)
    model = make_model([(8, 5, {})])
    model.compile("sgd")
    model.fit(np.ones((4, 3, 30, 30)), np.ones((4, 8, 26, 26)), verbose=0)


def test_shapes_alone_tell_whether_a_trainer_is_fused(isa):
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(200):
        size, count = rng.integers(1, 6, 2), int(rng.integers(1, 6))
        side = size + rng.integers(0, int(rng.choice([4, 40])), 2)
        dtype = np.dtype(rng.choice(["float32", "float64"]))
        images = np.ones((count, int(rng.integers(1, 20)), *side), dtype)
        kernels = np.ones((int(rng.integers(1, 20)), images.shape[1], *size), dtype)
        targets = np.ones((count, len(kernels), *(side - size + 1)), dtype)
        how = int(rng.integers(1, 4)), ((1, 1), (0, 0), (1, 1), 1)
        update = SGD().make_update([[kernels.size]], dtype)
        threads = int(rng.integers(1, 3))
        trainer = _training.Trainer(images, targets, kernels, *how, threads, update)
        told = _training.fuses(images.shape, targets.shape, kernels.shape, *how, dtype.itemsize)
        assert told == trainer.fused
        found.add(told)
    assert found == {True, False}


def test_a_linear_layer_without_bias_is_the_textbook_program():
    rng = np.random.default_rng(0)
    x, y, kernels = rng.random((20, 3, 9, 9)), rng.random((20, 2, 8, 8)), rng.random((2, 3, 2, 2))
    trained = convext.History()
    expected = convext.train_model(
        x, y, 2, (2, 2), 0.1, 5, kernels=kernels, callbacks=[trained], verbose=False
    )
    model = make_model([(2, 2, {"use_bias": False})])
    model.set_weights([kernels])
    model.compile(SGD(0.1))
    history = model.fit(x, y, batch_size=1, epochs=5, shuffle=False, verbose=0)
    np.testing.assert_allclose(history.loss, trained.loss, rtol=1e-13)
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-12)


# Determinism, and going on after a file


def train_small(**options):
    layers = [(8, 5, {"activation": "relu"}), (4, 1, {"activation": "relu"}), (1, 3, {})]
    model = make_model(layers, dtype="float32")
    model.compile(options.pop("optimizer", "adam"))
    rng = np.random.default_rng(3)
    x, y = rng.random((50, 1, 20, 20)), rng.random((50, 1, 14, 14))
    model.fit(x, y, batch_size=20, epochs=2, verbose=0, **options)
    return model


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


def test_training_has_the_same_bits_for_any_number_of_threads(isa):
    models = [train_small(num_threads=n) for n in (1, 2, 3, 7)]
    assert all(same(models[0], other) for other in models[1:])
    predictions = [models[0].predict(np.ones((1, 40, 41)), num_threads=n) for n in (1, 3)]
    np.testing.assert_array_equal(*predictions)


def test_steps_use_the_memory_of_the_steps_before():
    model = make_model([(32, 5, {"activation": "relu"}), (1, 3, {})], dtype="float32")
    model.compile()
    x = np.ones((64, 1, 40, 40), np.float32)
    y = x[:, :, 3:-3, 3:-3]
    model.fit(x, y, batch_size=16, verbose=0)
    tracemalloc.start()
    model.fit(x, y, batch_size=16, epochs=3, verbose=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # What the first layer makes of one sample alone would be 166 KB.
    assert peak < 100_000


def test_ctrl_c_ends_a_training_and_leaves_a_model_that_works():
    model = make_model([(32, 5, {"activation": "relu"}), (1, 3, {})], dtype="float32")
    model.compile()
    x = np.ones((256, 1, 40, 40), np.float32)
    y = x[:, :, 3:-3, 3:-3]
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=128, epochs=10**6, verbose=0)
    assert math.isfinite(model.fit(x[:3], y[:3], verbose=0).loss[0])


def test_a_seed_repeats_a_training_and_another_does_not():
    first, second = train_small(), train_small()
    assert same(first, second)
    other = Sequential([Conv2D(8, 5)], input_channels=1, seed=1)
    assert not np.array_equal(other.get_weights()[0], first.get_weights()[0])


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.01),
        SGD(0.01, momentum=0.9, nesterov=True, clipnorm=0.1),
        Adam(0.01, layer_multipliers=[1, 0.5, 0.1]),
        Adam(schedules.cosine_decay(0.01, 4)),
        Adam(schedules.reduce_on_plateau(0.01, patience=1, min_delta=0.5)),
    ],
    ids=["sgd", "momentum", "adam", "cosine decay", "plateau"],
)
def test_a_saved_model_goes_on_as_if_it_had_not_stopped(optimizer, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((13, 2, 12, 12)), rng.random((13, 2, 8, 8))
    layers = [(4, 3, {"activation": "tanh"}), (4, 1, {}), (2, 3, {})]

    def fit(model, epochs, first=0):
        options = {"batch_size": 4, "epochs": epochs, "initial_epoch": first, "verbose": 0}
        return model.fit(x, y, **options).loss

    model = make_model(layers, dtype="float32")
    model.compile(optimizer)
    straight = fit(model, 4)
    stopped = make_model(layers, dtype="float32")
    stopped.compile(optimizer)
    losses = fit(stopped, 2)
    stopped.save(tmp_path / "model.npz")
    loaded = convext.load_model(tmp_path / "model.npz")
    losses += fit(loaded, 4, 2)
    assert losses == straight
    assert same(model, loaded)


def test_a_random_function_goes_on_as_well(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((13, 1, 6, 6)), rng.random((13, 1, 4, 4))

    def batches(generator):
        for _ in range(3):
            chosen = generator.integers(13, size=4)
            yield x[chosen], y[chosen]

    first = make_model([(1, 3, {})])
    first.compile()
    first.fit(batches, epochs=4, verbose=0)
    second = make_model([(1, 3, {})])
    second.compile()
    second.fit(batches, epochs=2, verbose=0)
    second.save(tmp_path / "model.npz")
    second = convext.load_model(tmp_path / "model.npz")
    second.fit(batches, epochs=4, initial_epoch=2, verbose=0)
    assert same(first, second)


def test_a_file_holds_the_whole_model(tmp_path):
    options = {"padding": ((0, 1), (2, 1)), "activation": "leaky_relu", "dilation": 2}
    model = make_model([(4, (3, 2), options), (4, 2, {"groups": 2, "use_bias": False})])
    x = np.random.default_rng(0).random((2, 3, 9, 9))
    expected = model.predict(x)
    model.save(tmp_path / "model.npz")
    loaded = convext.load_model(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.predict(x), expected)
    assert loaded.optimizer is None
    with np.load(tmp_path / "model.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"config", "weights"}


@pytest.mark.parametrize(
    ("padding", "kept"),
    [
        (1, 1),
        ([1, 2], (1, 2)),
        ([[0, 1], [2, 1]], ((0, 1), (2, 1))),
        ("SAME", "same"),
    ],
)
@pytest.mark.parametrize("kind", [lambda n: n, np.int64, np.uint8])
def test_layers_keep_pythons_own_numbers(padding, kept, kind, tmp_path):
    def given(value):
        if isinstance(value, list):
            return [given(part) for part in value]
        return value if isinstance(value, str) else kind(value)

    paddings = [given(padding)]
    if isinstance(padding, list) and isinstance(padding[0], int):
        paddings.append(np.array(given(padding)))
    for value in paddings:
        layer = Conv2D(
            kind(2), [kind(3), kind(2)], [kind(1), kind(2)], value, kind(1), kind(1), seed=kind(3),
            use_bias=kind(1), trainable=np.bool_(False), input_shape=[kind(1), None, kind(9)],
        )  # fmt: skip
        if isinstance(value, (list, np.ndarray)):
            value[0] = "changed later" if isinstance(value, list) else 9
        model = Sequential([layer], residual=np.bool_(False), seed=kind(1))
        model.save(tmp_path / "model.npz")
        loaded = convext.load_model(tmp_path / "model.npz")
        for one in (layer, loaded.layers[0]):
            assert (one.padding, one.input_shape) == (kept, (1, None, 9))
            assert one.trainable is False
        assert repr(loaded.layers) == repr(model.layers)
        assert same(loaded, model)


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: {},
        lambda c: {**c, "format": "other"},
        lambda c: {**c, "layers": 3},
        lambda c: {**c, "input_channels": -1},
        lambda c: {**c, "input_channels": 5},
        lambda c: {**c, "optimizer": {"name": "rmsprop", "learning_rate": 1}},
        lambda c: {k: v for k, v in c.items() if k != "generator"},
    ],
)
def test_a_damaged_file_is_an_error(damage, tmp_path):
    import json

    train_small().save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as archive:
        arrays = dict(archive)
    config = damage(json.loads(str(arrays.pop("config"))))
    np.savez(tmp_path / "model.npz", config=json.dumps(config), **arrays)
    with pytest.raises(ValueError, match=r"model .*model\.npz"):
        convext.load_model(tmp_path / "model.npz")


def test_a_learning_rate_that_a_file_cannot_hold_is_an_error(tmp_path):
    model = make_model([(1, 1, {})], input_channels=1)
    model.compile(SGD(lambda epoch: 0.1))
    with pytest.raises(TypeError, match=r"convext\.schedules"):
        model.save(tmp_path / "model.npz")
    assert not (tmp_path / "model.npz").exists()


# Predictions


STACKS = [
    [(3, 3, {"activation": "relu"}), (2, (5, 2), {})],
    [(3, 3, {"padding": "same", "activation": "tanh"}), (2, 4, {"padding": "same"})],
    [(3, 3, {"padding": 2, "stride": 2}), (2, 3, {"dilation": 3, "padding": "same"})],
    [(3, 3, {"padding": ((1, 0), (2, 2))}), (2, 3, {"stride": (3, 2), "padding": "same"})],
    [(3, 2, {"padding": 5}), (2, 2, {})],
    [(2, 1, {}), (2, 1, {"stride": 3, "padding": ((1, 0), (0, 0))})],
    [(2, 3, {"padding": ((50, 40), (0, 0))}), (2, 2, {"padding": ((0, 9), (3, 0)), "stride": 2})],
]


@pytest.mark.parametrize("layers", STACKS, ids=str)
@pytest.mark.parametrize("strips", [False, True])
def test_predictions_agree_with_the_definition(layers, strips, monkeypatch):
    from convext.nn import prediction as forward

    if strips:
        monkeypatch.setattr(forward, "MAX_BYTES", 1)
        monkeypatch.setattr(forward, "MIN_ROWS", 3)
    model = with_bias(make_model(layers, input_channels=2))
    x = np.random.default_rng(0).random((3, 2, 40, 21))
    plain = [{"activation": "linear", **given} for _, _, given in layers]
    expected = plain_network.predict(plain, model.get_weights(), x)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(model.predict(x[1]), expected[1], rtol=1e-12, atol=1e-13)


def test_nothing_but_what_a_window_covers_reaches_a_prediction():
    model = make_model([(3, 3, {"activation": "relu"}), (1, 3, {})], input_channels=1)
    x = np.random.default_rng(0).random((2, 1, 12, 12))
    x[0, 0, 6, 6] = np.nan
    predicted = model.predict(x)
    hurt = np.zeros((2, 1, 8, 8), bool)
    hurt[0, 0, 2:7, 2:7] = True
    np.testing.assert_array_equal(np.isnan(predicted), hurt)


def test_residual_models_add_the_middle_of_the_input():
    layers = [Conv2D(2, 3, kernel_initializer="zeros"), Conv2D(1, 5, kernel_initializer="zeros")]
    x = np.random.default_rng(0).random((2, 1, 12, 13)).astype(np.float32)
    model = Sequential(layers, residual=True)
    np.testing.assert_array_equal(model.predict(x), x[:, :, 3:-3, 3:-3])


# Data


def fitted(x, y, **options):
    model = make_model([(2, 3, {"activation": "relu"}), (1, 1, {})], dtype="float32")
    model.compile()
    model.fit(x, y, epochs=2, batch_size=3, verbose=0, **options)
    return model


def test_data_may_be_of_any_type_and_layout(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (10, 2, 8, 8))
    y = rng.integers(0, 2, (10, 1, 6, 6))
    expected = fitted(x.astype(np.float32), y.astype(np.float32))
    np.save(tmp_path / "x.npy", x.astype(np.uint8))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    swapped = y.astype(">f8")
    transposed = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    wide = np.zeros((10, 2, 8, 16), np.float64)
    wide[..., ::2] = x
    for inputs, targets in (
        (x.astype(np.uint8), y.astype(bool)),
        (mapped, swapped),
        (transposed.astype(np.float64), y.astype(np.float16)),
        (wide[..., ::2], y),
        (x.tolist(), y.tolist()),
    ):
        assert same(fitted(inputs, targets), expected)


def test_channels_may_come_last():
    rng = np.random.default_rng(0)
    x, y = rng.random((10, 2, 8, 9)), rng.random((10, 1, 6, 7))
    first = fitted(x, y)
    last = make_model(
        [(2, 3, {"activation": "relu"}), (1, 1, {})], dtype="float32", data_format="channels_last"
    )
    last.compile()
    x_last, y_last = np.moveaxis(x, 1, -1), np.moveaxis(y, 1, -1)
    last.fit(x_last, y_last, epochs=2, batch_size=3, verbose=0)
    assert same(first, last)
    np.testing.assert_array_equal(last.predict(x_last), np.moveaxis(first.predict(x), 1, -1))
    np.testing.assert_array_equal(last.predict(x_last[0]), last.predict(x_last)[0])
    assert last.evaluate(x_last, y_last) == first.evaluate(x, y)


def test_batches_may_come_from_a_function_or_an_iterator():
    rng = np.random.default_rng(0)
    x, y = rng.random((9, 2, 8, 8)), rng.random((9, 1, 6, 6))
    expected = fitted(x, y, shuffle=False)

    def batches(_=None):
        for i in range(0, 9, 3):
            yield x[i : i + 3], y[i : i + 3]

    def forever():
        while True:
            yield from batches()

    for source, options in ((batches, {}), (forever(), {"steps_per_epoch": 3})):
        model = make_model([(2, 3, {"activation": "relu"}), (1, 1, {})], dtype="float32")
        model.compile()
        model.fit(source, epochs=2, verbose=0, **options)
        assert same(model, expected)


def test_batches_may_have_different_shapes():
    model = make_model([(2, 3, {})])
    model.compile()
    sizes = [6, 9, 7, 12, 8, 6, 5]

    def batches(rng):
        for size in sizes:
            yield (
                rng.random((size % 4 + 1, 1, size, size)),
                rng.random((size % 4 + 1, 2, size - 2, size - 2)),
            )

    assert len(model.fit(batches, epochs=3, verbose=0).loss) == 3


def test_validation_takes_the_last_samples_and_leaves_them_out_of_the_training():
    rng = np.random.default_rng(0)
    x, y = rng.random((10, 2, 8, 8)), rng.random((10, 1, 6, 6))
    model = make_model([(1, 3, {})])
    model.compile()
    history = model.fit(x, y, validation_split=0.3, epochs=2, verbose=0)
    twin = make_model([(1, 3, {})])
    twin.compile()
    given = twin.fit(x[:7], y[:7], validation_data=(x[7:], y[7:]), epochs=2, verbose=0)
    assert same(model, twin)
    assert history.history == given.history
    assert history.history["val_loss"][-1] == model.evaluate(x[7:], y[7:])


def test_evaluate_is_the_loss_of_the_predictions():
    rng = np.random.default_rng(0)
    x, y = rng.random((70, 2, 8, 8)), rng.random((70, 1, 6, 6))
    model = make_model([(4, 3, {"activation": "relu"}), (1, 1, {})])
    error = model.predict(x) - y
    assert model.evaluate(x, y, batch_size=16) == pytest.approx(np.mean(error**2), rel=1e-12)
    model.compile("sgd", "mae")
    assert model.evaluate(x, y) == pytest.approx(np.mean(np.abs(error)), rel=1e-12)


def test_the_reported_loss_is_the_mean_over_the_samples():
    rng = np.random.default_rng(0)
    x, y = rng.random((7, 2, 8, 8)), rng.random((7, 1, 6, 6))
    for layers in ([(1, 3, {})], [(2, 3, {}), (1, 1, {})]):
        model = make_model(layers, input_channels=2)
        expected = np.mean((model.predict(x) - y) ** 2)
        model.compile(SGD(0.0))
        history = model.fit(x, y, batch_size=4, verbose=0)
        assert history.loss[0] == pytest.approx(expected, rel=1e-12)


# Callbacks, and what is printed


def test_callbacks_see_the_model_and_may_stop_it(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 1, 8, 8)), rng.random((6, 1, 6, 6))
    model = make_model([(1, 3, {})])
    model.compile(SGD(0.0))
    seen = []
    stop = convext.EarlyStopping(patience=3, monitor="val_loss")
    best = convext.ModelCheckpoint(tmp_path / "best.npz", save_best_only=True)
    callbacks = [seen.append, best, stop]
    model.fit(x, y, epochs=9, validation_split=0.5, callbacks=callbacks, verbose=0)
    assert [report.epoch for report in seen] == [1, 2, 3, 4]
    assert seen[0].model is model
    assert best.best_epoch == 1
    assert best.best_loss == seen[0].val_loss
    assert same(convext.load_model(tmp_path / "best.npz"), model)


def test_a_checkpoint_keeps_the_best_model_not_the_last(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 1, 8, 8)), rng.random((6, 1, 6, 6))
    model = make_model([(1, 3, {})])
    best = convext.ModelCheckpoint(tmp_path / "best.npz", save_best_only=True)
    for rate in (0.1, 50.0):
        model.compile(SGD(rate))
        model.fit(x, y, epochs=1, validation_data=(x, y), callbacks=[best], verbose=0)
    kept = convext.load_model(tmp_path / "best.npz")
    assert kept.evaluate(x, y) == best.best_loss < 1 < model.evaluate(x, y)


def test_the_history_plots_both_losses(tmp_path):
    x = np.ones((4, 1, 8, 8))
    model = make_model([(2, 3, {})])
    model.compile()
    history = model.fit(x, np.ones((4, 2, 6, 6)), epochs=3, validation_split=0.5, verbose=0)
    axes = history.plot(tmp_path / "history.png").axes[0]
    assert [line.get_label() for line in axes.lines] == ["training", "validation"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), history.val_loss)
    assert (tmp_path / "history.png").stat().st_size > 0


def test_a_line_is_printed_for_each_epoch(capsys, monkeypatch):
    monkeypatch.setenv("CONVEXT_LANG", "en")
    x = np.ones((4, 1, 8, 8))
    model = make_model([(1, 3, {})])
    model.compile()
    model.fit(x, x[:, :, 2:, 2:], epochs=2, validation_split=0.5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "validation loss: " in lines[0]
    assert lines[1].startswith("Epoch: 2, average loss: ")


# Errors

X = np.ones((2, 1, 4, 4))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conv2D(0, 3), ValueError, "filters must be at least 1"),
        (lambda: Conv2D(1, 3, activation="gelu"), ValueError, "activation must be one of linear"),
        (lambda: Conv2D(1, 3, padding="full"), ValueError, "padding must be"),
        (lambda: Conv2D(1, 3, kernel_initializer="ones"), ValueError, "kernel_initializer must be"),
        (lambda: SGD(-1), ValueError, "learning_rate must be at least 0"),
        (lambda: SGD(momentum=2), ValueError, "momentum must be"),
        (lambda: Adam(beta_1=1.0), ValueError, "beta_1 must be"),
        (lambda: Adam(clipnorm=1, clipvalue=1), ValueError, "only one of"),
        (lambda: Sequential([3]), TypeError, "a layer must be a Conv2D"),
        (lambda: Sequential(dtype="int32"), ValueError, "dtype must be float32 or float64"),
        (lambda: Sequential(data_format="NCHW"), ValueError, "data_format must be"),
        (lambda: Sequential(input_channels=1), ValueError, "the model has no layers"),
        (
            lambda: Sequential([Conv2D(2, 3)], residual=True, input_channels=1),
            ValueError,
            "as many filters as the input has channels",
        ),
        (
            lambda: Sequential([Conv2D(2, 3, groups=2)], input_channels=3),
            ValueError,
            "groups is 2, which does not divide the 3 channels",
        ),
        (lambda: Sequential([Conv2D(1, 3)]).get_weights(), ValueError, "has no weights yet"),
        (lambda: Sequential([Conv2D(1, 3)]).compile("rmsprop"), ValueError, "optimizer must be"),
        (lambda: Sequential([Conv2D(1, 3)]).compile(loss="huber"), ValueError, "loss must be"),
        (
            lambda: Sequential([Conv2D(1, 3)]).fit(np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2))),
            ValueError,
            "must be compiled",
        ),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("value", ["no", "batch", 2, None, 1.0, np.zeros(1)])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("use_bias", lambda **option: Conv2D(1, 3, **option)),
        ("residual", lambda **option: Sequential([Conv2D(1, 3)], **option)),
        ("nesterov", lambda **option: SGD(momentum=0.9, **option)),
        ("restore_best_weights", convext.EarlyStopping),
        ("save_best_only", lambda **option: convext.ModelCheckpoint("m.npz", **option)),
        ("shuffle", lambda **option: Sequential([Conv2D(1, 3)]).fit(X, X, **option)),
        ("shuffle", lambda **option: convext.train_model(X, X, 1, 1, 0.1, 1, **option)),
        ("shuffle", lambda **option: convext.suggest_learning_rate(X, 1, **option)),
    ],
)
def test_yes_or_no_is_a_bool(name, make, value):
    with pytest.raises(TypeError, match=f"^{name} must be True or False, got "):
        make(**{name: value})


def test_a_layer_is_no_list_of_layers():
    with pytest.raises(TypeError, match="layers must be a list of layers, got Conv2D"):
        Sequential(Conv2D(1, 3))


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.ones((2, 3, 4, 4)), np.ones((2, 1, 2, 2)), {}, "images of 1 channels, got 3"),
        (np.ones((2, 1, 4, 4)), np.ones((2, 1, 4, 4)), {}, r"y must have the shape \(2, 1, 2, 2\)"),
        (np.ones((2, 1, 4, 4)), np.ones((3, 1, 2, 2)), {}, r"y must have the shape \(2, 1, 2, 2\)"),
        (np.ones((2, 1, 2, 4)), np.ones((2, 1, 2, 2)), {}, "do not fit"),
        (np.ones((2, 1, 4, 4)), None, {}, "y is missing"),
        (iter([]), None, {}, "steps_per_epoch is missing"),
        (iter([]), None, {"steps_per_epoch": 2}, "x gave 0 batches"),
        (
            np.ones((2, 1, 4, 4)),
            np.ones((2, 1, 2, 2)),
            {"validation_split": 0.1},
            "leaves 1 to train on and 1|leaves",
        ),
        (np.ones((2, 1, 4, 4)), np.ones((2, 1, 2, 2)), {"batch_size": 0}, "batch_size must be"),
    ],
)
def test_data_that_do_not_fit_are_named(x, y, options, message):
    model = make_model([(1, 3, {})], input_channels=1)
    model.compile()
    if options.get("validation_split"):
        x, y = x[:1], y[:1]
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0, **options)


@pytest.mark.parametrize(
    "change",
    [
        list.reverse,
        list.pop,
        list.clear,
        lambda layers: layers.append(Conv2D(1, 3)),
        lambda layers: layers.__setitem__(0, copy.copy(layers[0])),
        lambda layers: layers.__setitem__(
            0, Sequential([Conv2D(1, 3)], input_channels=1).layers[0]
        ),
    ],
)
def test_layers_of_a_built_model_stay_where_they_are(change, tmp_path):
    model = make_model([(1, 3, {}), (1, 3, {})], input_channels=1)
    model.compile()
    x, y = np.ones((2, 1, 9, 9)), np.ones((2, 1, 5, 5))
    model = copy.deepcopy(model)  # knows its own layers
    model.fit(x, y, verbose=0)
    change(model.layers)
    for use in (
        lambda: model.fit(x, y, verbose=0),
        lambda: model.predict(x),
        lambda: model.evaluate(x, y),
        lambda: model.save(tmp_path / "model.npz"),
        model.get_weights,
    ):
        with pytest.raises(ValueError, match="moved in the model after it was built"):
            use()


@pytest.mark.parametrize(
    ("name", "value"),
    [("bias", np.ones(7)), ("bias", 1.0), ("kernel", np.ones((3, 3))), ("kernel", np.ones(4))],
)
def test_weights_that_a_layer_is_given_must_fit(name, value):
    layer = Conv2D(2, (3, 2))
    with pytest.raises(ValueError, match=f"{name} must have the shape"):
        setattr(layer, name, value)
    layer.kernel, layer.bias = np.ones((2, 1, 3, 2)).tolist(), [1, 2]
    model = Sequential([layer], input_channels=1)
    assert [w.sum() for w in model.get_weights()] == [12, 3]


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_shapes_are_named_as_they_were_given(data_format):
    def given(*shape):
        return (*shape[:-3], *shape[-2:], shape[-3]) if data_format == "channels_last" else shape

    model = make_model([(5, 3, {})], input_channels=4, data_format=data_format)
    model.compile()
    x, y = given(2, 4, 9, 8), given(2, 5, 8, 6)
    expected = rf"shape {re.escape(str(given(2, 5, 7, 6)))}.* shape {re.escape(str(x))}.*, got "
    with pytest.raises(ValueError, match=expected + re.escape(str(y))):
        model.fit(np.ones(x), np.ones(y), verbose=0)
    wrong = given(3, 9, 8)
    with pytest.raises(ValueError, match=re.escape(f"(shape {wrong})")):
        model.predict(np.ones(wrong))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_loss_that_is_not_finite_ends_the_training(layers):
    model = make_model([(1, 1, {})] * layers, input_channels=1)
    model.compile()
    x = np.ones((3, 1, 4, 4))
    x[1] = np.nan
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 1"):
        model.fit(x, np.ones((3, 1, 4, 4)), batch_size=1, verbose=0)


def test_weights_must_fit():
    model = make_model([(2, 3, {})], input_channels=1)
    with pytest.raises(ValueError, match="weights must have 2 arrays, got 1"):
        model.set_weights([np.ones((2, 1, 3, 3))])
    with pytest.raises(ValueError, match=r"weights\[1\] must have the shape \(2,\), got \(3,\)"):
        model.set_weights([np.ones((2, 1, 3, 3)), np.ones(3)])
