"""What is compiled for which machine, and with which compiler: for setup.py and the other tools."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

MICROKERNELS = Path("src/microkernels")
HEADERS = sorted(MICROKERNELS.glob("*.h"))

# name: (compiler flags, bytes in a vector register, number of vector registers)
X86_64_ISAS = {
    "baseline": ([], 16, 16),
    "avx2": (["-mavx2", "-mfma"], 32, 16),
    "avx512": (["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma"], 64, 32),
}
OTHER_ISAS = {"baseline": ([], 16, 32)}

# A fused multiply-add wherever the instruction set has one; never -ffast-math: NaN and infinity
# propagate. What Cython cannot check of a call of a micro-kernel is an error in C.
C_FLAGS = [
    *("-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno"),
    *("-Werror=switch", "-Werror=int-conversion", "-Wno-unused-function", "-Wno-pass-failed"),
]

# What is to be unrolled they say themselves: -O3 makes them a tenth larger, but not faster.
MICROKERNEL_FLAGS = ["-O2", "-ftree-vectorize"]

# GCC's tuning for some machines, since version 16 for any, takes two instructions to add a product
# to a sum that the next one waits for: results would have other bits by how a loop is unrolled.
# Older versions of GCC lack the option, and Clang the tuning.
FUSING_FLAG = "--param=avoid-fma-max-bits=0"

# GCC keeps vectors of 32 bytes on the stack of Windows, which it aligns to 16.
WINDOWS_PROBE = """
#ifndef __clang__
#error "GCC"
#endif
#include <math.h>
int main(int count, char **arguments) { return cos(count) > 1; }
"""


class Target(NamedTuple):
    """An operating system, `linux`, `windows` or `macos`, and a machine, `x86_64` or `aarch64`."""

    system: str
    machine: str

    def __str__(self) -> str:
        return f"{self.system}-{self.machine}"


def this_machine() -> Target:
    """Return what this Python runs on, and builds for."""
    systems = {"win32": "windows", "darwin": "macos"}
    machine = sysconfig.get_platform().split("-")[-1]
    if machine == "universal2":
        machine = platform.machine()
    machines = {"amd64": "x86_64", "arm64": "aarch64"}
    return Target(systems.get(sys.platform, "linux"), machines.get(machine, machine))


def target_named(name: str) -> Target:
    """Return what a name such as `windows-x86_64` means."""
    system, _, machine = name.partition("-")
    if system not in ("linux", "windows", "macos") or machine not in ("x86_64", "aarch64"):
        sys.exit(f"a target is named like windows-x86_64 or linux-aarch64, got {name!r}")
    return Target(system, machine)


def isas(target: Target) -> dict[str, tuple[list[str], int, int]]:
    """Return the instruction sets that are compiled for a target."""
    return X86_64_ISAS if target.machine == "x86_64" else OTHER_ISAS


def kinds(target: Target) -> list[tuple[str, str, int]]:
    """Return instruction set, type and size of an element of each table of micro-kernels."""
    return [(isa, *real) for isa in isas(target) for real in (("float", 4), ("double", 8))]


def microkernel_macros(target: Target, isa: str, real: str, itemsize: int) -> list[tuple[str, str]]:
    """Return what microkernel.c is compiled with for one instruction set and type."""
    _, vector_bytes, registers = isas(target)[isa]
    return [
        ("CONVEXT_REAL", real),
        ("CONVEXT_LANES", str(vector_bytes // itemsize)),
        ("CONVEXT_REGISTERS", str(registers)),
        ("CONVEXT_TABLE", f"convext_{isa}_{real}"),
    ]


def microkernel_flags(target: Target, isa: str, compiler: list[str]) -> list[str]:
    """Return a compiler's flags beside C_FLAGS."""
    return MICROKERNEL_FLAGS + isas(target)[isa][0] + fusing_flags(tuple(compiler))


@cache
def fusing_flags(compiler: tuple[str, ...]) -> list[str]:
    """Return the flags with which a compiler fuses all products with the sums that they go into."""
    known = works([*compiler, "-Werror", FUSING_FLAG])
    return [FUSING_FLAG] if known else []


def dispatch_macros(target: Target) -> list[tuple[str, str]]:
    """Return what dispatch.c is compiled with."""
    return [("CONVEXT_X86_64", "1")] if target.machine == "x86_64" else []


def compiler_for(target: Target) -> list[str]:
    """Return the command of a C compiler for a target; `CC` in the environment comes first."""
    given = shlex.split(os.environ.get("CC", ""), posix=os.name != "nt")
    if given:
        return given
    native = target == this_machine()
    if target.system == "windows":
        return windows_compiler(target)
    if native:
        return shlex.split(sysconfig.get_config_var("CC") or "cc")
    if target.system == "linux" and works([f"{target.machine}-linux-gnu-gcc"]):
        return [f"{target.machine}-linux-gnu-gcc"]
    return zig(target)


def openmp_flags(target: Target, cross: Path | None) -> list[tuple[list[str], list[str]]]:
    """Return compiler and linker flags for OpenMP, those to be tried first before others.

    On Windows the library is that of the environment, of the packages intel-openmp and llvm-openmp:
    the one that others load, too. Two in one process would each have threads for all CPUs.
    """
    if target.system != "windows":
        return [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])]
    root = cross or Path(sys.prefix)
    flags = []
    for name in ("libiomp5md", "libomp"):
        library = root / "Library" / "lib" / f"{name}.lib"
        for folder in (root / "opt" / "compiler" / "include", root / "Library" / "include"):
            if library.exists() and (folder / "omp.h").exists():
                # Behind the compiler's own headers: there are others than OpenMP's.
                compile_flags = ["-fopenmp=libiomp5", "-idirafter", str(folder)]
                flags.append((compile_flags, [str(library)]))
    return flags


def numpy_headers(cross: Path | None) -> str | None:
    """Return the folder of another machine's headers of NumPy."""
    return str(cross / "numpy" / "_core" / "include") if cross else None


def python_library() -> str:
    """Return the name of Python's library, on Windows."""
    return f"python{sys.version_info.major}{sys.version_info.minor}"


def windows_compiler(target: Target) -> list[str]:
    """Return Clang where it finds Windows's headers and libraries, else Zig's."""
    candidates = [["clang"], ["clang-cl", "--driver-mode=gcc"]] if os.name == "nt" else []
    for command in candidates:
        if works(command, WINDOWS_PROBE):
            return command
    return zig(target)


def zig(target: Target) -> list[str]:
    """Return the command of Zig's C compiler, of the package ziglang, for a target."""
    if find_spec("ziglang") is None:
        sys.exit(
            f"convext needs Clang or Zig to build for {target}, but finds neither: see "
            "`python -m pip install ziglang`"
            + (" or `winget install LLVM.LLVM`" * (os.name == "nt"))
        )
    systems = {"linux": "linux-gnu", "windows": "windows-gnu", "macos": "macos.11.0"}
    # Zig's own default is to end at whatever it takes for undefined, with checks of its own.
    return [
        *(sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined"),
        *("-target", f"{target.machine}-{systems[target.system]}"),
    ]


def works(command: list[str], source: str = "int main(void) { return 0; }\n") -> bool:
    """Whether a compiler is there, and compiles and links a program."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe.c")
        path.write_text(source)
        try:
            return not subprocess.run(
                [*command, str(path), "-o", str(Path(folder, "probe.exe"))],
                check=False,
                capture_output=True,
            ).returncode
        except OSError:
            return False
