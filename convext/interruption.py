"""Trainings that are stopped early, and where they leave what they have."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from typing import NoReturn

from .files import FilePath


class Stopped(KeyboardInterrupt):
    """A signal other than that of Ctrl-C asks to stop."""

    signal = signal.SIGTERM


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP of a terminal that is closed, raise `Stopped` in the block.

    Where one of them is ignored, as below nohup, or has a handler, it stays so.
    """

    def stop(number: int, _: object) -> NoReturn:
        stopped = Stopped()
        stopped.signal = signal.Signals(number)
        raise stopped

    handled = []
    if threading.current_thread() is threading.main_thread():
        handled = [
            number
            for number in (signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) == signal.SIG_DFL
        ]
    for number in handled:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def unused_name(file: FilePath) -> str:
    """Return the name of a file; where there is such a file already, a name like it.

    So what a training has that was stopped early replaces nothing better.

    Examples
    --------
    >>> unused_name("no_such_folder/kernels.npz")
    'no_such_folder/kernels.npz'
    """
    path = os.fspath(file)
    root, suffix = os.path.splitext(path)
    names = chain([path], (f"{root}-interrupted{number}{suffix}" for number in count(1)))
    return next(name for name in names if not os.path.isfile(name))
