"""What is stopped early, or cannot be saved: trainings, which leave what they have; LAPACK."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from typing import Any, NoReturn

from .atomic_files import FilePath, path_of

# Matrices of as many elements take LAPACK a tenth of a second.
MIN_ELEMENTS = 500**2


# Signals that ask to stop, of those that the system has.
_STOPPING = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]


class Stopped(KeyboardInterrupt):
    """A signal other than that of Ctrl-C asks to stop."""

    signal = signal.SIGTERM


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM, and what a terminal that is closed sends, raise `Stopped` in the block.

    That is SIGHUP, on Windows SIGBREAK, which Ctrl-Break sends, too. Where one of them is ignored,
    as below nohup, or has a handler, it stays so.
    """

    def stop(number: int, _: object) -> NoReturn:
        stopped = Stopped()
        stopped.signal = signal.Signals(number)
        raise stopped

    handled = []
    if threading.current_thread() is threading.main_thread():
        handled = [number for number in _STOPPING if signal.getsignal(number) == signal.SIG_DFL]
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
    """
    path = path_of(file)
    root, suffix = os.path.splitext(path)
    names = chain([path], (f"{root}-interrupted{number}{suffix}" for number in count(1)))
    return next(name for name in names if not os.path.isfile(name))


def save_anywhere(write: Callable[[str], object], file: FilePath) -> tuple[str, OSError | None]:
    """Write what has taken long to a file; where that fails, to another folder.

    That is the current one, or the one for temporary files. Return where it is, and the error if
    that is not where it should be; it is raised where nothing can be written.
    """
    name = os.fspath(file)
    try:
        write(name)
        return name, None
    except OSError as error:
        import tempfile  # only here, so that importing convext stays quick

        for folder in (os.curdir, tempfile.gettempdir()):
            other = unused_name(os.path.join(folder, os.path.basename(name)))
            with suppress(OSError):
                write(other)
                return other, error
        raise


def telling(error: MemoryError | OSError, what: str) -> MemoryError | OSError:
    """Return an error that says what it said, and where the result is."""
    if isinstance(error, MemoryError):
        return MemoryError(f"{error}; {what}")
    return OSError(error.errno, f"{error.strerror or error}; {what}", error.filename)


def interruptible(function: Callable[..., Any], matrix: Any, *rest: Any, **options: Any) -> Any:
    """Return what a function of linear algebra makes of a matrix; Ctrl-C need not wait for it.

    LAPACK looks at no signals. So a large matrix is left to another thread, which goes on after
    Ctrl-C, where its result is dropped.
    """
    if matrix.size < MIN_ELEMENTS or threading.current_thread() is not threading.main_thread():
        return function(matrix, *rest, **options)
    from concurrent.futures import Future  # only here, so that importing convext stays quick

    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function(matrix, *rest, **options))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result()
