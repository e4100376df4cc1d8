"""Data that are read a part at a time, from files and from what slices like an array."""

from __future__ import annotations

import copy
import math
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest

import convext
from convext._support import large_arrays, memory, stored_arrays
from convext.cli.main import main
from convext.kernels_file import load_kernels
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
        np.testing.assert_array_equal(large[order, :, b:c], x[order, :, b:c])
        np.testing.assert_array_equal(large[order, a % 2 :, b:c, d:], x[order, a % 2 :, b:c, d:])
    np.testing.assert_array_equal(large[::5], x[::5])
    np.testing.assert_array_equal(large[-2], x[-2])
    np.testing.assert_array_equal(large[3, 1, 2, 5], x[3, 1, 2, 5])
    part = large.part((slice(3, None), slice(1, 2)))
    np.testing.assert_array_equal(np.asarray(part), x[3:, 1:2])
    np.testing.assert_array_equal(
        np.moveaxis(part, 1, -1)[2:4, 3:], np.moveaxis(x[5:7, 1:2], 1, -1)[:, 3:]
    )


@EACH
@pytest.mark.parametrize("shape", [(9,), (9, 4), (9, 3, 4), (9, 2, 3, 4, 5)], ids=str)
def test_samples_have_any_number_of_axes(source, shape, tmp_path):
    array = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    (given,) = sources(source, tmp_path, array)
    large = stored_arrays.as_large("x", given)
    rng = np.random.default_rng(len(shape))
    for _ in range(20):
        order = rng.integers(0, 9, rng.integers(0, 9))
        np.testing.assert_array_equal(large[order], array[order])
        some = tuple(slice(*np.sort(rng.integers(0, size + 1, 2))) for size in shape)
        np.testing.assert_array_equal(large[some], array[some])
        np.testing.assert_array_equal(large[(order, *some[1:])], array[(order, *some[1:])])


@EACH
def test_a_sample_may_be_asked_for_twice(source, tmp_path):
    x, _ = pair()
    (given,) = sources(source, tmp_path, x)
    large = stored_arrays.as_large("x", given)
    for order in ([0, 0, 2], [5, 3, 3], [1, 1], [2, 0, 2, 1], [22, 20, 20]):
        np.testing.assert_array_equal(large[order], x[order])


def test_one_thread_reads_all_and_ends_with_the_iterator():
    large = large_arrays.LargeArray(Sliced(np.zeros((9, 2))), "x")
    before = threading.active_count()
    items = large_arrays.ahead((threading.get_ident() for _ in range(9)), large)
    assert len({threading.get_ident(), *items}) == 2
    assert_no_thread_is_left(before)
    items = large_arrays.ahead(iter(range(9)), large)
    assert next(items) == 0
    assert threading.active_count() == before + 1
    items.close()
    assert_no_thread_is_left(before)


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


