"""How the weights of a network follow their gradients: SGD and Adam, with Keras's formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np

from .. import schedules
from .._support.checks import boolean, finite_number
from .._support.sealed import Sealed
from .._support.sharing import Stateful
from ..train._optimizers import CLIPPING, RULES, Update

LearningRate: TypeAlias = float | Callable[[int], float]

_LIMITS = ("clipnorm", "clipvalue", "global_clipnorm")


@dataclass(eq=False, repr=False)
class Optimizer(Sealed, Stateful):
    """What `SGD` and `Adam` have in common; see there."""

    learning_rate: LearningRate
    _: KW_ONLY
    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None
    layer_multipliers: Sequence[float] | None = None

    # How the weights follow the gradient, and how many arrays of state that keeps.
    _rule: ClassVar[int]
    _num_states: ClassVar[int]

    def __post_init__(self) -> None:
        for name in _LIMITS:
            if getattr(self, name) is not None:
                setattr(self, name, finite_number(name, getattr(self, name), above=0))
        if len(self._clipping) > 1:
            known = ", ".join(_LIMITS)
            raise ValueError(f"only one of {known} can be given, got {self._clipping}")
        if self.layer_multipliers is not None:
            self.layer_multipliers = [
                finite_number(f"layer_multipliers[{i}]", value, minimum=0)
                for i, value in enumerate(self.layer_multipliers)
            ]
        self._seal()

    _settable = ("learning_rate",)
    _instead = "compile the model with a new one"

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "learning_rate" and not callable(value):
            value = finite_number(name, value, minimum=0)
        super().__setattr__(name, value)

    def config(self) -> dict[str, Any]:
        """Return the name and the arguments of which this optimizer can be made again."""
        rate = schedules.to_config(self.learning_rate)
        return {"name": type(self).__name__, **self._arguments(), "learning_rate": rate}

    def make_update(
        self,
        sizes: Sequence[Sequence[int]],
        dtype: np.dtype[Any],
    ) -> Update:
        """Return the update of weights in a flat array: of each layer, variables of these sizes."""
        multipliers = self.layer_multipliers or [1.0] * len(sizes)
        if len(multipliers) != len(sizes):
            raise ValueError(
                f"layer_multipliers has {len(multipliers)} numbers for {len(sizes)} layers"
            )
        pairs = [(size, m) for layer, m in zip(sizes, multipliers, strict=True) for size in layer]
        end = np.cumsum([size for size, _ in pairs]).astype(np.intp)
        states = [np.zeros(end[-1], dtype) for _ in range(self._num_states)]
        first, second = [*states, None, None][:2]
        (name, limit), *_ = [*self._clipping.items(), ("", 0.0)]
        rates = np.array([multiplier for _, multiplier in pairs])
        constants = self._arguments(kw_only=False)
        del constants["learning_rate"]
        return Update(self._rule, end, rates, first, second, CLIPPING[name], limit, **constants)

    @property
    def _clipping(self) -> dict[str, float]:
        """What the gradients are limited to, if they are."""
        return {name: getattr(self, name) for name in _LIMITS if getattr(self, name) is not None}

    def _arguments(self, kw_only: bool = True) -> dict[str, Any]:
        found = [field.name for field in fields(self) if kw_only or not field.kw_only]
        return {name: getattr(self, name) for name in found}

    def __repr__(self) -> str:
        given = {name: value for name, value in self._arguments().items() if value is not None}
        arguments = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"{type(self).__name__}({arguments})"


@dataclass(eq=False, repr=False)
class SGD(Optimizer):
    """Gradient descent, with momentum or without.

    With momentum, ``velocity = momentum * velocity - learning_rate * gradient`` and ``weights +=
    velocity``; with Nesterov's, ``weights += momentum * velocity - learning_rate * gradient``.
    Threads may share it.

    Parameters
    ----------
    learning_rate : float or callable, default 0.01
        The length of a step, or a function that returns it for an epoch, counted from 0; see
        `convext.schedules`.
    momentum : float, default 0
        The share of the velocity that stays, at least 0 and at most 1.
    nesterov : bool, default False
        Whether to look a step ahead.
    clipnorm, clipvalue, global_clipnorm : float, optional
        Limits: of the norm of each variable's gradient, of each of its elements, of the norm of
        all together. At most one of them.
    layer_multipliers : sequence of float, optional
        The learning rate of each layer is multiplied by its number.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or value.

    Examples
    --------
    >>> SGD(0.1, momentum=0.9, nesterov=True)
    SGD(learning_rate=0.1, momentum=0.9, nesterov=True)
    """

    learning_rate: LearningRate = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    _rule = RULES["sgd"]

    def __post_init__(self) -> None:
        self.momentum = finite_number("momentum", self.momentum, minimum=0, maximum=1)
        self.nesterov = boolean("nesterov", self.nesterov)
        super().__post_init__()

    @property
    def _num_states(self) -> int:  # type: ignore[override]
        return 1 if self.momentum > 0 else 0


@dataclass(eq=False, repr=False)
class Adam(Optimizer):
    """Gradient descent by running means of the gradient and of its square.

    Threads may share it.

    Parameters
    ----------
    learning_rate : float or callable, default 0.001
        The length of a step, or a function that returns it for an epoch, counted from 0; see
        `convext.schedules`.
    beta_1, beta_2 : float, default 0.9 and 0.999
        The share of the running means that stays at a step, at least 0 and below 1.
    epsilon : float, default 1e-7
        Added to the root of the running mean square. As in Keras, where both have not been
        corrected for their start at zero yet ("epsilon hat" in the paper).
    clipnorm, clipvalue, global_clipnorm, layer_multipliers
        As for `SGD`.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or value.

    References
    ----------
    D. P. Kingma, J. Ba: Adam: A Method for Stochastic Optimization, ICLR 2015.

    Examples
    --------
    >>> Adam(1e-4)
    Adam(learning_rate=0.0001, beta_1=0.9, beta_2=0.999, epsilon=1e-07)
    """

    learning_rate: LearningRate = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    _rule = RULES["adam"]
    _num_states = 2

    def __post_init__(self) -> None:
        self.beta_1 = finite_number("beta_1", self.beta_1, minimum=0, below=1)
        self.beta_2 = finite_number("beta_2", self.beta_2, minimum=0, below=1)
        self.epsilon = finite_number("epsilon", self.epsilon, minimum=0)
        super().__post_init__()


def get_optimizer(optimizer: object) -> Optimizer:
    """Return an optimizer, or the one with default arguments that a name stands for."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str) and optimizer.lower() in _OPTIMIZERS:
        return _OPTIMIZERS[optimizer.lower()]()
    raise ValueError(f"optimizer must be 'sgd', 'adam', an SGD or an Adam, got {optimizer!r}")


def from_config(config: dict[str, Any]) -> Optimizer:
    """Return the optimizer of which `config` is the description."""
    arguments = dict(config)
    name = arguments.pop("name")
    arguments["learning_rate"] = schedules.from_config(arguments["learning_rate"])
    return _OPTIMIZERS[name.lower()](**arguments)


_OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": SGD, "adam": Adam}
