"""Dask arrays: the results of NumPy's, in whatever chunks, computed by whatever workers."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import plain_network
import pytest
import random_cases
import reference

import convext
from convext import PatchStatistics
from convext._support import dask_arrays

dask = pytest.importorskip("dask", reason="Dask is not installed: see the dask extra")
import dask.array as da  # noqa: E402

import convext.dask  # noqa: E402


@pytest.fixture(autouse=True)
def in_this_thread():
    """Compute in one thread, where a test does not say otherwise."""
    with dask.config.set(scheduler="synchronous"):
        yield


def chunks_of(rng, size):
    """Draw chunks of an axis: ragged, some of one element, some empty."""
    kind = rng.integers(4)
    if kind == 0:
        return (int(size),)
    if kind == 1:
        return (1,) * int(size)
    cuts = np.sort(rng.integers(0, size + 1, rng.integers(0, min(size, 6) + 1)))
    return tuple(np.diff([0, *cuts, size]).tolist())


def chunked(rng, array):
    return da.from_array(array, chunks=tuple(chunks_of(rng, size) for size in array.shape))


def draw(rng, with_groups=True):
    """Draw images, kernels and the options of a convolution, small enough for many chunks."""
    while True:
        (samples, groups, channels, kernels), size, kernel, options = random_cases.draw_convolution(
            rng, with_groups
        )
        output = reference.output_size(size, kernel, **options)
        if max(*size, *output) <= 60 and groups * max(channels, kernels) <= 16:
            break
    x = rng.uniform(-1, 1, (samples, groups * channels, *size))
    return x, rng.uniform(-1, 1, (groups * kernels, channels, *kernel)), groups, options


def patch_matrix(x, kernel_shape, bias, **options):
    """Return the patches as (pixels of all samples, unknowns)."""
    taps = x.shape[1] * np.prod(kernel_shape)
    alone = np.eye(taps).reshape(taps, x.shape[1], *kernel_shape)
    matrix = columns(reference.conv2d(x, alone, **options))
    return np.hstack([matrix, np.ones((len(matrix), int(bias)))])


def columns(array):
    """Return (N, K, OH, OW) as (pixels, K)."""
    return np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])


@pytest.mark.parametrize("seed", range(6))
def test_convolutions_are_right_in_any_chunks(seed):
    rng = np.random.default_rng([1, seed])
    for _ in range(12):
        x, kernels, groups, options = draw(rng)
        dtype = rng.choice(["float32", "float64"])
        x, kernels = x.astype(dtype), kernels.astype(dtype)
        bias = rng.uniform(-1, 1, len(kernels)).astype(dtype) if rng.random() < 0.5 else None
        expected = reference.conv2d(x, kernels, bias, **options, groups=groups, detailed=True)
        given = kernels
        if rng.random() < 0.3:
            given = convext.prepare_kernels(kernels, bias=bias, **options, groups=groups)
            result = convext.dask.conv2d(chunked(rng, x), given)
        else:
            options |= {"bias": bias, "groups": groups}
            result = convext.dask.conv2d(chunked(rng, x), given, **options)
        computed = result.compute()
        assert computed.dtype == result.dtype == result._meta.dtype == dtype
        assert computed.shape == result.shape
        magnitude = np.max(expected.magnitude)
        random_cases.assert_close(computed, expected.value, magnitude, str(dtype))


def test_chunks_of_the_result_are_where_those_of_the_images_are():
    chunks = ((2, 0, 1), (3,), (1, 7, 2), (4, 0, 6))
    x = da.zeros((3, 3, 10, 10), chunks=chunks)
    for options in ({"padding": "same"}, {"padding": 4, "dilation": 2}):
        result = convext.dask.conv2d(x, np.ones((3, 3, 5, 5)), **options)
        assert result.chunks == chunks
    result = convext.dask.conv2d(x, np.ones((2, 3, 3, 3)), stride=2)
    assert result.chunks == ((2, 0, 1), (2,), (0, 3, 1), (1, 0, 3))
    assert convext.dask.conv2d(x[0], np.ones((2, 3, 3, 3))).chunks == ((2,), (0, 6, 2), (3, 0, 5))


@pytest.mark.parametrize("seed", range(6))
def test_statistics_are_the_sums_over_all_patches(seed):
    rng = np.random.default_rng([2, seed])
    for _ in range(5):
        x, kernels, _, options = draw(rng, with_groups=False)
        if kernels[0].size > 200:
            continue
        bias, masked = bool(rng.random() < 0.5), rng.random() < 0.4
        size = reference.output_size(x.shape[2:], kernels.shape[2:], **options)
        y = rng.uniform(-1, 1, (len(x), len(kernels), *size))
        mask = rng.random((len(x), rng.choice([1, len(kernels)]), *size)) < 0.7
        y_given = np.where(mask, y, np.nan) if masked else y
        statistics = PatchStatistics.from_dask(
            chunked(rng, x),
            chunked(rng, y_given),
            kernels.shape[2:],
            bias=bias,
            mask=chunked(rng, mask) if masked else None,
            **options,
        ).compute()
        matrix = patch_matrix(x, kernels.shape[2:], bias, **options)
        counts = columns(np.broadcast_to(mask, y.shape)) if masked else np.ones(columns(y).shape)
        for k, (target, counted) in enumerate(zip(columns(y).T, counts.T, strict=True)):
            rows = matrix * counted[:, np.newaxis]
            products = statistics.products[min(k, len(statistics.products) - 1)]
            tolerance = {"rtol": 0, "atol": 1e-13 * (1 + len(rows))}
            np.testing.assert_allclose(products, rows.T @ rows, **tolerance)
            np.testing.assert_allclose(statistics.cross_products[k], rows.T @ target, **tolerance)
            np.testing.assert_allclose(statistics.squares[k], (counted * target**2).sum())
            assert statistics.counts[k] == counted.sum()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same"},
        {"stride": (2, 3), "padding": ((0, 3), (4, 1))},
        {"dilation": (1, 3), "padding": 5, "l2": 0.01},
    ],
)
def test_kernels_are_those_of_least_squares(options, bias):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4, 2, 21, 24))
    geometry = {name: value for name, value in options.items() if name != "l2"}
    matrix = patch_matrix(x, (3, 2), bias, **geometry)
    size = reference.output_size(x.shape[2:], (3, 2), **{"padding": 0} | geometry)
    y = rng.standard_normal((4, 3, *size))
    for _ in range(3):
        solution = convext.dask.solve_kernels(
            chunked(rng, x), chunked(rng, y), (3, 2), bias=bias, **options
        ).compute()
        ridge = np.diag([options.get("l2", 0) * y.size] * 12 + [0] * bias)
        expected = np.linalg.solve(
            (matrix.T @ matrix + ridge).astype(float), (matrix.T @ columns(y)).astype(float)
        )
        np.testing.assert_allclose(solution.kernels.reshape(3, -1), expected[:12].T, atol=1e-12)
        if bias:
            np.testing.assert_allclose(solution.bias, expected[12], atol=1e-12)
        residual = matrix @ expected - columns(y)
        np.testing.assert_allclose(solution.loss, float(np.mean(residual**2)), rtol=1e-12)


@pytest.mark.parametrize("kernel_shape", [(3, 3), (4, 3), (2, 4)])
def test_targets_as_large_as_the_images_lose_their_borders(kernel_shape):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 1, 17, 19))
    kernels = rng.standard_normal((2, 1, *kernel_shape))
    top, left = kernel_shape[0] // 2, (kernel_shape[1] - 1) // 2
    padding = (top, kernel_shape[0] - 1 - top), (left, kernel_shape[1] - 1 - left)
    y = reference.conv2d(x, kernels, padding=padding).astype(float)
    y[:, :, 0], y[:, :, :, -1] = 50, np.nan if kernel_shape[1] > 2 else 50
    solution = convext.dask.solve_kernels(chunked(rng, x), chunked(rng, y), kernel_shape).compute()
    assert solution.centre == (top, left)
    np.testing.assert_allclose(solution.kernels, kernels, atol=1e-10)


def test_masked_chunks_do_not_count():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((3, 2, 15, 14))
    kernels = rng.standard_normal((2, 2, 3, 3))
    y = reference.conv2d(x, kernels).astype(float)
    hidden, missing = rng.random(x.shape) < 0.02, rng.random(y.shape) < 0.1
    x[hidden], y[missing] = np.nan, 1e6
    pixels, values = (
        da.ma.masked_array(chunked(rng, array), chunked(rng, mask))
        for array, mask in ((x, hidden), (y, missing))
    )
    solution = convext.dask.solve_kernels(pixels, values, 3).compute()
    np.testing.assert_allclose(solution.kernels, kernels, atol=1e-10)
    with pytest.raises(ValueError, match="masked elements"):
        convext.dask.conv2d(pixels, kernels).compute()


@pytest.mark.parametrize("seed", range(8))
def test_predictions_are_right_in_any_chunks(seed):
    rng = np.random.default_rng([6, seed])
    for _ in range(3):
        case = random_cases.draw_network(rng, most_layers=4, budget=1e4)
        layers, shape, residual = case["layers"], case["input_shape"], case["residual"]
        model, weights, plain = random_cases.make_network(
            layers, shape, residual, case["dtype"], rng
        )
        x = rng.uniform(-1, 1, shape).astype(case["dtype"])
        result = convext.dask.predict(model, chunked(rng, x))
        expected = plain_network.predict(plain, weights, x, residual)
        magnitude = random_cases.magnitude_of(plain, weights, x, residual)
        computed = result.compute()
        assert computed.dtype == result.dtype == case["dtype"]
        assert result.shape == computed.shape
        random_cases.assert_close(computed, expected, magnitude, case["dtype"])


def test_predictions_of_channels_last_and_of_one_image():
    rng = np.random.default_rng(7)
    layers = [convext.Conv2D(3, 3, padding="same"), convext.Conv2D(2, 5, strides=2)]
    model = convext.Sequential(layers, data_format="channels_last", dtype="float64", seed=1)
    x = rng.standard_normal((3, 20, 23, 2))
    result = convext.dask.predict(model, chunked(rng, x))
    np.testing.assert_allclose(result.compute(), model.predict(x), atol=1e-14)
    result = convext.dask.predict(model, chunked(rng, x[1]))
    np.testing.assert_allclose(result.compute(), model.predict(x[1]), atol=1e-14)


def test_an_input_added_where_the_layers_see_padding_alone():
    layers = [convext.Conv2D(1, 23), convext.Conv2D(1, 3, padding=10)]
    model = convext.Sequential(layers, residual=True, dtype="float64", input_channels=1, seed=1)
    rng = np.random.default_rng(8)
    x = rng.standard_normal((1, 1, 24, 24))
    result = convext.dask.predict(model, da.from_array(x, chunks=(1, 1, 4, 5)))
    np.testing.assert_allclose(result.compute(), model.predict(x), atol=1e-13)


def some_arrays(chunks=(2, 1, 5, 7)):
    rng = np.random.default_rng(9)
    x = rng.standard_normal((5, 1, 20, 20))
    kernels = rng.standard_normal((2, 1, 3, 3))
    y = reference.conv2d(x, kernels, padding=1).astype(float)
    return da.from_array(x, chunks=chunks), da.from_array(y, chunks=chunks), kernels


def test_nothing_is_computed_before_it_is_asked_for():
    x, y, kernels = some_arrays()
    seen = []

    def look(block):
        if block.size:
            seen.append(block.shape)
        return block

    x, y = x.map_blocks(look, meta=x._meta), y.map_blocks(look, meta=y._meta)
    model = convext.Sequential([convext.Conv2D(1, 3)])
    lazy = [
        convext.dask.conv2d(x, kernels),
        convext.dask.predict(model, x),
        convext.dask.solve_kernels(x, y, 3, padding=1),
        PatchStatistics.from_dask(x, y, 3, padding=1),
    ]
    assert not seen
    for each in lazy:
        each.compute()
        assert seen
        seen.clear()


def test_what_changes_afterwards_does_not_change_results():
    x, _, kernels = some_arrays()
    model = convext.Sequential([convext.Conv2D(1, 3)], input_channels=1, seed=0)
    expected = [convext.conv2d(x.compute(), kernels), model.predict(x.compute())]
    lazy = [convext.dask.conv2d(x, kernels), convext.dask.predict(model, x)]
    names = [lazy[0].name, lazy[1].name]
    assert names == [convext.dask.conv2d(x, kernels).name, convext.dask.predict(model, x).name]
    kernels += 1
    model.set_weights([array + 1 for array in model.get_weights()])
    for one, other in zip(lazy, expected, strict=True):
        np.testing.assert_allclose(one.compute(), other, rtol=1e-6)
    assert convext.dask.conv2d(x, kernels).name not in names
    assert convext.dask.predict(model, x).name not in names


def test_bits_depend_on_the_chunks_alone():
    x, y, kernels = some_arrays((1, 1, 3, 4))
    lazy = [
        convext.dask.solve_kernels(x, y, 3, padding=1, bias=True).kernels,
        convext.dask.conv2d(x, kernels, stride=2),
    ]
    expected = dask.compute(*lazy)
    for scheduler, workers in (("threads", 2), ("threads", 9), ("sync", None)):
        found = dask.compute(*lazy, scheduler=scheduler, num_workers=workers)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    more = convext.dask.solve_kernels(x, y, 3, padding=1, bias=True, num_threads=2)
    np.testing.assert_array_equal(more.compute().kernels, expected[0])


def test_ten_thousand_chunks_make_a_small_graph():
    x = da.zeros((10_000, 1, 64, 64), chunks=(1, 1, 64, 64))
    kernels = np.ones((50, 1, 30, 30))
    result = convext.dask.conv2d(x, kernels)
    graph = result.__dask_optimize__(result.dask, result.__dask_keys__())
    assert len(graph) <= 20_001
    assert len(pickle.dumps(graph)) < kernels.nbytes + 10_000 * 400
    lazy = PatchStatistics.from_dask(x, x, 3, padding=1, bias=True)
    tasks = dict(lazy.dask)
    # A chunk, of both arrays; its sums; and those of eight, and of eight of these...
    assert len(tasks) <= 10_000 * 2 + 10_000 // 7 + 10
    assert len(pickle.dumps(tasks)) < 10_000 * 800
    assert max(len(dask.core.get_dependencies(tasks, key)) for key in tasks) <= 8
    one = PatchStatistics.from_dask(x[:1], x[:1], 3, padding=1, bias=True).dask
    (block,) = (key for key in one if "block" in str(key))
    assert len(pickle.dumps(dask.get(dict(one), block))) < 2000


def test_neighbours_are_sent_borders_alone():
    x = da.zeros((1, 1, 400, 400), chunks=(1, 1, 100, 100))
    sent = []

    class Counting(dask.callbacks.Callback):
        def _posttask(self, key, value, *_):
            if "part" in str(key):
                sent.append(value.nbytes)

    with Counting():
        convext.dask.conv2d(x, np.ones((1, 1, 5, 5)), padding=2).compute(optimize_graph=False)
    assert len(sent) == 4 * 8 + 8 * 5 + 4 * 3  # of chunks inside, at sides, in corners
    assert max(sent) == 100 * 2 * 8
    assert sum(sent) < 0.2 * x.nbytes


@pytest.mark.parametrize("padding", [0, (0, 6), (5, 1)])
def test_windows_have_zeros_around_them_whatever_was_in_their_pages(padding, monkeypatch):
    monkeypatch.setattr(dask_arrays, "_spare", [])
    x = np.random.default_rng(0).random((1, 1, 1000, 1000))
    kernels = np.random.default_rng(1).random((1, 1, 5, 7))
    each = []
    for images in (np.full_like(x, np.nan), x):
        chunks = da.from_array(images, chunks=(1, 1, 500, 500))
        lazy = convext.dask.conv2d(chunks, kernels, padding=padding)
        each.append(lazy.compute(scheduler="synchronous"))
    assert np.isnan(each[0]).any()
    expected = convext.conv2d(x, kernels, padding=padding)
    np.testing.assert_allclose(each[1], expected, rtol=1e-12)
    assert len(dask_arrays._spare) == 1  # a window takes those of the one before


BAD = [
    (lambda x, y: (x.compute(), y), TypeError, "input_data must be a Dask array.*got ndarray"),
    (lambda x, y: (x, y.compute()), TypeError, "target_output must be a Dask array.*got ndarray"),
    (lambda x, y: (x[x[:, 0, 0, 0] > 0], y), ValueError, "unknown sizes.*compute_chunk_sizes"),
    (lambda x, y: (x.astype(complex), y), TypeError, "input_data must hold real numbers"),
    (lambda x, y: (x[:4], y), ValueError, "4 samples but target_output has 5"),
    (lambda x, y: (x, y[:, :, 1:]), ValueError, "target_output must have the shape"),
    (lambda x, y: (x[0, 0], y), ValueError, "input_data must have the shape"),
    (lambda x, y: (x[:0], y[:0]), ValueError, "input_data is empty"),
]


@pytest.mark.parametrize(("arrays", "error", "message"), BAD, ids=[text for *_, text in BAD])
def test_arrays_that_do_not_fit_are_named_at_once(arrays, error, message):
    x, y, _ = some_arrays()
    for function in (convext.dask.solve_kernels, PatchStatistics.from_dask):
        with pytest.raises(error, match=message):
            function(*arrays(x, y), 3, padding=1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, y, k: convext.dask.conv2d(x.compute(), k), TypeError, "must be a Dask array"),
        (lambda x, y, k: convext.dask.conv2d(x, k[:, :, 0]), ValueError, "kernels must have"),
        (lambda x, y, k: convext.dask.conv2d(x, np.ones((1, 2, 3, 3))), ValueError, "2 channels"),
        (lambda x, y, k: convext.dask.conv2d(x, k, stride=0), ValueError, "stride"),
        (lambda x, y, k: convext.dask.conv2d(x, k, num_threads=0), ValueError, "num_threads"),
        (
            lambda x, y, k: convext.dask.conv2d(x, convext.prepare_kernels(k), padding=1),
            ValueError,
            "padding is part of prepared kernels",
        ),
        (lambda x, y, k: convext.dask.conv2d(x[x > 0], k), ValueError, "unknown sizes"),
        (lambda x, y, k: convext.dask.predict(k, x), TypeError, "model must be a Sequential"),
        (
            lambda x, y, k: convext.dask.predict(convext.build_model(1, 3), x),
            ValueError,
            "built for|channels",
        ),
        (lambda x, y, k: convext.dask.solve_kernels(x, y, 3, padding=1, l2=-1), ValueError, "l2"),
        (
            lambda x, y, k: convext.dask.solve_kernels(x, y, 3, padding=1, mask=y),
            TypeError,
            "mask must be of bool",
        ),
        (
            lambda x, y, k: convext.dask.solve_kernels(x, y, 3, padding=1, mask=y[:4] > 0),
            ValueError,
            "mask must have the shape",
        ),
    ],
)
def test_bad_arguments_are_named_at_once(call, error, message):
    with pytest.raises(error, match=message):
        call(*some_arrays())


def test_what_is_not_finite_is_found_in_its_block():
    x, y, _ = some_arrays()
    bad = y.copy()
    bad[3, 1, 12, 8] = np.inf
    lazy = convext.dask.solve_kernels(x, bad, 3, padding=1)
    with pytest.raises(ValueError, match=r"inf.*block.*sample 2, row 10 and column 7"):
        lazy.compute()


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_without_dask_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['dask'] = sys.modules['dask.array'] = None; import convext\n"
        "for call in (lambda: convext.dask.conv2d(1, 1), lambda: convext.dask.predict(\n"
        "    convext.build_model(1, 3), 1), lambda: convext.PatchStatistics.from_dask(1, 1, 3)):\n"
        "    try: call()\n"
        "    except ImportError as error: print(error)"
    )
    assert run(code).splitlines() == ['Dask arrays need Dask: pip install "convext[dask]"'] * 3


THREADS = """
import os, dask.array as da, numpy as np, convext.dask
convext.set_num_threads(4)
x = da.ones((8, 8, 128, 128), chunks=(1, 8, 128, 128))
y = convext.dask.conv2d(x, np.ones((8, 8, 3, 3)), padding=1, num_threads={n})
large = da.ones((2, 1, 1000, 1000), chunks=(1, 1, 1000, 1000))
hidden = da.ma.masked_array(large, mask=da.random.default_rng(0).random(large.shape) < 0.001)
with __import__("dask").config.set(scheduler="threads", num_workers=2):
    before = len(os.listdir("/proc/self/task"))
    y.sum().compute()
    for images, targets in ((x, y), (hidden, large)):
        convext.dask.solve_kernels(images, targets, 3, padding=1, num_threads={n}, l2=1).compute()
    print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_a_task_starts_no_threads_unless_it_is_told_to():
    if not convext.get_config()["openmp"]:
        pytest.skip("without OpenMP there is one thread alone")
    assert int(run(THREADS.format(n=1))) <= 2
    assert int(run(THREADS.format(n=3))) >= 4


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with distributed.Client(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=":0",
        silence_logs=50,
        set_as_default=False,
    ) as client:
        yield client


