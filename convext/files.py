"""Writing files so that a crash leaves either the old file or the new one, whole."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TypeAlias

FilePath: TypeAlias = str | os.PathLike[str]


def check_writable(file: FilePath) -> None:
    """Raise the OSError with which writing `file` would fail, as far as can be known before.

    Parameters
    ----------
    file : path
        The file to be written; it need not exist, its folder must.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        The folder of `file` does not exist, or is a file.
    IsADirectoryError
        `file` is a folder.
    PermissionError
        The folder, or a `file` that already exists, is not writable.

    Examples
    --------
    >>> check_writable("no_such_folder/kernels.npz")
    Traceback (most recent call last):
    ...
    FileNotFoundError: [Errno 2] its folder does not exist: 'no_such_folder/kernels.npz'
    """
    path = os.fspath(file)
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "is a folder, expected a file to write", path)
    if _is_special(path):
        return
    if not os.path.exists(folder):
        raise FileNotFoundError(errno.ENOENT, "its folder does not exist", path)
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, "what should be its folder is a file", path)
    if os.path.exists(target) and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "is not writable", path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "its folder is not writable", path)


@contextmanager
def atomic_write(file: FilePath) -> Iterator[IO[bytes]]:
    """Open a binary stream whose contents become `file` only when the block ends without error.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and then take
    the name of `file` in one step. On any failure, Ctrl-C included, the temporary file is removed
    and an existing `file` stays as it was. A symbolic link is followed; an existing file keeps its
    permissions, a new one gets those of the umask. What is not a regular file (``/dev/null``)
    is written, not replaced.

    Parameters
    ----------
    file : path
        The file to write.

    Yields
    ------
    binary stream

    Raises
    ------
    OSError
        As described at `check_writable`, or when the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(f"{folder}/greeting.txt") as stream:
    ...         _ = stream.write(b"hello")
    ...     print(Path(folder, "greeting.txt").read_text())
    hello
    """
    check_writable(file)
    if _is_special(file):
        # Not all writers can do without seeking.
        contents = io.BytesIO()
        yield contents
        with open(file, "wb") as stream:
            stream.write(contents.getvalue())
        return
    target = os.path.realpath(file)
    temporary = os.path.join(os.path.dirname(target), f".convext-{os.urandom(8).hex()}.tmp")
    try:
        # Mode "x" lets the system apply the umask; tempfile would make a file that only the
        # owner can read.
        with open(temporary, "xb") as stream:
            if os.path.exists(target):
                os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def _is_special(path: FilePath) -> bool:
    """Return whether `path` exists and is a device, a pipe or the like, not a file or folder."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
