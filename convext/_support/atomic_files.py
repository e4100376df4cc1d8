"""Writing files so that a crash leaves either the old file or the new one, whole."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import IO, Any, TypeAlias

from .streams import NotingFile

FilePath: TypeAlias = str | os.PathLike[str]

# None on Windows, where nobody removes or replaces a file that is open.
fcntl: Any = None
with suppress(ImportError):
    fcntl = import_module("fcntl")


def path_of(file: object) -> str:
    """Return the name of a file. A number would be a file that is open, and closed afterwards."""
    if not isinstance(file, (str, bytes, os.PathLike)):
        kind = type(file).__name__
        raise TypeError(f"a file must be given by its name, a str or a path, got {kind}")
    return os.fsdecode(file)


# Bytes that are written to see whether it is possible.
_TRIAL = 4096


def check_writable(file: FilePath) -> None:
    """Raise the OSError with which writing `file` would fail, as far as can be known before."""
    path, target = path_of(file), _target(file)
    if target is None:
        return
    # A disk that is full, a quota and the like show only when something is written.
    with _named(path), _temporary(os.path.dirname(target), path) as raw:
        stream = io.BufferedWriter(raw)
        stream.write(bytes(_TRIAL))
        stream.flush()


@contextmanager
def atomic_write(file: FilePath, previous: str | None = None) -> Iterator[IO[bytes]]:
    """Open a binary stream whose contents become `file` only when the block ends without error.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and then take
    the name of `file` in one step. On any failure, Ctrl-C included, the temporary file is removed
    and an existing `file` stays as it was. A symbolic link is followed; an existing file keeps its
    permissions, a new one gets those of the umask. What is not a regular file (``/dev/null``)
    is written, not replaced. Errors are those of `check_writable`. An existing `file` can be kept
    under another name, `previous`: then there is always one of both.
    """
    path, target = path_of(file), _target(file)
    if target is None:
        # Not all writers can do without seeking.
        contents = io.BytesIO()
        yield contents
        with _named(path), open(path, "wb") as stream:
            stream.write(contents.getvalue())
        return
    folder = os.path.dirname(target)
    with _temporary(folder, path) as raw:
        with _named(path):
            if os.path.exists(target):
                os.chmod(raw.name, stat.S_IMODE(os.stat(target).st_mode))
        with raw.failing_as(path):
            stream = io.BufferedWriter(raw)
            yield stream
            flush_to_disk(stream)
        if fcntl is None:
            raw.close()
        with _named(path):
            if previous is not None and os.path.exists(target):
                os.replace(target, previous)
            os.replace(raw.name, target)


def flush_to_disk(stream: IO[bytes]) -> None:
    """Find out whether all that was written to a stream of `atomic_write` has come to the disk."""
    stream.flush()
    if isinstance(stream, io.BufferedWriter) and isinstance(stream.raw, NotingFile):
        stream.raw.sync()


def _target(file: FilePath) -> str | None:
    """Return which file is to be replaced, or None where `file` is a device, a pipe or the like."""
    path = path_of(file)
    if not path:
        raise FileNotFoundError(errno.ENOENT, "the name of the file to write is empty")
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    except NotADirectoryError:
        raise NotADirectoryError(
            errno.ENOTDIR, "what should be its folder is a file", path
        ) from None
    ends_like_folder = os.path.basename(path) in {"", os.curdir, os.pardir}
    if ends_like_folder if old is None else stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, expected a file to write", path)
    if old is not None and not stat.S_ISREG(old.st_mode):
        return None
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.exists(folder):
        raise FileNotFoundError(errno.ENOENT, "its folder does not exist", path)
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, "what should be its folder is a file", path)
    if old is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "is not writable", path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "its folder is not writable", path)
    place = os.stat(folder)
    sticky = bool(place.st_mode & stat.S_ISVTX)
    if old is not None and sticky and _user() not in {0, old.st_uid, place.st_uid}:
        raise PermissionError(
            errno.EPERM, "is another user's, in a folder where only owners replace files", path
        )
    return target


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Let an error of the system name the file that was asked for, not a temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


# Temporary files


@contextmanager
def _temporary(folder: str, path: str) -> Iterator[NotingFile]:
    """Open a temporary file in `folder`, which is gone at the end unless it has a new name.

    It is locked for as long as its writer lives. Where it cannot be removed, the next writer does.
    """
    _remove_abandoned(folder)
    while True:
        name = os.path.join(folder, f".convext-{_machine()}-{os.urandom(8).hex()}.tmp")
        try:
            # Mode "x" lets the system apply the umask; tempfile would make a file that only the
            # owner can read.
            with _named(path):
                raw = NotingFile(name, "xb")
            with raw:
                _lock(raw.number)
                if os.fstat(raw.number).st_nlink == 0:
                    continue  # somebody has removed it before it was locked
                yield raw
                return
        finally:
            with suppress(OSError):
                os.remove(name)


def _remove_abandoned(folder: str) -> None:
    """Remove the temporary files of writers that were killed, which hold no lock any more.

    Those of other machines stay, since their locks need not be seen here, and so do all where the
    file system has no locks.
    """
    ours = re.compile(rf"\.convext-{_machine()}-[0-9a-f]{{16}}\.tmp")
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not ours.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            if fcntl is None:
                with suppress(OSError):
                    os.remove(entry.path)
            elif entry.stat().st_uid == _user():
                with suppress(OSError), open(entry.path, "r+b") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.remove(entry.path)


def _lock(number: int) -> None:
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(number, fcntl.LOCK_EX)


def _user() -> int:
    """Return the number of the user, which on Windows all files have."""
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _machine() -> str:
    """Return eight digits that tell this machine from others in the same network."""
    name = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    return f"{zlib.crc32(name.encode()):08x}"
