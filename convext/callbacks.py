"""What is called after each epoch of a training: the report it gets, and ready callbacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from ._checks import RealArray, finite_number, integer
from .errors import StopTraining
from .files import FilePath
from .sharing import Stateful, in_one_training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .models import Sequential


@dataclass(frozen=True, eq=False)
class EpochReport:
    """One epoch of a training, as it is given to the callbacks. Threads may share it.

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
        A copy of the kernels after the epoch, (num_kernels, C, kh, kw); of a model, those of its
        first layer.
    method : str
        Where the losses come from, "direct" or "statistics"; see `train_model`.
    val_loss : float or None
        The loss on the validation data, where there are some.
    model : Sequential or None
        The model that is trained.
    """

    epoch: int
    loss: float
    learning_rate: float
    seconds: float
    kernels: RealArray
    method: str = "direct"
    val_loss: float | None = None
    model: Sequential | None = None


Callback: TypeAlias = Callable[[EpochReport], None]
Monitor: TypeAlias = Literal["loss", "val_loss"]


def check_monitor(monitor: object) -> Monitor:
    """Return the name of a loss that a callback can look at."""
    if monitor == "loss":
        return "loss"
    if monitor == "val_loss":
        return "val_loss"
    raise ValueError(f"monitor must be 'loss' or 'val_loss', got {monitor!r}")


def monitored(report: EpochReport, monitor: Monitor) -> float:
    """Return the loss of that name."""
    if monitor == "loss":
        return report.loss
    if report.val_loss is None:
        raise ValueError("monitor is 'val_loss', but there are no validation data")
    return report.val_loss


class History(Stateful):
    """A callback that keeps what happened.

    One training at a time uses it: what another thread begins meanwhile is a RuntimeError.

    Attributes
    ----------
    epoch, loss, learning_rate, seconds, method : list
        One entry for each epoch.
    val_loss : list
        The losses on the validation data, where there are some.
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
        self.val_loss: list[float] = []
        self.kernels: RealArray | None = None

    @in_one_training
    def __call__(self, report: EpochReport) -> None:
        """Keep one epoch."""
        self.epoch.append(report.epoch)
        self.loss.append(report.loss)
        self.learning_rate.append(report.learning_rate)
        self.seconds.append(report.seconds)
        self.method.append(report.method)
        if report.val_loss is not None:
            self.val_loss.append(report.val_loss)
        self.kernels = report.kernels.copy()

    @property
    def history(self) -> dict[str, list[float]]:
        """The losses and learning rates by their names in Keras: loss, val_loss, learning_rate.

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
        return {**losses, "learning_rate": self.learning_rate}

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
        return plot_training(self.loss, self.kernels, file, self.val_loss)


class EarlyStopping(Stateful):
    """A callback that ends the training when the loss has stopped improving.

    One training at a time uses it: what another thread begins meanwhile is a RuntimeError.

    Parameters
    ----------
    patience : int
        Stop after so many epochs in a row without improvement.
    min_delta : float
        An improvement is a loss below the best one by more than this.
    monitor : "loss" or "val_loss", default "loss"
        Which loss.

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

    def __init__(
        self, patience: int = 10, min_delta: float = 0.0, monitor: Monitor = "loss"
    ) -> None:
        self.patience = integer("patience", patience, minimum=1)
        self.min_delta = finite_number("min_delta", min_delta, minimum=0)
        self.monitor = check_monitor(monitor)
        self._forget()

    @in_one_training
    def __call__(self, report: EpochReport) -> None:
        """Compare the epoch with the best one so far."""
        if report.epoch == 1:  # another training
            self._forget()
        loss = monitored(report, self.monitor)
        if loss < self.best_loss - self.min_delta:
            self.best_loss = loss
            self.best_epoch = report.epoch
        elif report.epoch - self.best_epoch >= self.patience:
            raise StopTraining(
                f"no improvement for {self.patience} epoch{'s' if self.patience > 1 else ''}: "
                f"the best loss was {self.best_loss:g} in epoch {self.best_epoch}"
            )

    def _forget(self) -> None:
        self.best_loss = math.inf
        self.best_epoch = 0


class ModelCheckpoint(Stateful):
    """A callback that saves the model after an epoch, or after each that is the best so far.

    One training at a time uses it: what another thread begins meanwhile is a RuntimeError.

    Parameters
    ----------
    filepath : path
        The file to write, see `Sequential.save`.
    monitor : "val_loss" or "loss", default "val_loss"
        Which loss says what is best.
    save_best_only : bool, default False
        Whether to save only when the loss is the lowest so far.

    Attributes
    ----------
    best_loss : float
        The lowest loss; infinity before the first epoch.
    best_epoch : int
        Its epoch, from 1; 0 before the first epoch.

    Raises
    ------
    ValueError
        `monitor` is something else, or is "val_loss" without validation data.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import convext
    >>> model = convext.build_model(1, (3, 3), num_channels=1)
    >>> x = np.ones((4, 1, 8, 8), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     best = ModelCheckpoint(f"{folder}/best.npz", monitor="loss", save_best_only=True)
    ...     history = model.fit(x, x[:, :, 1:-1, 1:-1], epochs=3, callbacks=[best], verbose=0)
    ...     print(convext.load_model(f"{folder}/best.npz").count_params())
    10
    """

    def __init__(
        self, filepath: FilePath, monitor: Monitor = "val_loss", save_best_only: bool = False
    ) -> None:
        self.filepath = filepath
        self.monitor = check_monitor(monitor)
        self.save_best_only = bool(save_best_only)
        self.best_loss = math.inf
        self.best_epoch = 0

    @in_one_training
    def __call__(self, report: EpochReport) -> None:
        """Save the model where that is due."""
        if report.model is None:
            raise ValueError("a ModelCheckpoint can only be a callback of Sequential.fit")
        if self.save_best_only:
            loss = monitored(report, self.monitor)
            if not loss < self.best_loss:
                return
            self.best_loss, self.best_epoch = loss, report.epoch
        report.model.save(self.filepath)
