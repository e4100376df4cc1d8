"""What is called after each epoch of a training: the report it gets, and ready callbacks."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from .._support.array_files import load_record
from .._support.checks import RealArray, finite_number, integer
from .._support.files import FilePath, check_writable
from .._support.sharing import Stateful, in_one_training
from ..errors import StopTraining
from ._steps import LOSSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..nn.models import Sequential


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
    metrics : dict of str to float
        What `Sequential.compile` was asked to measure, by its names, with "val_" in front for the
        validation data.
    weights : numpy.ndarray or None
        All that is trained, itself: not a copy.
    """

    epoch: int
    loss: float
    learning_rate: float
    seconds: float
    kernels: RealArray
    method: str = "direct"
    val_loss: float | None = None
    model: Sequential | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    weights: RealArray | None = field(default=None, repr=False)

    @property
    def logs(self) -> dict[str, float]:
        """Losses and metrics by their names, as Keras gives them to callbacks.

        Examples
        --------
        >>> import numpy as np
        >>> EpochReport(1, 0.5, 0.1, 0.01, np.ones((1, 1, 2, 2)), val_loss=0.6).logs
        {'loss': 0.5, 'val_loss': 0.6}
        """
        validation = {} if self.val_loss is None else {"val_loss": self.val_loss}
        return {"loss": self.loss, **validation, **self.metrics}


# A function of the report, or an object with methods such as on_epoch_end, as in Keras.
Callback: TypeAlias = Callable[[EpochReport], None] | Any


def check_monitor(monitor: object) -> str:
    """Return the name of a loss or metric that a callback can look at."""
    if isinstance(monitor, str) and monitor.removeprefix("val_") in ("loss", *LOSSES):
        return monitor
    raise ValueError(
        f"monitor must be 'loss' or 'val_loss', or a metric: {', '.join(LOSSES)}, also with 'val_' "
        f"in front; got {monitor!r}"
    )


def monitored(report: EpochReport, monitor: str) -> float:
    """Return the loss or metric of that name."""
    logs = report.logs
    if monitor in logs:
        return logs[monitor]
    if monitor.startswith("val_") and not any(name.startswith("val_") for name in logs):
        raise ValueError(f"monitor is {monitor!r}, but there are no validation data")
    raise ValueError(f"monitor is {monitor!r}, but what is measured is {', '.join(logs)}")


class History(Stateful):
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
        self.epoch.append(report.epoch)
        self.loss.append(report.loss)
        self.learning_rate.append(report.learning_rate)
        self.seconds.append(report.seconds)
        self.method.append(report.method)
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


class EarlyStopping(Stateful):
    """A callback that ends the training when the loss has stopped improving.

    One training at a time uses it: what another thread begins meanwhile is a RuntimeError.

    Parameters
    ----------
    patience : int
        Stop after so many epochs in a row without improvement.
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
    # In a training: what is trained, what that was in its best epoch, and the loss of that.
    _weights: RealArray | None
    _best_weights: RealArray | None
    _kept_loss: float

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
        self.restore_best_weights = bool(restore_best_weights)
        self._forget()

    @in_one_training
    def __call__(self, report: EpochReport) -> None:
        """Compare the epoch with the best one so far."""
        if report.epoch == 1:  # another training
            self._forget()
        loss = monitored(report, self.monitor)
        if report.weights is not self._weights:
            self._weights, self._best_weights, self._kept_loss = report.weights, None, math.inf
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


class ModelCheckpoint(Stateful):
    """A callback that saves the model after an epoch, or after each that is the best so far.

    One training at a time uses it: what another thread begins meanwhile is a RuntimeError.

    Parameters
    ----------
    filepath : path
        The file to write, see `Sequential.save`. Fields in braces stand for the number of the
        epoch, from 1, and for losses and metrics: "model.{epoch:02d}-{val_loss:.4f}.npz".
    monitor : str, default "val_loss"
        Which loss, "val_loss" or "loss", or metric says what is best.
    save_best_only : bool, default False
        Whether to save only when the loss is the lowest so far.
    initial_value_threshold : float, optional
        The loss below which a model is saved at all; infinity for any. By default that of the
        model that an earlier training left in the file, if it was saved with the same `monitor`: a
        better model is not overwritten, and a warning says so. With fields in `filepath`, and for
        files that this callback has not written, there is none.

    Attributes
    ----------
    best_loss : float
        The lowest loss; before the first epoch infinity, or the threshold.
    best_epoch : int
        Its epoch, from 1; 0 before the first epoch.

    Raises
    ------
    ValueError
        `monitor` is something else, or is "val_loss" without validation data; `filepath` has other
        fields.
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
        self,
        filepath: FilePath,
        monitor: str = "val_loss",
        save_best_only: bool = False,
        initial_value_threshold: float | None = None,
    ) -> None:
        self.filepath = filepath
        names = [f"{prefix}{name}" for prefix in ("", "val_") for name in ("loss", *LOSSES)]
        self._fill_in(1, dict.fromkeys(names, 1.0))
        self.monitor = check_monitor(monitor)
        self.save_best_only = bool(save_best_only)
        self.best_loss = math.inf
        self.best_epoch = 0
        self._begun = not self.save_best_only
        if initial_value_threshold is not None:
            self._begun = True
            if initial_value_threshold != math.inf:
                self.best_loss = finite_number("initial_value_threshold", initial_value_threshold)

    @in_one_training
    def on_train_begin(self, logs: object = None) -> None:
        """Find out before the first epoch whether the file can be written."""
        if "{" not in os.fspath(self.filepath):
            check_writable(self.filepath)

    @in_one_training
    def __call__(self, report: EpochReport) -> None:
        """Save the model where that is due."""
        if report.model is None:
            raise ValueError("a ModelCheckpoint can only be a callback of Sequential.fit")
        filepath = self._fill_in(report.epoch, report.logs)
        if not self.save_best_only:
            report.model.save(filepath)
            return
        loss = monitored(report, self.monitor)
        if not self._begun:
            self._begun = True
            self._heed(filepath)
        if loss < self.best_loss:
            report.model.save(filepath, {"monitor": self.monitor, "loss": loss})
            self.best_loss, self.best_epoch = loss, report.epoch

    def _fill_in(self, epoch: int, logs: dict[str, float]) -> FilePath:
        """Return the path with its fields filled in."""
        path = os.fspath(self.filepath)
        try:
            return path.format(epoch=epoch, **logs)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"filepath is {path!r}, whose fields can be {', '.join(['epoch', *logs])}: "
                f"{type(error).__name__}: {error} (braces of a name are written twice)"
            ) from None

    def _heed(self, filepath: FilePath) -> None:
        """Take the loss of an earlier training's model as the threshold."""
        if not os.path.exists(filepath) or os.fspath(self.filepath) != filepath:
            return
        try:
            config = load_record(filepath, "model", "config") or {}
            saved = config["checkpoint"] or {}
            loss = finite_number("loss", saved["loss"])
            if saved["monitor"] != self.monitor:
                return
        except (KeyError, OSError, TypeError, ValueError):
            return  # it was not written by a checkpoint
        self.best_loss = loss
        warnings.warn(
            f"{os.fsdecode(filepath)} holds a model of an earlier training whose {self.monitor} is "
            f"{loss:g}: it is kept until there is a better one. To replace it in any case, give "
            f"initial_value_threshold=float('inf')",
            stacklevel=2,
        )
