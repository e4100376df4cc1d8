"""Learning rates that change during the training: functions of the epoch, counted from 0.

Each function here returns a schedule to be given to `train_model` as `learning_rate`. Schedules
can be pickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from ._support.checks import finite_number, integer
from ._support.sharing import Resumable, in_one_training
from .train.epoch_report import check_monitor

Schedule: TypeAlias = Callable[[int], float]


def step_decay(initial_rate: float, drop: float = 0.5, every: int = 10) -> Schedule:
    """Multiply the rate by `drop` after `every` epochs, again and again.

    Parameters
    ----------
    initial_rate : float
        The rate of the first epoch, above 0.
    drop : float
        The factor, above 0 and at most 1.
    every : int
        The epochs between one drop and the next.

    Returns
    -------
    callable
        ``initial_rate * drop ** (epoch // every)``.

    Raises
    ------
    TypeError, ValueError
        An argument is not a number (`every`: an integer), or out of its range.

    Examples
    --------
    >>> rate = step_decay(0.1, drop=0.5, every=10)
    >>> rate(0), rate(9), rate(10), rate(20)
    (0.1, 0.1, 0.05, 0.025)
    """
    return partial(
        _step_decay,
        finite_number("initial_rate", initial_rate, above=0),
        finite_number("drop", drop, above=0, maximum=1),
        integer("every", every, minimum=1),
    )


def exponential_decay(initial_rate: float, decay_rate: float) -> Schedule:
    """Multiply the rate by `decay_rate` after every epoch.

    Parameters
    ----------
    initial_rate : float
        The rate of the first epoch, above 0.
    decay_rate : float
        The factor, above 0 and at most 1.

    Returns
    -------
    callable
        ``initial_rate * decay_rate ** epoch``.

    Raises
    ------
    TypeError, ValueError
        An argument is not a number, or out of its range.

    Examples
    --------
    >>> rate = exponential_decay(0.1, 0.5)
    >>> rate(0), rate(1), rate(2)
    (0.1, 0.05, 0.025)
    """
    return partial(
        _exponential_decay,
        finite_number("initial_rate", initial_rate, above=0),
        finite_number("decay_rate", decay_rate, above=0, maximum=1),
    )


def cosine_decay(initial_rate: float, num_epochs: int, final_rate: float = 0.0) -> Schedule:
    """Lower the rate along half a cosine wave, slowly at both ends.

    Parameters
    ----------
    initial_rate : float
        The rate of the first epoch, above 0.
    num_epochs : int
        Epochs after which the rate is `final_rate`, and stays there.
    final_rate : float
        At least 0 and at most `initial_rate`.

    Returns
    -------
    callable
        ``final_rate + (initial_rate - final_rate) * (1 + cos(pi * epoch / num_epochs)) / 2``.

    Raises
    ------
    TypeError, ValueError
        An argument is not a number (`num_epochs`: an integer), or out of its range.

    References
    ----------
    I. Loshchilov, F. Hutter: SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017.

    Examples
    --------
    >>> rate = cosine_decay(0.1, 100)
    >>> rate(0), round(rate(50), 9), rate(100)
    (0.1, 0.05, 0.0)
    """
    initial_rate = finite_number("initial_rate", initial_rate, above=0)
    return partial(
        _cosine_decay,
        initial_rate,
        integer("num_epochs", num_epochs, minimum=1),
        finite_number("final_rate", final_rate, minimum=0, maximum=initial_rate),
    )


@dataclass(eq=False, repr=False)
class ReduceOnPlateau(Resumable):
    """Multiply the rate by `factor` when the loss has stopped improving.

    Calling it gives the rate as it is now, whatever the epoch; `observe`, which is told the loss of
    each epoch, may reduce it. One training at a time uses it: what another thread begins meanwhile
    is a RuntimeError.

    Parameters
    ----------
    initial_rate : float
        The rate of the first epoch, above 0.
    factor : float
        Above 0 and below 1.
    patience : int
        Epochs in a row without improvement after which the rate is reduced.
    min_delta : float
        An improvement is a loss below ``best * (1 - min_delta)``: relative to the loss, since a
        difference that means nothing at a loss of 1 is everything at a loss of 1e-6.
    min_rate : float
        The rate does not go below this.
    monitor : str, default "loss"
        Which loss, "loss" or "val_loss", or which metric; all but "loss" for `Sequential.fit`.

    Raises
    ------
    TypeError, ValueError
        An argument is not a number (`patience`: an integer), or out of its range.

    Examples
    --------
    >>> rate = reduce_on_plateau(0.5, factor=0.5, patience=2)
    >>> for epoch, loss in enumerate([1.0, 0.9, 0.9, 0.9, 0.9]):
    ...     print(rate(epoch), end=" ")
    ...     rate.observe(loss)
    0.5 0.5 0.5 0.5 0.25
    """

    initial_rate: float
    factor: float = 0.1
    patience: int = 10
    min_delta: float = 1e-4
    min_rate: float = 0.0
    monitor: str = "loss"
    _rate: float = field(init=False)
    _best_loss: float = field(init=False)
    _epochs_without_improvement: int = field(init=False)

    _changing = ("_rate", "_best_loss", "_epochs_without_improvement")
    _options = ("initial_rate", "factor", "patience", "min_delta", "min_rate", "monitor")

    def __post_init__(self) -> None:
        self.initial_rate = finite_number("initial_rate", self.initial_rate, above=0)
        self.factor = finite_number("factor", self.factor, above=0, below=1)
        self.patience = integer("patience", self.patience, minimum=1)
        self.min_delta = finite_number("min_delta", self.min_delta, minimum=0, below=1)
        most = self.initial_rate
        self.min_rate = finite_number("min_rate", self.min_rate, minimum=0, maximum=most)
        check_monitor(self.monitor)
        self.reset()

    def __call__(self, epoch: int) -> float:
        """Return the rate as it is now."""
        integer("epoch", epoch, minimum=0)
        return self._rate

    @in_one_training
    def observe(self, loss: float) -> None:
        """Take note of an epoch's loss, and reduce the rate when it is time."""
        if loss < self._best_loss * (1 - self.min_delta):
            self._best_loss = float(loss)
            self._epochs_without_improvement = 0
            return
        self._epochs_without_improvement += 1
        if self._epochs_without_improvement >= self.patience:
            self._rate = max(self._rate * self.factor, self.min_rate)
            self._epochs_without_improvement = 0

    @in_one_training
    def reset(self) -> None:
        """Forget all losses and go back to the initial rate, for another training."""
        self._rate = self.initial_rate
        self._best_loss = math.inf
        self._epochs_without_improvement = 0


# As the other schedules are made.
reduce_on_plateau = ReduceOnPlateau


def _step_decay(initial_rate: float, drop: float, every: int, epoch: int) -> float:
    return float(initial_rate * drop ** (integer("epoch", epoch, minimum=0) // every))


def _exponential_decay(initial_rate: float, decay_rate: float, epoch: int) -> float:
    return float(initial_rate * decay_rate ** integer("epoch", epoch, minimum=0))


def _cosine_decay(initial_rate: float, num_epochs: int, final_rate: float, epoch: int) -> float:
    progress = min(integer("epoch", epoch, minimum=0) / num_epochs, 1.0)
    return final_rate + (initial_rate - final_rate) * (1 + math.cos(math.pi * progress)) / 2


# What a schedule calls, and what makes it.
_BY_NAME: dict[str, tuple[Callable[..., float], Callable[..., Schedule]]] = {
    "step_decay": (_step_decay, step_decay),
    "exponential_decay": (_exponential_decay, exponential_decay),
    "cosine_decay": (_cosine_decay, cosine_decay),
}


def to_config(learning_rate: float | Schedule) -> Any:
    """Return a learning rate as JSON can hold it: a number, or a schedule of this module.

    Raises
    ------
    TypeError
        It is another function, which a file cannot hold.

    Examples
    --------
    >>> to_config(step_decay(0.1, 0.5, 10))
    {'name': 'step_decay', 'arguments': [0.1, 0.5, 10]}
    """
    if not callable(learning_rate):
        return learning_rate
    if isinstance(learning_rate, ReduceOnPlateau):
        state = learning_rate.get_state()
        if math.isinf(learning_rate._best_loss):  # which JSON does not know
            state = {}
        arguments = [getattr(learning_rate, name) for name in learning_rate._options]
        return {"name": "reduce_on_plateau", "arguments": arguments, "state": state}
    for name, (function, _) in _BY_NAME.items():
        if isinstance(learning_rate, partial) and learning_rate.func is function:
            return {"name": name, "arguments": list(learning_rate.args)}
    raise TypeError(
        f"a learning rate can be saved when it is a number or a schedule of convext.schedules, "
        f"got {learning_rate!r}"
    )


def from_config(config: Any) -> float | Schedule:
    """Return the learning rate that `to_config` described.

    Examples
    --------
    >>> from_config({"name": "step_decay", "arguments": [0.1, 0.5, 10]})(10)
    0.05
    """
    if not isinstance(config, dict):
        return float(config)
    if config["name"] == "reduce_on_plateau":
        schedule = ReduceOnPlateau(*config["arguments"])
        state = dict(config["state"])
        if not vars(schedule).keys() >= state.keys() or {*map(type, state.values())} - {int, float}:
            raise ValueError(f"the state of a reduce_on_plateau cannot be {state}")
        vars(schedule).update(state)
        return schedule
    return _BY_NAME[config["name"]][1](*config["arguments"])  # which checks them
