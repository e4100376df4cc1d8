"""What fit and evaluate take, and how: weights of samples, metrics, batches, values not finite."""

from __future__ import annotations

import copy
import itertools
import json

import numpy as np
import plain_network
import pytest

import convext
from convext import SGD, Adam, Conv2D, Sequential, schedules

RNG = np.random.default_rng(0)
X, Y = RNG.random((9, 2, 7, 6)), RNG.random((9, 1, 5, 4))
WEIGHTS = np.array([1, 0, 2.5, 0.25, 3, 1, 0, 7, 0.5])
PLAIN = {1: [{"activation": "tanh"}], 2: [{"activation": "tanh"}, {"activation": "linear"}]}


def make_model(layers=1, seed=0, **options):
    made = {
        1: lambda: [Conv2D(1, 3, activation="tanh")],
        2: lambda: [Conv2D(3, 3, activation="tanh"), Conv2D(1, 1)],
    }[layers]()
    return Sequential(made, seed=seed, dtype="float64", input_channels=2, **options)


def compiled(optimizer="sgd", loss="mse", metrics=None, **options):
    model = make_model(**options)
    model.compile(optimizer, loss, metrics=metrics)
    return model


def weighted_loss(model, loss, x=X, y=Y, weights=WEIGHTS, layers=1):
    """mean(weight * loss of the sample), from the definition, as a function of the weights."""

    def of(values):
        differences = plain_network.predict(PLAIN[layers], values, x) - y
        losses = [plain_network.LOSSES[loss](d) for d in differences]
        return np.mean(np.asarray(weights) * losses)

    return of


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


# Weights of samples


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_gradients_with_weights_of_samples_against_finite_differences(loss, layers, isa):
    model = compiled(SGD(1.0), loss, layers=layers)
    before = model.get_weights()
    of = weighted_loss(model, loss, layers=layers)
    history = model.fit(X, Y, 9, sample_weight=WEIGHTS, shuffle=False, verbose=0)
    assert history.loss[0] == pytest.approx(float(of(before)), rel=1e-12)
    gradients = plain_network.gradients(of, before)
    for old, new, gradient in zip(before, model.get_weights(), gradients, strict=True):
        assert np.linalg.norm(old - new - gradient) < 1e-7 * np.linalg.norm(gradient)


def test_validation_data_leave_all_samples_to_train_on():
    model, twin = compiled(), compiled()
    options = {"validation_data": (X[:2], Y[:2]), "verbose": 0}
    given = model.fit(X, Y, 4, 2, validation_split=0.5, **options)
    expected = twin.fit(X, Y, 4, 2, **options)
    assert (given.loss, given.val_loss) == (expected.loss, expected.val_loss)
    assert same(model, twin)


def test_weights_follow_their_samples_into_batches_and_validation():
    for options in ({"shuffle": True}, {"shuffle": False}, {"validation_split": 0.3}):
        model, twin = compiled(Adam(0.01), seed=3), compiled(Adam(0.01), seed=3)
        given = model.fit(X, Y, 4, 3, sample_weight=WEIGHTS, verbose=0, **options)
        # By hand: the same order, a step on each batch.
        generator = make_model(seed=3)._generator
        kept = 6 if "validation_split" in options else 9
        losses = []
        for _ in range(3):
            shuffled = options.get("shuffle", True)
            order = generator.permutation(kept) if shuffled else np.arange(kept)
            batches = [order[i : i + 4] for i in range(0, kept, 4)]
            found = [twin.train_on_batch(X[b], Y[b], WEIGHTS[b]) for b in batches]
            losses.append(np.average(found, weights=[len(b) for b in batches]))
        assert same(model, twin)
        np.testing.assert_allclose(given.loss, losses, rtol=1e-12)
        if kept < 9:
            last = model.evaluate(X[6:], Y[6:], sample_weight=WEIGHTS[6:])
            assert given.val_loss[-1] == last


