"""What is called after each epoch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from convext import EarlyStopping, EpochReport, History, StopTraining, train_model


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
