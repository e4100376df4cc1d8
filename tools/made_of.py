"""What files are made of: what they include, all the way down, and a digest of that."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

SOURCES = Path("src")

# In C, in a folder that it names; in Cython, of this package.
INCLUDES = re.compile(rb'^ *# *include "(\w+\.h)"', re.MULTILINE)
CIMPORTS = re.compile(rb"^ *(?:from|cimport) +(convext[\w.]*)", re.MULTILINE)


def included_by(file: Path, headers: Path) -> set[Path]:
    """Return the files of this package that a file in C or Cython includes."""
    contents = file.read_bytes()
    if file.suffix in (".c", ".h"):
        found = {headers / name.decode() for name in INCLUDES.findall(contents)}
    else:
        names = {name.decode().replace(".", "/") for name in CIMPORTS.findall(contents)}
        found = {SOURCES / f"{name}.pxd" for name in names} | {file.with_suffix(".pxd")}
    return {path for path in found if path.exists()}


def sources_of(path: Path, headers: Path) -> list[Path]:
    """Return a file and all that it includes, in order."""
    found: set[Path] = set()
    left = [path]
    while left:
        file = left.pop()
        if file not in found:
            found.add(file)
            left += included_by(file, headers)
    return sorted(found)


def digest(path: Path, headers: Path, how: object) -> str:
    """Return what stands for the contents of a file and all that it includes, and for how."""
    made_of = hashlib.sha256(repr(how).encode())
    for file in sources_of(path, headers):
        made_of.update(b"%s %d\n" % (str(file).encode(), file.stat().st_size))
        made_of.update(file.read_bytes())
    return made_of.hexdigest()


class Made:
    """Whether a file was made of the same contents already, whatever its age.

    A record of them lies beside it; `done` writes it once the file is made.
    """

    def __init__(self, file: Path, made_of: str) -> None:
        self._record = file.with_name(f"{file.name}.made_of")
        self._made_of = made_of
        self.already = (
            file.exists() and self._record.exists() and self._record.read_text() == made_of
        )
        if not self.already:
            self._record.unlink(missing_ok=True)

    def done(self) -> None:
        """Leave the record."""
        self._record.parent.mkdir(parents=True, exist_ok=True)
        self._record.write_text(self._made_of)
