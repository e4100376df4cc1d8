"""Streams of files that remember how the system failed: it is raised, with the file's name.

Libraries in between take a disk that fails for a damaged file, or pass over it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class NotingFile(io.FileIO):
    """A file that remembers how it failed.

    Where it is `private` it has no number, by which NumPy and Pillow would read and write past
    Python, which does again what a signal has interrupted, and knows what went wrong.
    """

    def __init__(self, file: str, mode: str, private: bool = True) -> None:
        super().__init__(file, mode)
        self.private = private
        self.failure: OSError | None = None
        self.on_disk = False

    @property
    def number(self) -> int:
        """The number of the file in this process."""
        return super().fileno()

    def fileno(self) -> int:
        """Return the number of the file, unless it is private."""
        if self.private:
            raise io.UnsupportedOperation("fileno")
        return self.number

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Remember an error of the system in the block."""
        try:
            yield
        except OSError as error:
            self.failure = error
            raise

    def readinto(self, buffer: Any) -> Any:
        """Read as `io.FileIO` does."""
        try:  # as `noting` does, in half the time: small samples are read one by one
            return super().readinto(buffer)
        except OSError as error:
            self.failure = error
            raise

    def readall(self) -> Any:
        """Read as `io.FileIO` does."""
        with self.noting():
            return super().readall()

    def write(self, data: Any) -> Any:
        """Write as `io.FileIO` does."""
        self.on_disk = False
        with self.noting():
            return super().write(data)

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        if not self.on_disk:
            with self.noting():
                os.fsync(self.number)
            self.on_disk = True

    @contextmanager
    def failing_as(self, path: str) -> Iterator[None]:
        """Raise how the file has failed, if it has, under a name at the end of the block."""
        try:
            yield
        except Exception:
            if self.failure is None:
                raise
        if self.failure is not None:
            raise OSError(self.failure.errno, self.failure.strerror, path) from None


@contextmanager
def read_file(path: str, *, private: bool = False) -> Iterator[io.BufferedReader]:
    """Open a file to be read; an error of the system in the block names it."""
    with NotingFile(path, "rb", private) as raw, raw.failing_as(path):
        yield io.BufferedReader(raw)
