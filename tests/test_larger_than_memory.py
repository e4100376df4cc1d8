"""Data that are read a part at a time, from files and from what slices like an array."""

from __future__ import annotations

import copy
import threading
import time

import numpy as np
import pytest

import convext
from convext._support import stored_arrays
from convext.train import _training


class Sliced:
    """Gives slices of its samples, and nothing else; counts them, and fails where it is told."""

    def __init__(self, values, fail_at=None):
        self.values, self.fail_at, self.read = values, fail_at, []
        self.shape, self.dtype = values.shape, values.dtype

    def __len__(self):
        return len(self.values)

    def __getitem__(self, key):
        assert isinstance(key, slice)
        self.read.append(key)
        if self.fail_at is not None and key.start <= self.fail_at < key.stop:
            raise OSError(5, "Input/output error")
        return self.values[key]


def saved(values, path):
    np.save(path / "whole.npy", values)
    return path / "whole.npy"


def shards(values, path):
    for i, part in enumerate(np.array_split(values, 3)):
        np.save(path / f"part-{i}.npy", part)
    return str(path / "part-*.npy")


def fortran(values, path):
    np.save(path / "fortran.npy", np.asfortranarray(values))
    return path / "fortran.npy"


def mapped(values, path):
    return np.load(saved(values, path), mmap_mode="r")


def strided(values, path):
    """Return every second sample of a map, which is not a map of its own."""
    np.save(path / "doubled.npy", np.repeat(values, 2, axis=0))
    return np.load(path / "doubled.npy", mmap_mode="c")[::2]


def h5(values, path):
    h5py = pytest.importorskip("h5py")
    file = h5py.File(path / "data.h5", "w")
    return file.create_dataset("x", data=values, chunks=(2, *values.shape[1:]))


def h5_in_one_piece(values, path):
    h5py = pytest.importorskip("h5py")
    return h5py.File(path / "data.h5", "w").create_dataset("x", data=values)


def zarr(values, path):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        path / "data.zarr", shape=values.shape, dtype=values.dtype, chunks=(3, *values.shape[1:])
    )
    array[:] = values
    return array


def dask(values, path):
    dask = pytest.importorskip("dask.array")
    return dask.from_array(values, chunks=(4, *values.shape[1:]))


SOURCES = [saved, shards, fortran, mapped, strided, h5, h5_in_one_piece, zarr, dask]
SOURCES += [lambda values, path: Sliced(values)]
EACH = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)


def sources(source, path, *arrays):
    """Return arrays in other places, each in a folder of its own."""
    folders = [path / str(i) for i in range(len(arrays))]
    for folder in folders:
        folder.mkdir()
    return [source(array, folder) for array, folder in zip(arrays, folders, strict=True)]


def pair(samples=23, size=14, dtype=np.float32, channels=2):
    rng = np.random.default_rng(samples)
    x = rng.random((samples, channels, size, size)).astype(dtype)
    y = convext.conv2d(x, rng.random((3, channels, 3, 3), np.float32).astype(dtype))
    return x, (y + rng.random(y.shape)).astype(dtype)


@pytest.fixture
def small_blocks(monkeypatch):
    """Make the blocks of solutions and predictions a few samples."""
    monkeypatch.setattr("convext.solve.blocks.MAX_ELEMENTS", 3000)
    monkeypatch.setattr("convext.nn.prediction.MAX_BYTES", 30000)
    monkeypatch.setattr("convext._support.checks._BLOCK", 1000)


def assert_no_thread_is_left(before):
    for _ in range(100):
        if threading.active_count() <= before:
            return
        time.sleep(0.01)
    raise AssertionError(f"{threading.enumerate()}")


@EACH
def test_least_squares_have_the_bits_of_arrays_in_memory(source, small_blocks, tmp_path):
    x, y = pair()
    expected = convext.solve_kernels(x, y, (3, 3), bias=True)
    statistics, wanted = (convext.PatchStatistics(2, 3, (3, 3)) for _ in range(2))
    wanted.update(x, y)
    large = sources(source, tmp_path, x, y)
    threads = threading.active_count()
    found = convext.solve_kernels(*large, (3, 3), bias=True)
    statistics.update(*large)
    np.testing.assert_array_equal(found.kernels, expected.kernels)
    np.testing.assert_array_equal(found.bias, expected.bias)
    assert found.loss == expected.loss
    np.testing.assert_array_equal(statistics.products, wanted.products)
    assert_no_thread_is_left(threads + 100 * (source in (zarr, dask)))


@EACH
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_predictions_have_the_bits_of_arrays_in_memory(source, last, small_blocks, tmp_path):
    x, _ = pair(size=40)
    layers = [convext.Conv2D(4, 5, padding="same"), convext.Conv2D(2, 3, padding="same")]
    data_format = "channels_last" if last else "channels_first"
    model = convext.Sequential(layers, seed=0, data_format=data_format, residual=True)
    x = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x
    expected = model.predict(x)
    (large,) = sources(source, tmp_path, x)
    np.testing.assert_array_equal(model.predict(large), expected)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, expected.shape)
    assert model.predict(large, out=out) is out
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


@EACH
def test_rows_of_a_large_image_are_read_alone(source, small_blocks, tmp_path):
    x, y = pair(samples=2, size=60)
    expected = convext.solve_kernels(x, y, (3, 3))
    found = convext.solve_kernels(*sources(source, tmp_path, x, y), (3, 3))
    np.testing.assert_array_equal(found.kernels, expected.kernels)


