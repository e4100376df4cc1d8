"""solve_kernels, against least squares on the patch matrix written out."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import reference
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter

import convext
from convext import solve_kernels
from convext.solve import blocks
from convext.solve import kernels as solve
from convext.solve.sums import Sums

OPTIONS = [
    {},
    {"stride": (2, 1), "padding": 1},
    {"padding": ((0, 3), (2, 1)), "dilation": (1, 2)},
    {"padding": "same", "stride": 2, "dilation": 2},
]


def exact_data(bias=None, shape=(4, 2, 21, 24), dtype=np.float64, **options):
    """Return images, and what three kernels of 3x2 make of them."""
    rng = np.random.default_rng(0)
    images, kernels = rng.random(shape).astype(dtype), rng.standard_normal((3, shape[1], 3, 2))
    targets = reference.conv2d(images, kernels, bias, **options)
    return images, targets.astype(np.float64), kernels


def patch_matrix(image, size, bias=False):
    """Return the patches of (C, H, W) as rows."""
    windows = np.moveaxis(sliding_window_view(image, (size, size), axis=(1, 2)), 0, 2)
    matrix = windows.reshape(-1, len(image) * size * size)
    return np.hstack([matrix, np.ones((len(matrix), 1))]) if bias else matrix


def true_least_squares(matrix, target):
    """Solve to full accuracy: refine weights and residual together, in extended precision.

    That is the augmented system of Björck, "Iterative refinement of linear least squares
    solutions", BIT 7, 1967.
    """
    q, r = np.linalg.qr(matrix)
    wide, goal = matrix.astype(np.longdouble), target.astype(np.longdouble)
    weights = np.zeros(matrix.shape[1], np.longdouble)
    residual = np.zeros(len(target), np.longdouble)
    for _ in range(10):
        f = (goal - residual - wide @ weights).astype(float)
        g = -(wide.T @ residual).astype(float)
        h, d = np.linalg.solve(r.T, g), q.T @ f
        weights = weights + np.linalg.solve(r, d - h)
        residual = residual + (f - q @ d + q @ h)
    return weights.astype(float)


def relative_error(found, true):
    return np.linalg.norm(found.ravel() - true.ravel()) / np.linalg.norm(true)


@pytest.mark.parametrize("bias", [None, [0.5, -2.0, 0.0]])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("elements", [1 << 21, 600])
def test_kernels_are_recovered_from_exact_data(options, bias, elements, monkeypatch, isa):
    monkeypatch.setattr(blocks, "MAX_ELEMENTS", elements)
    monkeypatch.setattr(solve, "DECOMPOSED_ELEMENTS", elements)
    images, targets, kernels = exact_data(bias, **options)
    solution = solve_kernels(images, targets, (3, 2), bias=bias is not None, **options)
    np.testing.assert_allclose(solution.kernels, kernels, rtol=0, atol=1e-12 * abs(kernels).max())
    if bias is None:
        assert solution.bias is None
    else:
        np.testing.assert_allclose(solution.bias, bias, rtol=0, atol=1e-12)
    assert solution.loss < 1e-26
    assert solution.rank == 12 + (bias is not None)
    assert 1 < solution.condition < 100


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("smoothness", [0.7, 1.2, 1.8, 2.5])
@pytest.mark.parametrize("noise", [0, 1e-3])
def test_kernels_are_as_accurate_as_those_of_numpy_on_the_patch_matrix(size, smoothness, noise):
    """At conditions where normal equations are refined, and where they are not used."""
    mine, numpys = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        image = gaussian_filter(rng.random((1, 70, 70)), (0, smoothness, smoothness))
        matrix = patch_matrix(image, size)
        target = matrix @ rng.standard_normal(size * size)
        target += noise * rng.standard_normal(target.shape)
        true = true_least_squares(matrix, target)
        after = target.reshape(1, 71 - size, 71 - size)
        solution = solve_kernels(image, after, (size, size))
        mine.append(relative_error(solution.kernels, true))
        numpys.append(relative_error(np.linalg.lstsq(matrix, target, rcond=0)[0], true))
        assert solution.rank == size * size
        np.testing.assert_allclose(solution.condition, np.linalg.cond(matrix), rtol=1e-2)
    assert np.linalg.norm(mine) < 10 * np.linalg.norm(numpys)


@pytest.mark.parametrize("noise", [0, 1e-6])
def test_very_smooth_images_are_solved_as_accurately_as_by_numpy(noise):
    mine, numpys = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        image = gaussian_filter(rng.random((1, 100, 100)), (0, 3.2, 3.2))
        matrix = patch_matrix(image, 7)
        assert 5e9 < np.linalg.cond(matrix) < 5e10
        target = matrix @ rng.standard_normal(49) + noise * rng.standard_normal(len(matrix))
        true = true_least_squares(matrix, target)
        solution = solve_kernels(image, target.reshape(1, 94, 94), (7, 7))
        mine.append(relative_error(solution.kernels, true))
        numpys.append(relative_error(np.linalg.lstsq(matrix, target, rcond=0)[0], true))
        assert solution.rank == 49
    assert np.linalg.norm(mine) < 10 * np.linalg.norm(numpys)


def test_the_loss_is_that_of_the_kernels():
    images, targets, _ = exact_data()
    targets += np.random.default_rng(1).standard_normal(targets.shape)
    solution = solve_kernels(images, targets, (3, 2), bias=True)
    fit = reference.conv2d(images, solution.kernels, solution.bias)
    np.testing.assert_allclose(solution.loss, reference.mse_loss(fit, targets), rtol=1e-13)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("l2", [0, 1e-3])
def test_what_a_mask_leaves_out_does_not_count(smooth, shared, l2):
    """Both by the normal equations and, for the smooth image, by the decomposition."""
    rng = np.random.default_rng(2)
    image = gaussian_filter(rng.random((1, 60, 50)), (0, 2.5, 2.5) if smooth else 0)
    targets = rng.standard_normal((2, 56, 46))
    mask = rng.random((1 if shared else 2, 56, 46)) < 0.8
    noisy = np.where(mask, targets, np.inf)
    solution = solve_kernels(image, noisy, (5, 5), bias=True, mask=mask, l2=l2)
    matrix = patch_matrix(image, 5, bias=True)
    size = np.broadcast_to(mask, targets.shape).sum()
    ridge = np.diag(np.sqrt(l2 * size) * np.append(np.ones(25), 0))
    squares = 0
    for k in range(2):
        rows = mask[0 if shared else k].ravel()
        system = np.vstack([matrix[rows], ridge])
        side = np.append(targets[k].ravel()[rows], np.zeros(26))
        expected = np.linalg.lstsq(system, side, rcond=0)[0]
        tolerance = 1e-13 * np.linalg.cond(system) * np.abs(expected).max()
        np.testing.assert_allclose(solution.kernels[k].ravel(), expected[:25], atol=tolerance)
        np.testing.assert_allclose(solution.bias[k], expected[25], atol=tolerance)
        squares += np.sum((matrix[rows] @ expected - targets[k].ravel()[rows]) ** 2)
    np.testing.assert_allclose(solution.loss, squares / size, rtol=1e-9)


@pytest.mark.parametrize(("size", "dilation"), [((3, 3), 1), ((2, 5), 1), ((4, 3), (1, 2))])
def test_the_border_of_an_after_image_is_left_out(size, dilation):
    rng = np.random.default_rng(0)
    before, kernels = rng.random((2, 1, 30, 31)), rng.standard_normal((2, 1, *size))
    padding = reference.resolve_padding("same", (30, 31), size, 1, dilation)
    after = reference.conv2d(before, kernels, None, 1, padding, dilation).astype(float)
    inside = convext.conv2d(before, kernels, dilation=dilation).shape
    (top, _), (left, _) = padding
    border = np.ones(after.shape, bool)
    border[:, :, top : top + inside[2], left : left + inside[3]] = False
    after[border] = 7.0  # however it was made
    solution = solve_kernels(before, after, size, dilation=dilation, mask=np.ones_like(border))
    np.testing.assert_allclose(solution.kernels, kernels, atol=1e-12)
    with_padding = solve_kernels(before, after, size, dilation=dilation, padding="same")
    assert with_padding.loss > 0.1


@pytest.mark.parametrize("dtype", ["float32", "uint8", "float16"])
def test_images_of_any_type_are_solved_in_float64(dtype):
    rng = np.random.default_rng(0)
    before = (200 * rng.random((1, 40, 40))).astype(dtype)
    kernel = np.array([[[[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]]]])
    after = convext.conv2d(before.astype(float), kernel)
    solution = solve_kernels(before, after, (3, 3))
    assert solution.kernels.dtype == np.float64
    np.testing.assert_allclose(solution.kernels, kernel, atol=1e-12)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_mapped_files_are_read_and_stay_as_they_are(mode, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "MAX_ELEMENTS", 5000)
    images, targets, kernels = exact_data(shape=(20, 2, 21, 24))
    np.save(tmp_path / "before.npy", images)
    np.save(tmp_path / "after.npy", targets)
    before = np.load(tmp_path / "before.npy", mmap_mode=mode)
    after = np.load(tmp_path / "after.npy", mmap_mode=mode)
    if mode != "r":
        before[0] = images[0] = 0.5  # what was written to the map must count, and stay
        after[0] = targets[0] = reference.conv2d(images[:1], kernels)[0].astype(float)
    solution = solve_kernels(before, after, (3, 2))
    np.testing.assert_allclose(solution.kernels, kernels, atol=1e-12)
    assert np.array_equal(before, images)
    assert np.array_equal(after, targets)


@pytest.mark.parametrize("smooth", [False, True])
def test_solutions_have_the_same_bits_for_any_number_of_threads(smooth):
    rng = np.random.default_rng(0)
    image = gaussian_filter(rng.random((2, 150, 160)), (0, 2.5, 2.5) if smooth else 0)
    target = rng.random((3, 146, 156))
    one, *others = [
        solve_kernels(image, target, (5, 5), bias=True, num_threads=threads)
        for threads in (1, 2, 5)
    ]
    for other in others:
        assert other.kernels.tobytes() == one.kernels.tobytes()
        assert (other.bias.tobytes(), other.loss) == (one.bias.tobytes(), one.loss)


def undetermined():
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(50.0), np.arange(60.0))[np.newaxis] / 100
    texture = rng.random((1, 50, 60))
    return {
        # image, rank without a bias
        "flat": (np.full((1, 50, 60), 0.3), 1),
        "black": (np.zeros((1, 50, 60)), 0),
        "ramp": (ramp, 2),
        "stripes": (np.sin(ramp * 7), 2),
        "repeated channels": (np.concatenate([texture, texture, 0.1 * texture]), 9),
        "few pixels": (rng.random((2, 4, 5)), 6),
    }


@pytest.mark.parametrize("name", undetermined())
@pytest.mark.parametrize("bias", [False, True])
def test_of_undetermined_kernels_the_smallest_are_found(name, bias):
    image, rank = undetermined()[name]
    if bias and name != "flat":
        # A ramp's patches span the constant already; few pixels have no more than six rows.
        rank += name not in {"ramp", "few pixels"}
    matrix = patch_matrix(image, 3, bias)
    target = np.random.default_rng(1).random((len(matrix), 2))
    with pytest.warns(np.exceptions.RankWarning, match=f"determine only {rank} of the"):
        solution = solve_kernels(
            image,
            target.T.reshape(2, image.shape[1] - 2, image.shape[2] - 2),
            (3, 3),
            bias=bias,
        )
    expected = np.linalg.lstsq(matrix, target, rcond=1e-12)[0].T
    weights = solution.kernels.reshape(2, -1)
    weights = np.column_stack([weights, solution.bias]) if bias else weights
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-11)
    assert (solution.rank, solution.condition) == (rank, math.inf)
    residual = matrix @ expected.T - target
    np.testing.assert_allclose(solution.loss, np.mean(residual**2), rtol=1e-10, atol=1e-25)


def test_a_penalty_determines_what_the_data_do_not():
    image = np.full((1, 20, 20), 0.5)
    solution = solve_kernels(image, np.ones((1, 18, 18)), (3, 3), l2=0.25)
    # The loss (9 w / 2 - 1)² + 9 w² / 4 is least at w = 9 / 2 / (81 / 4 + 9 / 4).
    np.testing.assert_allclose(solution.kernels, np.full((1, 1, 3, 3), 0.2), rtol=1e-13)
    np.testing.assert_allclose(solution.loss, 0.01, rtol=1e-12)
    assert solution.rank == 1


def test_a_small_penalty_makes_smooth_images_well_posed_by_decomposition():
    rng = np.random.default_rng(0)
    image = gaussian_filter(rng.random((1, 60, 60)), (0, 2.5, 2.5))
    matrix = patch_matrix(image, 5, bias=True)
    target = rng.random(len(matrix))
    l2 = 1e-13
    solution = solve_kernels(image, target.reshape(1, 56, 56), (5, 5), bias=True, l2=l2)
    ridge = np.diag(np.sqrt(l2 * target.size) * np.append(np.ones(25), 0))
    system = np.vstack([matrix, ridge])
    expected = np.linalg.lstsq(system, np.append(target, np.zeros(26)), rcond=0)[0]
    assert np.linalg.cond(system) > 3e5
    weights = np.append(solution.kernels, solution.bias)
    np.testing.assert_allclose(weights, expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(solution.loss, np.mean((matrix @ expected - target) ** 2), rtol=1e-6)


def bad_calls():
    images, targets, _ = exact_data()
    mask = np.ones(targets.shape, bool)
    hole = images.copy()
    hole[1, 0, 3, 4] = np.nan
    return {
        "text": (("a", targets, (3, 2)), {}, FileNotFoundError, "No such file"),
        "samples": ((images[1:], targets, (3, 2)), {}, ValueError, "3 samples but target_output"),
        "kernel shape": ((images, targets, (3, 3)), {}, ValueError, "target_output must have the"),
        "kernel size": ((images, targets, 3.0), {}, TypeError, "kernel_shape must be"),
        "too large": ((images, images, (25, 2)), {}, ValueError, "do not fit input_data"),
        "bias": ((images, targets, (3, 2)), {"bias": "yes"}, TypeError, "bias must be True or"),
        "l2": ((images, targets, (3, 2)), {"l2": -0.1}, ValueError, "l2 must be at least 0"),
        "no l2": ((images, targets, (3, 2)), {"l2": None}, TypeError, "l2 must be a number"),
        "mask": ((images, targets, (3, 2)), {"mask": mask[0]}, ValueError, "mask must have the"),
        "numbers": ((images, targets, (3, 2)), {"mask": mask + 0}, TypeError, "mask must be of"),
        "all masked": ((images, targets, (3, 2)), {"mask": ~mask}, ValueError, "no element of"),
        "nan": ((hole, targets, (3, 2)), {}, ValueError, "input_data contains 1 values that"),
        "stride": ((images, targets, (3, 2)), {"stride": 0}, ValueError, "stride must be at"),
        "threads": ((images, targets, (3, 2)), {"num_threads": 0}, ValueError, "num_threads must"),
    }


@pytest.mark.parametrize("case", bad_calls())
def test_bad_input_is_named(case):
    arguments, options, error, message = bad_calls()[case]
    with pytest.raises(error, match=message):
        solve_kernels(*arguments, **options)


def test_unknowns_of_very_different_size_are_all_determined():
    rng = np.random.default_rng(0)
    image = 1e9 * rng.random((1, 40, 40))
    target = convext.conv2d(image, np.full((1, 1, 2, 2), 0.25)) + 3.0
    solution = solve_kernels(image, target, (2, 2), bias=True)
    np.testing.assert_allclose(solution.kernels, 0.25, rtol=1e-12)
    np.testing.assert_allclose(solution.bias, 3.0, rtol=1e-5)
    assert solution.rank == 5
    assert 1e6 < solution.condition < math.inf


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("l2", [0, 1e-3])
@pytest.mark.parametrize("masked", [None, "shared", "each"])
def test_fewer_equations_than_unknowns_are_solved_as_they_are(masked, l2, bias, monkeypatch):
    """Their sums of products would be many times as large, and take hundreds of times as long."""
    monkeypatch.setattr(Sums, "of", None)
    rng = np.random.default_rng(4)
    image, targets = rng.random((2, 21, 22)), rng.standard_normal((3, 7, 8))
    mask = None if masked is None else rng.random((1 if masked == "shared" else 3, 7, 8)) < 0.7
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve_kernels(image, targets, (15, 15), bias=bias, l2=l2, mask=mask)
    assert len(caught) == (l2 == 0)
    matrix, unknowns = patch_matrix(image, 15, bias), 450 + bias
    counts = np.ones(targets.shape, bool) if mask is None else np.broadcast_to(mask, targets.shape)
    ridge = np.diag(np.sqrt(l2 * counts.sum()) * (np.arange(unknowns) < 450))
    squares = 0
    for k in range(3):
        rows, sides = matrix[counts[k].ravel()], targets[k][counts[k]]
        system = np.vstack([rows, ridge]) if l2 else rows
        expected = np.linalg.lstsq(system, np.append(sides, np.zeros(len(system) - len(rows))))[0]
        found = np.append(solution.kernels[k], solution.bias[k] if bias else [])
        np.testing.assert_allclose(found, expected, atol=1e-10)
        squares += np.sum((rows @ expected - sides) ** 2)
    np.testing.assert_allclose(solution.loss, squares / counts.sum(), rtol=1e-8, atol=1e-20)
    assert (solution.rank, solution.condition) == (counts.sum(axis=(1, 2)).min(), math.inf)


def test_as_many_equations_as_unknowns_may_determine_them():
    rng = np.random.default_rng(0)
    image, kernels = rng.random((1, 5, 5)), rng.standard_normal((2, 1, 3, 3))
    solution = solve_kernels(image, convext.conv2d(image, kernels), (3, 3))
    np.testing.assert_allclose(solution.kernels, kernels, atol=1e-10)
    assert solution.rank == 9
    np.testing.assert_allclose(solution.condition, np.linalg.cond(patch_matrix(image, 3)))


@pytest.mark.filterwarnings("ignore::numpy.exceptions.RankWarning")
def test_what_takes_more_memory_than_there_is_is_refused_before():
    image = np.zeros((1, 1000, 1000), np.float32)
    with pytest.raises(MemoryError, match=r"of 160000 unknowns take 614400000000 bytes"):
        solve_kernels(image, image, (400, 400))
    statistics = convext.PatchStatistics(1, 1, (400, 400))
    with pytest.raises(MemoryError, match="614400000000 bytes"):
        statistics.update(image, np.zeros((1, 601, 601)))
    few = np.random.default_rng(0).random((1, 201, 202))  # 39,601 unknowns, but 12 equations
    assert solve_kernels(few, np.ones((1, 3, 4)), (199, 199)).rank == 12


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("pedestal", "padding"), [(1e3, 0), (1e6, 0), (1e8, 0), (-1e10, 0), (1e3, 1), (1e5, 1)]
)
def test_a_pedestal_costs_a_kernel_with_a_bias_no_digits(pedestal, masked, padding):
    rng = np.random.default_rng(5)
    kernels = rng.integers(-8, 9, (2, 2, 3, 3)).astype(float)
    image = rng.integers(0, 256, (3, 2, 24, 25)) + np.array([pedestal, 0.5]).reshape(2, 1, 1)
    after = reference.conv2d(image, kernels, [2.0, -3.0], padding=padding).astype(float)
    mask = rng.random(after.shape) < 0.8 if masked else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = solve_kernels(image, after, (3, 3), bias=True, mask=mask, padding=padding)
    np.testing.assert_allclose(found.kernels, kernels, atol=1e-9)
    np.testing.assert_allclose(found.bias, [2, -3], atol=1e-14 * abs(pedestal) * 200 + 1e-9)
    assert found.rank == 19
    # The error of a target of 1e12 is 1e-4.
    assert found.loss < (1e-15 * np.abs(after).max()) ** 2


@pytest.mark.parametrize("size", [(7, 7), (2, 2)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "scales",  # of two channels, and of the target
    [
        *[(1e-160, 1e-160, 1), (1e-300, 1e-280, 1e-290), (1e160, 1e160, 1e150), (1, 1e-160, 1)],
        *[(1, 1, 1e-200), (1e-200, 1, 1e-30), (1e200, 1, 1)],
    ],
)
def test_squares_that_overflow_or_vanish_cost_no_digits(scales, bias, size):
    rng = np.random.default_rng(6)
    image, kernels = rng.random((2, *size)), rng.standard_normal((2, 2, 1, 2))
    after = reference.conv2d(image, kernels, [2.0, -3.0] if bias else None).astype(float)
    powers = np.ldexp(1.0, np.frexp(scales[:2])[1]).reshape(2, 1, 1)
    image, kernels = image * powers, kernels * (scales[2] / powers)
    scales = (*powers.ravel(), scales[2])
    if size == (2, 2):
        with pytest.warns(np.exceptions.RankWarning):
            solution = solve_kernels(image, after * scales[2], (1, 2), bias=bias)
        fit = reference.conv2d(image, solution.kernels, solution.bias) / scales[2]
        np.testing.assert_allclose(fit.astype(float), after, rtol=1e-10)
        return
    solution = solve_kernels(image, after * scales[2], (1, 2), bias=bias)
    np.testing.assert_allclose(solution.kernels / kernels, 1, rtol=1e-11)
    if bias:
        np.testing.assert_allclose(solution.bias / scales[2], [2, -3], rtol=1e-11)
    assert solution.loss <= (1e-13 * scales[2]) ** 2
    assert solution.rank == 4 + bias


@pytest.mark.parametrize("size", [(3, 8), (20, 21)])  # of which the first gives few equations
@pytest.mark.parametrize("scale", [2.0**-300, 2.0**-60, 1.0, 2.0**60, 2.0**300])
def test_a_bias_beside_very_small_or_large_pixels_is_one_unknown_more(scale, size):
    rng = np.random.default_rng(9)
    image, target = (
        rng.standard_normal((1, *size)),
        rng.standard_normal((2, size[0] - 2, size[1] - 2)),
    )
    if size[0] > 3:  # stripes, of which the patches have few dimensions
        image = np.sin(np.add.outer(*map(np.arange, size)))[np.newaxis]
    target += 2
    matrix = patch_matrix(image, 3, bias=True)
    sides = target.reshape(2, -1).T
    fit = matrix @ np.linalg.lstsq(matrix, sides, rcond=1e-12)[0]
    statistics = convext.PatchStatistics(1, 2, (3, 3), bias=True)
    statistics.update(image * scale, target * scale)
    with pytest.warns(np.exceptions.RankWarning):
        solutions = [
            solve_kernels(image * scale, target * scale, (3, 3), bias=True),
            statistics.solve(),
        ]
    for found in solutions:
        assert found.rank == np.linalg.matrix_rank(matrix)
        weights = np.column_stack([found.kernels.reshape(2, -1), found.bias / scale])
        np.testing.assert_allclose(matrix @ weights.T, fit, rtol=0, atol=1e-10)
        np.testing.assert_allclose(
            found.loss / scale / scale, np.mean((fit - sides) ** 2), rtol=1e-9, atol=1e-20
        )


def test_a_penalty_is_in_the_units_of_the_data():
    rng = np.random.default_rng(7)
    image, target = rng.random((1, 20, 20)), rng.random((1, 19, 19))
    plain = solve_kernels(image, target, (2, 2), l2=0.1, bias=True)
    for scale in (2.0**-500, 2.0**500):
        found = solve_kernels(
            image * scale, target * scale, (2, 2), l2=0.1 * scale * scale, bias=True
        )
        np.testing.assert_allclose(found.kernels, plain.kernels, rtol=1e-12)
        np.testing.assert_allclose(found.bias, plain.bias * scale, rtol=1e-12)
    tiny = solve_kernels(image * 2.0**-700, target, (2, 2), l2=0.1, bias=True)
    np.testing.assert_allclose(tiny.kernels * 2.0**-700, 0, atol=1e-240)
    np.testing.assert_allclose(tiny.bias, target.mean())


def test_statistics_warn_of_squares_that_vanish():
    statistics = convext.PatchStatistics(2, 1, (2, 2))
    image = np.random.default_rng(0).random((2, 9, 9))
    image[1] *= 1e-160
    with pytest.warns(RuntimeWarning, match=r"values of input_data are as small as 9.*e-161"):
        statistics.update(image, np.ones((1, 8, 8)))
    with pytest.warns(RuntimeWarning, match="values of target_output"):
        statistics.update(np.ones((2, 9, 9)), np.full((1, 8, 8), 1e-200))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        statistics.update(np.zeros((2, 9, 9)), np.zeros((1, 8, 8)))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_pixels_that_no_counted_window_sees_may_be_anything(options):
    images, targets, kernels = exact_data(**options)
    rng = np.random.default_rng(8)
    mask = rng.random((len(targets), 1, *targets.shape[2:])) < 0.7
    hidden = rng.random((len(images), 1, *images.shape[2:])) < 0.02
    taps = np.ones((1, 1, 3, 2))
    mask &= reference.conv2d(hidden.astype(float), taps, **options) == 0
    images = np.where(hidden, rng.choice([np.nan, np.inf, -3.4e38], hidden.shape), images)
    solution = solve_kernels(images, targets, (3, 2), mask=mask, **options)
    np.testing.assert_allclose(solution.kernels, kernels, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"stride": 3}, {"stride": (1, 4)}, {"dilation": (4, 2)}], ids=str
)
@pytest.mark.parametrize("shape", [(4, 2, 10, 24), (1, 1, 10, 10)])  # the last: few equations
@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e30])
def test_pixels_between_the_windows_may_be_anything(value, shape, options):
    images, targets, kernels = exact_data(shape=shape, **options)
    # Those that have no share in the sum of what the windows cover.
    ones = np.ones((1, shape[1], 3, 2))
    covered = reference.conv2d_input_grad(
        np.ones((len(targets), 1, *targets.shape[2:])), ones, shape, **options
    )
    images = np.where(covered == 0, value, images)
    assert (covered == 0).any()
    for mask in (None, np.ones(targets.shape, bool)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", np.exceptions.RankWarning)
            solution = solve_kernels(images, targets, (3, 2), mask=mask, **options)
        fit = reference.conv2d(np.where(covered == 0, 0, images), solution.kernels, **options)
        np.testing.assert_allclose(fit.astype(float), targets, atol=1e-12)
        assert solution.loss < 1e-24
        statistics = convext.PatchStatistics(shape[1], 3, (3, 2), **options)
        statistics.update(images, targets, mask)
        np.testing.assert_allclose(statistics.loss(kernels), 0, atol=1e-14)
