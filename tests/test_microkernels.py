"""Every micro-kernel beside plain loops, in C: see tests/microkernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convext.base import _dispatch
from tools.toolchain import C_FLAGS, compiler_for, microkernel_flags, this_machine

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


SUM_OF_PRODUCTS = """
typedef float vec __attribute__((vector_size(32)));
vec sum(const vec *a, const vec *b, long count)
{
    vec value = {0};
    for (long i = 0; i < count; i++)
        value += a[i] * b[i];
    return value;
}
"""


@pytest.mark.parametrize("tuning", ["generic", "znver2", "znver4"])
def test_products_are_fused_with_sums_whatever_gcc_tunes_for(tuning, tmp_path):
    compiler = compiler_for(this_machine())
    if this_machine().machine != "x86_64" or "gcc" not in compiler[0]:
        pytest.skip("needs GCC for x86-64")
    if shutil.which(compiler[0]) is None:
        pytest.skip("there is no C compiler")
    source, code = tmp_path / "sum.c", tmp_path / "sum.s"
    source.write_text(SUM_OF_PRODUCTS)
    flags = [*C_FLAGS, *microkernel_flags(this_machine(), "avx2", compiler)]
    command = [*compiler, *flags, f"-mtune={tuning}", "-S", "-o", str(code), str(source)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if "bad value" in done.stderr:
        pytest.skip(f"this GCC does not tune for {tuning}")
    assert done.returncode == 0, done.stderr
    assert "vfmadd" in code.read_text()
    assert "vmulps" not in code.read_text()
