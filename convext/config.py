"""The number of threads, and what this build and this machine are."""

from __future__ import annotations

import math
import os
import sys
from threading import get_ident
from typing import TypedDict

from ._compiled import _dispatch
from ._support.checks import integer
from ._support.messages import columns, print_line, translate, warn
from ._support.quota import quota_in_cpus
from ._support.ranks import ALONE, Ranks
from ._version import __version__

# More threads than any machine has use for; each one costs memory.
MAX_THREADS = 1024


# How many threads each thread of Python was seen to be able to start, itself included; and beyond
# how many some could not.
_started: dict[int, int] = {}
_most_threads = MAX_THREADS


class Config(TypedDict):
    """What `get_config` returns."""

    version: str
    isa: str
    isas_built: list[str]
    isas_supported: list[str]
    openmp: bool
    compiler: str
    num_threads: int
    num_threads_from: str


def set_num_threads(n: int | None) -> None:
    """Set the number of threads that operations use when they are not told otherwise.

    Parameters
    ----------
    n : int or None
        From 1 to 1024; None looks again at ``OMP_NUM_THREADS`` and, where that is not set, at the
        CPUs that the process may use, and at the CPU quota of its container.

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
    global _num_threads, _source, _most_threads  # noqa: PLW0603
    if n is None:
        _num_threads, _source = _environment_num_threads()
    else:
        _num_threads, _source = _checked("n", n), "set_num_threads"
    _most_threads = MAX_THREADS


def get_num_threads() -> int:
    """Return the number of threads that operations use when they are not told otherwise.

    Returns
    -------
    int
        What `set_num_threads` set, else the first number in ``OMP_NUM_THREADS``, else the number
        of CPUs that the process may use, or the CPU quota of its container where that is less,
        rounded up, as they were at import. Fewer where the system does not start as many threads,
        which is warned of once. Always 1 in a build without OpenMP.

    Examples
    --------
    >>> import convext
    >>> convext.get_num_threads() >= 1
    True
    """
    if not _dispatch.has_openmp():
        return 1
    return _startable(_num_threads)


def resolve_num_threads(num_threads: int | None, ranks: Ranks = ALONE) -> int:
    """Return the number of threads for one call, checked; each rank has its share of the CPUs."""
    cpus, sharing = (1, 1) if ranks.size == 1 else ranks.cpus()  # whatever each of them is given
    if num_threads is None:
        number = get_num_threads()
        if ranks.size == 1 or _source in ("set_num_threads", "OMP_NUM_THREADS"):
            return number
        return max(1, min(number, (number if _source == "CPU quota" else cpus) // sharing))
    num_threads = _checked("num_threads", num_threads)
    return _startable(num_threads)


def get_config() -> Config:
    """Return version, instruction sets, OpenMP, compiler and number of threads.

    Returns
    -------
    dict
        ``version``; ``isa``, the instruction set in use; ``isas_built`` and ``isas_supported``,
        those in this build and, of them, those that this CPU has; ``openmp``; ``compiler``;
        ``num_threads``, and ``num_threads_from``, what says so: "set_num_threads",
        "OMP_NUM_THREADS", "CPU quota", "CPUs", "what can be started" or "one thread alone".

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
        "num_threads_from": _source_of(get_num_threads()),
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
        translate("threads"): f"{config['num_threads']} ({config['num_threads_from']})",
        "Python": sys.version.split()[0],
    }
    for name, value in rows.items():
        print_line(f"{name}{' ' * (17 - columns(name))}{value}")


def _checked(name: str, n: int) -> int:
    n = integer(name, n, minimum=1)
    if n > MAX_THREADS:
        raise ValueError(f"{name} must be at most {MAX_THREADS}, got {n}")
    return n


def _environment_num_threads() -> tuple[int, str]:
    """Return a number of threads, and what says so."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return min(int(first), MAX_THREADS), "OMP_NUM_THREADS"
    cpus = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    quota = quota_in_cpus()
    if quota < cpus:
        return min(math.ceil(quota), MAX_THREADS), "CPU quota"
    return min(cpus, MAX_THREADS), "CPUs"


_num_threads, _source = _environment_num_threads()


def _source_of(n: int) -> str:
    if not _dispatch.has_openmp():
        return "one thread alone"
    return _source if n == _num_threads else "what can be started"


def _startable(n: int) -> int:
    """Return how many of `n` threads can be started, by the thread that asks.

    GNU OpenMP ends the process where it cannot start as many as it is told to. Each thread that
    calls it has its own ones.
    """
    global _most_threads  # noqa: PLW0603
    if n == 1 or n <= _started.get(get_ident(), 1):
        return n
    wanted, n = n, min(n, _most_threads)
    if n > 1:
        n = 1 + _dispatch.start_threads(n - 1)
        _started[get_ident()] = n
        if n < min(wanted, _most_threads):
            _most_threads = n
            warn(
                f"the system starts only {n} of {wanted} threads, so convext uses no more; is "
                f"there a limit of processes (ulimit -u, a container's) or of memory?",
                RuntimeWarning,
            )
    return n
