"""What people type who know Keras or PyTorch."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import numpy as np
import pytest

import convext


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_may_be_written_in_capitals(padding):
    rng = np.random.default_rng(0)
    x, kernels = rng.random((1, 1, 7, 8)), rng.random((1, 1, 3, 2))
    expected = convext.conv2d(x, kernels, padding=padding)
    other = rng.random(expected.shape)
    for word in (padding.upper(), padding.title()):
        assert np.array_equal(convext.conv2d(x, kernels, padding=word), expected)
        for gradient, arguments in (
            (convext.conv2d_kernel_grad, (x, other, (3, 2))),
            (convext.conv2d_input_grad, (other, kernels, x.shape)),
        ):
            expected_gradient = gradient(*arguments, padding=padding)
            assert np.array_equal(gradient(*arguments, padding=word), expected_gradient)
        statistics = convext.PatchStatistics(1, 1, (3, 2), padding=word)
        statistics.update(x, other)
        layer = convext.Conv2D(1, (3, 2), padding=word)
        assert repr(layer) == repr(convext.Conv2D(1, (3, 2), padding=padding))
        assert convext.Sequential([layer], seed=0).predict(x).shape == expected.shape


RNG = np.random.default_rng(0)
X, Y = RNG.random((8, 2, 7, 6)), RNG.random((8, 2, 5, 4))


def make_model(optimizer="sgd", layers=2, **options):
    made = [convext.Conv2D(3, 3, activation="tanh"), convext.Conv2D(2, 1)][-layers:]
    if layers == 1:
        made = [convext.Conv2D(2, 3, activation="tanh")]
    model = convext.Sequential(made, seed=0, dtype="float64", input_channels=2, **options)
    model.compile(optimizer)
    return model


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# Weights


@pytest.mark.parametrize("groups", [1, 2])
def test_weights_come_and_go_in_the_order_of_keras(groups):
    layer = convext.Conv2D(4, (3, 2), groups=groups)
    model = convext.Sequential([layer, convext.Conv2D(1, 2)], input_channels=2, seed=0)
    kernel, bias = layer.get_weights()
    in_keras, same_bias = layer.get_weights("HWCK")
    for index in np.ndindex(kernel.shape):
        k, c, i, j = index
        assert in_keras[i, j, c, k] == kernel[index]
    assert in_keras.shape == (3, 2, 2 // groups, 4)
    assert np.array_equal(bias, same_bias)
    assert same(model.get_weights("HWCK")[:2], [in_keras, bias])
    expected = RNG.random((3, 2, 2 // groups, 4)).astype(np.float32), RNG.random(4, np.float32)
    layer.set_weights(expected, order="HWCK")
    assert same(layer.get_weights(), [np.transpose(expected[0], (3, 2, 0, 1)), expected[1]])
    everything = model.get_weights("HWCK")
    twin = convext.Sequential([convext.Conv2D(4, (3, 2), groups=groups), convext.Conv2D(1, 2)])
    twin.set_weights(everything, "HWCK")
    assert same(twin.get_weights(), model.get_weights())
    kept = layer.get_weights()
    kept[0][...] = 0
    assert layer.kernel.any()


def test_another_order_is_never_guessed():
    layer = convext.Conv2D(4, (3, 2))
    model = convext.Sequential([layer])
    in_keras = [np.ones((3, 2, 3, 4)), np.ones(4)]
    with pytest.raises(ValueError, match=r"weights\[0\] must be kernels of Conv2D.*axes KCHW"):
        model.set_weights(in_keras)
    assert not model.built
    with pytest.raises(ValueError, match="no weights yet"):
        layer.set_weights(in_keras)
    model.build(3)
    before = model.get_weights()
    for use in (model.set_weights, layer.set_weights):
        with pytest.raises(
            ValueError, match=r"\(4, 3, 3, 2\), got \(3, 2, 3, 4\): that fits as HWCK"
        ):
            use(in_keras)
        with pytest.raises(
            ValueError, match=r"\(3, 2, 3, 4\), got \(4, 3, 3, 2\): that fits as KCHW"
        ):
            use(before, order="HWCK")
        with pytest.raises(ValueError, match="order must be 'KCHW', or 'HWCK' as in Keras"):
            use(before, order="keras")
        with pytest.raises(ValueError, match="weights must have 2 arrays, got 1"):
            use(before[:1])
    assert same(model.get_weights(), before)
    # Where both have the same shape, the argument alone decides.
    square = convext.Sequential([convext.Conv2D(3, 3, use_bias=False)], input_channels=3)
    kernel = RNG.random((3, 3, 3, 3)).astype(np.float32)
    square.set_weights([kernel], "HWCK")
    assert np.array_equal(square.layers[0].kernel, np.transpose(kernel, (3, 2, 0, 1)))
    square.set_weights([kernel])
    assert np.array_equal(square.layers[0].kernel, kernel)


# Layers that are not trained


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: convext.SGD(0.1),
        lambda: convext.SGD(0.1, momentum=0.9),
        lambda: convext.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: convext.Adam(0.1),
        lambda: convext.SGD(0.1, clipvalue=1e-3),
        lambda: convext.SGD(0.1, clipnorm=1e-3),
    ],
)
def test_a_layer_that_is_not_trainable_keeps_its_weights(optimizer, layers):
    model = make_model(optimizer(), layers)
    model.fit(X, Y, 2, 2, verbose=0)  # so that there are velocities
    frozen = model.layers[0]
    before = frozen.get_weights()
    frozen.trainable = False
    model.fit(X, Y, 2, 3, verbose=0)
    model.train_on_batch(X, Y)
    assert same(frozen.get_weights(), before)
    if layers > 1:
        assert not same(model.layers[1].get_weights(), make_model().layers[1].get_weights())
    frozen.trainable = True
    model.fit(X, Y, 2, verbose=0)
    assert not same(frozen.get_weights(), before)


def test_what_is_trained_beside_a_frozen_layer_takes_the_same_steps():
    """The second layer as a model of its own, on what the first one makes."""
    for optimizer in (
        lambda: convext.Adam(0.01),
        lambda: convext.SGD(0.5, momentum=0.5, global_clipnorm=1e-3),
    ):
        model = make_model(optimizer())
        first, second = model.layers
        first.trainable = False
        alone = convext.Sequential([convext.Conv2D(2, 1)], dtype="float64", input_channels=3)
        alone.set_weights(second.get_weights())
        alone.compile(optimizer())
        head = convext.Sequential([convext.Conv2D(3, 3, activation="tanh")], dtype="float64")
        head.set_weights(first.get_weights())
        between = head.predict(X)
        options = {"batch_size": 3, "epochs": 3, "shuffle": False, "verbose": 0}
        model.fit(X, Y, **options)
        alone.fit(between, Y, **options)
        for a, b in zip(second.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)


def test_what_is_not_trainable_stays_so_in_a_file_and_a_copy(tmp_path):
    model = make_model("adam")
    model.layers[1].trainable = False
    model.fit(X, Y, 3, verbose=0)
    model.save(tmp_path / "model.npz")
    for other in (convext.load_model(tmp_path / "model.npz"), copy.deepcopy(model)):
        assert [layer.trainable for layer in other.layers] == [True, False]
        assert not other.trainable
        before = other.layers[1].get_weights()
        other.fit(X, Y, 3, verbose=0)
        assert same(other.layers[1].get_weights(), before)
    model.trainable = True
    assert all(layer.trainable for layer in model.layers)
    model.trainable = False
    before = model.get_weights()
    model.fit(X, Y, 3, verbose=0)
    assert same(model.get_weights(), before)


# Names and shapes


def test_names_and_input_shapes(tmp_path):
    layers = [
        convext.Conv2D(3, 3, name="first", input_shape=(2, 7, None)),
        convext.Conv2D(1, 1, trainable=False),
    ]
    model = convext.Sequential(layers, seed=0, name="small")
    assert model.count_params() == 3 * 2 * 9 + 3 + 4
    model.save(tmp_path / "model.npz")
    loaded = convext.load_model(tmp_path / "model.npz")
    assert (loaded.name, loaded.layers[0].name, loaded.layers[1].name) == ("small", "first", None)
    assert loaded.layers[0].input_shape == (2, 7, None)
    assert same(loaded.get_weights(), model.get_weights())
    assert model.predict(X[:, :, :5]).shape == (8, 1, 3, 4)
    assert repr(layers[0]) == "Conv2D(3, (3, 3), name='first', input_shape=(2, 7, None))"
    last = convext.Sequential(
        [convext.Conv2D(1, 3, input_shape=(7, 6, 2))], data_format="channels_last"
    )
    assert last.get_weights()[0].shape == (1, 2, 3, 3)


def test_an_input_shape_that_is_wrong_is_named():
    with pytest.raises(ValueError, match=r"without the samples, got \(8, 2, 7, 6\)"):
        convext.Conv2D(1, 3, input_shape=(8, 2, 7, 6))
    model = convext.Sequential([convext.Conv2D(1, 3, input_shape=(7, 6, 2))])
    model.compile()
    with pytest.raises(
        ValueError, match=r"has the input_shape \(7, 6, 2\), but its input has 2 ch"
    ):
        model.fit(X, Y[:, :1], verbose=0)


# Attributes


@pytest.mark.parametrize(
    ("make", "name", "value", "message"),
    [
        (
            lambda: make_model().layers[0],
            "activation",
            "relu",
            "activation of this Conv2D cannot be",
        ),
        (
            lambda: make_model().layers[0],
            "strides",
            2,
            "strides of this Conv2D cannot be set: make",
        ),
        (lambda: make_model().layers[0], "kernels", 1, "this Conv2D has no attribute 'kernels'"),
        (
            lambda: convext.Conv2D(1, 3),
            "trainible",
            False,
            "this Conv2D has no attribute 'trainible'",
        ),
        (make_model, "loss", "mae", "loss of this Sequential cannot be set: see compile"),
        (
            make_model,
            "optimizer",
            "adam",
            "optimizer of this Sequential cannot be set: see compile",
        ),
        (make_model, "residual", True, "residual of this Sequential cannot be set"),
        (make_model, "layers", [], "layers can only be set before the model is built"),
        (make_model, "learning_rate", 0.1, "this Sequential has no attribute 'learning_rate'"),
        (
            lambda: make_model().optimizer,
            "lr",
            0.1,
            "this SGD has no attribute 'lr'; what can be set",
        ),
        (
            lambda: make_model().optimizer,
            "momentum",
            0.9,
            "momentum of this SGD cannot be set: comp",
        ),
        (convext.Adam, "beta_1", 0.5, "beta_1 of this Adam cannot be set"),
    ],
)
def test_an_attribute_that_would_change_nothing_cannot_be_set(make, name, value, message):
    owner = make()
    for one in (owner, copy.deepcopy(owner), pickle.loads(pickle.dumps(owner))):
        before = getattr(one, name, None)
        with pytest.raises(AttributeError, match=message):
            setattr(one, name, value)
        assert getattr(one, name, None) is before


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [("trainable", 0, TypeError), ("trainable", None, TypeError), ("name", 3, TypeError)],
)
def test_what_can_be_set_is_checked(name, value, error):
    with pytest.raises(error, match=f"{name} must be"):
        setattr(convext.Conv2D(1, 3), name, value)
    with pytest.raises(ValueError, match="learning_rate must be at least 0"):
        make_model().optimizer.learning_rate = -1


def test_a_class_that_is_derived_may_have_attributes_of_its_own():
    class Layer(convext.Conv2D):
        def __init__(self):
            super().__init__(1, 3)
            self.remark = "mine"

    layer = Layer()
    layer.note = 1
    assert (layer.remark, layer.note) == ("mine", 1)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_optimizers_learning_rate_can_be_set_at_any_time(layers):
    def change(report):
        report.model.optimizer.learning_rate = 0.01 * report.epoch

    model = make_model(convext.SGD(0.5), layers)
    history = model.fit(X, Y, epochs=4, callbacks=[change], verbose=0)
    np.testing.assert_allclose(history.learning_rate, [0.5, 0.01, 0.02, 0.03])


def test_layers_of_a_built_model_stay():
    for change in (
        lambda model: model.layers.append(convext.Conv2D(1, 1)),
        lambda model: model.layers.pop(),
    ):
        model = make_model()
        change(model)
        for use in (model.predict, partial(model.fit, y=Y, callbacks=None, verbose=0)):
            with pytest.raises(ValueError, match=r"layers .* the model (after it was|is) built"):
                use(X)


# Callbacks as in Keras


class Recorder:
    """What Keras calls, with no class of Keras's above it."""

    def __init__(self, stop_after=None):
        self.calls, self.stop_after = [], stop_after

    def set_params(self, params):
        self.calls.append(("params", params["epochs"]))

    def set_model(self, model):
        self.model = model

    def on_train_begin(self, logs=None):
        self.calls.append(("train begins", logs))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("begins", epoch))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("ends", epoch, sorted(logs)))
        if epoch == self.stop_after:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.calls.append(("train ends", logs))


