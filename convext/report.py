"""What a training says about its epochs."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._checks import integer
from .callbacks import EpochReport
from .messages import Language, print_line, printable_language, translate

if TYPE_CHECKING:
    from tqdm import tqdm

# On a terminal, more epochs than this are shown as a progress bar.
_MOST_LINES = 20


def format_epoch(report: EpochReport, lang: Language | None = None) -> str:
    """Return one line about an epoch.

    Parameters
    ----------
    report : EpochReport
        The epoch.
    lang : {"zh", "en"}, optional
        The language; by default the one that can be printed.

    Returns
    -------
    str

    Examples
    --------
    >>> import numpy as np
    >>> report = EpochReport(1, 0.2157, 0.1, 1.99, np.zeros((2, 3, 2, 2)))
    >>> print(format_epoch(report, "zh"))
    轮次: 1, 平均损失: 0.2157, 学习率: 0.1, 训练时间: 1.99秒
    >>> print(format_epoch(report, "en"))
    Epoch: 1, average loss: 0.2157, learning rate: 0.1, training time: 1.99 s
    """
    also = ""
    if report.val_loss is not None:
        also = translate("validation loss: {loss}, ", lang, loss=format_loss(report.val_loss))
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


def format_loss(loss: float) -> str:
    """Return a loss with four decimals, or with four digits where these would not do."""
    return f"{loss:.4f}" if 0.001 <= loss < 1e6 else f"{loss:.4g}"


class Progress:
    """Shows the epochs of a training as they end: a line each, or a bar when they are many.

    To be used as a context manager.

    Parameters
    ----------
    num_epochs : int
        How many epochs there will be.
    verbose : bool
        Whether to show anything.
    """

    def __init__(self, num_epochs: int, verbose: bool = True) -> None:
        self._num_epochs = integer("num_epochs", num_epochs, minimum=1)
        self._verbose = verbose
        self._language = printable_language()
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Progress:
        if self._verbose and self._num_epochs > _MOST_LINES and _is_terminal():
            import shutil

            from tqdm import tqdm

            unit = translate("epoch")
            # On terminals that claim to have no columns tqdm shows nothing; here they have 80.
            columns, rows = shutil.get_terminal_size()
            self._bar = tqdm(
                total=self._num_epochs, unit=unit, file=sys.stdout, ncols=columns, nrows=rows
            )
        return self

    def epoch(self, report: EpochReport) -> None:
        """Show that an epoch has ended."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._summary(report), refresh=False)
            self._bar.update()
        elif self._verbose:
            print_line(format_epoch(report, self._language))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _summary(self, report: EpochReport) -> str:
        return translate(
            "loss: {loss}, rate: {rate}",
            loss=format_loss(report.loss),
            rate=f"{report.learning_rate:g}",
        )


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _format_seconds(seconds: float) -> str:
    """Return seconds with two decimals, or with two digits where these would not do."""
    return f"{seconds:.2f}" if seconds >= 0.1 else f"{seconds:.2g}"
