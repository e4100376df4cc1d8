"""Learning rates that change: the formulas, the state of the one that has any, and bad values."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from convext.schedules import cosine_decay, exponential_decay, reduce_on_plateau, step_decay


def rates(schedule, num_epochs):
    return [schedule(epoch) for epoch in range(num_epochs)]


def observed(schedule, losses):
    """Return the rate of each epoch of a training with these losses."""
    result = []
    for epoch, loss in enumerate(losses):
        result.append(schedule(epoch))
        schedule.observe(loss)
    return result


def test_step_decay_drops_after_every_so_many_epochs():
    np.testing.assert_allclose(
        rates(step_decay(0.8, 0.5, 3), 8), [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2], rtol=1e-15
    )
    assert rates(step_decay(0.2), 21)[::10] == [0.2, 0.1, 0.05]


def test_exponential_decay_is_a_geometric_series():
    np.testing.assert_allclose(
        rates(exponential_decay(0.3, 0.9), 50), np.geomspace(0.3, 0.3 * 0.9**49, 50), rtol=1e-13
    )


def test_cosine_decay_goes_from_the_initial_to_the_final_rate():
    schedule = cosine_decay(0.5, 8, final_rate=0.1)
    expected = [0.3 + 0.2 * np.cos(np.pi * epoch / 8) for epoch in range(9)]
    np.testing.assert_allclose(rates(schedule, 9), expected, rtol=1e-15)
    assert schedule(8) == schedule(1000) == 0.1
    assert cosine_decay(0.5, 8)(7) > 0  # no epoch of the training is wasted on a rate of 0
    assert cosine_decay(0.5, 8)(8) == 0


def test_a_plateau_reduces_the_rate():
    schedule = reduce_on_plateau(1.0, factor=0.5, patience=2)
    losses = [5, 4, 4, 4, 4, 4, 3, 3, 3, 2]
    #         best  1  2  1  2  best 1  2
    assert observed(schedule, losses) == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_a_loss_that_falls_keeps_the_rate():
    schedule = reduce_on_plateau(1.0, patience=1)
    assert observed(schedule, 0.9 ** np.arange(100)) == [1.0] * 100


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_an_improvement_is_relative_to_the_loss(scale):
    schedule = reduce_on_plateau(1.0, factor=0.5, patience=1, min_delta=0.01)
    losses = scale * np.array([1.0, 0.98, 0.975, 0.97])
    #                          best  best   too little; below 0.98 * 0.99 = 0.9702
    assert observed(schedule, losses) == [1, 1, 1, 0.5]
    assert schedule(4) == 0.5


def test_a_plateau_does_not_reduce_the_rate_below_the_minimum():
    schedule = reduce_on_plateau(1.0, factor=0.1, patience=1, min_rate=0.02)
    assert observed(schedule, [1.0] * 6) == [1, 1, 0.1, 0.02, 0.02, 0.02]


def test_a_loss_that_is_not_a_number_is_no_improvement():
    schedule = reduce_on_plateau(1.0, factor=0.5, patience=1)
    assert observed(schedule, [1.0, np.nan, 0.5, 0.4]) == [1, 1, 0.5, 0.5]


def test_reset_forgets_the_losses():
    schedule = reduce_on_plateau(1.0, factor=0.5, patience=1)
    losses = [1.0, 1.0, 1.0]
    first = observed(schedule, losses)
    schedule.reset()
    assert schedule(0) == 1.0
    assert observed(schedule, losses) == first == [1, 1, 0.5]


@pytest.mark.parametrize(
    "schedule",
    [
        step_decay(0.1),
        exponential_decay(0.1, 0.5),
        cosine_decay(0.1, 10),
        reduce_on_plateau(0.1, patience=1),
    ],
)
def test_schedules_can_be_pickled_and_check_the_epoch(schedule):
    copy = pickle.loads(pickle.dumps(schedule))
    assert rates(copy, 30) == rates(schedule, 30)
    assert isinstance(schedule(0), float)
    with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
        schedule(-1)
    with pytest.raises(TypeError, match=r"epoch must be an integer, got 1\.0"):
        schedule(1.0)


def test_a_pickled_plateau_remembers_the_losses():
    schedule = reduce_on_plateau(1.0, factor=0.5, patience=2)
    observed(schedule, [1.0, 1.0])
    copy = pickle.loads(pickle.dumps(schedule))
    copy.observe(1.0)
    assert copy(3) == 0.5


def test_numbers_of_numpy_are_numbers():
    assert step_decay(np.float32(0.5), np.float64(0.5), np.int64(1))(1) == 0.25
    assert exponential_decay(1, 1)(5) == 1.0


@pytest.mark.parametrize("value", [0, -0.1, np.nan, np.inf, 10**400])
@pytest.mark.parametrize("make", [step_decay, reduce_on_plateau])
def test_the_initial_rate_is_a_finite_number_above_zero(make, value):
    with pytest.raises(ValueError, match=r"initial_rate must be (above 0|finite), got"):
        make(value)


@pytest.mark.parametrize("value", ["0.1", None, 1j, True, [0.1]])
@pytest.mark.parametrize("make", [step_decay, reduce_on_plateau])
def test_the_initial_rate_is_a_number(make, value):
    with pytest.raises(TypeError, match="initial_rate must be a number, got"):
        make(value)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (step_decay, {"drop": 0}, "drop must be above 0 and at most 1, got 0"),
        (step_decay, {"drop": 1.5}, "drop must be above 0 and at most 1, got 1.5"),
        (step_decay, {"every": 0}, "every must be at least 1, got 0"),
        (exponential_decay, {"decay_rate": 0.0}, "decay_rate must be above 0 and at most 1"),
        (exponential_decay, {"decay_rate": 2}, "decay_rate must be above 0 and at most 1, got 2"),
        (cosine_decay, {"num_epochs": 0}, "num_epochs must be at least 1, got 0"),
        (
            cosine_decay,
            {"num_epochs": 5, "final_rate": 0.2},
            "final_rate must be at least 0 and at most 0.1, got 0.2",
        ),
        (cosine_decay, {"num_epochs": 5, "final_rate": -1}, "final_rate must be at least 0"),
        (reduce_on_plateau, {"factor": 1}, "factor must be above 0 and below 1, got 1"),
        (reduce_on_plateau, {"patience": 0}, "patience must be at least 1, got 0"),
        (reduce_on_plateau, {"min_delta": -0.1}, "min_delta must be below 1 and at least 0"),
        (reduce_on_plateau, {"min_rate": 1}, "min_rate must be at least 0 and at most 0.1, got 1"),
    ],
)
def test_values_out_of_range_are_named(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(0.1, **arguments)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (step_decay, {"every": 2.0}, "every must be an integer, got 2.0"),
        (cosine_decay, {"num_epochs": "5"}, "num_epochs must be an integer, got '5'"),
        (reduce_on_plateau, {"patience": 1.5}, "patience must be an integer, got 1.5"),
        (reduce_on_plateau, {"factor": "half"}, "factor must be a number, got 'half'"),
    ],
)
def test_values_of_the_wrong_type_are_named(make, arguments, message):
    with pytest.raises(TypeError, match=message):
        make(0.1, **arguments)
