""".npy files that are read a part at a time, and sets of them: the shards of one array."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from .array_files import NumericArray, load_array, stored_header
from .atomic_files import FilePath, path_of
from .large_arrays import LargeArray, is_elsewhere
from .streams import NotingFile

Key = slice | tuple[slice, ...]


class StoredArray:
    """The array in a .npy file, whose rows are in C order; slices read it.

    It is not mapped: where reading fails, or the file was cut off, that is an error, not the end of
    the process, and no addresses are taken for it.
    """

    chunks = (1,)

    def __init__(
        self, file: FilePath, label: str, shape: tuple[int, ...], dtype: np.dtype[Any], start: int
    ) -> None:
        self.file, self.label = file, label
        self.shape, self.dtype, self.start = shape, dtype, start

    def __getitem__(self, key: Key) -> NumericArray:
        given = key if isinstance(key, tuple) else (key,)
        spans = [range(size) for size in self.shape]
        for axis, some in enumerate(given):
            spans[axis] = spans[axis][some]
        cut_last = len(given) == len(spans) > 1
        if cut_last:  # whole rows are read
            spans[-1] = range(self.shape[-1])
        result: NumericArray = np.empty([*map(len, spans)], self.dtype)
        first, *inner = spans
        self.gather(np.array(first, np.intp), result, np.arange(len(first)), inner)
        return result[..., given[-1]] if cut_last else result

    def gather(
        self,
        places: npt.NDArray[np.intp],
        result: NumericArray,
        rows: npt.NDArray[np.intp],
        inner: Sequence[range],
    ) -> None:
        """Read samples, in ascending order of their places, into those rows of the result.

        Of each, what lies in the inner spans is read, of which the last is a whole row.
        """
        if not result.size:
            return
        offsets, run = self._runs(inner)
        starts = np.add.outer(places * self._bytes(self.shape[1:]), offsets).ravel()
        to = np.add.outer(rows * (len(offsets) * run), np.arange(len(offsets)) * run).ravel()
        # Runs that follow each other, here and there, are read as one.
        begins = np.flatnonzero((np.diff(starts) != run) | (np.diff(to) != run)) + 1
        begins = np.concatenate([[0], begins])
        lengths = (np.diff(begins, append=len(starts)) * run).tolist()
        begin_at, write_at = (self.start + starts[begins]).tolist(), to[begins].tolist()
        memory, path = _bytes_of(result), path_of(self.file)
        with NotingFile(path, "rb") as stream, stream.failing_as(path):
            _announce(stream, begin_at, lengths)
            for start, at, length in zip(begin_at, write_at, lengths, strict=True):
                stream.seek(start)
                self._fill(stream, memory[at : at + length])

    def _runs(self, inner: Sequence[range]) -> tuple[npt.NDArray[np.intp], int]:
        """Return where in a sample its runs of bytes begin, and how long each is."""
        sizes = self.shape[1:]
        # Where the last axis that is cut begins, the rest lies together.
        cut = max((i for i, span in enumerate(inner) if len(span) < sizes[i]), default=0)
        offsets = np.zeros(1, np.intp)
        for axis, span in enumerate(inner[:cut]):
            step = self._bytes(sizes[axis + 1 :])
            offsets = np.add.outer(offsets, np.array(span, np.intp) * step).ravel()
        if not inner:
            return offsets, self.dtype.itemsize
        below = self._bytes(sizes[cut + 1 :])
        return offsets + inner[cut].start * below, len(inner[cut]) * below

    def _bytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) * self.dtype.itemsize

    def _fill(self, stream: NotingFile, left: memoryview) -> None:
        while left:
            count = stream.readinto(left)
            if not count:
                raise ValueError(f"{self.label} is truncated: it was longer when it was opened")
            left = left[count:]


def _bytes_of(array: NumericArray) -> memoryview:
    """Return the memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _announce(stream: NotingFile, starts: Sequence[int], lengths: Sequence[int]) -> None:
    """Tell the system what will be read: a disk is quicker where many readings wait for it."""
    if len(starts) > 1 and hasattr(os, "posix_fadvise"):
        for start, length in zip(starts, lengths, strict=True):
            with suppress(OSError):  # not every file has it
                os.posix_fadvise(stream.number, start, length, os.POSIX_FADV_WILLNEED)


