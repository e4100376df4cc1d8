"""Which libraries a compiled file asks for, as the loaders of Windows, macOS and Linux see it.

python -m tools.linked FILE ...

Needs the package lief.
"""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path, PurePosixPath

import lief

# What every machine of its system has, this package's Python, and OpenMP's library.
EXPECTED = re.compile(
    r"""python3\d+t?\.dll | kernel32\.dll | api-ms-win-crt-[\w-]+\.dll | vcruntime140(_1)?\.dll
    | (libiomp5md | libomp | libomp140\.x86_64)(-[0-9a-f]+)?\.dll
    | /usr/lib/libSystem\.B\.dylib | (@\w+/([\w.]+/)*)?lib(omp|iomp5)\.dylib
    | lib(c|m|pthread|dl)\.so\.\d | ld-linux-[\w-]+\.so\.\d | libc\.musl-\w+\.so\.1
    | lib(gomp|omp|iomp5)(-[0-9a-f]+)?\.so[.\d]*""",
    re.VERBOSE | re.IGNORECASE,
)

COMPILED = re.compile(r"\.(so(\.[\d.]+)?|pyd|dll|dylib)$")

# What else a module for macOS names is itself.
OF_MACOS = (
    lief.MachO.LoadCommand.TYPE.LOAD_DYLIB,
    lief.MachO.LoadCommand.TYPE.LOAD_WEAK_DYLIB,
    lief.MachO.LoadCommand.TYPE.REEXPORT_DYLIB,
)


def libraries(contents: bytes) -> list[str]:
    """Return the libraries that a file for any system asks for."""
    lief.logging.disable()
    found = lief.parse(contents)
    if isinstance(found, (lief.ELF.Binary, lief.PE.Binary)):
        return [str(name) for name in found.libraries]
    if isinstance(found, lief.MachO.Binary):
        return [str(each.name) for each in found.libraries if each.command in OF_MACOS]
    raise ValueError("neither a file of Windows nor one of Linux or macOS")


def strange(names: list[str]) -> list[str]:
    """Return which of some libraries a machine may lack."""
    return [name for name in names if not EXPECTED.fullmatch(name)]


def check_wheel(wheel: Path) -> None:
    """Print what the compiled files of a wheel ask for; end where machines may lack some of it."""
    missing = []
    with zipfile.ZipFile(wheel) as archive:
        files = [name for name in archive.namelist() if COMPILED.search(name)]
        held = {PurePosixPath(name).name for name in files}
        for name in files:
            asked = libraries(archive.read(name))
            print(f"{name}: {', '.join(asked)}")
            missing += strange([path for path in asked if PurePosixPath(path).name not in held])
    if missing:
        sys.exit(f"{wheel.name} asks for what machines may lack: {', '.join(missing)}")


def main() -> None:
    """Print what each file of the command line asks for."""
    for name in sys.argv[1:]:
        print(f"{name}: {', '.join(libraries(Path(name).read_bytes()))}")


if __name__ == "__main__":
    main()
