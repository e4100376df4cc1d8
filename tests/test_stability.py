"""suggest_learning_rate, against eigenvalues of the patch matrix and against training itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_training import small_data, train

import convext
from convext import suggest_learning_rate
from convext.train import stability


def largest_eigenvalue(batch, kernel_shape, num_kernels=1):
    """The largest eigenvalue of the loss's Hessian, from the matrix of all patches or its dual."""
    windows = np.lib.stride_tricks.sliding_window_view(batch, kernel_shape, axis=(2, 3))
    taps = batch.shape[1] * math.prod(kernel_shape)
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, taps).astype(np.float64)
    size = len(patches) * num_kernels
    gram = patches.T @ patches if taps < len(patches) else patches @ patches.T
    return 2 * np.linalg.eigvalsh(gram)[-1] / size


def limits(inputs, kernel_shape, batch_size, num_kernels=1):
    """The stable rate of each batch that is not zero."""
    batches = (inputs[i : i + batch_size] for i in range(0, len(inputs), batch_size))
    found = [largest_eigenvalue(batch, kernel_shape, num_kernels) for batch in batches]
    return [2 / eigenvalue for eigenvalue in found if eigenvalue > 0]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
@pytest.mark.parametrize("num_kernels", [1, 3])
@pytest.mark.parametrize("max_taps", [512, 1])  # from the sums, and by Lanczos's method
def test_the_rate_is_the_smallest_limit_of_all_batches(
    batch_size, num_kernels, max_taps, monkeypatch
):
    monkeypatch.setattr(stability, "MAX_TAPS", max_taps)
    inputs, _, _ = small_data()
    rate = suggest_learning_rate(inputs, (3, 2), batch_size, num_kernels=num_kernels)
    expected = min(limits(inputs, (3, 2), batch_size, num_kernels))
    assert rate == pytest.approx(expected, rel=1e-12 if max_taps > 1 else 2.1e-2)
    assert rate <= expected * (1 + 1e-12)


def blurred(rng, shape):
    spectrum = np.fft.rfft2(rng.standard_normal(shape))
    down, across = np.fft.fftfreq(shape[2])[:, np.newaxis], np.fft.rfftfreq(shape[3])
    return np.fft.irfft2(spectrum / (0.01 + np.hypot(down, across)) ** 1.5, shape[2:])


# Images of every kind: what makes the largest eigenvalue stand alone, or among others.
IMAGES = {
    "zero mean": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.random(shape),
    "large offset": lambda rng, shape: 1000 + rng.standard_normal(shape),
    "constant": lambda rng, shape: np.full(shape, rng.uniform(-3, 3)),
    "sparse": lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.02),
    "one pixel": lambda rng, shape: np.eye(1, math.prod(shape), 40).reshape(shape),
    "correlated": blurred,
    "equal channels": lambda rng, shape: np.repeat(
        rng.standard_normal((shape[0], 1, *shape[2:])), shape[1], axis=1
    ),
    "different scales": lambda rng, shape: (
        rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 3, (shape[0], 1, 1, 1))
    ),
    "bytes": lambda rng, shape: rng.integers(0, 256, shape, dtype=np.uint8),
}

SHAPES = [
    ((3, 1, 12, 14), (3, 3), 1),
    ((5, 2, 11, 12), (4, 3), 2),
    ((2, 3, 26, 28), (15, 15), 1),  # 675 taps
    ((3, 1, 34, 33), (24, 23), 2),  # 552, more than patches
    ((2, 240, 9, 9), (3, 3), 2),  # 2160
]


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_rate_is_never_above_the_stable_one_and_hardly_below(kind, shape):
    size, kernel_shape, batch_size = shape
    inputs = IMAGES[kind](np.random.default_rng(size[1]), size)
    expected = min(limits(inputs, kernel_shape, batch_size))
    rate = suggest_learning_rate(inputs, kernel_shape, batch_size)
    assert 0.979 * expected <= rate <= expected * (1 + 1e-12)


def test_more_patches_than_taps():
    inputs = np.random.default_rng(0).standard_normal((1, 3, 40, 40))
    (expected,) = limits(inputs, (15, 15), 1)
    assert 0.979 * expected <= suggest_learning_rate(inputs, (15, 15)) <= expected


@pytest.mark.parametrize("max_taps", [512, 1])
@pytest.mark.parametrize("kind", ["zero mean", "uniform", "different scales", "constant"])
def test_of_many_batches_none_is_left_out(kind, max_taps, monkeypatch):
    monkeypatch.setattr(stability, "MAX_TAPS", max_taps)
    inputs = IMAGES[kind](np.random.default_rng(0), (300, 1, 6, 7))
    inputs[250] *= 1.5
    for batch_size in (1, 2, 7):
        expected = min(limits(inputs, (3, 3), batch_size))
        rate = suggest_learning_rate(inputs, (3, 3), batch_size)
        assert 0.979 * expected <= rate <= expected * (1 + 1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7, 9, 10])
