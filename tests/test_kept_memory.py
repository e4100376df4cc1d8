"""What calls keep of memory when they have ended, however often: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import live_memory
import pytest

# No object is smaller.
SMALLEST = 16

pytestmark = [
    pytest.mark.skipif(not live_memory.MEASURABLE, reason="malloc does not say what is in use"),
    pytest.mark.skipif(
        "asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer has its own malloc"
    ),
]


@pytest.mark.parametrize(
    ("lots", "calls"), [(3, 3), pytest.param(4, 100, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_calls_keep_no_memory_whatever_they_do(lots, calls):
    """A leak shows in each lot of calls, a cache that fills in the first ones alone."""
    program = Path(__file__).with_name("repeated_calls.py")
    # Neither Python's allocator nor the C library's keeps what was freed for the next call.
    environment = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    output = subprocess.run(
        [sys.executable, program, str(lots), str(calls)],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    found = dict(map(json.loads, output.splitlines()))
    assert len(found) > 70
    assert min(found.pop("leak")) >= 2 * SMALLEST * calls
    assert {name: growth for name, growth in found.items() if min(growth) >= SMALLEST * calls} == {}
