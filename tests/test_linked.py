"""tools/linked.py reads what a compiled file asks for, of whatever system it is."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from convext.base import _dispatch
from tools.linked import libraries, strange


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("objdump") is None, reason="needs Linux's binutils"
)
@pytest.mark.parametrize("path", [_dispatch.__file__, sys.executable])
def test_libraries_are_those_that_objdump_finds(path):
    out = subprocess.run(["objdump", "-p", path], check=True, capture_output=True, text=True).stdout
    found = libraries(Path(path).read_bytes())
    assert found == re.findall(r"NEEDED\s+(\S+)", out)
    assert len(found) >= 1


@pytest.mark.parametrize("name", ["cli-32.exe", "cli-64.exe"])
def test_libraries_of_programs_for_windows_are_found(name):
    setuptools = pytest.importorskip("setuptools")
    path = Path(setuptools.__file__).with_name(name)
    if not path.exists():
        pytest.skip("this setuptools has no programs for Windows")
    contents = path.read_bytes()
    # In the file they are names that end in .dll, in any place.
    names = {match.decode() for match in re.findall(rb"[\w-]+\.dll(?=\0)", contents, re.IGNORECASE)}
    found = libraries(contents)
    assert "KERNEL32.dll" in found
    assert set(found) <= names
    assert strange(found) == []


def mach_o(*commands):
    """A 64-bit Mach-O file of load commands: pairs of a kind and a library's path."""
    parts = []
    for kind, path in commands:
        text = path.encode() + b"\0" * (8 - len(path) % 8)
        parts.append(struct.pack("<6I", kind, 24 + len(text), 24, 0, 0, 0) + text)
    body = b"".join(parts)
    return struct.pack("<8I", 0xFEEDFACF, 0x100000C, 0, 6, len(parts), len(body), 0, 0) + body


def test_libraries_of_modules_for_macos_are_found():
    identity = (0xD, "_dispatch.so")
    contents = mach_o(identity, (0xC, "/usr/lib/libSystem.B.dylib"), (0x80000018, "@rpath/x.dylib"))
    assert libraries(contents) == ["/usr/lib/libSystem.B.dylib", "@rpath/x.dylib"]
    assert strange(libraries(contents)) == ["@rpath/x.dylib"]


def test_what_machines_may_lack_is_told_apart():
    expected = ["python313.dll", "python314t.dll", "KERNEL32.dll", "libiomp5md.dll", "libgomp.so.1"]
    expected += ["api-ms-win-crt-heap-l1-1-0.dll", "@loader_path/.dylibs/libomp.dylib"]
    expected += ["libgomp-24e2ab19.so.1.0.0", "libc.so.6", "libc.musl-x86_64.so.1"]
    assert strange(expected) == []
    refused = ["libgcc_s_seh-1.dll", "libwinpthread-1.dll", "python3.dllx", "libstdc++.so.6"]
    assert strange(refused) == refused


@pytest.mark.parametrize("contents", [b"", b"text", b"\x7fELF\x01\x01", b"MZ"])
def test_other_files_are_refused(contents):
    with pytest.raises(ValueError, match="neither"):
        libraries(contents)
