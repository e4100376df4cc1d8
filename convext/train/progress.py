"""What a training shows of its epochs: a line each, or a bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from threading import Event, Lock, RLock, Thread
from typing import TYPE_CHECKING, Any

from .._support.checks import integer
from .._support.messages import format_loss, print_line, printable_language, translate
from .epoch_report import EpochReport, format_epoch

if TYPE_CHECKING:
    from tqdm import tqdm

# On a terminal, more epochs than this are shown as a progress bar.
_MOST_LINES = 20

# An epoch that takes longer is shown while it runs, and looked at now and then.
_SECONDS_OF_LONG_EPOCH = 0.5
_SECONDS_BETWEEN_LOOKS = 0.2


class Progress:
    """Shows the epochs of a training as they end: a line each, or a bar when they are many.

    On a terminal, an epoch that takes long has a bar of its own, or moves that of the epochs.
    `within` returns how many samples, or batches, of the epoch under way are done, and how many it
    has, or None. To be used as a context manager.
    """

    first_epoch = 0  # that is shown, counted from 0

    def __init__(
        self,
        num_epochs: int,
        verbose: bool = True,
        within: Callable[[], tuple[int, int | None]] | None = None,
    ) -> None:
        self._num_epochs = integer("num_epochs", num_epochs, minimum=1)
        self._verbose = verbose
        self._within = within
        self._language = printable_language() if verbose else None
        self._bar: tqdm[Any] | None = None  # of the epochs
        self._epoch_bar: tqdm[Any] | None = None
        self._epochs = 0  # that have ended
        self._began = time.monotonic()  # the next one
        self._watcher: Thread | None = None
        self._ended = Event()
        self._lock = Lock()  # of the bars

    def __enter__(self) -> Progress:
        if self._verbose and _is_terminal():
            if self._num_epochs > _MOST_LINES:
                self._bar = _make_bar(self._num_epochs, translate("epochs"))
            if self._within is not None:
                self._watcher = Thread(target=self._watch, daemon=True)
                with suppress(RuntimeError):  # there can be no more threads
                    self._watcher.start()
        return self

    def epoch(self, report: EpochReport) -> None:
        """Show that an epoch has ended."""
        with self._lock:
            self._epochs += 1
            if self._bar is not None:
                loss, rate = format_loss(report.loss), f"{report.learning_rate:g}"
                text = translate("loss: {loss}, rate: {rate}", self._language, loss=loss, rate=rate)
                self._bar.set_postfix_str(text, refresh=False)
                self._bar.n = self._epochs - 1
                self._bar.update()
            elif self._verbose:
                self._close_epoch_bar()
                print_line(format_epoch(report, self._language))
            self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._watcher is not None and self._watcher.is_alive():
            self._watcher.join()
        self._close_epoch_bar()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _watch(self) -> None:
        """Show now and then how far the epoch is, while another thread computes."""
        with suppress(OSError, ValueError):  # of an output that is gone
            while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
                with self._lock:
                    self._show_epoch()

    def _show_epoch(self) -> None:
        seconds = time.monotonic() - self._began
        if seconds < _SECONDS_OF_LONG_EPOCH or self._within is None:
            return
        done, total = self._within()
        if self._bar is not None:
            share = min(done / total, 0.99) if total else 0
            self._bar.n = round(self._epochs + share, 2)
            self._bar.refresh()
            return
        if self._epoch_bar is None:
            number = self.first_epoch + self._epochs + 1
            text = translate("Epoch {number}", number=number)
            self._epoch_bar = _make_bar(total, desc=text, leave=False)
            self._epoch_bar.start_t -= seconds
        self._epoch_bar.n = done if total is None else min(done, total)
        self._epoch_bar.refresh()

    def _close_epoch_bar(self) -> None:
        if self._epoch_bar is not None:
            self._epoch_bar.close()
            self._epoch_bar = None


@contextmanager
def waiting(text: str) -> Iterator[Callable[[], object]]:
    """Show on a terminal for how long something has taken, and in how many steps.

    What comes is to be called after each step.
    """
    if not _is_terminal():
        yield lambda: None
        return
    with _make_bar(None, desc=text, leave=False, form="{desc}: {n} [{elapsed}]") as bar:
        yield bar.update


def _make_bar(
    total: int | None, unit: str = "", /, form: str | None = None, **options: Any
) -> tqdm[Any]:
    from shutil import get_terminal_size

    # On terminals that claim to have no columns tqdm shows nothing; here they have 80.
    columns, rows = get_terminal_size()
    # Without a rate, and on narrow terminals without times, which would leave little room for the
    # bar and for what is said behind it.
    times = " [{elapsed}<{remaining}]" if columns >= 60 else ""
    count = f"{{n_fmt}}/{{total_fmt}} {unit}".strip()
    form = form or f"{{l_bar}}{{bar}}| {count}{times}{{postfix}}"
    size = {"ncols": columns, "nrows": rows}
    return _bar_class()(total=total, file=sys.stdout, bar_format=form, **size, **options)


@cache
def _bar_class() -> type[tqdm[Any]]:
    """Return bars with a lock of their own, which is given back whatever happens.

    tqdm's own is shared by all bars, and by processes. It stays locked where an output that is gone
    raises an error in `refresh`, or an interruption comes: the next bar would wait for ever.
    """
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        _lock = RLock()
        monitor_interval = 0

        def refresh(self, *_: object, **__: object) -> None:
            with self._lock:
                super().refresh(nolock=True)

    return Bar


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
