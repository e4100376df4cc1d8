"""Patch statistics, against the patch matrix written out in extended precision."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import reference
from array_files import BAD_FILES

import convext
from convext import PatchStatistics
from convext.solve import blocks

OPTIONS = [
    {},
    {"stride": (2, 1), "padding": 1},
    {"padding": ((0, 3), (2, 1)), "dilation": (1, 2)},
    {"padding": "same", "stride": 2, "dilation": 2},
]
SHAPE = (5, 2, 21, 24)
KERNEL = (3, 2)
NUM_KERNELS = 3


def data(seed=0, shape=SHAPE, dtype=np.float64, **options):
    """Return images and random targets that belong to them."""
    rng = np.random.default_rng(seed)
    size = reference.output_size(shape[2:], KERNEL, **{"padding": 0} | options)
    images = rng.random(shape).astype(dtype)
    return images, rng.standard_normal((len(images), NUM_KERNELS, *size)).astype(dtype)


def patch_matrix(images, bias=False, **options):
    """Return the patches as (pixels of all samples, unknowns)."""
    taps = images.shape[1] * math.prod(KERNEL)
    alone = np.eye(taps).reshape(taps, images.shape[1], *KERNEL)
    patches = reference.conv2d(images, alone, **options)
    matrix = np.moveaxis(patches, 1, -1).reshape(-1, taps)
    return np.hstack([matrix, np.ones((len(matrix), 1), matrix.dtype)]) if bias else matrix


def columns(array):
    """Return (N, K, OH, OW) as (pixels, K)."""
    return np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])


def statistics_of(images, targets, mask=None, *, bias=False, num_threads=None, **options):
    result = PatchStatistics(images.shape[-3], targets.shape[-3], KERNEL, bias=bias, **options)
    result.update(images, targets, mask, num_threads=num_threads)
    return result


def assert_statistics(statistics, matrix, targets, mask=None):
    """Compare with the sums over the rows of the patch matrix that count for each kernel."""
    counts = np.ones(targets.shape, bool) if mask is None else mask
    for k in range(targets.shape[1]):
        rows, values = matrix[counts[:, k]], targets[counts[:, k], k]
        products = statistics.products[k if len(statistics.products) > 1 else 0]
        np.testing.assert_allclose(products, (rows.T @ rows).astype(float), rtol=1e-12)
        np.testing.assert_allclose(
            statistics.cross_products[k], (rows.T @ values).astype(float), rtol=1e-11, atol=1e-12
        )
        np.testing.assert_allclose(statistics.squares[k], float(values @ values), rtol=1e-12)
        assert statistics.counts[k] == len(rows)


def assert_same(first, second, rtol=1e-12):
    for name in ("products", "cross_products", "squares", "counts"):
        one, other = getattr(first, name), getattr(second, name)
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_statistics_are_the_products_of_the_patch_matrix(options, bias, isa):
    images, targets = data(**options)
    statistics = statistics_of(images, targets, bias=bias, **options)
    assert statistics.products.shape[0] == 1
    assert_statistics(statistics, patch_matrix(images, bias, **options), columns(targets))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_elements_that_a_mask_leaves_out_do_not_count(options, bias, shared):
    images, targets = data(**options)
    mask = np.random.default_rng(3).random(targets.shape) < 0.7
    if shared:
        mask = mask[:, :1]
    noisy = np.where(mask, targets, np.nan)
    statistics = statistics_of(images, noisy, mask, bias=bias, **options)
    assert len(statistics.products) == (1 if shared else NUM_KERNELS)
    every = np.broadcast_to(mask, targets.shape)
    matrix = patch_matrix(images, bias, **options)
    assert_statistics(statistics, matrix, columns(targets), columns(every))


@pytest.mark.parametrize("share", [0.004, 0.3, 0.9, 0.998])
@pytest.mark.parametrize("spoiled", [None, "left out", "at an edge", "everywhere"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_few_and_many_elements_that_count_make_the_same_sums(share, spoiled, options):
    images, targets = data(**options)
    rng = np.random.default_rng(5)
    mask = rng.random((len(targets), 1, *targets.shape[2:])) < share
    mask[0, 0, 3, 3] = True
    kept = reference.conv2d_input_grad(
        mask.astype(float), np.ones((1, 1, *KERNEL)), images[:, :1].shape, **options
    )
    if spoiled == "left out":  # squares of such pixels would leave nothing of the others
        images[np.broadcast_to(kept, images.shape) == 0] = 1e12
    elif spoiled == "at an edge":  # some of the windows that meet them count
        images[np.broadcast_to(kept, images.shape) == 1] *= 1e7
    elif spoiled == "everywhere":
        images[rng.random(images.shape) < 0.01] = 1e7
    matrix = patch_matrix(images, **options)
    counted = statistics_of(images, targets, mask, **options)
    rows = matrix[columns(mask)[:, 0]]
    expected = (rows.T @ rows).astype(float)
    # Sums of all, less what does not count, may lose three bits of the largest.
    sizes = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert (np.abs(counted.products[0] - expected) <= 1e-13 * sizes).all()


def test_a_mask_that_is_true_everywhere_changes_nothing():
    images, targets = data()
    plain = statistics_of(images, targets, bias=True)
    masked = statistics_of(images, targets, np.ones_like(targets, bool), bias=True)
    assert masked.products.tobytes() == plain.products.tobytes()
    assert_same(masked, plain)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_blocks_and_strips_make_no_difference(options, masked, monkeypatch):
    images, targets = data(**options)
    mask = np.random.default_rng(3).random(targets.shape) < 0.7 if masked else None
    whole = statistics_of(images, targets, mask, bias=True, **options)
    for elements in (5000, 600, 1):  # some samples, strips of one, as few rows as make sense
        monkeypatch.setattr(blocks, "MAX_ELEMENTS", elements)
        assert_same(statistics_of(images, targets, mask, bias=True, **options), whole)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", ">f8", "bool"])
def test_statistics_of_any_type_are_those_in_float64(dtype):
    rng = np.random.default_rng(1)
    images = (9 * rng.random(SHAPE)).astype(dtype)
    targets = (9 * rng.random((5, NUM_KERNELS, 19, 23))).astype(dtype)
    expected = statistics_of(images.astype(float), targets.astype(float))
    statistics = statistics_of(images, targets)
    assert statistics.products.dtype == np.float64
    assert np.array_equal(statistics.products, expected.products)
    assert np.array_equal(statistics.cross_products, expected.cross_products)


def test_statistics_have_the_same_bits_for_any_number_of_threads():
    images, targets = data(shape=(2, 2, 200, 210))
    mask = np.random.default_rng(3).random(targets.shape) < 0.7
    for masks in (None, mask):
        results = [
            statistics_of(images, targets, masks, bias=True, num_threads=threads)
            for threads in (1, 2, 5)
        ]
        for other in results[1:]:
            assert other.products.tobytes() == results[0].products.tobytes()
            assert other.cross_products.tobytes() == results[0].cross_products.tobytes()


def test_samples_may_come_one_by_one_and_in_different_sizes():
    images, targets = data()
    whole = statistics_of(images, targets)
    parts = PatchStatistics(2, NUM_KERNELS, KERNEL)
    for image, target in zip(images, targets, strict=True):
        parts.update(image, target)
    assert_same(parts, whole)
    more = data(1, (1, 2, 9, 40))
    parts.update(*more)
    assert_same(parts, whole + statistics_of(*more))


def test_statistics_merge_in_any_order_and_grouping():
    masks = [None, True, None, True]
    parts = []
    for seed, masked in enumerate(masks):
        images, targets = data(seed)
        mask = np.random.default_rng(seed).random(targets.shape) < 0.5 if masked else None
        parts.append(statistics_of(images, targets, mask, bias=True))
    a, b, c, d = parts
    expected = ((a + b) + c) + d
    assert_same((a + b) + (c + d), expected)
    assert_same(d + (c + (b + a)), expected)
    merged = a + PatchStatistics(2, NUM_KERNELS, KERNEL, bias=True)
    merged.merge(b + d)
    merged.merge(c)
    assert_same(merged, expected)
    assert_same(a, parts[0])  # adding left it alone


def test_merging_something_else_is_an_error():
    statistics = PatchStatistics(2, 3, (3, 2), padding=1)
    with pytest.raises(TypeError, match="other must be PatchStatistics, got int"):
        statistics.merge(3)
    with pytest.raises(TypeError):
        statistics + 3
    for changed in (
        {"num_channels": 1}, {"kernel_shape": (2, 2)}, {"bias": True}, {"padding": 0},
    ):  # fmt: skip
        settings = {"num_channels": 2, "num_kernels": 3, "kernel_shape": (3, 2), "padding": 1}
        with pytest.raises(ValueError, match=f"same convolution.*: {next(iter(changed))} is"):
            statistics.merge(PatchStatistics(**settings | changed))
    statistics.merge(PatchStatistics(2, 3, (3, 2), padding=((1, 1), (1, 1))))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_loss_and_gradient_are_those_of_the_mean_squared_error(bias, masked):
    images, targets = data()
    mask = np.random.default_rng(3).random(targets.shape) < (0.7 if masked else 2)
    statistics = statistics_of(images, targets, mask if masked else None, bias=bias)
    rng = np.random.default_rng(4)
    kernels = rng.standard_normal((NUM_KERNELS, 2, *KERNEL))
    offsets = rng.standard_normal(NUM_KERNELS) if bias else None

    residual = np.where(mask, reference.conv2d(images, kernels, offsets) - targets, 0)
    size = mask.sum()
    np.testing.assert_allclose(
        statistics.loss(kernels, offsets), float((residual**2).sum() / size), rtol=1e-12
    )
    expected = reference.conv2d_kernel_grad(images, 2 * residual / size, KERNEL)
    gradient = statistics.gradient(kernels, offsets)
    if bias:
        gradient, of_bias = gradient
        np.testing.assert_allclose(
            of_bias, (2 * residual.sum(axis=(0, 2, 3)) / size).astype(float), rtol=1e-11
        )
    np.testing.assert_allclose(gradient, expected.astype(float), rtol=1e-10, atol=1e-13)


def test_a_bias_that_is_not_given_is_zero():
    images, targets = data()
    statistics = statistics_of(images, targets, bias=True)
    kernels = np.ones((NUM_KERNELS, 2, *KERNEL))
    assert statistics.loss(kernels) == statistics.loss(kernels, np.zeros(NUM_KERNELS))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("masked", [False, True])
def test_the_solution_is_where_loss_and_penalty_are_least(bias, l2, masked):
    images, targets = data()
    mask = np.random.default_rng(3).random(targets.shape) < (0.7 if masked else 2)
    solution = statistics_of(images, targets, mask if masked else None, bias=bias).solve(l2)
    matrix = patch_matrix(images, bias).astype(float)
    ridge = np.full(matrix.shape[1], l2 * mask.sum())
    ridge[12:] = 0
    for k in range(NUM_KERNELS):
        rows = columns(mask)[:, k]
        system = np.vstack([matrix[rows], np.diag(np.sqrt(ridge))])
        side = np.concatenate([columns(targets)[rows, k], np.zeros(matrix.shape[1])])
        expected = np.linalg.lstsq(system, side)[0]
        np.testing.assert_allclose(solution.kernels[k].ravel(), expected[:12], rtol=1e-10)
        if bias:
            np.testing.assert_allclose(solution.bias[k], expected[12], rtol=1e-10)
    singular = [np.linalg.svd(matrix[columns(mask)[:, k]], compute_uv=False) for k in range(3)]
    assert solution.rank == matrix.shape[1]
    np.testing.assert_allclose(solution.condition, max(s[0] / s[-1] for s in singular), rtol=1e-9)
    fit = reference.conv2d(images, solution.kernels, solution.bias) - targets
    np.testing.assert_allclose(solution.loss, float((fit[mask] ** 2).mean()), rtol=1e-12)
    assert (solution.bias is None) == (not bias)


def test_pixels_that_never_differ_give_the_smallest_kernels_and_a_warning():
    images = np.repeat(np.random.default_rng(0).random((1, 1, 30, 30)), 2, axis=1)
    kernels = np.random.default_rng(1).random((NUM_KERNELS, 1, *KERNEL))
    targets = convext.conv2d(images[:, :1], kernels)
    statistics = statistics_of(images, targets)
    with pytest.warns(np.exceptions.RankWarning, match="only 6 of the 12 numbers of a kernel"):
        solution = statistics.solve()
    assert (solution.rank, solution.condition) == (6, math.inf)
    np.testing.assert_allclose(solution.kernels, np.repeat(kernels / 2, 2, axis=1), rtol=1e-10)
    statistics.solve(0.1)  # determines them: no warning


def test_gradient_descent_is_stable_up_to_the_largest_learning_rate():
    images, targets = data()
    statistics = statistics_of(images, targets)
    rate = statistics.max_learning_rate()
    matrix = patch_matrix(images).astype(float)
    largest = np.linalg.eigvalsh(2 * matrix.T @ matrix / targets.size)[-1]
    np.testing.assert_allclose(rate, 2 / largest, rtol=1e-12)
    for factor, falls in ((0.999, True), (1.001, False)):
        kernels = np.zeros((NUM_KERNELS, 2, *KERNEL))
        losses = []
        for _ in range(3000):
            losses.append(statistics.loss(kernels))
            kernels -= factor * rate * statistics.gradient(kernels)
        assert (losses[-1] <= losses[0]) == falls


def test_any_learning_rate_is_stable_on_zeros():
    statistics = statistics_of(np.zeros((1, 1, 5, 5)), np.ones((1, 1, 3, 4)))
    assert statistics.max_learning_rate() == math.inf


@pytest.mark.parametrize("padding", [0, "same", ((1, 2), (3, 4))])
def test_saved_and_pickled_statistics_come_back(padding, tmp_path):
    options = {"padding": padding, "stride": 2, "dilation": (1, 2)}
    images, targets = data(**options)
    mask = np.random.default_rng(3).random(targets.shape) < 0.7
    statistics = statistics_of(images, targets, mask, bias=True, **options)
    statistics.save(tmp_path / "statistics.npz")
    loaded = PatchStatistics.load(tmp_path / "statistics.npz")
    for copy in (loaded, pickle.loads(pickle.dumps(statistics))):
        assert_same(copy, statistics, rtol=0)
        assert repr(copy) == repr(statistics)
        copy.update(images, targets)
        assert_same(copy, statistics + statistics_of(images, targets, bias=True, **options))


@pytest.mark.parametrize("kind", BAD_FILES)
def test_loading_what_is_not_statistics_is_an_error(kind, tmp_path):
    file = tmp_path / "statistics.npz"
    file.write_bytes(BAD_FILES[kind][0])
    with pytest.raises((ValueError, TypeError), match="statistics"):
        PatchStatistics.load(file)


def test_loading_statistics_of_other_shapes_is_an_error(tmp_path):
    file = tmp_path / "statistics.npz"
    statistics = PatchStatistics(1, 1, (2, 2))
    statistics.products = np.zeros((1, 3, 3))
    statistics.save(file)
    with pytest.raises(ValueError, match=r"products must be float64 of shape \(1, 4, 4\), got"):
        PatchStatistics.load(file)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 1, (2, 2)), {}, ValueError, "num_channels must be at least 1, got 0"),
        ((1, 1.0, (2, 2)), {}, TypeError, "num_kernels must be an integer, got 1.0"),
        ((1, 1, (2,)), {}, ValueError, "kernel_shape must be"),
        ((1, 1, None), {}, TypeError, "kernel_shape must be"),
        ((1, 1, (2, 2)), {"bias": 1}, TypeError, "bias must be True or False, got 1"),
        ((1, 1, (2, 2)), {"stride": 0}, ValueError, "stride must be at least 1"),
        ((1, 1, (2, 2)), {"padding": "full"}, ValueError, "padding must be"),
        ((1, 1, (2, 2)), {"dilation": -1}, ValueError, "dilation must be at least 1"),
    ],
)
def test_wrong_settings_are_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        PatchStatistics(*arguments, **options)


def bad_updates():
    images, targets = data()
    mask = np.ones_like(targets, bool)
    hole = images.copy()
    hole[3, 1, 2, 5] = np.nan
    return {
        "channels": ((images[:, :1], targets), ValueError, "must have 2 channels, got 1"),
        "samples": ((images[1:], targets), ValueError, "4 samples but target_output has 5"),
        "target": ((images, targets[:, :2]), ValueError, r"must have the shape \(5, 3, 19, 23\)"),
        "dimensions": ((images[0, 0], targets), ValueError, "input_data must have the shape"),
        "text": ((images, np.full(targets.shape, "a")), TypeError, "target_output must hold real"),
        "mask of numbers": ((images, targets, mask * 1.0), TypeError, "mask must be of bool"),
        "mask shape": ((images, targets, mask[..., 1:]), ValueError, "mask must have the shape"),
        "mask of two": ((images, targets, mask[:, :2]), ValueError, "mask must have the shape"),
        "nan": ((hole, targets), ValueError, r"input_data contains 1 values .* \(3, 1, 2, 5\)"),
        "infinity": ((images, targets * np.inf), ValueError, "target_output contains"),
        "overflow": ((images * 1e200, targets), ValueError, "squares overflow float64"),
        "too small": ((images[..., :1], targets[..., :1]), ValueError, "do not fit"),
    }


@pytest.mark.parametrize("case", bad_updates())
def test_a_wrong_update_is_an_error_and_changes_nothing(case):
    arguments, error, message = bad_updates()[case]
    statistics = statistics_of(*data(7))
    before = pickle.dumps(statistics)
    with pytest.raises(error, match=message):
        statistics.update(*arguments)
    assert pickle.dumps(statistics) == before


def test_questions_to_empty_statistics_are_errors():
    statistics = PatchStatistics(1, 2, (2, 2))
    kernels = np.zeros((2, 1, 2, 2))
    for question in (
        lambda: statistics.loss(kernels),
        lambda: statistics.gradient(kernels),
        statistics.solve,
        statistics.max_learning_rate,
    ):
        with pytest.raises(ValueError, match="no element of the target counts"):
            question()
    mask = np.ones((2, 4, 4), bool)
    mask[1] = False
    statistics.update(np.ones((1, 5, 5)), np.ones((2, 4, 4)), mask)
    with pytest.raises(ValueError, match="no element of the target counts for kernel 1"):
        statistics.solve()


def test_kernels_and_penalties_that_do_not_fit_are_errors():
    statistics = statistics_of(*data())
    good = np.zeros((NUM_KERNELS, 2, *KERNEL))
    with pytest.raises(ValueError, match=r"kernels must have the shape \(3, 2, 3, 2\)"):
        statistics.loss(good[:2])
    with pytest.raises(ValueError, match="the statistics were made without one"):
        statistics.loss(good, np.zeros(NUM_KERNELS))
    with pytest.raises(ValueError, match="l2 must be at least 0, got -1"):
        statistics.solve(-1)
    with pytest.raises(TypeError, match="l2 must be a number"):
        statistics.solve("1")
    with pytest.raises(ValueError, match=r"bias must have the shape \(3,\), got \(2,\)"):
        statistics_of(*data(), bias=True).gradient(good, np.zeros(2))
