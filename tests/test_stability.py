"""suggest_learning_rate, against eigenvalues of the patch matrix and against training itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_training import hessian_eigenvalue, small_data, train

import convext
from convext import stability, suggest_learning_rate


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
@pytest.mark.parametrize("num_kernels", [1, 3])
@pytest.mark.parametrize("max_taps", [512, 1])  # from the sums, and by power iteration
def test_the_rate_is_the_smallest_limit_of_all_batches(
    batch_size, num_kernels, max_taps, monkeypatch
):
    monkeypatch.setattr(stability, "MAX_TAPS", max_taps)
    inputs, _, _ = small_data()
    rate = suggest_learning_rate(inputs, (3, 2), batch_size, num_kernels=num_kernels)
    batches = [inputs[i : i + batch_size] for i in range(0, len(inputs), batch_size)]
    expected = 2 / max(hessian_eigenvalue(batch, num_kernels, (3, 2)) for batch in batches)
    assert rate == pytest.approx(expected, rel=1e-12 if max_taps > 1 else 2e-3)
    assert rate <= expected * (1 + 1e-12)


def test_many_batches_are_looked_at_here_and_there():
    inputs = np.random.default_rng(0).random((1000, 1, 6, 7))
    expected = 2 / max(hessian_eigenvalue(image[np.newaxis], 1, (3, 3)) for image in inputs)
    assert expected <= suggest_learning_rate(inputs, (3, 3)) < 1.3 * expected


def test_training_is_stable_below_and_diverges_above():
    inputs, targets, start = small_data()
    rate = suggest_learning_rate(inputs, (3, 2), 7, num_kernels=3)
    _, history = train(inputs, targets, 3, (3, 2), 0.99 * rate, 2000, kernels=start, batch_size=7)
    assert history.loss[-1] < history.loss[0]
    with pytest.raises(convext.DivergenceError) as caught:
        train(inputs, targets, 3, (3, 2), 1.03 * rate, 3000, kernels=start, batch_size=7)
    assert caught.value.stable_learning_rate == rate


def test_padding_stride_and_dilation_count():
    inputs, _, _ = small_data()
    options = {"stride": 2, "padding": 1, "dilation": (1, 2)}
    statistics = convext.PatchStatistics(inputs.shape[1], 1, (3, 2), **options)
    output = convext.conv2d(inputs, np.zeros((1, inputs.shape[1], 3, 2)), **options)
    statistics.update(inputs, output)
    rate = suggest_learning_rate(inputs, (3, 2), len(inputs), **options)
    assert rate == pytest.approx(statistics.max_learning_rate(), rel=1e-12)


def test_any_rate_is_stable_on_zeros():
    assert suggest_learning_rate(np.zeros((1, 5, 5)), (2, 2)) == math.inf
    assert suggest_learning_rate(np.zeros((64, 5, 5)), (3, 3)) == math.inf


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.zeros((5, 5)), (2, 2)), {}, ValueError, "input_data must have the shape"),
        ((np.full((1, 5, 5), np.nan), (2, 2)), {}, ValueError, "input_data contains 25 values"),
        ((np.zeros((1, 5, 5)), (6, 2)), {}, ValueError, "do not fit input_data"),
        ((np.zeros((1, 5, 5)), 2), {}, TypeError, "kernel_shape must be"),
        ((np.zeros((1, 5, 5)), (2, 2), 0), {}, ValueError, "batch_size must be at least 1"),
        ((np.zeros((1, 5, 5)), (2, 2)), {"num_kernels": 0}, ValueError, "num_kernels must be"),
    ],
)
def test_bad_input_is_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        suggest_learning_rate(*arguments, **options)
