"""How much memory there is: of the machine, of the container, of the limits of the process."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .checks import integer
from .quota import GROUPS, OWN_GROUPS, folders_of, text_of

UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
UNITS |= {f"{unit}B": 1000**power for power, unit in enumerate("KMGT", 1)}
UNITS |= {f"{unit}IB": 1024**power for power, unit in enumerate("KMGT", 1)}

# Where nothing says how much memory there is.
UNKNOWN = 2 << 30


def bytes_of(name: str, value: object) -> int:
    """Return a size in bytes, of a number or of a text such as "500MB", "1.5 GiB" or "2G"."""
    if not isinstance(value, str):
        return integer(name, value, minimum=1)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Z]*)\s*", value.upper(), re.ASCII)
    if found is None or found[2] not in UNITS or float(found[1]) * UNITS[found[2]] < 1:
        raise ValueError(f'{name} must be a number of bytes or a size such as "2GB", got {value!r}')
    return integer(name, int(float(found[1]) * UNITS[found[2]]), minimum=1)


def format_bytes(size: int) -> str:
    """Return a size as in "1.5 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 10**9 else f"{size / 1e6:.1f} MB"


def memory_limit(max_memory: int | str | None) -> int:
    """Return `max_memory` in bytes; without one, half of what is available."""
    return available_memory() // 2 if max_memory is None else bytes_of("max_memory", max_memory)


def available_memory() -> int:
    """Return how many bytes this process may still take before something gives way.

    That is what the machine has left, and what is left of the limits of the process and of its
    control groups. Files that the system keeps in memory count as free.
    """
    left = [_of_machine(), *_left_of_limits(), *_left_of_groups(GROUPS, OWN_GROUPS)]
    return max(0, int(min(left)))


def _of_machine() -> float:
    if found := _fields(Path("/proc/meminfo")).get("MemAvailable"):
        return found
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    except (AttributeError, OSError, ValueError):
        return UNKNOWN


def _left_of_limits() -> list[float]:
    """Return what is left of the limits on addresses and on data."""
    try:
        import resource
    except ImportError:
        return []
    used = _fields(Path("/proc/self/status"))
    limits = (resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")
    softs = [(resource.getrlimit(kind)[0], used.get(name, 0.0)) for kind, name in limits]
    return [soft - taken for soft, taken in softs if soft != resource.RLIM_INFINITY]


def _left_of_groups(groups: Path, own_groups: Path) -> list[float]:
    """Return what is left of the limit of each control group around the process."""
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
        2: ("memory.max", "memory.current", "file"),
    }
    left = []
    for version, folder in folders_of("memory", groups, own_groups):
        limit, usage, cached = names[version]
        most, taken = text_of(folder / limit), text_of(folder / usage)
        if most.isdecimal() and taken.isdecimal():
            kept = re.search(rf"^{cached} (\d+)$", text_of(folder / "memory.stat"), re.MULTILINE)
            left.append(int(most) - int(taken) + (int(kept[1]) if kept else 0.0))
    return left


def _fields(file: Path) -> dict[str, float]:
    """Return the sizes in a file of Linux, such as "VmSize:  123 kB", in bytes."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", text_of(file), re.MULTILINE)
    return {name: 1024.0 * int(size) for name, size in found}