USES = {
    "solve": lambda x, y: convext.solve_kernels(x, y, (3, 3)),
    "train": lambda x, y: train(x, y, max_memory=30_000, method="direct"),
    "train by statistics": lambda x, y: train(x, y, max_memory=30_000, method="statistics"),
    "fit a layer": lambda x, y: fit(x, y, LAYERS["a layer"], max_memory=30_000),
    "fit two": lambda x, y: fit(x, y, LAYERS["two"], max_memory=30_000, batch_size=3),
    "predict": lambda x, y: convext.Sequential([convext.Conv2D(1, 3)]).predict(x),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("at", [0, 11, 22])
def test_an_error_of_the_reading_thread_is_raised(use, at, small_blocks):
    x, y = pair()
    threads = threading.active_count()
    with pytest.raises(OSError, match="Input/output error"):
        use(Sliced(x, fail_at=at), Sliced(y))
    assert_no_thread_is_left(threads)
    use(Sliced(x), Sliced(y))


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_slices_that_are_not_what_the_shape_says_are_an_error(use, small_blocks):
    class Short(Sliced):
        def __getitem__(self, key):
            return super().__getitem__(key)[:-1]

    x, y = pair()
    with pytest.raises(ValueError, match=r"(x|input_data)\[\d+:\d+\] must be float32 of shape"):
        use(Short(x), Sliced(y))


@pytest.mark.parametrize("use", ["train", "fit", "solve", "predict"])
def test_chunks_of_unknown_sizes_are_an_error_that_says_what_to_do(use):
    array = pytest.importorskip("dask.array")
    x, y = np.ones((6, 1, 8, 8)), np.ones((6, 1, 6, 6))
    unknown = array.from_array(x)[array.from_array(np.arange(6)) > 1]
    model = convext.Sequential([convext.Conv2D(1, 3)])
    model.compile()
    calls = {
        "train": lambda: convext.train_model(unknown, y, 1, 3, verbose=False),
        "fit": lambda: model.fit(unknown, y, verbose=0),
        "solve": lambda: convext.solve_kernels(unknown, y, 3),
        "predict": lambda: model.predict(unknown),
    }
    with pytest.raises(ValueError, match=r"(x|input_data) has .* unknown .*compute_chunk_sizes"):
        calls[use]()


def test_shards_that_do_not_belong_together_are_an_error(tmp_path):
    x, y = pair()
    files = shards(x, tmp_path)
    for other, message in [
        (x[:, :1], "of shape"),
        (x.astype(float), "float64"),
        (x[0], "of shape"),
    ]:
        np.save(tmp_path / "part-1.npy", other)
        with pytest.raises(
            ValueError, match=rf"part-1\.npy.*{message}.*part-0\.npy, the first shard"
        ):
            convext.solve_kernels(files, y, (3, 3))
    (tmp_path / "part-1.npy").write_bytes((tmp_path / "part-0.npy").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"part-1\.npy.*is truncated"):
        convext.train_model(files, files, 1, (3, 3))
    (tmp_path / "part-1.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"part-1\.npy.*is not an array file"):
        convext.load_data(files, files)
    with pytest.raises(FileNotFoundError, match=r"input_data: no file matches .*/none-\*.npy"):
        convext.load_data(tmp_path / "none-*.npy", files, mmap=True)


def test_a_shard_that_is_cut_off_while_it_is_in_use_is_an_error(tmp_path, small_blocks):
    x, y = pair()
    large, _ = convext.load_data(shards(x, tmp_path), saved(y, tmp_path), mmap=True)
    with open(tmp_path / "part-2.npy", "r+b") as file:
        file.truncate(500)
    with pytest.raises(ValueError, match=r"part-2\.npy.*is truncated: it was longer"):
        convext.solve_kernels(large, y, (3, 3))
    (tmp_path / "part-2.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"part-2\.npy"):
        convext.solve_kernels(large, y, (3, 3))


def test_shards_are_in_the_order_of_their_names_and_load_like_one_file(tmp_path):
    x, _ = pair()
    files = shards(x, tmp_path)
    for mmap in (False, True):
        loaded, again = convext.load_data(files, files, mmap=mmap)
        np.testing.assert_array_equal(np.asarray(loaded), x)
        assert loaded.shape == again.shape == x.shape
        assert isinstance(loaded, np.ndarray) != mmap
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    np.save(tmp_path / "a[0].npy", last)
    loaded, _ = convext.load_data(*[tmp_path / "a[0].npy"] * 2, data_format="channels_last")
    np.testing.assert_array_equal(loaded, x)


INTERRUPTED = """
import os, time
import numpy as np
import convext

class Slow:
    shape, dtype = (1000, 1, 40, 40), np.dtype(np.float32)
    def __len__(self):
        return 1000
    def __getitem__(self, key):
        if key.stop > 500:
            os.write(1, b"reading\\n")  # print holds a lock that Python needs to end
            time.sleep(600)
        return np.ones((key.stop - key.start, 1, 40, 40), np.float32)

x = y = Slow()
convext._support.checks._BLOCK = convext.solve.blocks.MAX_ELEMENTS = 100_000
model = convext.Sequential([convext.Conv2D(1, 1)], seed=0)
model.compile()
try:
    {use}
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    "use",
    [
        "convext.solve_kernels(x, y, 1)",
        "convext.train_model(x, y, 1, 1, verbose=False, max_memory=100_000)",
        "model.fit(x, y, max_memory=100_000, verbose=0)",
        "model.predict(x)",
    ],
)
def test_ctrl_c_ends_what_waits_for_a_read(use):
    code = INTERRUPTED.replace("{use}", use)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "reading\n"
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0].endswith("interrupted\n")
        assert process.returncode == 0
        assert time.monotonic() - started < 5


# What a process may take beside what it has after a first use.
ALLOWED = 40 << 20

LIMITED = """
import resource, sys
import numpy as np
import convext
from test_larger_than_memory import BOUNDED, set_blocks
set_blocks(setattr)
convext.set_num_threads(1)
tiny = np.random.default_rng(0).random((4, 1, 64, 64), np.float32)
for use in BOUNDED.values():
    use(tiny, tiny[:, :, 1:-1, 1:-1])
with open("/proc/self/status") as lines:
    size = next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmSize"))
limit = size + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
np.save("found.npy", BOUNDED[sys.argv[1]]("x-*.npy", "y-*.npy", "10MB"))
"""


def of_training(x, y, limit=None):
    return convext.train_model(
        x, y, 1, (3, 3), 0.1, 1, seed=0, shuffle=True, verbose=False, max_memory=limit
    )


def of_fit(x, y, limit=None):
    model = convext.Sequential([convext.Conv2D(2, 2), convext.Conv2D(1, 2)], seed=0)
    model.compile("sgd")
    model.fit(x, y, verbose=0, max_memory=limit)
    return model._weights


def of_predict(x, y, limit=None):
    model = convext.Sequential([convext.Conv2D(8, 2), convext.Conv2D(1, 5, strides=9)], seed=0)
    return model.predict(x, max_memory=limit)


BOUNDED = {
    "solve": lambda x, y, limit=None: convext.solve_kernels(x, y, (3, 3)).kernels,
    "train": of_training,
    "fit": of_fit,
    "predict": of_predict,
}


def set_blocks(setter):
    """Make blocks as small as suits a test, which changes the order of sums."""
    setter(convext.solve.blocks, "MAX_ELEMENTS", 1 << 17)
    setter(convext._support.checks, "_BLOCK", 1 << 17)


@pytest.fixture(scope="module")
def eightfold(tmp_path_factory):
    """Return a folder with shards that together are eight times what is allowed."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    x = rng.random((8 * ALLOWED // (4 * (64**2 + 62**2)) + 1, 1, 64, 64), np.float32)
    y = convext.conv2d(x, rng.random((1, 1, 3, 3), np.float32)) + 0.1
    for name, array in (("x", x), ("y", y)):
        for i, part in enumerate(np.array_split(array, 5)):
            np.save(folder / f"{name}-{i}.npy", part)
    assert x.nbytes + y.nbytes >= 8 * ALLOWED
    return folder, x, y


@pytest.mark.parametrize("limit", ["4MB", "30MB", 1])
@pytest.mark.parametrize("shape", [(1, 1, 1500, 1000), (90, 1, 128, 128)], ids=str)
@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in a file"])
def test_predictions_take_no_more_than_they_may(limit, shape, stored, tmp_path):
    x = np.random.default_rng(0).random(shape, np.float32)
    model = convext.Sequential([convext.Conv2D(8, 3), convext.Conv2D(1, 3)], seed=0)
    expected = model.predict(x)
    if stored:
        np.save(tmp_path / "x.npy", x)
    out = np.empty_like(expected)
    # At least 16 rows: of the image, of both layers and of what comes next.
    least = 2 * 24 * shape[3] * 4 * 10
    tracemalloc.start()
    model.predict(tmp_path / "x.npy" if stored else x, out=out, max_memory=limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < max(memory.bytes_of("limit", limit), least) + 100_000
    np.testing.assert_array_equal(out, expected)


def test_a_limit_of_a_prediction_that_is_none_is_an_error():
    model = convext.Sequential([convext.Conv2D(1, 3)], seed=0)
    with pytest.raises(ValueError, match="max_memory must be a number of bytes or a size"):
        model.predict(np.ones((1, 9, 9)), max_memory="much")
    with pytest.raises(ValueError, match="max_memory must be at least 1"):
        model.predict(np.ones((1, 9, 9)), max_memory=0)


@pytest.mark.skipif(sys.platform != "linux", reason="limits addresses as Linux does")
@pytest.mark.parametrize("name", BOUNDED)
def test_data_of_eight_times_the_memory(name, eightfold, monkeypatch):
    folder, x, y = eightfold
    set_blocks(monkeypatch.setattr)
    expected = BOUNDED[name](x, y)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), *sys.path]))
    subprocess.run([sys.executable, "-c", LIMITED, name, str(ALLOWED)], check=True)
    np.testing.assert_array_equal(np.load("found.npy"), expected)


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512), ("2GB", 2e9), ("1.5 GiB", 1.5 * 2**30), ("2g", 2**31), (7, 7)]
)
def test_sizes_have_units(text, size):
    assert memory.bytes_of("max_memory", text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "2XB", "1e9", "0.1", "٣"])