def test_objects_are_called_as_keras_calls_them():
    model, recorder = make_model(), Recorder(stop_after=1)
    model.compile("sgd", metrics=["mae"])
    history = model.fit(X, Y, epochs=5, validation_split=0.5, callbacks=[recorder], verbose=0)
    names = ["loss", "mae", "val_loss", "val_mae"]
    assert recorder.calls == [
        ("params", 5), ("train begins", {}),
        ("begins", 0), ("ends", 0, names), ("begins", 1), ("ends", 1, names),
        ("train ends", {}),
    ]  # fmt: skip
    assert history.epoch == [1, 2]
    assert recorder.model is model
    # The next training is not stopped by that.
    assert len(model.fit(X, Y, epochs=2, verbose=0).loss) == 2


def test_logs_are_the_numbers_of_the_report():
    seen, reports = [], []

    class Logs:
        def on_epoch_end(self, epoch, logs):
            seen.append((epoch, logs))

    make_model().fit(X, Y, epochs=2, callbacks=[Logs(), reports.append], verbose=0)
    assert seen == [(r.epoch - 1, {"loss": r.loss}) for r in reports]
    seen.clear()
    options = {"num_epochs": 2, "verbose": False, "callbacks": [Logs()]}
    convext.train_model(X, Y, 2, (3, 3), 0.01, **options)
    assert [epoch for epoch, _ in seen] == [0, 1]


