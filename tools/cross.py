"""Build a wheel for another machine, by setup.py.

    python -m tools.cross windows-x86_64
    python -m tools.cross windows-x86_64 --python FOLDER
    python -m tools.cross linux-aarch64

It lands in build/TARGET/dist, with the libraries that it asks for printed, and those refused that
a machine may lack. Headers of NumPy, and for Windows OpenMP's library, come from PyPI's wheels for
that machine. FOLDER is that of a Python for Windows of this Python's version, with
`include` and `libs`; without it, this Python's headers are used, with the sizes of Windows, and an
import library made of what this Python exports: that shows whether everything links. Needs the
packages lief and ziglang, or for linux-aarch64 GCC (`apt install gcc-aarch64-linux-gnu`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np

from tools.linked import check_wheel
from tools.toolchain import Target, compiler_for, python_library, target_named, works

PLATFORMS = {
    "windows-x86_64": "win_amd64",
    "linux-x86_64": "manylinux_2_28_x86_64",
    "linux-aarch64": "manylinux_2_28_aarch64",
    "macos-aarch64": "macosx_11_0_arm64",
    "macos-x86_64": "macosx_11_0_x86_64",
}

# What of PC/pyconfig.h modules see.
WINDOWS_PYCONFIG = """\
#ifndef Py_CONFIG_H
#define Py_CONFIG_H
#include <io.h>
#include <stdio.h>
#define MS_WIN32
#define MS_WIN64
#define MS_WINDOWS
#define NT_THREADS
#define WITH_THREAD
#define PLATFORM "win32"
#define HAVE_DECLSPEC_DLL 1
#define Py_ENABLE_SHARED 1
#define HAVE_PY_SSIZE_T 1
typedef long long Py_ssize_t;
#define PY_SSIZE_T_MAX 9223372036854775807LL
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define ALIGNOF_SIZE_T 8
#define SIZEOF_TIME_T 8
#define SIZEOF_FPOS_T 8
#define SIZEOF_HKEY 8
#define SIZEOF_OFF_T 4
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_FLOAT 4
#define SIZEOF_DOUBLE 8
#define SIZEOF_WCHAR_T 2
#define SIZEOF_PID_T 4
#define HAVE_STDDEF_H 1
#define HAVE_STDINT_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_LONG_LONG 1
#define HAVE_UINTPTR_T 1
#define STDC_HEADERS 1
#define DOUBLE_IS_LITTLE_ENDIAN_IEEE754 1
#endif
"""


def run(purpose: str, command: list[str], **environment: str) -> None:
    """Run a command; where it fails, end with one line below what it printed."""
    status = subprocess.run(command, check=False, env=os.environ | environment).returncode
    if status:
        sys.exit(f"cannot {purpose}: `{' '.join(command)}` failed with status {status}")


def unpack_wheel(package: str, folder: Path, target: Target, wanted: tuple[str, ...]) -> None:
    """Get a package's wheel for a machine, and of it the files that end like this."""
    wheels = folder / "wheels"
    run(
        f"get {package} for {target}",
        [
            *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"),
            *("--platform", PLATFORMS[str(target)], "-d", str(wheels), package),
        ],
    )
    (wheel,) = wheels.glob(f"{package.partition('==')[0].replace('-', '_')}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            # What a wheel calls data lies in the environment's own folder.
            name = member.rpartition(".data/data/")[-1]
            if name.endswith(wanted):
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(member))


def copy_headers(folder: Path, target: Target) -> None:
    """Copy this Python's headers, which are the same for all machines but for pyconfig.h."""
    shutil.rmtree(folder / "include", ignore_errors=True)
    shutil.copytree(sysconfig.get_path("include"), folder / "include")
    if target.system == "windows":
        (folder / "include" / "pyconfig.h").write_text(WINDOWS_PYCONFIG)


def make_import_library(folder: Path) -> None:
    """Make a library of the names that this Python exports."""
    library = Path(
        sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDLIBRARY") or "none"
    )
    exporting = library if library.suffix == ".so" and library.exists() else sys.executable
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", str(exporting)], check=True, capture_output=True, text=True
    )
    names = sorted({line.split()[-1] for line in listed.stdout.splitlines()})
    names = [name for name in names if name.startswith(("Py", "_Py"))]
    libs = folder / "libs"
    libs.mkdir(parents=True, exist_ok=True)
    definition = libs / f"{python_library()}.def"
    lines = [f"LIBRARY {python_library()}.dll", "EXPORTS", *names, ""]
    definition.write_text("\n".join(lines))
    run(
        "make an import library of Python",
        [
            *(sys.executable, "-m", "ziglang", "dlltool", "-m", "i386:x86-64"),
            *("-d", str(definition), "-l", str(libs / f"{python_library()}.lib")),
        ],
    )


def prepare(folder: Path, target: Target, python: str | None) -> None:
    """Lay out what setup.py builds with."""
    folder.mkdir(parents=True, exist_ok=True)
    unpack_wheel(f"numpy=={np.__version__}", folder, target, (".h",))
    if target.system == "windows":
        unpack_wheel("intel-openmp", folder, target, ("libiomp5md.lib", "libiomp5md.dll", "/omp.h"))
    if python:
        for name in ("include", "libs"):
            shutil.copytree(Path(python, name), folder / name, dirs_exist_ok=True)
        return
    copy_headers(folder, target)
    if target.system == "windows":
        make_import_library(folder)


def build(folder: Path, target: Target) -> None:
    """Build the wheel."""
    tag, platform = sys.implementation.cache_tag.replace("cpython-", "cp"), PLATFORMS[str(target)]
    suffix = f".{tag}-{platform}.pyd"
    if target.system != "windows":
        machine = "darwin" if target.system == "macos" else f"{target.machine}-linux-gnu"
        suffix = f".{sys.implementation.cache_tag}-{machine}.so"
    run(
        f"build for {target}",
        [
            *(sys.executable, "setup.py", "-q", "build", "--build-base", str(folder)),
            *("--build-lib", str(folder / "lib"), "--build-temp", str(folder / "temp")),
            *("bdist_wheel", "--plat-name", platform, "--dist-dir", str(folder / "dist")),
        ],
        CONVEXT_TARGET=str(target),
        SETUPTOOLS_EXT_SUFFIX=suffix,
    )


def check_compiler(target: Target) -> None:
    """End where the compiler cannot link a program; Zig compiles its C library for the first."""
    compiler = compiler_for(target)
    print(f"{' '.join(compiler)}: links a program, Zig's first in minutes", flush=True)
    if not works(compiler):
        sys.exit(f"`{' '.join(compiler)}` cannot compile and link a program for {target}")


def main() -> None:
    """Build the wheel that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=sorted(PLATFORMS))
    parser.add_argument("--python", metavar="FOLDER", help="of a Python for Windows")
    arguments = parser.parse_args()
    target = target_named(arguments.target)
    folder = Path("build", str(target))
    check_compiler(target)
    prepare(folder, target, arguments.python)
    shutil.rmtree(folder / "dist", ignore_errors=True)
    build(folder, target)
    (wheel,) = (folder / "dist").glob("*.whl")
    check_wheel(wheel)
    print(wheel)


if __name__ == "__main__":
    main()
