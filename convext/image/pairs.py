"""Pairs of images in two folders, read when they are needed, and batches of their patches."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .._support.atomic_files import FilePath, path_of
from .._support.streams import read_file
from ..config import get_num_threads
from .images import luminance
from .pictures import load_picture, strips_of
from .pillow_files import image_files, read_header

Image: TypeAlias = npt.NDArray[np.float32]
BeforeAndAfter: TypeAlias = tuple[Image, Image]

# Images that patches are mixed from are in memory together, up to this size, and so are those
# after them.
GROUP_BYTES = 256 << 20

# Patches to validate with are at most this large together.
VALIDATION_BYTES = 256 << 20


class ImagePairs:
    """Images before and after, of one size, in two folders: paths, heights and widths.

    Files belong together that have the same name, but for the suffix. With one channel they are
    read as luminance, with three as colours.
    """

    def __init__(
        self, before: FilePath, after: FilePath, channels: int, max_pixels: int | None = None
    ) -> None:
        self.files = _matched(before, after)
        self.channels, self.max_pixels = channels, max_pixels
        self.sizes = []
        for files in self.files:
            first, second = (read_header(file, max_pixels=max_pixels).size for file in files)
            if first != second:
                raise ValueError(
                    f"{os.path.basename(files[0])} has the shape {first} before and {second} after"
                )
            self.sizes.append(first)

    def load(self, index: int) -> BeforeAndAfter:
        """Read a pair, (C, H, W) each."""
        first, second = (self._load(file) for file in self.files[index])
        if not first.shape[1:] == second.shape[1:] == self.sizes[index]:
            raise ValueError(f"{self.files[index][0]} is not as large as its header says")
        return first, second

    def _load(self, file: str) -> Image:
        picture = load_picture(file, max_pixels=self.max_pixels)
        channels, height, width = picture.shape
        image = np.empty((self.channels, height, width), np.float32)
        for begin, end in strips_of(height, channels * width):
            rows = picture.rows(begin, end)
            image[:, begin:end] = luminance(rows) if self.channels == 1 else rows
        return image


class PatchBatches:
    """Batches of patches (x, y) of pairs of images, in a new random order for each epoch.

    Patches are mixed with those of as many other images, taken at random, as fit the memory that is
    set aside for them, while threads read the next ones. The order depends on the random
    generator alone. The last `share` of the patches is kept for validation; a model makes the rows
    and columns `inner` of a patch.
    """

    def __init__(
        self,
        pairs: ImagePairs,
        size: int,
        stride: int,
        batch_size: int,
        inner: tuple[slice, slice],
        share: float,
    ) -> None:
        self.pairs, self.size, self.stride, self.batch_size = pairs, size, stride, batch_size
        self.inner = inner
        places = np.concatenate([self._places(i) for i in range(len(pairs.sizes))])
        self.total = len(places)
        if self.total == 0:
            raise ValueError(f"no image is as large as a patch of {size}x{size}")
        training = math.floor(self.total * (1 - share))
        if training in (0, self.total):
            raise ValueError(f"{self.total} patches are too few to train on and to validate with")
        self._training, self._validation = places[:training], places[training:]
        self._kept: dict[int, BeforeAndAfter] | None = None

    def __len__(self) -> int:
        """Return about how many batches an epoch has: those of several groups may be more."""
        return math.ceil(len(self._training) / self.batch_size)

    def _places(self, index: int) -> npt.NDArray[np.int32]:
        """Return where the patches of a pair are: its index, row and column."""
        ends = (length - self.size + 1 for length in self.pairs.sizes[index])
        rows, columns = (np.arange(0, end, self.stride) for end in ends)
        places = np.meshgrid(index, rows, columns, indexing="ij")
        return np.stack(places, -1).reshape(-1, 3).astype(np.int32)

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells these patches from others: options, files, the beginnings of some."""
        files = [file for pair in self.pairs.files for file in pair]
        checksum = 0
        for file in files[:: 1 + len(files) // 40 * 2]:  # an odd step: of both folders
            with read_file(file) as stream:
                checksum = zlib.crc32(stream.read(1 << 16), checksum)
        names = [(os.path.basename(file), os.path.getsize(file)) for file in files]
        options = {name: vars(self)[name] for name in ("size", "stride", "batch_size", "total")}
        return options | {"checksums of images": (zlib.crc32(repr(names).encode()), checksum)}

    def __call__(self, generator: np.random.Generator) -> Iterator[BeforeAndAfter]:
        """Yield the batches of an epoch."""
        order = generator.permutation(np.unique(self._training[:, 0]))
        for images in self._loaded(self._groups(order.tolist())):
            places = self._training[np.isin(self._training[:, 0], list(images))]
            places = places[generator.permutation(len(places))]
            for first in range(0, len(places), self.batch_size):
                yield self._cut(images, places[first : first + self.batch_size])

    def validation(self) -> BeforeAndAfter:
        """Return the patches for validation, evenly spaced ones where they are too many."""
        bytes_each = 8 * self.pairs.channels * self.size**2
        step = -(-len(self._validation) * bytes_each // VALIDATION_BYTES)
        chosen = self._validation[::step]
        groups = self._groups(np.unique(chosen[:, 0]).tolist())
        parts = [
            self._cut(images, chosen[chosen[:, 0] == i])
            for images in self._read(groups)
            for i in images
        ]
        x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return x, y

    def _groups(self, order: Sequence[int]) -> list[list[int]]:
        """Cut the pairs into groups that fit the memory."""
        groups: list[list[int]] = [[]]
        held = 0
        for index in order:
            needed = 8 * self.pairs.channels * math.prod(self.pairs.sizes[index])
            if groups[-1] and held + needed > GROUP_BYTES:
                groups.append([])
                held = 0
            groups[-1].append(index)
            held += needed
        return groups

    def _loaded(self, groups: list[list[int]]) -> Iterator[dict[int, BeforeAndAfter]]:
        """Yield the images of each group, which are kept if it is the only one."""
        if self._kept is not None:
            yield self._kept
            return
        for images in self._read(groups):
            if len(groups) == 1:
                self._kept = images
            yield images

    def _read(self, groups: list[list[int]]) -> Iterator[dict[int, BeforeAndAfter]]:
        """Read the images of each group; threads read and decode those of the next meanwhile."""
        pool = ThreadPoolExecutor(get_num_threads())
        try:
            ahead = {i: pool.submit(self.pairs.load, i) for i in groups[0]}
            for following in [*groups[1:], []]:
                images = {i: future.result() for i, future in ahead.items()}
                ahead = {i: pool.submit(self.pairs.load, i) for i in following}
                yield images
        finally:
            pool.shutdown(cancel_futures=True)

    def _cut(
        self, images: dict[int, BeforeAndAfter], places: npt.NDArray[np.int32]
    ) -> BeforeAndAfter:
        """Return the patches at some places, (B, C, size, size), and what is to become of them."""
        size = self.size
        x, y = (
            np.stack([images[i][k][:, r : r + size, c : c + size] for i, r, c in places.tolist()])
            for k in range(2)
        )
        return x, y[:, :, self.inner[0], self.inner[1]]


def _matched(before: FilePath, after: FilePath) -> list[tuple[str, str]]:
    """Return the files of two folders that belong together, in the order of their names."""
    names = image_files(before), image_files(after)
    whole = names[0] == names[1]
    first, second = (_by_stem(*pair, whole) for pair in zip((before, after), names, strict=True))
    if lone := sorted(first.keys() ^ second.keys()):
        name = first.get(lone[0]) or second[lone[0]]
        raise ValueError(f"{name} is in only one of {before} and {after}")
    return [
        (os.path.join(before, name), os.path.join(after, second[stem]))
        for stem, name in first.items()
    ]


def _by_stem(folder: FilePath, names: Sequence[str], whole: bool) -> dict[str, str]:
    """Return names by what they are without the suffix; by themselves where that is asked for."""
    stems: dict[str, str] = {}
    for name in names:
        stem = name if whole else os.path.splitext(name)[0]
        if stem in stems:
            raise ValueError(
                f"{stems[stem]} and {name} in {path_of(folder)}: which of them belongs to an "
                "image in the other folder is not known"
            )
        stems[stem] = name
    return stems
