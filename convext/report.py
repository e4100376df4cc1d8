"""What a training says about its epochs, in Chinese or in English."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ._checks import integer
from .callbacks import EpochReport

if TYPE_CHECKING:
    from tqdm import tqdm

Language: TypeAlias = Literal["zh", "en"]

# On a terminal, more epochs than this are shown as a progress bar.
_MOST_LINES = 20


def language() -> Language:
    """Return the language for people: "zh" (Chinese) or "en" (English).

    It is that of the environment variable CONVEXT_LANG, or else of the locale: the first of
    LC_ALL, LC_MESSAGES and LANG that is set.

    Returns
    -------
    str
        "zh" or "en".

    Examples
    --------
    >>> language() in {"zh", "en"}
    True
    """
    for variable in ("CONVEXT_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def format_epoch(report: EpochReport, lang: Language | None = None) -> str:
    """Return one line about an epoch.

    Parameters
    ----------
    report : EpochReport
        The epoch.
    lang : {"zh", "en"}, optional
        The language; by default that of the environment.

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
    rate = f"{report.learning_rate:g}"
    validation = None if report.val_loss is None else format_loss(report.val_loss)
    if (lang or language()) == "zh":
        also = f"验证损失: {validation}, " if validation else ""
        return (
            f"轮次: {report.epoch}, 平均损失: {report.loss:.4f}, {also}"
            f"学习率: {rate}, 训练时间: {report.seconds:.2f}秒"
        )
    also = f"validation loss: {validation}, " if validation else ""
    return (
        f"Epoch: {report.epoch}, average loss: {format_loss(report.loss)}, {also}"
        f"learning rate: {rate}, training time: {_format_seconds(report.seconds)} s"
    )


def format_loss(loss: float) -> str:
    """Return a loss with four decimals, or with four digits where these would not do."""
    return f"{loss:.4f}" if 0.001 <= loss < 1e6 else f"{loss:.4g}"


def say(text: str) -> None:
    """Print a line, escaping what the encoding of the standard output lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


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
        self._language = _printable_language()
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Progress:
        if self._verbose and self._num_epochs > _MOST_LINES and _is_terminal():
            import shutil

            from tqdm import tqdm

            unit = "轮" if self._language == "zh" else "epoch"
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
            print(format_epoch(report, self._language), flush=True)

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
        loss, rate = format_loss(report.loss), f"{report.learning_rate:g}"
        if self._language == "zh":
            return f"损失: {loss}, 学习率: {rate}"
        return f"loss: {loss}, rate: {rate}"


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _printable_language() -> Language:
    """Return the language of the environment, or English where Chinese cannot be printed."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        "轮次, 平均损失, 学习率, 训练时间, 秒".encode(encoding)
    except UnicodeEncodeError:
        return "en"
    return language()


def _format_seconds(seconds: float) -> str:
    """Return seconds with two decimals, or with two digits where these would not do."""
    return f"{seconds:.2f}" if seconds >= 0.1 else f"{seconds:.2g}"