def test_no_batch_of_shuffled_samples_has_a_smaller_limit(batch_size):
    rng = np.random.default_rng(batch_size)
    inputs = IMAGES["different scales" if batch_size % 2 else "zero mean"](rng, (10, 2, 6, 5))
    rate = suggest_learning_rate(inputs, (3, 2), batch_size, shuffle=True)
    orders = (rng.permutation(10) for _ in range(200))
    seen = min(min(limits(inputs[order], (3, 2), batch_size)) for order in orders)
    assert rate <= seen * (1 + 1e-12)
    # no lower than two bounds that can be had without looking at batches
    smallest = 10 % batch_size or batch_size
    whole = 2 / largest_eigenvalue(inputs, (3, 2)) * smallest / 10
    assert rate == pytest.approx(max(min(limits(inputs, (3, 2), 1)), whole), rel=1e-12)


def test_no_shuffled_training_diverges_below_the_rate():
    rng = np.random.default_rng(5)
    for seed in range(10):
        inputs = rng.standard_normal((12, 1, 5, 5)) * rng.uniform(0.5, 2, (12, 1, 1, 1))
        targets = rng.standard_normal((12, 1, 3, 3))
        options = {"batch_size": 2, "shuffle": True}
        rate = suggest_learning_rate(inputs, (3, 3), **options)
        start = np.zeros((1, 1, 3, 3))
        options |= {"kernels": start, "seed": seed}
        train(inputs, targets, 1, (3, 3), 0.99 * rate, 400, **options)
        with pytest.raises(convext.DivergenceError) as caught:
            train(inputs, targets, 1, (3, 3), 20 * rate, 400, **options)
        assert caught.value.stable_learning_rate == rate


def test_training_is_stable_below_and_diverges_above():
    inputs, targets, start = small_data()
    rate = suggest_learning_rate(inputs, (3, 2), 7, num_kernels=3)
    _, history = train(inputs, targets, 3, (3, 2), 0.99 * rate, 2000, kernels=start, batch_size=7)
    assert history.loss[-1] < history.loss[0]
    with pytest.raises(convext.DivergenceError) as caught:
        train(inputs, targets, 3, (3, 2), 1.03 * rate, 3000, kernels=start, batch_size=7)
    assert caught.value.stable_learning_rate == rate


def test_padding_stride_and_dilation_count(monkeypatch):
    inputs, _, _ = small_data()
    options = {"stride": 2, "padding": 1, "dilation": (1, 2)}
    statistics = convext.PatchStatistics(inputs.shape[1], 1, (3, 2), **options)
    output = convext.conv2d(inputs, np.zeros((1, inputs.shape[1], 3, 2)), **options)
    statistics.update(inputs, output)
    rate = suggest_learning_rate(inputs, (3, 2), len(inputs), **options)
    assert rate == pytest.approx(statistics.max_learning_rate(), rel=1e-12)
    monkeypatch.setattr(stability, "MAX_TAPS", 1)
    bound = suggest_learning_rate(inputs, (3, 2), len(inputs), **options)
    assert 0.979 * rate <= bound <= rate * (1 + 1e-12)


def test_no_rate_is_stable_where_squares_overflow():
    assert suggest_learning_rate(np.full((1, 5, 5), 1e200), (2, 2)) == 0


def test_any_rate_is_stable_on_zeros():
    assert suggest_learning_rate(np.zeros((1, 5, 5)), (2, 2)) == math.inf
    assert suggest_learning_rate(np.zeros((64, 5, 5)), (3, 3)) == math.inf


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.zeros((5, 5)), (2, 2)), {}, ValueError, "input_data must have the shape"),
        ((np.full((1, 5, 5), np.nan), (2, 2)), {}, ValueError, "input_data contains 25 values"),
        ((np.zeros((1, 5, 5)), (6, 2)), {}, ValueError, "do not fit input_data"),
        ((np.zeros((1, 5, 5)), "2"), {}, TypeError, "kernel_shape must be"),
        ((np.zeros((1, 5, 5)), (2, 2), 0), {}, ValueError, "batch_size must be at least 1"),
        ((np.zeros((1, 5, 5)), (2, 2)), {"num_kernels": 0}, ValueError, "num_kernels must be"),
    ],
)
def test_bad_input_is_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        suggest_learning_rate(*arguments, **options)
