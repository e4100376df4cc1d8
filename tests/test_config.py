"""How many threads there are: what containers grant, and what can be started."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

import convext
from convext import config
from convext._support.quota import quota_in_cpus

# What /proc/self/cgroup says, the files below /sys/fs/cgroup, and the quota in CPUs.
CASES = {
    "no groups": ("", {}, math.inf),
    "version 2, of a group": ("0::/", {"cpu.max": "200000 100000"}, 2),
    "version 2, a fraction": ("0::/", {"cpu.max": "50000 100000"}, 0.5),
    "version 2, no limit": (
        "0::/a",
        {"cpu.max": "max 100000", "a/cpu.max": "max 100000"},
        math.inf,
    ),
    "version 2, of a group around": (
        "0::/a/b/c",
        {"a/cpu.max": "150000 100000", "a/b/c/cpu.max": "400000 100000"},
        1.5,
    ),
    "version 2, the host's path": ("0::/docker/17", {"cpu.max": "300000 100000"}, 3),
    "version 2, a path outside": ("0::/../..", {"cpu.max": "300000 100000"}, 3),
    "version 1": (
        "12:memory:/x\n3:cpu,cpuacct:/x/y",
        {
            "cpu,cpuacct/x/cpu.cfs_quota_us": "250000",
            "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/x/y/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/x/y/cpu.cfs_period_us": "100000",
        },
        2.5,
    ),
    "version 1, the host's path": (
        "4:cpuacct,cpu:/docker/17\n1:name=systemd:/docker/17",
        {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"},
        2,
    ),
    "both versions": (
        "2:cpu:/x\n0::/x",
        {
            "cpu/x/cpu.cfs_quota_us": "700000",
            "cpu/x/cpu.cfs_period_us": "100000",
            "unified/x/cpu.max": "600000 100000",
        },
        6,
    ),
    "nonsense": ("0::/\nx\n1:cpu\n", {"cpu.max": "abc", "cpu/cpu.cfs_quota_us": "10"}, math.inf),
    "no period": ("0::/", {"cpu.max": "100000 0"}, math.inf),
}


@pytest.mark.parametrize("case", CASES)
def test_the_quota_of_a_container_is_the_least_around_the_process(tmp_path, case):
    own, files, expected = CASES[case]
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    assert quota_in_cpus(tmp_path / "groups", tmp_path / "own") == expected


def test_groups_that_cannot_be_read_say_nothing(tmp_path):
    (tmp_path / "own").write_bytes(b"\xff\xfe")
    assert quota_in_cpus(tmp_path, tmp_path / "own") == math.inf
    assert quota_in_cpus(tmp_path, tmp_path / "missing") == math.inf


@pytest.mark.openmp
@pytest.mark.parametrize(("quota", "threads"), [(0.2, 1), (2.0, 2), (2.1, 3), (7.9, 8), (9, 8)])
def test_threads_are_no_more_than_the_quota_rounded_up(
    monkeypatch, capsys, restored_num_threads, quota, threads
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(config.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(config, "quota_in_cpus", lambda: quota)
    convext.set_num_threads(None)
    assert convext.get_num_threads() == threads
    source = "CPU quota" if quota < 8 else "CPUs"
    assert convext.get_config()["num_threads_from"] == source
    monkeypatch.setenv("CONVEXT_LANG", "en")
    convext.show_config()
    assert f"threads          {threads} ({source})\n" in capsys.readouterr().out
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    convext.set_num_threads(None)
    assert convext.get_config()["num_threads"] == 5
    assert convext.get_config()["num_threads_from"] == "OMP_NUM_THREADS"
    convext.set_num_threads(3)
    assert convext.get_config()["num_threads_from"] == "set_num_threads"


# Threads of half a gigabyte of addresses each, of which there are few.
LIMITED = """
import resource, warnings
import numpy as np
import convext
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (5 << 28), resource.RLIM_INFINITY))
x, k = np.ones((1, 8, 200, 200)), np.ones((8, 8, 3, 3))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        assert convext.conv2d(x, k, num_threads=64)[0, 0, 0, 0] == 72
    convext.set_num_threads(40)
    print(convext.get_config()["num_threads_from"], convext.get_num_threads() < 8)
print(*(str(warning.message) for warning in caught), sep="; ")
"""


@pytest.mark.openmp
@pytest.mark.skipif(sys.platform != "linux", reason="limits of addresses are Linux's")
def test_threads_that_cannot_be_started_are_done_without():
    command = f"ulimit -s 524288; exec {sys.executable} -"
    done = subprocess.run(
        ["/bin/sh", "-c", command], input=LIMITED, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    source, message = done.stdout.splitlines()
    assert source == "what can be started True"
    assert "threads, so convext uses no more" in message
