"""The number of threads, and what this build and this machine are."""

from __future__ import annotations

import os
import sys
from typing import TypedDict

from ._checks import integer
from ._openmp import _dispatch
from ._version import __version__
from .messages import columns, print_line, translate

# More threads than any machine has use for; each one costs memory, and a system that cannot start
# them would end the process.
MAX_THREADS = 1024

_forked = False


class Config(TypedDict):
    """What `get_config` returns."""

    version: str
    isa: str
    isas_built: list[str]
    isas_supported: list[str]
    openmp: bool
    compiler: str
    num_threads: int


def set_num_threads(n: int | None) -> None:
    """Set the number of threads that operations use when they are not told otherwise.

    Parameters
    ----------
    n : int or None
        From 1 to 1024; None looks again at ``OMP_NUM_THREADS`` and, where that is not set, at the
        CPUs that the process may use.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer in that range.

    Examples
    --------
    >>> import convext
    >>> convext.set_num_threads(2)
    >>> convext.get_num_threads()
    2
    >>> convext.set_num_threads(None)
    """
    global _num_threads  # noqa: PLW0603
    _num_threads = _environment_num_threads() if n is None else _checked("n", n)


def get_num_threads() -> int:
    """Return the number of threads that operations use when they are not told otherwise.

    Returns
    -------
    int
        What `set_num_threads` set, else the first number in ``OMP_NUM_THREADS``, else the number
        of CPUs that the process may use, as they were at import. Always 1 in a build without
        OpenMP, and in a process that was forked from one that had imported convext, where the
        threads did not come along.

    Examples
    --------
    >>> import convext
    >>> convext.get_num_threads() >= 1
    True
    """
    return 1 if _forked or not _dispatch.has_openmp() else _num_threads


def resolve_num_threads(num_threads: int | None) -> int:
    """Return the number of threads for one call, checked."""
    if num_threads is None:
        return get_num_threads()
    num_threads = _checked("num_threads", num_threads)
    return 1 if _forked else num_threads


def get_config() -> Config:
    """Return version, instruction sets, OpenMP, compiler and number of threads.

    Returns
    -------
    dict
        ``version``; ``isa``, the instruction set in use; ``isas_built`` and ``isas_supported``,
        those in this build and, of them, those that this CPU has; ``openmp``; ``compiler``;
        ``num_threads``.

    Examples
    --------
    >>> import convext
    >>> convext.get_config()["isas_built"][0]
    'baseline'
    """
    return {
        "version": __version__,
        "isa": _dispatch.current_isa(),
        "isas_built": _dispatch.built_isas(),
        "isas_supported": _dispatch.supported_isas(),
        "openmp": _dispatch.has_openmp(),
        "compiler": _dispatch.compiler(),
        "num_threads": get_num_threads(),
    }


def show_config() -> None:
    """Print what `get_config` returns, a line each.

    Examples
    --------
    >>> import convext
    >>> convext.show_config()
    convext          ...
    instruction set  ... (built: baseline...)
    OpenMP           ...
    compiler         ...
    threads          ...
    Python           ...
    """
    config = get_config()
    built = ", ".join(config["isas_built"])
    yes, no = translate("yes"), translate("no (single-threaded build)")
    rows = {
        "convext": config["version"],
        translate("instruction set"): translate(
            "{isa} (built: {built})", isa=config["isa"], built=built
        ),
        "OpenMP": yes if config["openmp"] else no,
        translate("compiler"): config["compiler"],
        translate("threads"): config["num_threads"],
        "Python": sys.version.split()[0],
    }
    for name, value in rows.items():
        print_line(f"{name}{' ' * (17 - columns(name))}{value}")


def _checked(name: str, n: int) -> int:
    n = integer(name, n, minimum=1)
    if n > MAX_THREADS:
        raise ValueError(f"{name} must be at most {MAX_THREADS}, got {n}")
    return n


def _environment_num_threads() -> int:
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return min(int(first), MAX_THREADS)
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MAX_THREADS)
    return min(os.cpu_count() or 1, MAX_THREADS)


_num_threads = _environment_num_threads()


def _after_fork() -> None:
    global _forked  # noqa: PLW0603
    _forked = True


# A forked child has none of its parent's OpenMP threads, and GCC's run-time library would wait for
# them for ever: see https://gcc.gnu.org/bugzilla/show_bug.cgi?id=58378.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
