"""Arrays over mapped memory of every kind: solving changes none of it."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
import reference

import convext

if not hasattr(mmap.mmap, "madvise"):
    pytest.skip("pages are given back where there is madvise", allow_module_level=True)

KERNELS = np.array([[[[1.0, -2.0], [0.5, 3.0]]]])


def file_of(values, path):
    values.tofile(path)
    return path


def mapped(access):
    """Return a function that maps a file of values with Python's own mmap."""

    def make(values, path):
        with open(file_of(values, path), "r+b") as file:
            memory = mmap.mmap(file.fileno(), 0, access=access)
        return np.ndarray(values.shape, buffer=memory)

    return make


def anonymous(flags):
    def make(values, path):
        memory = mmap.mmap(-1, values.nbytes, flags=flags)
        memory[:] = values.tobytes()
        return np.ndarray(values.shape, buffer=memory)

    return make


def memmap(mode):
    return lambda values, path: np.memmap(file_of(values, path), float, mode, shape=values.shape)


def view_of(make, view):
    return lambda values, path: view(make(values, path))


MAPS = {
    "memmap r": memmap("r"),
    "memmap r+": memmap("r+"),
    "memmap c": memmap("c"),
    "plain view of memmap c": view_of(memmap("c"), np.asarray),
    "memmap view of memmap c": view_of(
        memmap("c"), lambda array: np.asarray(array).view(np.memmap)
    ),
    "part of memmap c": view_of(memmap("c"), lambda array: array[:, :, ::1].view()),
    "mmap read": mapped(mmap.ACCESS_READ),
    "mmap write": mapped(mmap.ACCESS_WRITE),
    "mmap copy": mapped(mmap.ACCESS_COPY),
    "mmap copy seen as memmap": view_of(
        mapped(mmap.ACCESS_COPY), lambda array: array.view(np.memmap)
    ),
    "memoryview of mmap copy": view_of(
        mapped(mmap.ACCESS_COPY), lambda array: np.frombuffer(array.data).reshape(array.shape)
    ),
    "anonymous, private": anonymous(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
    "anonymous, shared": anonymous(mmap.MAP_SHARED | mmap.MAP_ANONYMOUS),
    "anonymous, seen as memmap": view_of(
        anonymous(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), lambda array: array.view(np.memmap)
    ),
}


def solve(before, after):
    return convext.solve_kernels(before, after, (2, 2)).kernels


def update(before, after):
    statistics = convext.PatchStatistics(1, 1, (2, 2))
    statistics.update(before, after)
    return statistics.solve().kernels


def train(before, after):
    convext.train_model(before, after, 1, (2, 2), 0.01, 1, method="statistics", verbose=False)
    convext.suggest_learning_rate(before, (2, 2))
    return solve(before, after)


@pytest.mark.parametrize("use", [solve, update, train], ids=lambda function: function.__name__)
@pytest.mark.parametrize("kind", MAPS)
def test_mapped_memory_holds_what_it_held(kind, use, tmp_path):
    rng = np.random.default_rng(0)
    before = rng.random((3, 1, 40, 50))
    arrays = [before, reference.conv2d(before, KERNELS).astype(float)]
    maps = [MAPS[kind](array, tmp_path / str(i)) for i, array in enumerate(arrays)]
    for array, memory in zip(arrays, maps, strict=True):
        if memory.flags.writeable:  # what the file does not know, if the pages are private
            array[...] = memory[...] = 2 * array
    found = use(*maps)
    for array, memory in zip(arrays, maps, strict=True):
        np.testing.assert_array_equal(memory, array)
    np.testing.assert_allclose(found, KERNELS, atol=1e-12)


@pytest.mark.parametrize("mode", ["r", "c"])
def test_pages_of_a_file_that_is_only_read_are_given_back(mode, tmp_path):
    """As the kernel counts the pages that a map keeps in memory (Linux)."""
    values = np.random.default_rng(0).random((4, 1, 512, 512))
    memory = memmap(mode)(values, tmp_path / "values")
    after = reference.conv2d(values, KERNELS).astype(float)
    solve(memory, after)
    resident = resident_pages(tmp_path / "values")
    assert (resident == 0) == (mode == "r")
    np.testing.assert_array_equal(memory, values)


def resident_pages(path):
    """Return how many KiB of a mapped file are in the memory of this process."""
    try:
        with open("/proc/self/smaps") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        pytest.skip("there is no /proc/self/smaps")
    at = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
    return next(int(line.split()[1]) for line in lines[at:] if line.startswith("Rss:"))
