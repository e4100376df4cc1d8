"""Names that Python knows and numbers that the compiled code knows: each in both, or an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import numpy as np
import plain_network
import pytest

import convext
from convext.gradient import _differentiation
from convext.nn import layers, learning, optimizers
from convext.ops import algorithms
from convext.train import _layers, _optimizers, _steps, _training
from convext.ways import _convolution

SOURCES = Path(__file__).parents[1] / "src"


def enumerators(file, first):
    """The names of the enumeration that begins with `first`, and their numbers."""
    text = (SOURCES / file).read_text("utf-8")
    text = re.sub(r"/\*.*?\*/|#[^\n]*", "", text, flags=re.DOTALL)
    body = text[re.search(rf"\b{first}\b", text).start() :]
    body = re.split(r"}|\n\s*\n", body)[0]
    found = re.findall(r"(\w+)(?:\s*=\s*(\d+))?", body)
    numbers = {name: int(number) if number else i for i, (name, number) in enumerate(found)}
    assert sorted(numbers.values()) == list(range(len(numbers)))
    return numbers


@pytest.mark.parametrize(
    ("table", "file", "first", "names"),
    [
        (
            optimizers.RULES,
            "convext/train/_optimizers.pxd",
            "SGD",
            tuple(optimizers._OPTIMIZERS),
        ),
    ],
)
def test_both_sides_have_the_same_names_and_numbers(table, file, first, names):
    expected = {name.lower(): number for name, number in enumerators(file, first).items()}
    assert table == expected
    assert names == tuple(table)


def test_the_algorithms_have_the_names_of_the_lists_of_ways():
    for numbers, names in (
        (algorithms.NUMBERS, _convolution.NAMES),
        (algorithms.NUMBERS_OF_KERNEL_GRADIENT, _differentiation.NAMES),
    ):
        assert tuple(numbers) == ("auto", *names)
        assert list(numbers.values()) == list(range(len(numbers)))


def test_the_activations_have_the_names_of_the_compiled_code():
    table = layers.ACTIVATIONS
    assert tuple(table) == get_args(layers.Activation)
    assert list(table.values()) == list(range(len(table)))
    assert table["linear"] == 0
    assert set(table) == set(plain_network.ACTIVATIONS)


@pytest.mark.parametrize("name", get_args(layers.Activation))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_activation_is_the_function_of_its_name(name, dtype, isa):
    number, tolerance = layers.ACTIVATIONS[name], 4 * np.finfo(dtype).eps
    rng = np.random.default_rng(0)
    for size in (1, 3, 8, 16, 21, 64, 150):
        values, gradient = rng.normal(0, 2, (2, 4, 3, 1, size)).astype(dtype)
        values[0, 0], bias = 0, np.array([0, 1, -0.5], dtype)
        expected = plain_network.ACTIVATIONS[name](values + bias[:, np.newaxis, np.newaxis])
        _layers.activate(values, bias, number, 1)
        np.testing.assert_allclose(values, expected, tolerance, tolerance)
        expected = gradient * plain_network.SLOPES[name](values)
        sums = np.empty(3, dtype)
        _layers.differentiate(gradient, values, sums, number, 1)
        np.testing.assert_allclose(gradient, expected, tolerance, tolerance)
        np.testing.assert_allclose(sums, expected.sum((0, 2, 3)), tolerance, 100 * tolerance)


def test_losses_and_ways_of_clipping_have_the_same_numbers():
    short = {name: number for name, number in learning.LOSSES.items() if "_" not in name}
    long = {name: number for name, number in learning.LOSSES.items() if "_" in name}
    numbers = enumerators("convext/train/_steps.pyx", "MEAN_SQUARED_ERROR")
    assert long == {name.lower(): number for name, number in numbers.items()}
    assert list(short.items()) == [("mse", 0), ("mae", 1)]
    assert set(get_args(learning.Loss)) == set(learning.LOSSES)
    numbers = enumerators("convext/train/_optimizers.pxd", "NO_CLIPPING")
    expected = {"": "NO_CLIPPING", "clipvalue": "BY_VALUE", "clipnorm": "BY_NORM"}
    expected["global_clipnorm"] = "BY_GLOBAL_NORM"
    assert {name: numbers[other] for name, other in expected.items()} == optimizers.CLIPPING


IMAGES = np.ones((1, 1, 4, 4))
OPTIONS = (1, 1), (0, 0), (1, 1), 1


def operations(number):
    kernels, out = np.ones((1, 1, 3, 3)), np.empty((1, 1, 2, 2))
    yield _convolution.conv2d, (IMAGES, kernels, None, out, OPTIONS, 1, None, number)
    yield _convolution.keep_kernels, (kernels, IMAGES.shape, out.shape, OPTIONS, {}, number)
    yield _convolution.conv2d_input_grad, (out, kernels, IMAGES.copy(), OPTIONS, 1, number)
    yield _differentiation.conv2d_kernel_grad, (IMAGES, out, kernels, OPTIONS, 1, number)


@pytest.mark.parametrize("number", [-1, 7, 2**31 - 1, -(2**31)])
def test_an_unknown_algorithm_fails(number):
    for operation, arguments in operations(number):
        with pytest.raises(ValueError, match=f"algorithm {number} is unknown"):
            operation(*arguments)


def test_the_kernel_gradient_knows_no_fourier_transforms():
    operation, arguments = list(operations(algorithms.NUMBERS["fft"]))[-1]
    with pytest.raises(ValueError, match="algorithm 4 is unknown"):
        operation(*arguments)


@pytest.mark.parametrize("number", [-1, len(layers.ACTIVATIONS), 2**31 - 1, -(2**31)])
def test_an_unknown_activation_fails(number):
    with pytest.raises(ValueError, match=f"activation {number} is unknown"):
        _layers.activate(IMAGES.copy(), None, number, 1)
    with pytest.raises(ValueError, match=f"activation {number} is unknown"):
        _layers.differentiate(IMAGES.copy(), IMAGES, None, number, 1)
    with pytest.raises(ValueError, match=f"activation {number} is unknown"):
        _steps.Layer(IMAGES, None, 0, (1, 4, 4), (1, 1, 1), OPTIONS, number)
    update = optimizers.SGD().make_update([[4]], np.dtype(np.float64))
    with pytest.raises(ValueError, match=f"activation {number} is unknown"):
        _training.Trainer(
            IMAGES, np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), 1, OPTIONS, 1, update,
            False, number,
        )  # fmt: skip


def test_an_unknown_loss_or_optimizer_fails():
    layer = _steps.Layer(IMAGES, None, 0, (1, 4, 4), (1, 1, 1), OPTIONS, 0)
    arguments = np.array([4]), np.ones(1), None, None
    for number in (-1, 2, 99):
        with pytest.raises(ValueError, match=f"loss {number} is unknown"):
            _steps.Step([layer], 16, 1, number, None, np.dtype(np.float64), 1)
        with pytest.raises(ValueError, match=f"rule {number} is unknown"):
            _optimizers.Update(number, *arguments)
    for number in (-1, 4):
        with pytest.raises(ValueError, match=f"clipping {number} is unknown"):
            _optimizers.Update(0, *arguments, number)


def test_what_is_added_in_python_alone_does_not_run(monkeypatch):
    x, y = np.ones((2, 1, 4, 4)), np.ones((2, 1, 3, 3))
    number = len(layers.ACTIVATIONS)
    monkeypatch.setitem(layers.ACTIVATIONS, "swish", number)
    monkeypatch.setitem(learning.LOSSES, "huber", 2)
    monkeypatch.setitem(algorithms.NUMBERS, "fast", 7)
    model = convext.Sequential([convext.Conv2D(1, 2, activation="swish")])
    model.compile("sgd")
    for use in (lambda: model.predict(x), lambda: model.evaluate(x, y), lambda: model.fit(x, y)):
        with pytest.raises(ValueError, match=f"activation {number} is unknown"):
            use()
    model = convext.Sequential([convext.Conv2D(1, 2)])
    model.compile("sgd", "huber")
    for use in (lambda: model.evaluate(x, y), lambda: model.fit(x, y)):
        with pytest.raises(ValueError, match="loss 2 is unknown"):
            use()
    with pytest.raises(ValueError, match="algorithm 7 is unknown"):
        convext.conv2d(x, np.ones((1, 1, 2, 2)), algorithm="fast")
