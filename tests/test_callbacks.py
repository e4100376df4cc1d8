"""What is called after each epoch."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

import convext
from convext import (
    EarlyStopping,
    EpochReport,
    History,
    ModelCheckpoint,
    StopTraining,
    schedules,
    train_model,
)


def report(epoch, loss, kernels=None):
    kernels = np.full((1, 1, 2, 2), float(epoch)) if kernels is None else kernels
    return EpochReport(epoch, loss, 0.1 / epoch, 0.5 * epoch, kernels)


def last_epoch(stopping, losses):
    """Return the epoch, from 1, after which the training stops; None when it goes on."""
    for epoch, loss in enumerate(losses, 1):
        try:
            stopping(report(epoch, loss))
        except StopTraining:
            return epoch
    return None


def test_a_report_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        report(1, 0.5).loss = 0.0


def test_history_keeps_every_epoch():
    history = History()
    for epoch, loss in [(1, 0.5), (2, 0.25), (3, 0.125)]:
        history(report(epoch, loss))
    assert history.epoch == [1, 2, 3]
    assert history.loss == [0.5, 0.25, 0.125]
    np.testing.assert_allclose(history.learning_rate, [0.1, 0.05, 0.1 / 3])
    assert history.seconds == [0.5, 1.0, 1.5]
    np.testing.assert_array_equal(history.kernels, np.full((1, 1, 2, 2), 3.0))


@pytest.mark.parametrize("of_model", [False, True])
@pytest.mark.parametrize(
    ("moment", "epochs"),
    [("on_train_begin", 0), ("on_epoch_begin", 1), ("on_epoch_end", 2), ("__call__", 2)],
)
def test_callbacks_behind_one_that_stops_the_training_see_what_it_saw(moment, epochs, of_model):
    def stop(_, *arguments):
        if (
            moment == "on_train_begin"
            or arguments[0] == 1
            or getattr(arguments[0], "epoch", 0) == 2
        ):
            raise StopTraining

    class Recorder(History):
        def on_epoch_begin(self, epoch, logs):
            seen.append(("begin", epoch))

        def on_epoch_end(self, epoch, logs):
            seen.append(("end", epoch))

        def on_train_end(self, logs):
            seen.append("end")

    seen, behind = [], Recorder()
    callbacks = [type("Stop", (), {moment: stop})(), behind]
    x, y = np.ones((4, 1, 5, 5)), np.ones((4, 1, 3, 3))
    if of_model:
        model = convext.build_model(1, 3, num_channels=1)
        model.fit(x, y, epochs=5, callbacks=callbacks, verbose=0)
    else:
        convext.train_model(x, y, 1, 3, 0.01, 5, callbacks=callbacks, verbose=False)
    begun = [0, 1][: epochs + (moment == "on_epoch_begin")]
    assert [epoch for what, epoch in seen[:-1] if what == "begin"] == begun
    assert [epoch for what, epoch in seen[:-1] if what == "end"] == [0, 1][:epochs]
    assert seen[-1] == "end"
    assert behind.epoch == [1, 2][:epochs]


def test_history_has_its_own_copy_of_the_kernels():
    history, kernels = History(), np.ones((1, 1, 2, 2))
    history(report(1, 0.5, kernels))
    kernels[...] = np.nan
    np.testing.assert_array_equal(history.kernels, np.ones((1, 1, 2, 2)))


def test_history_of_a_training_has_its_kernels():
    rng = np.random.default_rng(0)
    history = History()
    kernels = train_model(
        rng.random((4, 1, 6, 6)),
        rng.random((4, 2, 5, 5)),
        2,
        (2, 2),
        num_epochs=3,
        seed=0,
        callbacks=[history],
        verbose=False,
    )
    assert history.epoch == [1, 2, 3]
    assert history.loss[0] > history.loss[-1] > 0
    np.testing.assert_array_equal(history.kernels, kernels)


def test_history_plots_the_losses_and_the_kernels(tmp_path):
    history = History()
    history(report(1, 0.5))
    history(report(2, 0.25))
    figure = history.plot(tmp_path / "loss.png")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [0.5, 0.25])
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), np.full((2, 2), 2.0))
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_an_empty_history_cannot_be_plotted():
    with pytest.raises(ValueError, match="the history has no epoch to plot yet"):
        History().plot()


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([5, 4, 3, 2, 1], None),
        ([5, 5, 5, 5], 3),
        ([5, 4, 5, 3, 4, 4, 1], 6),
        ([5, float("nan"), float("nan")], 3),
        ([float("nan"), float("nan"), 1], 2),
        ([5, 6], None),
    ],
)
def test_early_stopping_waits_for_patience_epochs_without_improvement(losses, expected):
    assert last_epoch(EarlyStopping(patience=2), losses) == expected


def test_early_stopping_remembers_the_best_epoch():
    stopping = EarlyStopping(patience=2)
    assert (stopping.best_loss, stopping.best_epoch) == (np.inf, 0)
    last_epoch(stopping, [5, 3, 4, 4])
    assert (stopping.best_loss, stopping.best_epoch) == (3, 2)


def test_improvements_below_min_delta_do_not_count():
    losses = [1.0, 0.95, 0.91, 0.85]
    assert last_epoch(EarlyStopping(patience=2, min_delta=0.1), losses) == 3
    assert last_epoch(EarlyStopping(patience=2, min_delta=0.01), losses) is None


def test_early_stopping_starts_afresh_with_another_training():
    stopping = EarlyStopping(patience=2)
    assert last_epoch(stopping, [1, 1, 1]) == 3
    assert last_epoch(stopping, [9, 8, 7, 7, 7]) == 5
    assert (stopping.best_loss, stopping.best_epoch) == (7, 3)


def test_early_stopping_says_why():
    stopping = EarlyStopping(patience=1)
    stopping(report(1, 0.5))
    with pytest.raises(StopTraining, match=r"no improvement for 1 epoch: .* 0\.5 in epoch 1"):
        stopping(report(2, 0.5))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"patience": 0}, ValueError, "patience must be at least 1, got 0"),
        ({"patience": 1.5}, TypeError, "patience must be an integer, got 1.5"),
        ({"min_delta": -1}, ValueError, "min_delta must be at least 0, got -1"),
        ({"min_delta": float("nan")}, ValueError, "min_delta must be finite, got nan"),
        ({"min_delta": "0"}, TypeError, "min_delta must be a number, got '0'"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        EarlyStopping(**arguments)


# Of networks


RNG = np.random.default_rng(0)
X, Y = RNG.random((6, 1, 8, 8)), RNG.random((6, 1, 6, 6))


def make_model(rate=0.1, **options):
    layers = [convext.Conv2D(1, 3)]
    model = convext.Sequential(layers, seed=0, dtype="float64", input_channels=1)
    model.compile(convext.SGD(rate), **options)
    return model


class Rates:
    """Learning rates that make the model good, and then bad: the third epoch is the best."""

    def __call__(self, epoch):
        return [0.05, 0.05, 0.05, 1.0, 1.0, 1.0, 1.0, 1.0][epoch]


def weights_of_epochs(model, epochs, **options):
    seen = []
    model.fit(
        X, Y, epochs=epochs, verbose=0,
        callbacks=[*options.pop("callbacks", []), lambda r: seen.append(r.model.get_weights())],
        **options,
    )  # fmt: skip
    return seen


@pytest.mark.parametrize("monitor", ["loss", "val_loss", "val_mae"])
def test_the_best_weights_come_back_where_the_training_is_stopped_or_ends(monitor):
    for patience in (2, 100):
        stop = EarlyStopping(patience, monitor=monitor, restore_best_weights=True)
        model = make_model(Rates(), metrics=["mae"])
        options = {"validation_data": (X, Y), "callbacks": [stop], "batch_size": 6}
        history = model.fit(X, Y, epochs=6, verbose=0, **options).history
        assert stop.best_epoch == int(np.argmin(history[monitor])) + 1
        assert len(history["loss"]) == (stop.best_epoch + 2 if patience == 2 else 6)
        same = make_model(Rates(), metrics=["mae"])
        of_epochs = weights_of_epochs(same, 6, batch_size=6)
        for a, b in zip(model.get_weights(), of_epochs[stop.best_epoch - 1], strict=True):
            assert np.array_equal(a, b)
        assert not np.array_equal(model.get_weights()[0], of_epochs[-1][0])


def test_a_training_that_goes_on_ends_with_the_best_of_its_own_epochs():
    """Also where the one before was interrupted, or was of another model."""

    def interrupt(report):
        if report.epoch == 2:
            raise KeyboardInterrupt

    stop = EarlyStopping(50, restore_best_weights=True)
    first = make_model(Rates())
    with pytest.raises(KeyboardInterrupt):
        first.fit(X, Y, 6, 8, callbacks=[stop, interrupt], verbose=0)
    left = first.get_weights()
    model = make_model(lambda epoch: 1.0)
    of_epochs = []
    history = model.fit(
        X, Y, 6, 6, initial_epoch=3, verbose=0,
        callbacks=[stop, lambda report: of_epochs.append(report.model.get_weights())],
    )  # fmt: skip
    best = of_epochs[int(np.argmin(history.loss))]
    assert all(map(np.array_equal, model.get_weights(), best))
    assert all(map(np.array_equal, first.get_weights(), left))


def test_the_last_weights_stay_where_the_best_are_not_asked_for():
    model = make_model(Rates())
    of_epochs = weights_of_epochs(model, 6, callbacks=[EarlyStopping(50)], batch_size=6)
    assert np.array_equal(model.get_weights()[0], of_epochs[-1][0])


@pytest.mark.parametrize("method", ["direct", "statistics"])
def test_train_model_can_return_the_best_kernels(method):
    seen = []
    stop = EarlyStopping(2, restore_best_weights=True)
    kernels = train_model(
        X, Y, 1, (3, 3), Rates(), 8, seed=0, batch_size=6, verbose=False, method=method,
        callbacks=[stop, seen.append],
    )  # fmt: skip
    assert len(seen) == stop.best_epoch + 2  # all see the epoch that was one too many
    assert np.array_equal(kernels, seen[stop.best_epoch - 1].kernels)


def test_a_plateau_of_the_validation_loss_reduces_the_rate():
    x, y = RNG.random((6, 1, 8, 8)), RNG.random((6, 1, 6, 6))
    rate = schedules.reduce_on_plateau(0.3, 0.5, patience=1, min_delta=0.0, monitor="val_loss")
    history = make_model(rate).fit(X, Y, epochs=30, validation_data=(x, y), verbose=0)
    expected = schedules.reduce_on_plateau(0.3, 0.5, patience=1, min_delta=0.0)
    other = schedules.reduce_on_plateau(0.3, 0.5, patience=1, min_delta=0.0)
    rates = []
    for epoch, (val_loss, loss) in enumerate(zip(history.val_loss, history.loss, strict=True)):
        rates.append((expected(epoch), other(epoch)))
        expected.observe(val_loss)
        other.observe(loss)
    assert history.learning_rate == [first for first, _ in rates]
    assert history.learning_rate != [second for _, second in rates]


def test_a_plateau_of_the_validation_loss_outlives_a_file(tmp_path):
    rate = schedules.reduce_on_plateau(0.3, 0.5, patience=1, monitor="val_loss")
    straight, model = make_model(copy.deepcopy(rate)), make_model(rate)
    options = {"validation_data": (X[::-1], Y), "verbose": 0}
    expected = straight.fit(X, Y, epochs=12, **options).history
    losses = model.fit(X, Y, epochs=5, **options).learning_rate
    model.save(tmp_path / "model.npz")
    loaded = convext.load_model(tmp_path / "model.npz")
    assert loaded.optimizer.learning_rate.monitor == "val_loss"
    losses += loaded.fit(X, Y, epochs=12, initial_epoch=5, **options).learning_rate
    assert losses == expected["learning_rate"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda monitor: EarlyStopping(monitor=monitor),
        lambda monitor: ModelCheckpoint("model.npz", monitor),
        lambda monitor: schedules.reduce_on_plateau(0.1, monitor=monitor),
    ],
)
def test_what_cannot_be_monitored_is_named(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for monitor in ("accuracy", "val_accuracy", None, 3):
        with pytest.raises(ValueError, match="monitor must be 'loss' or 'val_loss', or a metric"):
            make(monitor)
    for monitor, message in (
        ("val_loss", "monitor is 'val_loss', but there are no validation data"),
        ("mae", "monitor is 'mae', but what is measured is loss"),
    ):
        one = make(monitor)
        if isinstance(one, ModelCheckpoint):
            one = ModelCheckpoint("model.npz", monitor, save_best_only=True)
        of_rate = isinstance(one, schedules.ReduceOnPlateau)
        model = make_model(one if of_rate else 0.1)
        with pytest.raises(ValueError, match=message):
            model.fit(X, Y, callbacks=[] if of_rate else [one], verbose=0)


def test_a_checkpoint_fills_in_its_name(tmp_path):
    model = make_model(metrics=["mae"])
    name = "w.{epoch:02d}-{val_loss:.4f}-{mae:.3f}.npz"
    each = ModelCheckpoint(tmp_path / name)
    history = model.fit(X, Y, epochs=3, validation_data=(X, Y), callbacks=[each], verbose=0)
    expected = [
        f"w.{epoch:02d}-{val_loss:.4f}-{mae:.3f}.npz"
        for epoch, val_loss, mae in zip(
            history.epoch, history.val_loss, history.history["mae"], strict=True
        )
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == expected
    last = convext.load_model(tmp_path / expected[-1])
    assert np.array_equal(last.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize("name", ["{accuracy}.npz", "{0}.npz", "{epoch:x y}.npz", "{.npz", "{}"])
def test_a_checkpoint_whose_name_cannot_be_filled_in_is_an_error(name, tmp_path):
    with pytest.raises(ValueError, match=r"whose fields can be epoch, loss, mse, .*val_mae"):
        ModelCheckpoint(f"{tmp_path}/{name}")
    each = ModelCheckpoint(f"{tmp_path}/{{val_mae}}.npz")
    with pytest.raises(ValueError, match="whose fields can be epoch, loss: KeyError: 'val_mae'"):
        make_model().fit(X, Y, callbacks=[each], verbose=0)
    assert not list(tmp_path.iterdir())


def fit_with(checkpoint, rate=0.1, epochs=2, **options):
    model = make_model(rate)
    model.fit(
        X, Y, epochs=epochs, validation_data=(X, Y), callbacks=[checkpoint], verbose=0, **options
    )
    return model


def test_a_better_model_of_an_earlier_training_is_not_overwritten(tmp_path):
    file = tmp_path / "best.npz"
    good = fit_with(ModelCheckpoint(file, save_best_only=True), epochs=60)
    kept = file.read_bytes()
    second = ModelCheckpoint(file, save_best_only=True)
    with pytest.warns(UserWarning, match="holds a model of an earlier training whose val_loss is"):
        fit_with(second, rate=0.0)
    assert file.read_bytes() == kept
    assert second.best_loss == pytest.approx(good.evaluate(X, Y), rel=1e-12)
    assert second.best_epoch == 0
    # A better one is saved, by the same callback without another warning.
    model = good
    model.fit(X, Y, epochs=20, validation_data=(X, Y), callbacks=[second], verbose=0)
    assert second.best_epoch == 20
    assert convext.load_model(file).evaluate(X, Y) == second.best_loss
    # One that is told so begins anew.
    anew = ModelCheckpoint(file, save_best_only=True, initial_value_threshold=float("inf"))
    worse = fit_with(anew, rate=0.0)
    assert convext.load_model(file).evaluate(X, Y) == worse.evaluate(X, Y) > second.best_loss


def test_a_checkpoint_takes_no_threshold_from_other_files(tmp_path):
    file = tmp_path / "best.npz"
    model = fit_with(ModelCheckpoint(tmp_path / "other.npz"), epochs=60)
    model.save(file)
    loss = ModelCheckpoint(file, "loss", save_best_only=True)
    fit_with(loss, rate=0.0)
    assert loss.best_epoch == 1
    val_loss = ModelCheckpoint(file, "val_loss", save_best_only=True)
    fit_with(val_loss, rate=0.0)
    assert val_loss.best_epoch == 1
    file.write_bytes(b"no model")
    foreign = ModelCheckpoint(file, save_best_only=True)
    fit_with(foreign, rate=0.0)
    assert convext.load_model(file).count_params() == 10


def test_a_threshold_may_be_given(tmp_path):
    file = tmp_path / "best.npz"
    fit_with(ModelCheckpoint(file, save_best_only=True, initial_value_threshold=1e-6))
    assert not file.exists()
    for value, error in (("low", TypeError), (float("nan"), ValueError)):
        with pytest.raises(error, match="initial_value_threshold must be"):
            ModelCheckpoint(file, initial_value_threshold=value)


def test_a_checkpoint_that_cannot_be_written_is_found_before_the_first_epoch(tmp_path):
    model = convext.build_model(1, (3, 3), 1)
    x = np.random.default_rng(0).random((4, 1, 8, 8))
    before = model.get_weights()
    history = History()
    for path, error in ((tmp_path / "no" / "m.npz", FileNotFoundError), ("", FileNotFoundError)):
        callbacks = [history, ModelCheckpoint(path)]
        with pytest.raises(error):
            model.fit(x, x[:, :, 1:-1, 1:-1], epochs=3, callbacks=callbacks, verbose=0)
    assert history.epoch == []
    assert all(map(np.array_equal, model.get_weights(), before))
