"""Reading .npy and .npz files: nothing is unpickled, and no size is believed before it is checked.

What a file says of itself is set against its length, and what a member of an archive says against
the bytes that it is packed in, before memory is taken for it: a small file costs little. Whatever
is wrong with a file is a ValueError that names it.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from .atomic_files import FilePath, path_of
from .checks import real_dtype
from .streams import NotingFile, read_file

if TYPE_CHECKING:
    import zipfile

# Of any real type; what files hold is known only when they are read.
NumericArray: TypeAlias = npt.NDArray[np.generic]

T = TypeVar("T")

_ZIP_MAGIC = b"PK"

# The longest header that NumPy reads, with what goes before it.
_LONGEST_HEADER = 10_012

# Deflate packs this many bytes into one at most.
_MOST_PER_BYTE = 1032

# Values are read a megabyte at a time.
_PIECE = 1 << 20

# How often a header is read that CPython's parser fails on without a reason.
_PARSER_TRIES = 10

# The longest text: its JSON, read, may take thirty times the memory.
MOST_CHARACTERS = 1 << 24


class NotNumbersError(ValueError, TypeError):
    """The array of a file does not hold real numbers."""


class Header(NamedTuple):
    """What a .npy file says about its values."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    length: int  # bytes before the values
    rest: io.BytesIO  # values that were read with it


def load_array(
    file: FilePath, name: str, *, member: str | None = None, mmap: bool = False
) -> NumericArray:
    """Read one array of real numbers, in the type of its file.

    That is a .npy file, or a .npz file that holds one array, or one that is named `member`: what a
    file is is told from its contents. A .npy file can be mapped, read-only, instead. `name` is what
    messages call the array. Errors are those of `convext.load_data`.
    """
    label = f"{name} ({path_of(file)})"
    with _open(file, label) as (stream, archive):
        if archive is None:
            return _read_numbers(stream, _size(stream), label, mmap=mmap)
        if mmap:
            raise ValueError(f"{label} is a .npz file, only a .npy file can be memory-mapped")
        info = _choose_member(archive, label, member)
        return _read_member(archive, info, label, _read_numbers)


def stored_header(file: FilePath, name: str) -> Header | None:
    """Return what a .npy file says about its values, which are all there; None of a .npz file."""
    label = f"{name} ({os.fspath(file)})"
    with _open(file, label) as (stream, archive):
        if archive is not None:
            return None
        header = _read_numeric_header(stream, label)
        _check_length(header, _size(stream), label)
        return header


def is_archive(file: FilePath, name: str) -> bool:
    """Return whether a file is a .npz file; one that is neither that nor .npy is an error."""
    with _open(file, f"{name} ({path_of(file)})") as (_, archive):
        return archive is not None


def load_record(file: FilePath, name: str, member: str) -> dict[str, Any] | None:
    """Return the JSON object in the text that is `member` of a .npz file; None where it is not.

    Errors are those of `load_array`.
    """
    label = f"{name} ({path_of(file)})"
    with _open(file, label) as (_, archive):
        if archive is None:
            return None
        if member in archive.NameToInfo:
            raise ValueError(f"{label}: {member} must be a text in the .npy format")
        info = archive.NameToInfo.get(f"{member}.npy")
        if info is None:
            return None
        text = _read_member(archive, info, f"{label}: {member}", _read_text)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{label}: {member} is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{label}: {member} must be a JSON object, got {type(record).__name__}")
    return record


@contextmanager
def _open(file: FilePath, label: str) -> Iterator[tuple[IO[bytes], zipfile.ZipFile | None]]:
    """Open a .npy file, or a .npz file as an archive; what clearly is neither is an error."""
    kind = os.stat(path_of(file)).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise ValueError(f"{label} must be a regular file, got a device or a pipe")
    # Of a folder, the system's IsADirectoryError.
    with read_file(path_of(file)) as stream:
        start = stream.read(len(npy.MAGIC_PREFIX))
        stream.seek(0)
        if not start:
            raise ValueError(f"{label} is empty: expected a .npy or .npz file, got 0 bytes")
        if start != npy.MAGIC_PREFIX and not start.startswith(_ZIP_MAGIC):
            raise ValueError(
                f"{label} is not an array file: expected a .npy or .npz file, "
                f"got one that starts with {start!r}"
            )
        archive = None
        if start.startswith(_ZIP_MAGIC):
            import zipfile  # only here, so that importing convext stays quick

            with _damage_named(label):
                archive = zipfile.ZipFile(stream)
        yield stream, archive