def test_what_is_no_size_is_an_error(text):
    with pytest.raises(ValueError, match="max_memory must be a number of bytes or a size such as"):
        convext.train_model(np.ones((1, 1, 3, 3)), np.ones((1, 1, 1, 1)), 1, 3, max_memory=text)
    for wrong, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="max_memory"):
            memory.bytes_of("max_memory", wrong)


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups_count(version, tmp_path):
    own, root = tmp_path / "cgroup", tmp_path / "groups"
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")}
    names[2] = "memory.max", "memory.current", "file"
    own.write_text("4:cpu,memory:/a/b\n" if version == 1 else "0::/a/b\n")
    base = root / "memory" if version == 1 else root
    limit, usage, cache = names[version]
    for group, values in (("a", (10_000, 7000, 3000)), ("a/b", ("max", 5, 0))):
        (base / group).mkdir(parents=True)
        (base / group / limit).write_text(f"{values[0]}\n")
        (base / group / usage).write_text(f"{values[1]}\n")
        (base / group / "memory.stat").write_text(f"anon 5\n{cache} {values[2]}\n")
    assert memory._left_of_groups(root, own) == [6000]
    assert memory._left_of_groups(root, tmp_path / "none") == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits addresses as Linux does")
def test_limits_of_the_process_count():
    code = (
        "import resource; from convext._support.memory import available_memory as a\n"
        "limit = 400 << 20; resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "print(a())"
    )
    left = int(subprocess.check_output([sys.executable, "-c", code]))
    assert 1 << 20 < left < 400 << 20