class Callback:
    """As Keras's base class: methods that do nothing."""

    def on_train_batch_end(self, batch, logs=None):
        pass

    def on_epoch_end(self, epoch, logs=None):
        pass


Callback.__module__ = "keras.src.callbacks.callback"


def test_what_keras_would_call_for_each_batch_is_refused():
    class OfBatches(Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise AssertionError

    model = make_model()
    model.fit(X, Y, callbacks=[Callback()], verbose=0)
    before = model.get_weights()
    with pytest.raises(TypeError, match="OfBatches has on_train_batch_end, which would never be"):
        model.fit(X, Y, callbacks=[OfBatches()], verbose=0)
    assert same(model.get_weights(), before)


def test_what_a_callback_needs_and_is_not_there_is_said():
    class Greedy:
        def set_model(self, model):
            self.model = model

        def on_epoch_end(self, epoch, logs):
            self.model.save_weights("file.h5")

    class Mistaken:
        def on_epoch_end(self, epoch, logs):
            _ = self.missing

    message = "Greedy.on_epoch_end needs what a Sequential of convext does not have.*save_weights"
    with pytest.raises(TypeError, match=message):
        make_model().fit(X, Y, callbacks=[Greedy()], verbose=0)
    with pytest.raises(AttributeError, match="missing"):
        make_model().fit(X, Y, callbacks=[Mistaken()], verbose=0)


@pytest.mark.parametrize("callbacks", [[3], ["x"], Recorder(), print])
def test_what_is_no_callback_is_refused(callbacks):
    with pytest.raises(TypeError, match="callbacks must be"):
        make_model().fit(X, Y, callbacks=callbacks, verbose=0)
