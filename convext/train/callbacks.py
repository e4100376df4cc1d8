"""What is called after each epoch of a training: what may be, and ready callbacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from .._support.atomic_files import FilePath
from .._support.checks import RealArray, boolean, finite_number, integer
from .._support.sharing import Resumable, in_one_training
from ..errors import StopTraining
from .epoch_report import EpochReport, check_monitor, monitored

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# A function of the report, or an object with methods such as on_epoch_end, as in Keras.
Callback: TypeAlias = Callable[[EpochReport], None] | Any


class History(Resumable):
    """A callback that keeps what happened.

    One training at a time uses it: what another thread begins meanwhile is a RuntimeError.

    Attributes
    ----------
    epoch, loss, learning_rate, seconds, method : list
        One entry for each epoch.
    val_loss : list
        The losses on the validation data, where there are some.
    metrics : dict of str to list
        What else was measured, by its names.
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

    _changing = (
        "epoch", "loss", "learning_rate", "seconds", "method", "val_loss", "metrics", "kernels"
    )  # fmt: skip

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.loss: list[float] = []
        self.learning_rate: list[float] = []
        self.seconds: list[float] = []
        self.method: list[str] = []
        self.val_loss: list[float] = []
        self.metrics: dict[str, list[float]] = {}
        self.kernels: RealArray | None = None

    @in_one_training
    def __call__(self, report: EpochReport) -> None:
        """Keep one epoch."""
        for name in ("epoch", "loss", "learning_rate", "seconds", "method"):
            getattr(self, name).append(getattr(report, name))
        if report.val_loss is not None:
            self.val_loss.append(report.val_loss)
        for name, value in report.metrics.items():
            self.metrics.setdefault(name, []).append(value)
        self.kernels = report.kernels.copy()

    @property
    def history(self) -> dict[str, list[float]]:
        """Losses, metrics and learning rates by their names in Keras.

        Examples
        --------
        >>> import numpy as np
        >>> history = History()
        >>> history(EpochReport(1, 0.5, 0.1, 0.01, np.ones((1, 1, 2, 2)), val_loss=0.6))
        >>> history.history
        {'loss': [0.5], 'val_loss': [0.6], 'learning_rate': [0.1]}
        """
        losses = {"loss": self.loss}
        if self.val_loss:
            losses["val_loss"] = self.val_loss
        return {**losses, **self.metrics, "learning_rate": self.learning_rate}

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
        from ..plotting import plot_training

        if self.kernels is None:
            raise ValueError("the history has no epoch to plot yet")
        return plot_training(self.loss, self.kernels, file, self.val_loss)


class EarlyStopping(Resumable):
    """A callback that ends the training when the loss has stopped improving.

    One training at a time uses it: what another thread begins meanwhile is a RuntimeError.

    Parameters
    ----------
    patience : int
        Epochs in a row without improvement after which to stop.
    min_delta : float
        An improvement is a loss below the best one by more than this.
    monitor : str, default "loss"
        Which loss, "loss" or "val_loss", or which metric.
    restore_best_weights : bool, default False
        Whether the training ends with the weights of its best epoch instead of the last one's, as
        in Keras also where it was not stopped. The optimizer's state stays that of the last epoch.

    Attributes
    ----------
    best_loss : float
        The lowest loss; infinity before the first epoch.
    best_epoch : int
        Its epoch, from 1; 0 before the first epoch.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or value.

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
    # In a training: what is trained, what that was in its best epoch, and the loss of that.
    _weights: RealArray | None
    _best_weights: RealArray | None
    _kept_loss: float

    _changing = ("best_loss", "best_epoch", "_best_weights", "_kept_loss")
    _options = ("patience", "min_delta", "monitor", "restore_best_weights")

    def __init__(
        self,
        patience: int = 10,
        min_delta: float = 0.0,
        monitor: str = "loss",
        restore_best_weights: bool = False,
    ) -> None:
        self.patience = integer("patience", patience, minimum=1)
        self.min_delta = finite_number("min_delta", min_delta, minimum=0)
        self.monitor = check_monitor(monitor)
        self.restore_best_weights = boolean("restore_best_weights", restore_best_weights)
        self._forget()

    @in_one_training
    def __call__(self, report: EpochReport) -> None:
        """Compare the epoch with the best one so far."""
        if report.epoch == 1:  # another training
            self._forget()
        loss = monitored(report, self.monitor)
        self._weights = report.weights
        if self.restore_best_weights and loss < self._kept_loss - self.min_delta:
            self._kept_loss = loss
            self._best_weights = None if report.weights is None else report.weights.copy()
        if loss < self.best_loss - self.min_delta:
            self.best_loss = loss
            self.best_epoch = report.epoch
        elif report.epoch - self.best_epoch >= self.patience:
            raise StopTraining(
                f"no improvement for {self.patience} epoch{'s' if self.patience > 1 else ''}: "
                f"the best loss was {self.best_loss:g} in epoch {self.best_epoch}"
            )

    @in_one_training
    def on_train_begin(self, logs: object = None) -> None:
        """Forget the weights of a training that was interrupted."""
        self._weights = self._best_weights = None
        self._kept_loss = math.inf

    @in_one_training
    def on_train_end(self, logs: object = None) -> None:
        """Go back to the best weights of this training, where that is asked for."""
        if self._weights is not None and self._best_weights is not None:
            self._weights[...] = self._best_weights
        self.on_train_begin()

    def _forget(self) -> None:
        self.best_loss = math.inf
        self.best_epoch = 0
        self.on_train_begin()