def test_weights_of_one_change_nothing_and_of_zero_leave_a_sample_out():
    plain, ones, zeros, fewer = (compiled(layers=2) for _ in range(4))
    plain.fit(X, Y, 9, 3, shuffle=False, verbose=0)
    ones.fit(X, Y, 9, 3, sample_weight=np.ones(9), shuffle=False, verbose=0)
    for a, b in zip(plain.get_weights(), ones.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)
    # The mean is over all samples: those that count are multiplied by 9/5.
    chosen = np.array([1, 1, 0, 0, 1, 0, 1, 0, 1])
    zeros.fit(X, Y, 9, 3, sample_weight=chosen * 9 / 5, shuffle=False, verbose=0)
    fewer.fit(X[chosen == 1], Y[chosen == 1], 9, 3, shuffle=False, verbose=0)
    for a, b in zip(zeros.get_weights(), fewer.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_evaluate_weighs_samples():
    model = compiled(loss="mae")
    expected = float(weighted_loss(model, "mae")(model.get_weights()))
    for size, weights in itertools.product((1, 4, 100), (WEIGHTS, WEIGHTS.reshape(9, 1, 1))):
        found = model.evaluate(X, Y, size, sample_weight=weights)
        assert found == pytest.approx(expected, rel=1e-12)
    validated = model.fit(X, Y, validation_data=(X, Y, WEIGHTS), verbose=0).val_loss[0]
    assert validated == model.evaluate(X, Y, sample_weight=WEIGHTS)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(8), ValueError, r"sample_weight must have the shape \(9,\).*got \(8,\)"),
        (np.ones((9, 5, 4)), ValueError, r"sample_weight must have the shape \(9,\)"),
        (np.full(9, np.nan), ValueError, "sample_weight contains 9 values that are NaN"),
        (["a"] * 9, TypeError, "sample_weight must hold real numbers"),
    ],
)
def test_weights_that_do_not_fit_are_named(weights, error, message):
    model = compiled()
    for use in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(error, match=message):
            use(X, Y, sample_weight=weights)


# Metrics


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_metrics_are_the_means_without_weights(loss, layers):
    names = ["mae", "mean_squared_error"]
    model = compiled(SGD(0.0), loss, names, layers=layers)
    differences = model.predict(X) - Y
    mae, mse = np.mean(np.abs(differences)), np.mean(differences**2)
    history = model.fit(
        X, Y, 4, 2, sample_weight=WEIGHTS, validation_data=(X[:4], Y[:4]), verbose=0
    ).history
    assert list(history) == [
        "loss", "val_loss", "mae", "mean_squared_error", "val_mae", "val_mean_squared_error",
        "learning_rate",
    ]  # fmt: skip
    np.testing.assert_allclose(history["mae"], [mae, mae], rtol=1e-12)
    np.testing.assert_allclose(history["mean_squared_error"], [mse, mse], rtol=1e-12)
    np.testing.assert_allclose(history["val_mae"], np.mean(np.abs(differences[:4])), rtol=1e-12)
    expected = [mse if loss == "mse" else mae, mae, mse]
    assert model.metrics_names == ["loss", *names]
    np.testing.assert_allclose(model.evaluate(X, Y), expected, rtol=1e-12)
    by_name = model.evaluate(X, Y, return_dict=True)
    assert by_name == dict(zip(model.metrics_names, model.evaluate(X, Y), strict=True))
    np.testing.assert_allclose(model.train_on_batch(X, Y), expected, rtol=1e-12)
    np.testing.assert_allclose(model.test_on_batch(X, Y), expected, rtol=1e-12)


def test_metrics_change_no_weight_and_outlive_a_file(tmp_path):
    model, plain = compiled("adam", metrics=["mae"], layers=2), compiled("adam", layers=2)
    for one in (model, plain):
        one.fit(X, Y, 4, 2, verbose=0)
    assert same(model, plain)
    model.save(tmp_path / "model.npz")
    loaded = convext.load_model(tmp_path / "model.npz")
    first, second = (one.fit(X, Y, 4, 4, initial_epoch=2, verbose=0) for one in (model, loaded))
    assert first.history == second.history
    assert len(first.history["mae"]) == 2


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        (["accuracy"], ValueError, "metrics can be mse, .*got 'accuracy': .* callback"),
        ([len], ValueError, "metrics can be mse"),
        ("mae", TypeError, "put it in a list"),
    ],
)
def test_other_metrics_are_refused(metrics, error, message):
    with pytest.raises(error, match=message):
        make_model().compile("sgd", "mse", metrics=metrics)


# Batches


class Tensor:
    """What looks like an array to NumPy in one way alone."""

    def __init__(self, values, protocol):
        self.values = values
        methods = {
            "__array__": lambda _, dtype=None, copy=None: np.asarray(values, dtype),
            "__dlpack__": lambda _, **options: values.__dlpack__(**options),
            "numpy": lambda _: values,
        }
        found = {protocol: methods[protocol]}
        if protocol == "__dlpack__":
            found["__dlpack_device__"] = lambda _: values.__dlpack_device__()
        self.__class__ = type("Tensor", (Tensor,), found)


