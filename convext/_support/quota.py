"""The CPU quota of a container: how many CPUs' time the process may use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def quota_in_cpus(groups: Path = GROUPS, own_groups: Path = OWN_GROUPS) -> float:
    """Return the least quota of the process's control groups, in CPUs; infinity where none has one.

    A group may not use more than those around it, so these count, too. What cannot be read says
    nothing.
    """
    quotas = [math.inf]
    for version, folder in folders_of("cpu", groups, own_groups):
        read = _quota_of_version_2 if version == 2 else _quota_of_version_1
        quotas.append(read(folder))
    return min(quotas)


def folders_of(controller: str, groups: Path, own_groups: Path) -> Iterator[tuple[int, Path]]:
    """Yield the folders of the process's control groups and of those around them.

    With each comes the version of the control groups: in version 1, a controller has a tree of its
    own.
    """
    try:
        lines = own_groups.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            version, folders = 2, [groups, groups / "unified"]
        elif controller in controllers.split(","):
            version, folders = 1, [groups / controllers, groups / controller]
        else:
            continue
        for folder in folders:
            for group in _around(folder, path):
                yield version, group


def _around(folder: Path, path: str) -> Iterator[Path]:
    """Yield a group and those around it.

    In a container the path may be the host's, of which only the last one, the folder, is seen.
    """
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for length in range(len(parts), -1, -1):
        yield folder.joinpath(*parts[:length])


def _quota_of_version_2(group: Path) -> float:
    quota, _, period = text_of(group / "cpu.max").partition(" ")
    return _in_cpus(quota, period)


def _quota_of_version_1(group: Path) -> float:
    return _in_cpus(text_of(group / "cpu.cfs_quota_us"), text_of(group / "cpu.cfs_period_us"))


def text_of(file: Path) -> str:
    """Return what a small file says; nothing where it cannot be read."""
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _in_cpus(quota: str, period: str) -> float:
    """Microseconds of CPU time in a period; "max" and -1 are no limit."""
    if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
        return int(quota) / int(period)
    return math.inf
