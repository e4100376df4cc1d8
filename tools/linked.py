"""Which libraries a compiled file asks for, as the loaders of Windows, macOS and Linux see it.

python -m tools.linked FILE ...
"""

from __future__ import annotations

import re
import struct
import sys
import zipfile
from pathlib import Path, PurePosixPath

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


def libraries(contents: bytes) -> list[str]:
    """Return the libraries that a file for any system asks for."""
    if contents.startswith(b"MZ"):
        return windows_libraries(contents)
    if contents.startswith(b"\x7fELF\x02\x01"):
        return linux_libraries(contents)
    if contents.startswith(b"\xcf\xfa\xed\xfe"):
        return macos_libraries(contents)
    raise ValueError("neither a file of Windows nor a 64-bit one of Linux or macOS")


def strange(names: list[str]) -> list[str]:
    """Return which of some libraries a machine may lack."""
    return [name for name in names if not EXPECTED.fullmatch(name)]


def text_at(contents: bytes, place: int) -> str:
    """Return the text that begins at a place, and ends with a zero."""
    return contents[place : contents.index(0, place)].decode()


def windows_libraries(contents: bytes) -> list[str]:
    """Read the table of imports of a PE file."""
    (header,) = struct.unpack_from("<I", contents, 0x3C)
    count, size = struct.unpack_from("<H12xH", contents, header + 6)
    optional = header + 24
    (magic,) = struct.unpack_from("<H", contents, optional)
    (table,) = struct.unpack_from("<I", contents, optional + (120 if magic == 0x20B else 104))
    sections = [
        struct.unpack_from("<IIII", contents, optional + size + 40 * index + 8)
        for index in range(count)
    ]

    def place(address: int) -> int:
        for _, start, length, stored in sections:
            if start <= address < start + length:
                return address - start + stored
        raise ValueError(f"address {address:#x} lies in no section")

    found = []
    entry = place(table) if table else 0
    while table and any(fields := struct.unpack_from("<5I", contents, entry)):
        found.append(text_at(contents, place(fields[3])))
        entry += 20
    return found


def macos_libraries(contents: bytes) -> list[str]:
    """Read the load commands of a Mach-O file."""
    load, weak, reexport = 0xC, 0x80000018, 0x8000001F
    (count,) = struct.unpack_from("<I", contents, 16)
    found, command = [], 32
    for _ in range(count):
        kind, size, name = struct.unpack_from("<III", contents, command)
        if kind in (load, weak, reexport):
            found.append(text_at(contents, command + name))
        command += size
    return found


def linux_libraries(contents: bytes) -> list[str]:
    """Read the dynamic section of an ELF file."""
    load, dynamic, needed, strings = 1, 2, 1, 5
    (table,) = struct.unpack_from("<Q", contents, 32)
    size, count = struct.unpack_from("<HH", contents, 54)
    segments = [
        struct.unpack_from("<I4xQQ8xQ", contents, table + size * index) for index in range(count)
    ]
    entries = [
        entry
        for kind, start, _, length in segments
        if kind == dynamic
        for entry in struct.iter_unpack("<QQ", contents[start : start + length])
    ]
    base = next((value for tag, value in entries if tag == strings), 0)
    for kind, start, address, length in segments:
        if kind == load and address <= base < address + length:
            base += start - address
            break
    return [text_at(contents, base + value) for tag, value in entries if tag == needed]


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