def test_convext_train_reads_shards_in_blocks_and_says_so(tmp_path, monkeypatch, capsys):
    x, y = pair(samples=40)
    monkeypatch.chdir(tmp_path)
    files = [
        os.path.join(os.path.basename(os.path.dirname(f)), "part-*.npy")
        for f in sources(shards, tmp_path, x, y)
    ]
    for limit, name in (("60KB", "small.npz"), ("1GB", "large.npz")):
        assert main(["train", *files, "--epochs", "2", "--max-memory", limit, "--out", name]) == 0
        out = capsys.readouterr().out
        assert ("read in blocks in each epoch: more than the 0.1 MB" in out) == (limit == "60KB")
    small, large = (load_kernels(name)[0] for name in ("small.npz", "large.npz"))
    np.testing.assert_array_equal(small, large)


@pytest.mark.parametrize("ignore", [[], ["--ignore-saturated"]], ids=["all", "unsaturated"])
def test_convext_solve_judges_as_many_samples_as_there_is_memory_for(
    ignore, tmp_path, monkeypatch, capsys
):
    x, y = pair(samples=40, size=20)
    monkeypatch.chdir(tmp_path)
    files = [
        os.path.join(os.path.basename(os.path.dirname(f)), "part-*.npy")
        for f in sources(shards, tmp_path, x, y)
    ]
    command = ["solve", *files, "--kernel-shape", "3", "3", *ignore, "--out"]
    assert main([*command, "all.npz"]) == 0
    assert "evenly spaced" not in capsys.readouterr().out
    monkeypatch.setattr("convext.cli.filter_between.available_memory", lambda: 2_000_000)
    assert main([*command, "some.npz"]) == 0
    assert "The verdict is from 14 of 40 samples" in capsys.readouterr().out
    everything, some = (load_kernels(name)[0] for name in ("all.npz", "some.npz"))
    np.testing.assert_array_equal(some, everything)


GUARDED = """
import ctypes, mmap
import numpy as np
import convext
from convext._support import large_arrays

def room(shape, dtype, spare):
    '''Return an array behind which no byte may be read.'''
    size, page = int(np.prod(shape)) * dtype.itemsize, mmap.PAGESIZE
    whole = -(-size // page) * page
    memory = mmap.mmap(-1, whole + page, access=mmap.ACCESS_COPY)
    array = np.frombuffer(memory, np.uint8, size, whole - size).view(dtype).reshape(shape)
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(array.ctypes.data + size, page, 0) == 0
    return array

large_arrays.room = room
for size, channels, kernels in ((14, 1, 1), (32, 1, 1), (90, 2, 3), (60, 16, 16)):
    rng = np.random.default_rng(size)
    np.save("x.npy", rng.random((23, channels, size, size), np.float32))
    np.save("y.npy", rng.random((23, kernels, size - 2, size - 2), np.float32))
    for batch in (1, 4, 23):
        convext.train_model("x.npy", "y.npy", kernels, (3, 3), 0.01, 2, batch_size=batch,
            shuffle=True, seed=0, method="direct", verbose=False, max_memory=30_000)
        model = convext.Sequential([convext.Conv2D(kernels, 3)], seed=0)
        model.compile("sgd")
        model.fit("x.npy", "y.npy", batch_size=batch, verbose=0, max_memory=30_000)
    convext.solve_kernels("x.npy", "y.npy", (3, 3))
    model.predict("x.npy")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="guards pages as Linux does")
def test_nothing_is_read_behind_a_block(tmp_path):
    subprocess.run([sys.executable, "-c", GUARDED], check=True, cwd=tmp_path)