class Shards:
    """Arrays one after the other, along their first axis."""

    chunks = (1,)

    def __init__(self, arrays: Sequence[Any]) -> None:
        self.arrays = arrays
        self.ends = list(accumulate(array.shape[0] for array in arrays))
        self.shape, self.dtype = (self.ends[-1], *arrays[0].shape[1:]), arrays[0].dtype

    def __getitem__(self, key: Key) -> npt.NDArray[Any]:
        first, *rest = key if isinstance(key, tuple) else (key,)
        samples = range(self.shape[0])[first]
        parts = []
        for array, end in zip(self.arrays, self.ends, strict=True):
            start = end - array.shape[0]
            begin, stop = max(samples.start, start) - start, min(samples.stop, end) - start
            if begin < stop:
                parts.append(array[(slice(begin, stop), *rest)])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def gather(
        self,
        places: npt.NDArray[np.intp],
        result: npt.NDArray[Any],
        rows: npt.NDArray[np.intp],
        inner: Sequence[range],
    ) -> None:
        """Read as `StoredArray` does."""
        ends = np.searchsorted(places, self.ends)
        for array, begin, end, last in zip(self.arrays, [0, *ends], ends, self.ends, strict=False):
            some = places[begin:end] - (last - array.shape[0])
            if begin == end:
                continue
            if isinstance(array, StoredArray):
                array.gather(some, result, rows[begin:end], inner)
            else:
                part = tuple(slice(span.start, span.stop) for span in inner)
                result[rows[begin:end]] = array[(slice(None), *part)][some]


def open_array(file: FilePath, name: str) -> Any:
    """Open a .npy file, or all of those that a pattern such as ``"x-*.npy"`` matches.

    These are the shards of one array, in the order of their names, and have one type and samples of
    one shape. A .npz file is read. `name` is what messages call the array; errors are those of
    `convext.load_data`.
    """
    if not is_pattern(file):
        return _open(file, name)
    files = sorted(glob.glob(path_of(file)))
    if not files:
        raise FileNotFoundError(f"{name}: no file matches {path_of(file)}")
    arrays = [_open(shard, name) for shard in files]
    kinds = [(array.shape[1:], array.dtype) for array in arrays]
    for shard, array, kind in zip(files, arrays, kinds, strict=True):
        if kind != kinds[0] or not array.shape:
            raise ValueError(
                f"{name} ({shard}) is {array.dtype} of shape {array.shape}, but {files[0]}, the "
                f"first shard, is {arrays[0].dtype} of shape {arrays[0].shape}"
            )
    return arrays[0] if len(arrays) == 1 else Shards(arrays)


def is_pattern(file: FilePath) -> bool:
    """Whether a path is a pattern, and no file of that name exists."""
    return glob.has_magic(path_of(file)) and not os.path.exists(file)


def _open(file: FilePath, name: str) -> Any:
    header = stored_header(file, name)
    if header is None:
        return load_array(file, name)
    if header.fortran_order or not header.shape:
        return load_array(file, name, mmap=True)
    label = f"{name} ({path_of(file)})"
    return StoredArray(file, label, header.shape, header.dtype, header.length)


def as_large(name: str, value: Any) -> Any:
    """Return a file, or what slices like an array and is not in memory, as a `LargeArray`.

    All else is returned as it is.
    """
    if isinstance(value, LargeArray):
        return value
    if isinstance(value, (str, os.PathLike)):
        value = open_array(value, name)
        if not isinstance(value, np.ndarray):
            return LargeArray(value, name)
    if not is_elsewhere(value):
        return value
    if any(map(math.isnan, value.shape)):  # as Dask's may be
        raise ValueError(
            f"{name} has chunks of unknown sizes (shape {value.shape}): "
            f"call {name}.compute_chunk_sizes() before"
        )
    return LargeArray(value, name)
