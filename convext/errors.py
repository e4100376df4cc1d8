"""Exceptions of convext's own; everything else is a TypeError, a ValueError or an OSError."""

from __future__ import annotations

from dataclasses import KW_ONLY, InitVar, dataclass

from ._support.checks import RealArray


class StopTraining(Exception):  # noqa: N818  (a request, not an error)
    """Raised by a callback to end the training after the current epoch.

    The other callbacks are told of that epoch, too; `train_model` returns the kernels as they are
    then. Threads may share it.
    """


@dataclass(eq=False, repr=False)
class DivergenceError(ArithmeticError):
    """The loss became infinite or NaN, or far larger than the data can explain.

    Threads may share it.

    Attributes
    ----------
    kernels : numpy.ndarray
        The last kernels whose loss was finite, (num_kernels, C, kh, kw).
    epoch : int
        The epoch (from 1) in which the loss diverged.
    loss : float
        The loss that stopped the training.
    learning_rate : float
        The learning rate of that epoch.
    stable_learning_rate : float
        A learning rate at which gradient descent on this data, with these batches, is stable; see
        `suggest_learning_rate` for what is known about larger ones.
    """

    message: InitVar[str]
    _: KW_ONLY
    kernels: RealArray
    epoch: int
    loss: float
    learning_rate: float
    stable_learning_rate: float

    def __post_init__(self, message: str) -> None:
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return _without_init, (type(self), *self.args), vars(self)


def _without_init(cls: type[DivergenceError], *args: object) -> DivergenceError:
    return cls.__new__(cls, *args)
