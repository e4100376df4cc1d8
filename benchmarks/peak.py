"""The peak of multiply-adds: a loop of nothing else, measured like a library's operation."""

from __future__ import annotations

import ctypes
import shlex
import subprocess
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

VERSION = "loop in C"

# By each thread and call: a few milliseconds. Divisible by what one round of the loop does.
MULTIPLY_ADDS = 12 * 16 * 1_500_000

_C_TYPES = {"float32": ("float", ctypes.c_float), "float64": ("double", ctypes.c_double)}


def flops(threads):
    """Return what one call does."""
    return 2 * MULTIPLY_ADDS * threads


def start(settings):
    """Compile the loop for this machine, and start the threads."""
    global _run  # noqa: PLW0603
    c_name, c_type = _C_TYPES[settings.dtype]
    loop = _compiled(c_name).multiply_add
    loop.argtypes = [ctypes.c_long, c_type, c_type]
    loop.restype = c_type
    pool = ThreadPoolExecutor(settings.threads)

    def _run():
        counts = [MULTIPLY_ADDS] * settings.threads
        return sum(pool.map(lambda count: loop(count, 0.5, 1.0), counts))


def operations(case, arrays):
    """Return the loop, which is the same in all cases."""
    return {"peak": _run}


def _compiled(c_name):
    source = Path(__file__).with_suffix(".c")
    # Python's own compiler is not always on the machine.
    compilers = [shlex.split(sysconfig.get_config_var("CC") or ""), ["cc"]]
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder, "peak.so"))
        for compiler in filter(None, compilers):
            command = [*compiler, "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared"]
            command += [f"-DREAL={c_name}", str(source), "-o", library]
            try:
                subprocess.run(command, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                continue
            return ctypes.CDLL(library)
    raise RuntimeError("no C compiler that can build the loop")
