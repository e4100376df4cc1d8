"""Arrays of Dask (the ``dask`` extra): tasks over windows that cross the borders of chunks."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt

from .checks import integer, real_dtype
from .large_arrays import room

# How many results are merged at a time.
MERGED = 8

# Pages of windows that were joined and are used no more.
_spare: list[mmap.mmap] = []

# From where to where (exclusive) along an axis of an array; there are zeros around it.
Span = tuple[int, int]


def checked(name: str, array: Any) -> Any:
    """Return a Dask array whose chunks are of known sizes and hold real numbers of NumPy's."""
    try:
        from dask.array import Array
    except ImportError:
        raise ImportError('Dask arrays need Dask: pip install "convext[dask]"') from None
    if not (isinstance(array, Array) and isinstance(array._meta, np.ndarray)):
        kind = type(getattr(array, "_meta", array)).__name__
        raise TypeError(f"{name} must be a Dask array with chunks of numpy.ndarray, got {kind}")
    if np.isnan(array.shape).any():
        raise ValueError(
            f"{name} has chunks of unknown sizes (shape {array.shape}): "
            f"call {name}.compute_chunk_sizes() before"
        )
    real_dtype(name, array.dtype)
    return array


def borders(array: Any, axis: int) -> list[int]:
    """Return where along an axis chunks begin, and where the last one ends."""
    return [0, *accumulate(array.chunks[axis])]


class Tasks:
    """Tasks over windows of Dask arrays: a layer of a graph, as it is put together.

    Their keys follow from the name of what is done, and how, and to which arrays. Names are letters
    alone: tasks of one name are alike for the scheduler, which learns how long they take.
    """

    def __init__(self, name: str, how: object, num_threads: int | None) -> None:
        from dask.base import tokenize

        self.num_threads = num_threads
        if num_threads is not None:
            self.num_threads = integer("num_threads", num_threads, minimum=1)
        self._token = tokenize(name, how, num_threads)
        self._name = f"convext-{name}-{self._token}"
        self._arrays: dict[str, tuple[Any, list[list[int]]]] = {}
        self._tasks: dict[object, object] = {}

    def add(self, name: str, task: object) -> object:
        """Add a task, or what several are to be given, and return its key."""
        key = f"convext-{name}-{self._token}", len(self._tasks)
        self._tasks[key] = task
        return key

    def window(self, array: Any, *spans: Span) -> object:
        """Return what a task is to be given for a window of an array, zeros around it included."""
        if array.name not in self._arrays:
            self._arrays[array.name] = array, [borders(array, axis) for axis in range(4)]
        keys, places = [], []
        for pieces in product(*map(_pieces, self._arrays[array.name][1], spans)):
            chunk, part, place, whole = zip(*pieces, strict=True)
            key: object = (array.name, *chunk)
            keys.append(key if all(whole) else self.add("part", (partial(_part, part), key)))
            places.append(place)
        return partial(_joined, [end - begin for begin, end in spans], array.dtype, places), keys

    def merged(self, merge: Callable[[list[Any]], Any], keys: list[object]) -> object:
        """Return the key of the results of tasks, merged a few at a time in this order."""
        while len(keys) > 1:
            groups = range(0, len(keys), MERGED)
            keys = [self.add("merge", (merge, keys[i : i + MERGED])) for i in groups]
        return keys[0]

    def delayed(self, name: str, task: object) -> Any:
        """Return the result of a last task, still to be computed."""
        from dask.array import optimize
        from dask.delayed import Delayed

        key = self.add(name, task)
        return Delayed(key, optimize(self._graph(), [key]))

    def array(
        self,
        images: Any,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        seen: Callable[[int, int, int], Span],
        *task: object,
    ) -> Any:
        """Return results (K, OH, OW) of images, in as many chunks.

        For a chunk of them, `seen` says from where to where they see rows (axis 0) or columns; a
        task is given that window of the images, and which rows and columns of results it makes.
        """
        from dask.array import Array

        sides = [borders(images, axis) for axis in range(4)]
        sides[1] = [0, shape[0]]
        for axis in (2, 3):
            sides[axis] = [i * shape[axis - 1] // images.shape[axis] for i in sides[axis]]
        for block in product(*(enumerate(pairwise(side)) for side in sides)):
            index, spans = zip(*block, strict=True)
            size = [end - begin for begin, end in spans]
            made: tuple[object, ...] = np.empty, size, dtype
            if 0 not in size:
                parts = spans[2:]
                window = [seen(axis, *part) for axis, part in enumerate(parts)]
                given = self.window(images, spans[0], (0, images.shape[1]), *window)
                made = *task, given, parts
            self._tasks[(self._name, *index)] = made
        chunks = [np.diff(side).tolist() for side in sides]
        return Array(self._graph(), self._name, chunks, dtype)

    def _graph(self) -> Any:
        from dask.highlevelgraph import HighLevelGraph

        arrays = [array for array, _ in self._arrays.values()]
        return HighLevelGraph.from_collections(self._name, self._tasks, dependencies=arrays)


def _pieces(borders: list[int], span: Span) -> Iterator[tuple[int, slice, slice, bool]]:
    """Yield the chunks that a span along an axis meets.

    That is the number of the chunk, its part that is met, the place of this in the span, and
    whether it is all of the chunk.
    """
    begin, end = max(span[0], 0), min(span[1], borders[-1])
    chunk = bisect_right(borders, begin) - 1
    while begin < end:
        first, last = borders[chunk : chunk + 2]
        stop = min(last, end)
        if begin < stop:
            part, place = slice(begin - first, stop - first), slice(begin - span[0], stop - span[0])
            yield chunk, part, place, stop - begin == last - first
        begin, chunk = stop, chunk + 1


def _part(part: tuple[slice, ...], chunk: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return part of a chunk, without the memory of the rest."""
    return chunk[part].copy()


def _joined(
    shape: list[int],
    dtype: np.dtype[Any],
    places: Sequence[tuple[slice, ...]],
    pieces: Sequence[npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    """Return a window of its pieces, masked where these are."""
    if len(pieces) == 1 and list(pieces[0].shape) == shape:
        return pieces[0]
    if any(isinstance(piece, np.ma.MaskedArray) for piece in pieces):
        window: npt.NDArray[Any] = np.ma.zeros(shape, dtype)
    else:
        window = room(tuple(shape), dtype, _spare)
        _clear_around(window, places)
    for piece, place in zip(pieces, places, strict=True):
        window[place] = piece
    return window


def _clear_around(window: npt.NDArray[Any], places: Sequence[tuple[slice, ...]]) -> None:
    """Fill with zeros what lies around the box that pieces of a window make together."""
    for axis, parts in enumerate(zip(*places, strict=True)):
        sides = np.moveaxis(window, axis, 0)
        sides[: min(part.start for part in parts)] = 0
        sides[max(part.stop for part in parts) :] = 0
    if not places:
        window[...] = 0
