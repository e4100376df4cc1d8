"""The command line: ``convext train``, ``apply``, ``train-images`` and the other commands.

The exit status is 0 for success, 2 for wrong usage or input, 1 for a run that failed, 130 after
Ctrl-C, 143 when SIGTERM ended a training and 141 when whatever reads the output has gone.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from .._support.messages import printable, translate_error
from .._support.ranks import Ranks
from .arguments import UsageError, with_both_sizes
from .commands import TOGETHER, make_parser
from .job import job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit status.

    Examples
    --------
    >>> main(["--version"])
    convext ...
    0
    """
    try:
        with job(_tell) as ranks:
            status = _run(argv, ranks)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except (KeyboardInterrupt, Exception) as error:
        return _tell(error)


def _tell(error: BaseException, rank: int | None = None) -> int:
    """Say what has ended a command, perhaps on one rank alone; return its exit status."""
    where = "" if rank is None else f"rank {rank}: "
    if isinstance(error, BrokenPipeError):
        _discard_output()
        return 141
    _discard_unwritten_output()
    if isinstance(error, KeyboardInterrupt):
        what = where + ": ".join(["interrupted", *map(str, error.args)])
        return _fail(what, 128 + getattr(error, "signal", signal.SIGINT))
    return _fail(f"{where}error: {_describe(error)}", 2 if _is_bad_input(error) else 1)


_BAD_INPUT = (
    UsageError,
    ValueError,
    TypeError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


def _is_bad_input(error: BaseException) -> bool:
    """Return whether other arguments or files would help."""
    named = isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENAMETOOLONG)
    return named or isinstance(error, _BAD_INPUT)


def _run(argv: Sequence[str] | None, ranks: Ranks) -> int:
    try:
        arguments = with_both_sizes(sys.argv[1:] if argv is None else argv)
        options = make_parser(arguments).parse_args(arguments)
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    with warnings.catch_warnings():
        quiet = getattr(options, "quiet", False)
        warnings.simplefilter("ignore" if quiet else "default", UserWarning)
        # Without a word, a training would be lost that is killed later.
        warnings.filterwarnings("default", "the checkpoint of epoch", UserWarning)
        # Of Pillow, about images that are large, which it reads all the same.
        warnings.filterwarnings("ignore", "Image size .* exceeds limit")
        warnings.showwarning = _show_warning
        options.ranks = ranks
        if ranks.first or options.command in TOGETHER:
            options.run(options)
    return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _fail(f"warning: {message}", 0)


def _fail(message: str, status: int) -> int:
    line = translate_error(" ".join(message.split()))
    with suppress(OSError):  # of a terminal that was closed
        print(printable(f"convext: {line}", sys.stderr), file=sys.stderr)
    return status


def _describe(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"out of memory: {error}"
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part is not None)
    if isinstance(error, (*_BAD_INPUT, OSError, ArithmeticError, ImportError)):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}"


def _discard_output() -> None:
    """Send what is still to be printed nowhere, lest Python complain about it when it exits."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _discard_unwritten_output() -> None:
    """Discard the output if it cannot be written, as when the disk is full."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _discard_output()
