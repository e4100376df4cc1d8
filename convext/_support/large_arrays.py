"""Arrays that may be larger than the memory, which are read a part at a time.

They are files, and whatever slices like an array: memory maps, Zarr arrays, data sets of h5py, Dask
arrays, or an object of one's own that has a shape, a type and slices of its samples.
"""

from __future__ import annotations

import math
import mmap
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from queue import SimpleQueue

T = TypeVar("T")

# What arrays in memory offer, of whatever library.
_IN_MEMORY = ("__array_interface__", "__array_struct__", "__dlpack__")

# Bytes of samples that are read at a time, at most: more brings no speed.
MAX_BLOCK_BYTES = 64 << 20

# A block is in memory as it is read and as it is computed with, and so is the next one.
_BLOCKS_AT_ONCE = 4

# Bytes of an array that has pages of its own.
OWN_PAGES = 1 << 20

_END: Any = object()


class LargeArray:
    """A view of samples that are somewhere else; an index, or NumPy, reads what it asks for.

    `source` gives slices of its first axis; of all axes, if it has `chunks`, or is an array; single
    samples to where they belong, if it has `gather`. What is read is an array of its own.
    """

    def __init__(
        self,
        source: Any,
        name: str,
        spans: Sequence[range] | None = None,
        axes: Sequence[int] | None = None,
        dtype: np.dtype[Any] | None = None,
    ) -> None:
        self.source, self.name = source, name
        self.pages: list[mmap.mmap] = []  # of blocks that were given back
        self.dtype: np.dtype[Any] = np.dtype(source.dtype) if dtype is None else dtype
        # Which part of each axis of the source this is; and which of these axes each of its own is.
        self.spans = [range(n) for n in source.shape] if spans is None else list(spans)
        self.axes = list(range(len(self.spans)) if axes is None else axes)
        self.shape = tuple(len(self.spans[axis]) for axis in self.axes)
        self.ndim, self.size = len(self.shape), int(np.prod(self.shape, dtype=object))
        self.nbytes = self.size * self.dtype.itemsize
        chunks = getattr(source, "chunks", None)
        self.slices_all = hasattr(source, "chunks")
        first = chunks[0] if isinstance(chunks, tuple) and chunks else 1
        self.together = max(first) if isinstance(first, tuple) else first

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype)

    def part(self, key: tuple[slice, ...]) -> LargeArray:
        """Return a part of the array, of which nothing is read yet."""
        spans = self.spans.copy()
        for axis, some in zip(self.axes, key, strict=False):
            spans[axis] = spans[axis][some]
        return LargeArray(self.source, self.name, spans, self.axes, self.dtype)

    def transpose(self, axes: Sequence[int]) -> LargeArray:
        """Return the array with its axes after the first in another order."""
        axes = [self.axes[axis] for axis in axes]
        return LargeArray(self.source, self.name, self.spans, axes, self.dtype)

    def __getitem__(self, key: Any) -> Any:
        """Read samples: slices, or indices of the first axis."""
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), [slice(None)] * (self.ndim - len(rest) - 1) + rest
        if first is None:
            return LargeArray(_OneSample(self), self.name)
        if isinstance(first, (int, np.integer)):
            at = range(len(self))[first]
            return self[at : at + 1][(0, *rest)]
        of_samples = self.spans[0]
        if isinstance(first, slice):
            of_samples = of_samples[first]
            indices = np.arange(of_samples.start, of_samples.stop, of_samples.step)
        else:
            indices = of_samples.start + of_samples.step * np.asarray(first, np.intp)
        inner = self.part((slice(None), *rest)).spans[1:] if rest else self.spans[1:]
        samples = self._read(indices, inner)
        return samples.transpose(self.axes)

    def _read(self, indices: npt.NDArray[np.intp], inner: Sequence[range]) -> npt.NDArray[Any]:
        """Read samples of the source, in ascending order, whatever theirs is.

        Those that follow each other are read together, and so are those of one chunk.
        """
        # numpy.diff and numpy.argsort take longer than reading some samples.
        order = np.arange(len(indices))
        ascends = bool((indices[1:] > indices[:-1]).all())
        if not ascends:
            order = np.argsort(indices, kind="stable")
        ascending = indices[order]
        result = room((len(indices), *map(len, inner)), self.dtype, self.pages)
        if self._as_stored(inner) and hasattr(self.source, "gather"):
            self.source.gather(ascending, result, order, inner)
            return result
        apart = (np.diff(ascending) > 1) & (np.diff(ascending // self.together) != 0)
        runs = np.split(order, np.flatnonzero(apart) + 1) if len(indices) else []
        in_order = len(runs) == 1 and len(indices) == 1 + ascending[-1] - ascending[0] and ascends
        for run in runs:
            begin, end = int(indices[run[0]]), int(indices[run[-1]]) + 1
            read = self._read_run(begin, end, inner)
            if in_order:
                result[...] = read
            else:
                result[run] = read[indices[run] - begin]
        if isinstance(self.source, np.ndarray):
            _give_back_pages(self.source)
        return result

    def _as_stored(self, inner: Sequence[range]) -> bool:
        """Whether rows of samples are read as they are."""
        whole = not inner or inner[-1] == range(self.source.shape[-1])
        return whole and self.dtype == self.source.dtype and all(s.step == 1 for s in inner)

    def _read_run(self, begin: int, end: int, inner: Sequence[range]) -> npt.NDArray[Any]:
        within = tuple(slice(span.start, max(span.start, span.stop)) for span in inner)
        whole = [slice(0, size) for size in self.source.shape[1:]]
        all_of_it = list(within) == whole
        key = slice(begin, end), *within
        read = self.source[slice(begin, end) if all_of_it or not self.slices_all else key]
        array: npt.NDArray[Any] = np.asarray(read)
        if not (all_of_it or self.slices_all):
            array = array[(slice(None), *within)]
        expected = (end - begin, *(some.stop - some.start for some in within))
        if array.shape != expected or array.dtype != self.source.dtype:
            raise ValueError(
                f"{self.name}[{begin}:{end}] must be {self.source.dtype} of shape {expected}, got "
                f"{array.dtype} of shape {array.shape}"
            )
        return array[(slice(None), *(slice(None, None, span.step) for span in inner))]


class _OneSample:
    """A sample as an array of one."""

    def __init__(self, sample: LargeArray) -> None:
        self.sample, self.shape, self.dtype = sample, (1, *sample.shape), sample.dtype
        self.chunks = (1,)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = self.sample[key[1:] if isinstance(key, tuple) else slice(None)]
        return array[np.newaxis]


def is_elsewhere(value: Any) -> bool:
    """Whether something slices like an array, but is not in memory."""
    if type(value) in (np.ndarray, np.memmap):
        owner = _owner(value)
        return isinstance(owner, np.memmap) and isinstance(owner.base, mmap.mmap)
    if isinstance(value, np.ndarray):
        return False
    if not all(hasattr(value, name) for name in ("shape", "dtype", "__getitem__")):
        return False
    try:
        np.dtype(value.dtype)
    except TypeError:
        return False
    return bool(value.shape) and not any(hasattr(value, name) for name in _IN_MEMORY)


def is_large(array: object) -> TypeGuard[LargeArray]:
    """Whether an array is read a part at a time."""
    return isinstance(array, LargeArray)


def read_as(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a large array whose samples are converted when they are read; all else as it is."""
    if is_large(array):
        converted = LargeArray(array.source, array.name, array.spans, array.axes, dtype)
        return cast("npt.NDArray[Any]", converted)
    return array


def room(shape: tuple[int, ...], dtype: np.dtype[Any], spare: list[mmap.mmap]) -> npt.NDArray[Any]:
    """Return an array on pages that are spare, where these are as many, and become so after use.

    New pages cost more time than reading into them; those of a thread's allocator stay with it.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < OWN_PAGES:
        return np.empty(shape, dtype)
    pages = None
    with suppress(IndexError):
        pages = spare.pop()
    if pages is None or len(pages) != size:
        try:
            pages = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)
        except OSError:  # what was given back to NumPy may still suffice
            return np.empty(shape, dtype)
    array: npt.NDArray[Any] = np.ndarray(shape, dtype, pages)
    weakref.finalize(array, spare.append, pages).atexit = False
    return array


def part_of(array: npt.NDArray[Any], key: tuple[slice, ...]) -> npt.NDArray[Any]:
    """Return a view of a part of an array; of a large one, nothing is read."""
    if is_large(array):
        return cast("npt.NDArray[Any]", array.part(key))
    return array[key]


def loaded(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array in memory, or as it is mapped there."""
    if not is_large(array):
        return array
    if not isinstance(array.source, np.ndarray):
        return cast("npt.NDArray[Any]", array[:])
    part = array.source[tuple(slice(s.start, s.stop, s.step) for s in array.spans)]
    return cast("npt.NDArray[Any]", part.transpose(array.axes))


def in_memory(arrays: Sequence[npt.NDArray[Any]], itemsize: int, limit: int) -> bool:
    """Whether arrays fit into the memory, computed with in a type of that size."""
    return sum(array.size * max(itemsize, array.dtype.itemsize) for array in arrays) <= limit


def samples_of_block(arrays: Sequence[npt.NDArray[Any]], itemsize: int, limit: int) -> int:
    """Return how many samples of arrays are read at a time, so that the memory suffices."""
    of_sample = sum(a.size // len(a) * (itemsize + a.dtype.itemsize) for a in arrays)
    return max(1, min(limit // _BLOCKS_AT_ONCE, MAX_BLOCK_BYTES) // max(1, of_sample))


def ahead(items: Iterator[T], *arrays: Any) -> Iterator[T]:
    """Yield items; where they are read from large arrays, a thread reads the next one meanwhile.

    Errors of the thread are raised here. It ends with the items, or when this iterator does, and
    does not keep the process from ending.
    """
    if not any(map(is_large, arrays)):
        yield from items
        return
    from queue import SimpleQueue  # only here, so that importing convext stays quick

    asked: SimpleQueue[bool] = SimpleQueue()
    answers: SimpleQueue[tuple[T, BaseException | None]] = SimpleQueue()
    thread = threading.Thread(target=_answer, args=(items, asked, answers), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there may be no more threads
        yield from items
        return
    asked.put(True)
    try:
        while True:
            item, error = answers.get()
            if error is not None:
                raise error
            if item is _END:
                thread.join()
                return
            asked.put(True)
            yield item
            del item  # while the next one is waited for
    finally:
        error = None  # its traceback has this frame
        asked.put(False)


def _answer(
    items: Iterator[T],
    asked: SimpleQueue[bool],
    answers: SimpleQueue[tuple[T, BaseException | None]],
) -> None:
    """Give an item, or an error, as often as it is asked for, and keep none."""
    answer: tuple[Any, BaseException | None]
    more = True
    while more and asked.get():
        try:
            answer = next(items, _END), None
        except BaseException as error:
            answer = _END, error
        more = answer[0] is not _END
        answers.put(answer)
        del answer


def _give_back_pages(array: Any) -> None:
    """Let the system take a mapped file's pages, which it would else keep while there is room.

    They remain in its cache. Only maps of `numpy.memmap` with mode "r" are known to be shared with
    the file and never written to; what other maps hold, the process alone may have.
    """
    owner = _owner(array)
    if owner.mode == "r" and hasattr(owner.base, "madvise"):
        owner.base.madvise(mmap.MADV_DONTNEED)


def _owner(array: Any) -> Any:
    """Return the array whose memory, or map, an array is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
