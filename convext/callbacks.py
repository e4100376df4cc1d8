"""What is called after each epoch of a training: the report it gets, and ready callbacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ._checks import RealArray, finite_number, integer
from .errors import StopTraining
from .files import FilePath

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class EpochReport:
    """One epoch of a training, as it is given to the callbacks.

    Attributes
    ----------
    epoch : int
        The number of the epoch, from 1.
    loss : float
        The average loss of the predictions made during the epoch.
    learning_rate : float
        The learning rate of the epoch.
    seconds : float
        How long the epoch took.
    kernels : numpy.ndarray
        A copy of the kernels after the epoch, (num_kernels, C, kh, kw).
    method : str
        Where the losses come from, "direct" or "statistics"; see `train_model`.
    """

    epoch: int
    loss: float
    learning_rate: float
    seconds: float
    kernels: RealArray
    method: str = "direct"


Callback: TypeAlias = Callable[[EpochReport], None]


class History:
    """A callback that keeps what happened.

    Attributes
    ----------
    epoch, loss, learning_rate, seconds, method : list
        One entry for each epoch.
    kernels : numpy.ndarray or None
        The kernels after the last epoch, (num_kernels, C, kh, kw).

    Examples
    --------
    >>> import numpy as np
    >>> history = History()
    >>> history(EpochReport(1, 0.5, 0.1, 0.01, np.ones((1, 1, 2, 2))))
    >>> history(EpochReport(2, 0.25, 0.1, 0.01, np.zeros((1, 1, 2, 2))))
    >>> history.epoch, history.loss
    ([1, 2], [0.5, 0.25])
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.loss: list[float] = []
        self.learning_rate: list[float] = []
        self.seconds: list[float] = []
        self.method: list[str] = []
        self.kernels: RealArray | None = None

    def __call__(self, report: EpochReport) -> None:
        """Keep one epoch."""
        self.epoch.append(report.epoch)
        self.loss.append(report.loss)
        self.learning_rate.append(report.learning_rate)
        self.seconds.append(report.seconds)
        self.method.append(report.method)
        self.kernels = report.kernels.copy()

    def plot(self, file: FilePath | None = None) -> Figure:
        """Draw the loss of each epoch and the kernels after the last one.

        Parameters
        ----------
        file : path, optional
            Where to save the figure; the suffix (.png, .pdf, .svg) says in which format.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            Matplotlib, which is in the ``plot`` extra, is missing.
        ValueError
            There is no epoch yet, or the suffix is unknown.
        """
        from .plotting import plot_training

        if self.kernels is None:
            raise ValueError("the history has no epoch to plot yet")
        return plot_training(self.loss, self.kernels, file)


class EarlyStopping:
    """A callback that ends the training when the loss has stopped improving.

    Parameters
    ----------
    patience : int
        Stop after so many epochs in a row without improvement.
    min_delta : float
        An improvement is a loss below the best one by more than this.

    Attributes
    ----------
    best_loss : float
        The lowest loss; infinity before the first epoch.
    best_epoch : int
        Its epoch, from 1; 0 before the first epoch.

    Raises
    ------
    TypeError
        `patience` is not an integer, or `min_delta` is not a number.
    ValueError
        `patience` is below 1, or `min_delta` is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> stop = EarlyStopping(patience=2)
    >>> for epoch, loss in enumerate([0.5, 0.4, 0.4, 0.4], 1):
    ...     stop(EpochReport(epoch, loss, 0.1, 0.01, np.ones((1, 1, 2, 2))))
    Traceback (most recent call last):
    ...
    convext.errors.StopTraining: no improvement for 2 epochs: the best loss was 0.4 in epoch 2
    """

    best_loss: float
    best_epoch: int

    def __init__(self, patience: int = 10, min_delta: float = 0.0) -> None:
        self.patience = integer("patience", patience, minimum=1)
        self.min_delta = finite_number("min_delta", min_delta, minimum=0)
        self._forget()

    def __call__(self, report: EpochReport) -> None:
        """Compare the epoch with the best one so far."""
        if report.epoch == 1:  # another training
            self._forget()
        if report.loss < self.best_loss - self.min_delta:
            self.best_loss = report.loss
            self.best_epoch = report.epoch
        elif report.epoch - self.best_epoch >= self.patience:
            raise StopTraining(
                f"no improvement for {self.patience} epoch{'s' if self.patience > 1 else ''}: "
                f"the best loss was {self.best_loss:g} in epoch {self.best_epoch}"
            )

    def _forget(self) -> None:
        self.best_loss = math.inf
        self.best_epoch = 0