class Loader:
    """Gives batches anew, as PyTorch's DataLoader does; not callable, no iterator."""

    def __init__(self, wrap=lambda a: a, size=3):
        self.wrap, self.size, self.begun = wrap, size, 0

    def __iter__(self):
        self.begun += 1
        for i in range(0, len(X), self.size):
            part = slice(i, i + self.size)
            yield [self.wrap(X[part]), self.wrap(Y[part])]

    def __len__(self):
        return len(X) // self.size


class Unmeasured(Loader):
    """Has a length in name alone, as a DataLoader of an IterableDataset does."""

    def __len__(self):
        raise TypeError("object of type 'Stream' has no len()")


class Indexed:
    """Gives batches by number, as Keras's Sequence does: an index too large is no error."""

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X[3 * i : 3 * i + 3], Y[3 * i : 3 * i + 3]


SOURCES = {
    "loader": Loader,
    "loader without length": Unmeasured,
    "loader of __array__": lambda: Loader(lambda a: Tensor(a, "__array__")),
    "loader of __dlpack__": lambda: Loader(lambda a: Tensor(a, "__dlpack__")),
    "loader of numpy()": lambda: Loader(lambda a: Tensor(a, "numpy")),
    "list": lambda: list(Loader()),
    "tuple": lambda: tuple(Loader()),
    "indexed": Indexed,
    "function": lambda: lambda generator: Loader(),
    "function of nothing": lambda: lambda: iter(Loader()),
    "iterator": lambda: itertools.cycle(Loader()),
    "triples": lambda: [(x, y, np.ones(len(x))) for x, y in Loader()],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_batches_come_from_anything_that_gives_them(kind):
    expected = compiled("adam", layers=2)
    losses = expected.fit(X, Y, 3, 2, shuffle=False, validation_data=(X, Y), verbose=0)
    model, source = compiled("adam", layers=2), SOURCES[kind]
    steps = {"steps_per_epoch": 3} if kind == "iterator" else {}
    options = {"validation_data": source()}
    if kind in ("list", "tuple", "triples"):
        options["validation_data"] = list(source()).copy
    elif kind == "iterator":
        options["validation_steps"] = 3
    history = model.fit(source(), epochs=2, verbose=0, **steps, **options)
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(history.history[name], losses.history[name], rtol=1e-13)
    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    taken = {"steps": 3} if kind == "iterator" else {}
    assert model.evaluate(source(), **taken) == pytest.approx(model.evaluate(X, Y), rel=1e-13)


@pytest.mark.parametrize("protocol", ["__array__", "__dlpack__", "numpy"])
def test_tensors_are_arrays(protocol):
    model = compiled()
    x, y = Tensor(X, protocol), Tensor(Y, protocol)
    assert np.array_equal(model.predict(x), model.predict(X))
    assert model.evaluate(x, y) == model.evaluate(X, Y)
    twin = compiled()
    model.fit(x, y, validation_data=(x, y), shuffle=False, verbose=0)
    twin.fit(X, Y, shuffle=False, verbose=0)
    assert same(model, twin)


def test_lists_of_numbers_are_arrays_and_lists_of_pairs_are_batches():
    model = compiled()
    assert model.evaluate(X.tolist(), Y.tolist()) == model.evaluate(X, Y)
    assert model.evaluate([(X.tolist(), Y.tolist())]) == model.evaluate(X, Y, 9)


def test_a_loader_begins_anew_in_each_epoch_and_steps_may_be_fewer():
    model, loader, validation = compiled(), Loader(), Loader()
    options = {"validation_data": validation, "validation_steps": 1}
    history = model.fit(loader, epochs=4, steps_per_epoch=2, verbose=0, **options)
    assert loader.begun == validation.begun == 4
    assert history.val_loss[-1] == model.evaluate(X[:3], Y[:3])


@pytest.mark.parametrize("kind", [k for k in SOURCES if k != "iterator"])
def test_an_epoch_of_fewer_batches_than_asked_for_is_an_error(kind):
    source, model = SOURCES[kind], compiled()
    with pytest.raises(ValueError, match="x gave 3 batches, expected 4 for an epoch"):
        model.fit(source(), steps_per_epoch=4, epochs=2, verbose=0)
    with pytest.raises(ValueError, match="x gave 3 batches, expected 4 for an epoch"):
        model.evaluate(source(), steps=4)
    if kind not in ("list", "tuple", "triples"):
        message = "validation_data gave 3 batches, expected 4 for an epoch"
        with pytest.raises(ValueError, match=message):
            model.fit(X, Y, validation_data=source(), validation_steps=4, verbose=0)
    model.fit(source(), steps_per_epoch=3, verbose=0)


def test_a_sequence_of_keras_may_shuffle_at_the_end_of_an_epoch():
    class Shuffled(Indexed):
        def __init__(self):
            self.order, self.generator = np.arange(len(X)), np.random.default_rng(0)

        def __getitem__(self, i):
            chosen = self.order[3 * i : 3 * i + 3]
            return X[chosen], Y[chosen]

        def on_epoch_end(self):
            self.generator.shuffle(self.order)

    model, twin, source, by_hand = compiled(), compiled(), Shuffled(), Shuffled()
    validation = Shuffled()
    losses = model.fit(source, epochs=3, validation_data=validation, verbose=0).loss
    for loss in losses:
        assert loss == pytest.approx(np.mean([twin.train_on_batch(*by_hand[i]) for i in range(3)]))
        by_hand.on_epoch_end()
    assert same(model, twin)
    assert np.array_equal(source.order, by_hand.order)
    assert np.array_equal(validation.order, by_hand.order)


def test_an_endless_validation_takes_so_many_batches():
    def endless():
        while True:
            given.append(1)
            yield X[:2], Y[:2]

    given = []
    model = compiled()
    history = model.fit(X, Y, epochs=3, validation_data=endless(), validation_steps=5, verbose=0)
    assert len(given) == 15
    assert history.val_loss[-1] == pytest.approx(model.evaluate(X[:2], Y[:2]), rel=1e-13)
    with pytest.raises(ValueError, match=r"validation_steps is missing.*may never end"):
        model.fit(X, Y, validation_data=endless(), verbose=0)
    with pytest.raises(ValueError, match="validation_data gave 1 batches, expected 2"):
        model.fit(X, Y, validation_data=iter([(X, Y)]), validation_steps=2, verbose=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation_data": X}, TypeError, r"validation_data must be \(x, y.*got ndarray"),
        ({"validation_data": (X,)}, ValueError, "validation_data must be .*got 1 elements"),
        ({"validation_data": "x.npz"}, TypeError, "validation_data must be .*got str"),
        ({"validation_data": (X, Y[:2])}, ValueError, "validation y must have the shape"),
        ({"validation_data": (X, Y), "validation_steps": 2}, ValueError, "is for batches"),
        ({"validation_steps": 2}, ValueError, "validation_steps is for batches"),
        ({"validation_data": [Loader()] * 2}, TypeError, "validation x must be an array"),
        ({"validation_data": lambda: [X]}, TypeError, "a batch of validation_data must be"),
        ({"validation_data": lambda: iter(())}, ValueError, "validation_data gave 0 batches"),
        ({"steps_per_epoch": 2}, ValueError, "steps_per_epoch is for batches: x is an array"),
        ({"validation_batch_size": 0}, ValueError, "validation_batch_size must be at least 1"),
    ],
)
def test_validation_that_is_something_else_is_named(options, error, message):
    with pytest.raises(error, match=message):
        compiled().fit(X, Y, verbose=0, **options)


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (Loader(), {"y": Y}, ValueError, "y is for arrays: x is batches"),
        (Loader(), {"batch_size": 2}, ValueError, "batch_size is for arrays"),
        (Loader(), {"sample_weight": WEIGHTS}, ValueError, "sample_weight is for arrays"),
        (Loader(), {"validation_split": 0.2}, ValueError, "validation_split is for arrays"),
        ([X, Y], {}, TypeError, r"a batch of x must be \(x, y.*got ndarray"),
        (lambda: [(X, Y, WEIGHTS, 1)], {}, TypeError, "a batch of x must be"),
        (lambda: [None], {}, TypeError, "a batch of x must be .*got NoneType"),
        (lambda: iter(()), {}, ValueError, "x gave 0 batches, expected at least one for an epoch"),
        ({"x": X}, {}, ValueError, "y is missing"),
    ],
)
def test_batches_that_are_something_else_are_named(x, options, error, message):
    with pytest.raises(error, match=message):
        compiled().fit(x, verbose=0, **options)


