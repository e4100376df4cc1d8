"""The callback that saves a network while it is trained."""

from __future__ import annotations

import math
import os

from .._support.array_files import load_record
from .._support.atomic_files import FilePath, check_writable, path_of
from .._support.checks import boolean, finite_number
from .._support.messages import warn
from .._support.sharing import Resumable, in_one_training
from ..train._steps import LOSSES
from ..train.epoch_report import EpochReport, check_monitor, monitored


class ModelCheckpoint(Resumable):
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
        model that an earlier training left in the file, with the same `monitor` and no fields in
        `filepath`: a better model is not overwritten, and a warning says so.

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
        The file cannot be written: an older one stays as it was, the training ends, and the model
        has the weights of this epoch, to be saved elsewhere.

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

    _changing = ("best_loss", "best_epoch", "_begun")
    _options = ("monitor", "save_best_only")

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
        self.save_best_only = boolean("save_best_only", save_best_only)
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
        if "{" not in path_of(self.filepath):
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
        path = path_of(self.filepath)
        try:
            return path.format(epoch=epoch, **logs)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"filepath is {path!r}, whose fields can be {', '.join(['epoch', *logs])}: "
                f"{type(error).__name__}: {error} (braces of a name are written twice)"
            ) from None

    def _heed(self, filepath: FilePath) -> None:
        """Take the loss of an earlier training's model as the threshold."""
        if not os.path.exists(filepath) or path_of(self.filepath) != filepath:
            return
        try:
            config = load_record(filepath, "model", "config") or {}
            saved = config["checkpoint"] or {}
            loss = finite_number("loss", saved["loss"])
            if saved["monitor"] != self.monitor:
                return
        except (KeyError, TypeError, ValueError):
            return  # it was not written by a checkpoint
        self.best_loss = loss
        warn(
            f"{os.fsdecode(filepath)} holds a model of an earlier training whose {self.monitor} is "
            f"{loss:g}: it is kept until there is a better one. To replace it in any case, give "
            f"initial_value_threshold=float('inf')",
        )