@contextmanager
def _damage_named(label: str) -> Iterator[None]:
    """Turn the many kinds of errors that a damaged file gives into a ValueError that names it."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        why = str(error) or type(error).__name__  # as where the file ends too early
        raise ValueError(f"{label} is damaged: {why}") from error


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


def _read_member(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    label: str,
    read: Callable[[IO[bytes], int, str], T],
) -> T:
    """Read a member of an archive, unless it is packed in fewer bytes than it can be."""
    import zipfile

    assert archive.fp is not None
    largest = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _MOST_PER_BYTE}
    with _damage_named(label):
        if info.compress_type not in largest:
            raise ValueError(f"{info.filename} is packed in a way that NumPy does not know")
        packed = min(info.compress_size, _size(archive.fp))
        if info.file_size > packed * largest[info.compress_type]:
            raise ValueError(
                f"{info.filename} is said to have {info.file_size} bytes, packed in {packed}"
            )
        stream = archive.open(info)
    contents = read(stream, info.file_size, label)
    with _damage_named(label):
        if stream.read(1):  # the checksum is looked at where the member ends
            raise ValueError(f"{info.filename} goes on after its values")
    return contents


def _size(stream: IO[bytes]) -> int:
    return os.fstat(stream.fileno()).st_size


def _read_numbers(stream: IO[bytes], size: int, label: str, *, mmap: bool = False) -> NumericArray:
    """Read, or map, the array in a stream of `size` bytes in the .npy format."""
    header = _read_numeric_header(stream, label)
    order: Literal["C", "F"] = "F" if header.fortran_order else "C"
    if mmap and 0 not in header.shape:
        assert isinstance(stream, io.BufferedReader)
        assert isinstance(stream.raw, NotingFile)
        _check_length(header, size, label)
        with _damage_named(label), stream.raw.noting():
            return np.memmap(
                stream, header.dtype, "r", offset=header.length, shape=header.shape, order=order
            )
    values = _read_values(stream, header, size, label)
    with _damage_named(label):
        return values.reshape(header.shape, order=order)


def _read_text(stream: IO[bytes], size: int, label: str) -> str:
    """Read the one text in a stream of `size` bytes in the .npy format."""
    header = _read_header(stream, label)
    if header.dtype.kind != "U" or header.shape:
        raise ValueError(f"{label} must be a text, got {header.dtype} {header.shape}")
    if header.dtype.itemsize > 4 * MOST_CHARACTERS:
        raise ValueError(
            f"{label} must be a text of at most {MOST_CHARACTERS} characters, "
            f"got {header.dtype.itemsize // 4}"
        )
    values = _read_values(stream, header, size, label)
    with _damage_named(label):
        return str(values[0])


def _read_values(stream: IO[bytes], header: Header, size: int, label: str) -> NumericArray:
    """Return the values of an array, flat, from a stream of `size` bytes after its header."""
    _check_length(header, size, label)
    values: NumericArray = np.empty(math.prod(header.shape), header.dtype)
    left = values.view(np.uint8).data
    with _damage_named(label):
        while left:
            piece = header.rest.read(_PIECE) or stream.read(min(_PIECE, len(left)))
            if not piece:
                raise ValueError("it ends too early")
            left[: len(piece)] = piece[: len(left)]
            left = left[len(piece) :]
    return values


def _check_length(header: Header, size: int, label: str) -> None:
    needed, held = math.prod(header.shape) * header.dtype.itemsize, size - header.length
    if held < needed:
        raise ValueError(
            f"{label} is truncated: its shape {header.shape} of {header.dtype} takes "
            f"{needed} bytes, got {held}"
        )


def _read_numeric_header(stream: IO[bytes], label: str) -> Header:
    """Read the header of an array of real numbers."""
    header = _read_header(stream, label)
    if header.dtype.hasobject:
        raise ValueError(f"{label} holds pickled Python objects, which are never loaded")
    try:
        real_dtype(label, header.dtype)
    except TypeError as error:
        raise NotNumbersError(str(error)) from None
    return header


def _undisturbed(read: Callable[[IO[bytes]], T], stream: IO[bytes]) -> T:
    """Return what is read with Python's parser.

    While another thread parses, too, CPython may say of any text that it went wrong
    (https://github.com/python/cpython/issues/106905); and then it may not the next time.
    """
    start = stream.tell()
    for _ in range(_PARSER_TRIES - 1):
        try:
            return read(stream)
        except SystemError:
            stream.seek(start)
    return read(stream)


def _read_header(stream: IO[bytes], label: str) -> Header:
    """Read what a stream in the .npy format says about its values; some are read with it."""
    with _damage_named(label):
        rest = io.BytesIO(stream.read(_LONGEST_HEADER))
        version = npy.read_magic(rest)
        if version not in {(1, 0), (2, 0), (3, 0)}:
            raise ValueError(f"version {version} of the .npy format is unknown")
        # Version 3.0 differs from 2.0 in the names of fields only, which no numeric array has.
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        try:
            shape, fortran_order, dtype = _undisturbed(read, rest)
        except MemoryError:  # of the parser, which has met too many brackets
            raise ValueError("its header cannot be parsed") from None
        if min(shape, default=0) < 0:
            raise ValueError(f"the shape {shape} has a negative size")
    return Header(shape, fortran_order, dtype, rest.tell(), rest)