@EACH
def test_a_single_image_may_be_elsewhere(source, small_blocks, tmp_path):
    x, y = pair(samples=2, size=60)
    expected = convext.solve_kernels(x[0], y[0], (3, 3))
    if source is shards:
        pytest.skip("shards are of samples")
    found = convext.solve_kernels(*sources(source, tmp_path, x[0], y[0]), (3, 3))
    np.testing.assert_array_equal(found.kernels, expected.kernels)


@EACH
def test_any_samples_can_be_read(source, tmp_path):
    x, _ = pair()
    (given,) = sources(source, tmp_path, x)
    large = stored_arrays.as_large("x", given)
    rng = np.random.default_rng(0)
    for _ in range(20):
        order = rng.integers(0, len(x), rng.integers(0, 9))
        np.testing.assert_array_equal(large[order], x[order])
        a, b, c, d = rng.integers(0, 14, 4)
        np.testing.assert_array_equal(large[a : a + 3, :, b:c, d:], x[a : a + 3, :, b:c, d:])
    np.testing.assert_array_equal(large[::5], x[::5])
    np.testing.assert_array_equal(large[-2], x[-2])
    np.testing.assert_array_equal(large[3, 1, 2, 5], x[3, 1, 2, 5])
    part = large.part((slice(3, None), slice(1, 2)))
    np.testing.assert_array_equal(np.asarray(part), x[3:, 1:2])
    np.testing.assert_array_equal(
        np.moveaxis(part, 1, -1)[2:4, 3:], np.moveaxis(x[5:7, 1:2], 1, -1)[:, 3:]
    )


def train(x, y, **options):
    kernels = np.full((3, x.shape[1] if hasattr(x, "shape") else 2, 3, 3), 0.1)
    reports = []
    options = {"num_epochs": 3, "seed": 1, "verbose": False} | options
    trained = convext.train_model(
        x, y, 3, (3, 3), 0.05, kernels=kernels, callbacks=[reports.append], **options
    )
    return trained, [report.loss for report in reports]


OPTIONS = [
    {},
    {"batch_size": 4, "shuffle": True},
    {"batch_size": 100},
    {"method": "statistics"},
    {"method": "statistics", "batch_size": 23, "num_epochs": 40},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("parts", [False, True], ids=["as they are", "in parts"])
@pytest.mark.parametrize("size", [14, 90])
def test_trainings_have_the_bits_of_arrays_in_memory(options, parts, size, tmp_path, monkeypatch):
    if parts:
        monkeypatch.setattr(_training, "MAX_PREDICTION_BYTES", 2 * 3 * 4 * (size - 2) ** 2)
    x, y = pair(size=size)
    options = {"method": "direct"} | options
    expected, losses = train(x, y, **options)
    large = [Sliced(array) for array in (x, y)]
    trained, found = train(*large, max_memory=(x.nbytes + y.nbytes) // 2, **options)
    np.testing.assert_array_equal(trained, expected)
    assert found == losses
    if (
        size == 14 or parts or options.get("batch_size", 0) < len(x)
    ):  # else they are summed together
        assert len(large[0].read) > 3 * 5


@EACH
def test_trainings_take_every_source(source, tmp_path):
    x, y = pair()
    expected, losses = train(x, y, shuffle=True, batch_size=5)
    given = sources(source, tmp_path, x, y)
    for limit in (30_000, "1MB", None):
        trained, found = train(*given, shuffle=True, batch_size=5, max_memory=limit)
        np.testing.assert_array_equal(trained, expected)
        assert found == losses


LAYERS = {
    "a layer": [convext.Conv2D(3, 3)],
    "two": [convext.Conv2D(4, 2, activation="relu"), convext.Conv2D(3, 2)],
}


def fit(x, y, layers, **options):
    model = convext.Sequential(copy.deepcopy(layers), seed=3)
    model.compile("adam", metrics=["mae"] if len(layers) > 1 else None)
    options = {"epochs": 3, "verbose": 0} | options
    return model, model.fit(x, y, **options).history


@EACH
@pytest.mark.parametrize("name", LAYERS)
def test_networks_are_trained_with_the_bits_of_arrays_in_memory(source, name, tmp_path):
    x, y = pair(samples=40)
    rest = {"batch_size": 4, "validation_split": 0.3}
    expected, history = fit(x, y, LAYERS[name], **rest)
    given = sources(source, tmp_path, x, y)
    for limit in (100_000, 1000, None):
        model, found = fit(*given, LAYERS[name], max_memory=limit, **rest)
        assert found == history
        np.testing.assert_array_equal(model._weights, expected._weights)
    assert model.evaluate(*given) == expected.evaluate(x, y)


def test_weights_of_samples_and_a_batch_of_all(tmp_path):
    x, y = pair(samples=40)
    weights = np.random.default_rng(0).random(40)
    for size in (7, 40):
        options = {"batch_size": size, "sample_weight": weights, "validation_data": (x, y)}
        expected, history = fit(x, y, LAYERS["two"], **options)
        large = [Sliced(array) for array in (x, y)]
        options["validation_data"] = tuple(large)
        model, found = fit(*large, LAYERS["two"], max_memory=100_000, **options)
        assert found == history
        np.testing.assert_array_equal(model._weights, expected._weights)
