r"""Compare every micro-kernel with plain loops, on this machine or as another one's program.

    python -m tools.microkernels
    python -m tools.microkernels --target windows-x86_64 --run wine
    python -m tools.microkernels --target linux-aarch64 \
        --run "qemu-aarch64 -L /usr/aarch64-linux-gnu"
    python -m tools.microkernels --target macos-aarch64 --no-run

The program is tests/microkernels. It is built in build/, with the object files that setup.py left
there if they are newer than their sources; CC names another compiler. Other targets than this
machine need the package ziglang, or GCC for them.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.toolchain import (
    C_FLAGS,
    HEADERS,
    MICROKERNELS,
    Target,
    compiler_for,
    dispatch_macros,
    kinds,
    microkernel_flags,
    microkernel_macros,
    target_named,
    this_machine,
)

PROGRAM = Path("tests/microkernels")

# Loops of the widest type, which gain nothing by more.
PROGRAM_FLAGS = ["-O2", "-std=gnu11"]


def build_folder(target: Target) -> Path:
    """Return the folder of object files, which is that of setup.py."""
    if target == this_machine():
        return Path("build", f"temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}")
    return Path("build", str(target), "temp")


def is_newer(path: Path, sources: list[Path]) -> bool:
    """Whether a file is there and newer than all it is made of."""
    return path.exists() and all(
        path.stat().st_mtime > source.stat().st_mtime for source in sources
    )


def compile_file(
    compiler: list[str], source: Path, to: Path, macros: list[tuple[str, str]], flags: list[str]
) -> Path:
    """Compile a file, unless the object file is newer than all that it may include."""
    headers = [*HEADERS, *PROGRAM.glob("*.h")] if source.parent == PROGRAM else HEADERS
    if is_newer(to, [source, *headers, Path(__file__).with_name("toolchain.py")]):
        return to
    to.parent.mkdir(parents=True, exist_ok=True)
    command = [*compiler, *flags, f"-I{MICROKERNELS}", "-c", str(source), "-o", str(to)]
    subprocess.run([*command, *(f"-D{name}={value}" for name, value in macros)], check=True)
    return to


def build(target: Target) -> Path:
    """Build the program; return its path."""
    compiler, folder = compiler_for(target), build_folder(target)
    checks = [(PROGRAM / "checks.c", f"checks_{real}.o", real) for real in ("float", "double")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = [
            pool.submit(
                compile_file,
                compiler,
                MICROKERNELS / "microkernel.c",
                folder / f"{isa}_{real}" / MICROKERNELS / "microkernel.o",
                microkernel_macros(target, isa, real, itemsize),
                C_FLAGS + microkernel_flags(target, isa, compiler),
            )
            for isa, real, itemsize in kinds(target)
        ]
        for source, name, real in checks:
            macros = [("CHECKED_REAL", real), ("CHECKED_SUITE", f"suite_of_{real}")]
            tasks.append(
                pool.submit(
                    compile_file, compiler, source, folder / PROGRAM / name, macros, PROGRAM_FLAGS
                )
            )
        for source in (PROGRAM / "main.c", PROGRAM / "memory.c", MICROKERNELS / "dispatch.c"):
            tasks.append(
                pool.submit(
                    compile_file,
                    compiler,
                    source,
                    folder / PROGRAM / f"{source.stem}.o",
                    dispatch_macros(target),
                    PROGRAM_FLAGS,
                )
            )
        objects = [str(task.result()) for task in tasks]
    program = folder / PROGRAM / ("microkernels" + ".exe" * (target.system == "windows"))
    libraries = [] if target.system == "windows" else ["-lm"]
    subprocess.run([*compiler, *objects, *libraries, "-o", str(program)], check=True)
    return program


def main() -> int:
    """Build the program, and run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default=str(this_machine()), help="such as windows-x86_64")
    parser.add_argument("--run", default="", help="what runs the program: wine, qemu-aarch64")
    parser.add_argument("--no-run", action="store_true", help="only build it")
    parser.add_argument("--cases", default="60", help="of each micro-kernel; at least 50")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--only", metavar="NAME", help="one micro-kernel")
    arguments = parser.parse_args()
    program = build(target_named(arguments.target))
    if arguments.no_run:
        print(program)
        return 0
    command = [*shlex.split(arguments.run), str(program), arguments.cases, arguments.seed]
    if arguments.only:
        command.append(arguments.only)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
