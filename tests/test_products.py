"""Long trainings, which compute losses from sums over pixels, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
from test_training import plain_training, train

import convext
from convext.products import first_epoch_with_products, patch_products
from convext.shapes import resolve

OPTIONS = [
    {},
    {"stride": 2},
    {"stride": (1, 3), "padding": 2},
    {"dilation": (2, 3), "padding": ((1, 0), (2, 3))},
]


def data(dtype=np.float64, **options):
    """Seven samples for three 3x2 kernels, large enough for sums over pixels to pay."""
    rng = np.random.default_rng(5)
    inputs = rng.random((7, 2, 19, 17)).astype(dtype)
    kernels = rng.random((3, 2, 3, 2)).astype(dtype)
    output = reference.conv2d(inputs, kernels, **options).astype(dtype)
    assert first_epoch_with_products(inputs.shape, kernels.shape, output.shape[2:]) == 10
    return inputs, output, kernels


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_products_are_those_of_every_two_pixels_of_a_patch(options):
    inputs, output, kernels = data(**options)
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
    resolved = resolve(inputs.shape, kernels.shape, **defaults)
    products = patch_products(inputs, kernels.shape, resolved, 1)
    alone = np.eye(12).reshape(12, 2, 3, 2)
    patches = reference.conv2d(inputs, alone, **options).reshape(7, 12, -1)
    expected = (patches @ patches.transpose(0, 2, 1)).astype(np.float64)
    assert output.shape[0] == products.shape[0]
    np.testing.assert_allclose(products, expected, rtol=1e-13)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_a_long_training_agrees_with_plain_loops(batch_size, options, isa):
    inputs, output, start = data(**options)
    targets = np.random.default_rng(6).random(output.shape)
    kernels, history = train(
        inputs, targets, 3, (3, 2), 0.05, 25, kernels=start, batch_size=batch_size, **options
    )
    expected, losses = plain_training(inputs, targets, start, [0.05] * 25, batch_size, **options)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-12)
    np.testing.assert_allclose(kernels, expected, rtol=1e-11)


def test_a_long_training_in_float32_agrees_with_plain_loops(isa):
    inputs, output, start = data(np.float32)
    targets = np.random.default_rng(6).random(output.shape).astype(np.float32)
    kernels, history = train(inputs, targets, 3, (3, 2), 0.05, 25, kernels=start)
    expected, losses = plain_training(inputs, targets, start, [0.05] * 25)
    assert kernels.dtype == np.float32
    np.testing.assert_allclose(history.loss, losses, rtol=1e-5)
    np.testing.assert_allclose(kernels, expected, rtol=1e-4)


def test_a_loss_that_falls_to_nothing_stays_accurate():
    inputs, output, kernels = data()
    inputs = inputs - 0.5
    targets = reference.conv2d(inputs, kernels).astype(np.float64)
    start = np.zeros_like(kernels)
    learned, history = train(inputs, targets, 3, (3, 2), 8.0, 100, kernels=start)
    _, losses = plain_training(inputs, targets, start, [8.0] * 100)
    assert losses[40] < 1e-6 * losses[0]
    assert losses[-1] < 1e-24
    assert output.shape == targets.shape
    kept = np.array(losses) > 1e-20
    np.testing.assert_allclose(np.array(history.loss)[kept], np.array(losses)[kept], rtol=1e-5)
    assert history.loss[-1] < 1e-24
    np.testing.assert_allclose(learned, kernels, rtol=1e-11)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_long_training_has_the_same_bits_for_any_number_of_threads(shuffle):
    rng = np.random.default_rng(7)
    inputs, targets = rng.random((6, 3, 90, 80)), rng.random((6, 4, 90, 80))
    assert first_epoch_with_products(inputs.shape, (4, 3, 3, 3), (90, 80)) < 20
    results = [
        train(
            inputs, targets, 4, (3, 3), 0.05, 20,
            seed=1, batch_size=2, padding=1, shuffle=shuffle, num_threads=threads,
        )
        for threads in (1, 2, 5)
    ]  # fmt: skip
    for kernels, history in results[1:]:
        assert kernels.tobytes() == results[0][0].tobytes()
        assert history.loss == results[0][1].loss


def test_a_longer_training_begins_with_the_same_bits():
    inputs, output, start = data()
    _, short = train(inputs, output, 3, (3, 2), 0.05, 12, kernels=0 * start)
    _, long = train(inputs, output, 3, (3, 2), 0.05, 30, kernels=0 * start)
    assert long.loss[:12] == short.loss


def test_divergence_is_noticed_in_a_long_training():
    inputs, output, start = data()

    def rate(epoch):
        return 0.05 if epoch < 15 else 1e3

    with pytest.raises(convext.DivergenceError) as caught:
        train(inputs, output, 3, (3, 2), rate, 40, kernels=0 * start)
    assert caught.value.epoch >= 16
    assert np.isfinite(caught.value.kernels).all()


@pytest.mark.parametrize(
    ("inputs", "kernels", "output"),
    [
        ((10, 64, 56, 56), (64, 64, 3, 3), (54, 54)),  # more products than pixels
        ((10, 3, 8, 8), (2, 3, 3, 3), (6, 6)),
        ((100_000, 3, 28, 28), (2, 3, 2, 2), (27, 27)),  # too much memory for all samples
        ((1, 1, 9000, 9000), (2, 1, 5, 5), (8996, 8996)),  # and for one
    ],
)
def test_products_larger_than_the_data_or_than_64_mib_are_not_used(inputs, kernels, output):
    assert math.isinf(first_epoch_with_products(inputs, kernels, output))
