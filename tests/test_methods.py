"""Trainings that take their losses from sums over pixels, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from test_patch_products import plain_products
from test_training import plain_training, train

import convext
from convext.ops.shapes import resolve
from convext.solve import blocks, products
from convext.train.methods import choose_method, samples_of_unit

TEXTBOOK = (100, 3, 28, 28), (2, 3, 2, 2), (27, 27)

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
    return inputs, output, kernels


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("unit", [1, 3, 7])
@pytest.mark.parametrize("elements", [1 << 21, 2000, 1])
def test_products_of_units_are_those_of_their_samples(options, unit, elements, monkeypatch):
    monkeypatch.setattr(blocks, "MAX_ELEMENTS", elements)
    monkeypatch.setattr(products, "MAX_ELEMENTS", elements)
    inputs, _, kernels = data(**options)
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
    resolved = resolve(inputs.shape, kernels.shape, **defaults)
    found = products.products_of_units(inputs, (3, 2), resolved, unit, 1)
    margins = reference.resolve_padding(
        options.get("padding", 0), inputs.shape[2:], (3, 2), options.get("stride", 1),
        options.get("dilation", 1),
    )  # fmt: skip
    padded = np.pad(inputs, ((0, 0), (0, 0), *margins))
    expected, _ = plain_products(
        padded, (3, 2), options.get("stride", 1), options.get("dilation", 1)
    )
    expected = np.add.reduceat(expected, np.arange(0, 7, unit))
    np.testing.assert_allclose(found, expected.astype(float), rtol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_a_training_from_statistics_agrees_with_plain_loops(batch_size, options, isa):
    inputs, output, start = data(**options)
    targets = np.random.default_rng(6).random(output.shape)
    kernels, history = train(
        inputs, targets, 3, (3, 2), 0.05, 25, kernels=start, batch_size=batch_size,
        method="statistics", **options,
    )  # fmt: skip
    expected, losses = plain_training(inputs, targets, start, [0.05] * 25, batch_size, **options)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-12)
    np.testing.assert_allclose(kernels, expected, rtol=1e-11)


def test_a_training_from_statistics_in_float32_agrees_with_plain_loops(isa):
    inputs, output, start = data(np.float32)
    targets = np.random.default_rng(6).random(output.shape).astype(np.float32)
    kernels, history = train(
        inputs, targets, 3, (3, 2), 0.05, 25, kernels=start, method="statistics"
    )
    expected, losses = plain_training(inputs, targets, start, [0.05] * 25)
    assert kernels.dtype == np.float32
    np.testing.assert_allclose(history.loss, losses, rtol=1e-5)
    np.testing.assert_allclose(kernels, expected, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_loss_that_falls_to_nothing_stays_accurate(batch_size):
    inputs, output, kernels = data()
    inputs = inputs - 0.5
    targets = reference.conv2d(inputs, kernels).astype(np.float64)
    start = np.zeros_like(kernels)
    learned, history = train(
        inputs, targets, 3, (3, 2), 8.0, 300, kernels=start, batch_size=batch_size,
        method="statistics",
    )  # fmt: skip
    _, losses = plain_training(inputs, targets, start, [8.0] * 300, batch_size)
    assert losses[80] < 1e-6 * losses[0]
    assert losses[-1] < 1e-24
    assert output.shape == targets.shape
    kept = np.array(losses) > 1e-20
    np.testing.assert_allclose(np.array(history.loss)[kept], np.array(losses)[kept], rtol=1e-5)
    assert history.loss[-1] < 1e-24
    np.testing.assert_allclose(learned, kernels, rtol=1e-11)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_training_from_statistics_has_the_same_bits_for_any_number_of_threads(shuffle):
    rng = np.random.default_rng(7)
    inputs, targets = rng.random((6, 3, 90, 80)), rng.random((6, 4, 90, 80))
    results = [
        train(
            inputs, targets, 4, (3, 3), 0.05, 20,
            seed=1, batch_size=2, padding=1, shuffle=shuffle, num_threads=threads,
            method="statistics",
        )
        for threads in (1, 2, 5)
    ]  # fmt: skip
    for kernels, history in results[1:]:
        assert kernels.tobytes() == results[0][0].tobytes()
        assert history.loss == results[0][1].loss


@pytest.mark.parametrize("batch_size", [1, 3, 7])
@pytest.mark.parametrize("shuffle", [False, True])
def test_both_methods_give_the_same_losses(batch_size, shuffle):
    inputs, output, start = data()
    options = {"kernels": 0 * start, "batch_size": batch_size, "shuffle": shuffle, "seed": 3}
    direct, first = train(inputs, output, 3, (3, 2), 0.05, 40, method="direct", **options)
    other, second = train(inputs, output, 3, (3, 2), 0.05, 40, method="statistics", **options)
    assert set(first.method) == {"direct"}
    assert set(second.method) == {"statistics"}
    np.testing.assert_allclose(second.loss, first.loss, rtol=1e-12)
    np.testing.assert_allclose(other, direct, rtol=1e-11)
    assert other.tobytes() != direct.tobytes()  # or one of them was not what it says


def test_the_textbook_run_has_the_same_losses_by_both_methods():
    rng = np.random.default_rng(0)
    inputs, targets = rng.random(TEXTBOOK[0]), rng.random((100, 2, 27, 27))
    start = rng.random(TEXTBOOK[1])
    losses = {}
    for method in ("direct", "statistics", "auto"):
        _, history = train(inputs, targets, 2, (2, 2), 0.1, 100, kernels=start, method=method)
        losses[method] = history.loss
        assert history.method[-1] == ("direct" if method == "direct" else "statistics")
    np.testing.assert_allclose(losses["statistics"], losses["direct"], rtol=1e-12)
    assert losses["auto"] == losses["statistics"]


@pytest.mark.parametrize("method", ["direct", "statistics"])
def test_a_longer_training_begins_with_the_same_bits(method):
    inputs, output, start = data()
    options = {"kernels": 0 * start, "method": method}
    _, short = train(inputs, output, 3, (3, 2), 0.05, 12, **options)
    _, long = train(inputs, output, 3, (3, 2), 0.05, 30, **options)
    assert long.loss[:12] == short.loss


def test_divergence_is_noticed_in_a_training_from_statistics():
    inputs, output, start = data()

    def rate(epoch):
        return 0.05 if epoch < 15 else 1e3

    with pytest.raises(convext.DivergenceError) as caught:
        train(inputs, output, 3, (3, 2), rate, 40, kernels=0 * start, method="statistics")
    assert caught.value.epoch >= 16
    assert np.isfinite(caught.value.kernels).all()
    assert caught.value.stable_learning_rate == convext.suggest_learning_rate(
        inputs, (3, 2), num_kernels=3
    )


@pytest.mark.parametrize(
    ("shapes", "unit", "num_epochs", "expected"),
    [
        (TEXTBOOK, 1, 100, "statistics"),
        (TEXTBOOK, 1, 3, "direct"),
        (TEXTBOOK, 100, 100, "statistics"),
        # more products than pixels
        (((10, 64, 56, 56), (64, 64, 3, 3), (54, 54)), 1, 1000, "direct"),
        (((10, 3, 8, 8), (2, 3, 3, 3), (6, 6)), 1, 1000, "direct"),
        # too much memory for all samples, not for batches
        (((200_000, 3, 28, 28), (2, 3, 2, 2), (27, 27)), 1, 1000, "direct"),
        (((200_000, 3, 28, 28), (2, 3, 2, 2), (27, 27)), 100, 1000, "statistics"),
    ],
)
def test_auto_takes_the_method_that_promises_to_be_faster(shapes, unit, num_epochs, expected):
    assert choose_method("auto", *shapes, unit=unit, num_epochs=num_epochs) == expected
    for method in ("direct", "statistics"):
        assert choose_method(method, *shapes, unit=unit, num_epochs=num_epochs) == method


def test_a_unit_is_a_batch_where_that_is_always_of_the_same_samples():
    assert samples_of_unit(10, 3, shuffle=False) == 3
    assert samples_of_unit(10, 3, shuffle=True) == 1
    assert samples_of_unit(10, 12, shuffle=True) == 10


@pytest.mark.parametrize(
    ("method", "error"), [("fast", ValueError), (None, TypeError), (1, TypeError)]
)
def test_an_unknown_method_is_an_error(method, error):
    inputs, output, _ = data()
    with pytest.raises(error, match="method must be 'auto', 'direct' or 'statistics', got"):
        train(inputs, output, 3, (3, 2), 0.05, 4, method=method)