# Values that are not finite


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("name", "sample"), [("x", 7), ("y", 4)])
def test_data_that_are_not_finite_are_named_and_change_no_weight(name, sample, value, layers):
    arrays = {"x": X.copy(), "y": Y.copy()}
    arrays[name][sample, 0, 2, 1:3] = value
    model, twin = (compiled(Adam(0.01), layers=layers) for _ in range(2))
    message = rf"the loss is .* in epoch 1: {name}\[{sample}\] contains 2 values that are NaN"
    with pytest.raises(FloatingPointError, match=message):
        model.fit(arrays["x"], arrays["y"], 9, 5, verbose=0)
    assert same(model, twin)
    twin._generator.permutation(9)
    for one in (model, twin):
        one.fit(X, Y, 9, 2, verbose=0)
    assert same(model, twin)


@pytest.mark.parametrize("layers", [1, 2])
def test_validation_data_that_are_not_finite_are_named(layers):
    x = X.copy()
    x[5, 1, 0, 0] = np.nan
    message = r"the validation loss is nan in epoch 1: validation x\[{}\]{} contains 1 value that"
    model = compiled(layers=layers)
    with pytest.raises(FloatingPointError, match=message.format(5, "")):
        model.fit(X, Y, validation_data=(x, Y), epochs=2, verbose=0)
    with pytest.raises(FloatingPointError, match=message.format(2, " of batch 1")):
        model.fit(X, Y, verbose=0, validation_data=lambda: [(x[:3], Y[:3]), (x[3:], Y[3:])])
    assert np.isnan(model.evaluate(x, Y))


