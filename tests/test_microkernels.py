"""Every micro-kernel beside plain loops, in C: see tests/microkernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convext.base import _dispatch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def program():
    """The program, built."""
    command = [sys.executable, "-m", "tools.microkernels", "--no-run"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    if done.returncode and not any(map(shutil.which, (os.environ.get("CC", ""), "cc", "gcc"))):
        pytest.skip("there is no C compiler")
    assert done.returncode == 0, done.stderr
    return ROOT / done.stdout.split()[-1]


@pytest.mark.parametrize("seed", [0, 1])
def test_micro_kernels_agree_with_plain_loops(program, seed):
    done = subprocess.run([program, "60", str(seed)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    agreeing = [line.split(":")[0] for line in done.stdout.splitlines() if "agree" in line]
    assert agreeing == [
        f"{isa} {real}" for isa in _dispatch.supported_isas() for real in ("float", "double")
    ]