def slowly(block):
    time.sleep(0.02)
    return block


def test_processes_give_the_same_bits_also_when_one_is_killed(client):
    x, y, _ = some_arrays((1, 1, 4, 4))
    expected = convext.dask.solve_kernels(x, y, 3, padding=1).compute().kernels
    slow = x.map_blocks(slowly, meta=x._meta)
    pids = client.run(os.getpid)
    found = client.compute(convext.dask.solve_kernels(slow, y, 3, padding=1))
    time.sleep(0.6)
    assert not found.done()
    os.kill(next(iter(pids.values())), signal.SIGKILL)
    np.testing.assert_array_equal(found.result(timeout=120).kernels, expected)
    assert set(client.run(os.getpid).values()) != set(pids.values())


def test_workers_use_one_thread_each(client):
    assert set(client.run(convext.get_num_threads).values()) == {1}


@pytest.mark.slow
def test_ten_thousand_chunks_send_little(client):
    x = da.random.default_rng(0).random((10_000, 1, 64, 64), chunks=(1, 1, 64, 64))
    y = convext.dask.conv2d(x, np.ones((1, 1, 3, 3)), padding="same")
    lazy = convext.dask.solve_kernels(x, y, 3, padding="same")

    def sent(dask_worker):
        return np.array(
            [
                dask_worker.transfer_outgoing_count_total,
                dask_worker.transfer_outgoing_bytes_total,
                dask_worker.batched_stream.byte_count,
            ]
        )

    def by_the_scheduler():
        return sum(comm.byte_count for comm in client.cluster.scheduler.stream_comms.values())

    before = sum(client.run(sent).values()), by_the_scheduler()
    solution = client.compute(lazy).result()
    np.testing.assert_allclose(solution.kernels, 1, atol=1e-12)
    messages, between_workers, to_scheduler = sum(client.run(sent).values()) - before[0]
    from_scheduler = by_the_scheduler() - before[1]
    print(
        f"{len(lazy.dask)} tasks; {messages} messages of {between_workers} bytes between workers, "
        f"{from_scheduler} bytes from the scheduler and {to_scheduler} to it"
    )
    assert between_workers < 0.2 * x.nbytes
    assert from_scheduler < 10_000 * 8000
    assert to_scheduler < 10_000 * 4000