@pytest.mark.parametrize("dtype", ["<f8", ">f8"])
@pytest.mark.parametrize("layers", [[Conv2D(1, 3)], [Conv2D(2, 3), Conv2D(1, 1)]])
def test_a_value_too_large_for_the_models_type_is_named(dtype, layers):
    model = Sequential(copy.deepcopy(layers), input_channels=2)
    model.compile("sgd")
    x = X.astype(dtype)
    x[3, 0, 0, 0] = 1e300
    with pytest.raises(FloatingPointError, match=r"x\[3\] contains 1 value that is"):
        model.fit(x, Y, verbose=0)


def test_only_where_the_data_are_finite_the_learning_rate_is_to_blame():
    model = compiled(SGD(1e6), layers=2)
    with pytest.raises(FloatingPointError, match=r"with learning_rate 1e\+06: lower it"):
        model.fit(100 * X, Y, 3, 1000, verbose=0)


# A batch at a time


def test_training_on_batches_by_hand_is_a_fit():
    model, twin = (compiled(Adam(0.01), layers=2) for _ in range(2))
    losses = model.fit(X, Y, 3, 2, shuffle=False, verbose=0).loss
    found = []
    for _ in range(2):
        steps = [twin.train_on_batch(X[i : i + 3], Y[i : i + 3]) for i in (0, 3, 6)]
        found.append(np.mean(steps))
    assert same(model, twin)
    np.testing.assert_allclose(found, losses, rtol=1e-12)
    assert model.test_on_batch(X, Y) == model.evaluate(X, Y)
    assert np.array_equal(model.predict_on_batch(X), model.predict(X))


def test_training_on_a_batch_needs_a_number_as_the_learning_rate():
    model = compiled(SGD(schedules.step_decay(0.1)))
    with pytest.raises(ValueError, match="function of the epoch, which train_on_batch does not"):
        model.train_on_batch(X, Y)
    model.optimizer.learning_rate = 0.5
    before = model.get_weights()
    model.train_on_batch(X, Y)
    assert not np.array_equal(before[0], model.get_weights()[0])
    x = X.copy()
    x[2] = np.nan
    before = model.get_weights()
    with pytest.raises(FloatingPointError, match=r"in train_on_batch: x\[2\] contains"):
        model.train_on_batch(x, Y)
    assert np.array_equal(before[0], model.get_weights()[0])


def test_verbose_prints_and_other_arguments_of_keras_are_taken(capsys, monkeypatch):
    monkeypatch.setenv("CONVEXT_LANG", "en")
    model = compiled(metrics=["mae"])
    expected = model.predict(X)
    for options in ({"verbose": 0}, {"verbose": 1}, {"verbose": "auto"}, {"batch_size": 2}):
        assert np.array_equal(model.predict(X, **options), expected)
    model.evaluate(X, Y, verbose=0)
    assert capsys.readouterr().out == ""
    loss, mae = model.evaluate(X, Y, 32, 1)
    assert capsys.readouterr().out == f"loss: {loss:.4f}, mae: {mae:.4f}\n"
    model.fit(X, Y, verbose=2)
    assert ", mae: 0." in capsys.readouterr().out
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        model.predict(X, batch_size=0)


def test_a_file_from_before_there_were_metrics_is_read(tmp_path):
    model = compiled(Adam(0.01))
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as archive:
        arrays = dict(archive)
    config = json.loads(str(arrays.pop("config")))
    for name in ("metrics", "name", "checkpoint"):
        del config[name]
    np.savez(tmp_path / "model.npz", config=json.dumps(config), **arrays)
    assert same(convext.load_model(tmp_path / "model.npz"), model)
