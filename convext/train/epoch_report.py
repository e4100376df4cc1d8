"""What there is to say about an epoch of a training, and what a callback may look at in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .._support.checks import RealArray
from .._support.messages import Language, format_loss, translate
from ._steps import LOSSES

# Shorter times are printed as 3e-06, longer ones as 0.000085, which is easier to read.
_SHORTEST_IN_FULL = 5e-6


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
        What `Sequential.compile` was asked to measure, by its names, with ``"val_"`` in front for
        the validation data.
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
    model: Any = None  # a Sequential, which this room does not know
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


def format_epoch(report: EpochReport, lang: Language | None = None) -> str:
    """Return one line about an epoch, by default in the language that can be printed."""
    also = ""
    if report.val_loss is not None:
        also = translate("validation loss: {loss}", lang, loss=format_loss(report.val_loss)) + ", "
    also += "".join(f"{name}: {format_loss(value)}, " for name, value in report.metrics.items())
    return translate(
        "Epoch: {epoch}, average loss: {loss}, {also}learning rate: {rate}, "
        "training time: {seconds} s",
        lang,
        epoch=report.epoch,
        loss=format_loss(report.loss),
        also=also,
        rate=f"{report.learning_rate:g}",
        seconds=_format_seconds(report.seconds),
    )


def _format_seconds(seconds: float) -> str:
    """Return seconds with two decimals, or with two digits where these would not do."""
    if seconds >= 0.1:
        return f"{seconds:.2f}"
    if seconds < _SHORTEST_IN_FULL:
        return f"{seconds:.2g}"
    return f"{seconds:.{1 - math.floor(math.log10(seconds))}f}"
