"""Reading arrays from .npy and .npz files, which are never unpickled."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from ._checks import real_dtype
from .files import FilePath

if TYPE_CHECKING:
    import zipfile

# Of any real type; what files hold is known only when they are read.
NumericArray: TypeAlias = npt.NDArray[np.generic]

_ZIP_MAGIC = b"PK"


class _Header(NamedTuple):
    """What a .npy file says about its values."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def load_array(
    file: FilePath, name: str, *, member: str | None = None, mmap: bool = False
) -> NumericArray:
    """Read one array of real numbers from a .npy file, or from a .npz file that holds one array.

    Parameters
    ----------
    file : path
        The file to read; what it is is told from its contents, not from its name.
    name : str
        What the array is, for error messages.
    member : str, optional
        Which array of a .npz file to read when it is there, so that the file may hold more.
    mmap : bool
        Map the file read-only instead of reading it (.npy only).

    Returns
    -------
    numpy.ndarray
        In the type of the file.

    Raises
    ------
    OSError
        From the system, unchanged: the file does not exist, is a folder, cannot be read.
    ValueError
        The file is empty, truncated, damaged, pickled, or of another kind, or is a .npz file with
        several arrays, or one to be mapped.
    TypeError
        The array does not hold real numbers.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/numbers.npy", np.arange(3))
    ...     load_array(f"{folder}/numbers.npy", "numbers")
    array([0, 1, 2])
    """
    label = f"{name} ({os.fspath(file)})"
    with _open(file, label) as stream:
        if not _is_archive(stream):
            return _read_npy(stream, os.fstat(stream.fileno()).st_size, label, mmap=mmap)
        if mmap:
            raise ValueError(f"{label} is a .npz file, only a .npy file can be memory-mapped")
        with _damage_named(label):
            archive = _open_archive(stream)
        info = _choose_member(archive, label, member)
        with _damage_named(label):
            values = archive.open(info)
        return _read_npy(values, info.file_size, label)


def is_archive(file: FilePath, name: str) -> bool:
    """Return whether a file is a .npz file; one that is neither that nor .npy is an error."""
    with _open(file, f"{name} ({os.fspath(file)})") as stream:
        return _is_archive(stream)


def load_text(file: FilePath, name: str, member: str) -> str | None:
    """Return the text that is `member` of a .npz file; None where there is no such member."""
    label = f"{name} ({os.fspath(file)})"
    with _open(file, label) as stream:
        if not _is_archive(stream):
            return None
        with _damage_named(label), np.load(stream, allow_pickle=False) as archive:
            text = archive[member] if member in archive.files else None
    if text is None:
        return None
    if text.dtype.kind != "U" or text.ndim != 0:
        raise ValueError(f"{label}: {member} must be a text, got {text.dtype} {text.shape}")
    return str(text)


@contextmanager
def _open(file: FilePath, label: str) -> Iterator[IO[bytes]]:
    """Open a .npy or .npz file; anything that clearly is neither is an error."""
    kind = os.stat(file).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise ValueError(f"{label} must be a regular file, got a device or a pipe")
    with open(file, "rb") as stream:  # opening a folder gives the system's IsADirectoryError
        start = stream.read(len(npy.MAGIC_PREFIX))
        stream.seek(0)
        if not start:
            raise ValueError(f"{label} is empty: expected a .npy or .npz file, got 0 bytes")
        if start != npy.MAGIC_PREFIX and not start.startswith(_ZIP_MAGIC):
            raise ValueError(
                f"{label} is not an array file: expected a .npy or .npz file, "
                f"got one that starts with {start!r}"
            )
        yield stream


def _is_archive(stream: IO[bytes]) -> bool:
    """Return whether `stream`, which is at its start, is a .npz file."""
    start = stream.read(len(_ZIP_MAGIC))
    stream.seek(0)
    return start == _ZIP_MAGIC


@contextmanager
def _damage_named(label: str) -> Iterator[None]:
    """Turn the many kinds of errors that a damaged file gives into a ValueError that names it."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{label} is damaged: {error}") from error


def _open_archive(stream: IO[bytes]) -> zipfile.ZipFile:
    import zipfile  # only here, so that importing convext stays quick

    return zipfile.ZipFile(stream)


def _choose_member(archive: zipfile.ZipFile, label: str, member: str | None) -> zipfile.ZipInfo:
    """Return where in `archive` the array `member` is, or the only array that there is."""
    arrays = {
        info.filename.removesuffix(".npy"): info
        for info in archive.infolist()
        if info.filename.endswith(".npy")
    }
    if member in arrays:
        return arrays[member]
    if len(arrays) != 1:
        names = f" ({', '.join(arrays)})" if arrays else ""
        raise ValueError(f"{label} must hold one array, got {len(arrays)} arrays{names}")
    return next(iter(arrays.values()))


def _read_npy(stream: IO[bytes], size: int, label: str, *, mmap: bool = False) -> NumericArray:
    """Read, or map, the array in a stream of `size` bytes in the .npy format."""
    with _damage_named(label):
        header = _read_header(stream)
    if header.dtype.hasobject:
        raise ValueError(f"{label} holds pickled Python objects, which are never loaded")
    real_dtype(label, header.dtype)
    needed, held = math.prod(header.shape) * header.dtype.itemsize, size - stream.tell()
    if held < needed:
        raise ValueError(
            f"{label} is truncated: its shape {header.shape} of {header.dtype} takes "
            f"{needed} bytes, got {held}"
        )
    with _damage_named(label):
        if mmap and needed > 0:
            order: Literal["C", "F"] = "F" if header.fortran_order else "C"
            return np.memmap(
                stream, header.dtype, "r", offset=stream.tell(), shape=header.shape, order=order
            )
        stream.seek(0)
        return npy.read_array(stream, allow_pickle=False)


def _read_header(stream: IO[bytes]) -> _Header:
    version = npy.read_magic(stream)
    if version not in {(1, 0), (2, 0), (3, 0)}:
        raise ValueError(f"version {version} of the .npy format is unknown")
    # Version 3.0 differs from 2.0 in the names of fields only, which no numeric array has.
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    header = _Header(*read(stream))
    if min(header.shape, default=0) < 0:
        raise ValueError(f"the shape {header.shape} has a negative size")
    return header
