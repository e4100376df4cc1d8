"""Trainings beside those of PyTorch and of Keras: same start weights, same order, same results.

PyTorch and TensorFlow are in the bench extra; without them these tests are skipped. TensorFlow runs
in a process of its own, and may live in an environment of its own: CONVEXT_TENSORFLOW_PYTHON names
the interpreter there.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from convext import SGD, Adam, Conv2D, Sequential

OPTIMIZERS = {
    "sgd": ("SGD", {"learning_rate": 0.1}),
    "momentum": ("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
    "nesterov": ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    "adam": ("Adam", {"learning_rate": 0.001}),
    "clipped": ("Adam", {"learning_rate": 0.001, "clipnorm": 0.01}),
}

# The textbook's Keras model, and a network of three layers.
TEXTBOOK = [{"filters": 2, "kernel_size": (2, 2), "activation": "relu"}]
NETWORK = [
    {"filters": 8, "kernel_size": 5, "activation": "relu"},
    {"filters": 4, "kernel_size": 1, "activation": "relu"},
    {"filters": 1, "kernel_size": 3},
]


def textbook_data():
    rng = np.random.RandomState(0)
    return rng.rand(100, 3, 28, 28), rng.rand(100, 2, 27, 27)


def network_data():
    rng = np.random.RandomState(0)
    return rng.rand(50, 1, 20, 20), rng.rand(50, 1, 14, 14)


def train(layers, optimizer, x, y, dtype, batch_size, loss="mse", epochs=5):
    """Return the weights before, the losses, and the weights after."""
    model = Sequential([Conv2D(**layer) for layer in layers], dtype=dtype, seed=0)
    model.build(x.shape[1])
    before = model.get_weights()
    name, options = optimizer
    model.compile({"SGD": SGD, "Adam": Adam}[name](**options), loss)
    history = model.fit(x, y, batch_size, epochs, shuffle=False, verbose=0)
    return before, history.history["loss"], model


def train_with_torch(layers, optimizer, x, y, batch_size, before, epochs=5):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: see the bench extra")
    weights = [torch.tensor(w, requires_grad=True) for w in before]
    name, options = optimizer
    options = dict(options)
    rate, clipnorm = options.pop("learning_rate"), options.pop("clipnorm", None)
    made = getattr(torch.optim, name)(weights, rate, **options)
    inputs, targets = torch.tensor(x), torch.tensor(y)
    losses, steps = [], 0
    for _ in range(epochs):
        total = 0.0
        for first in range(0, len(x), batch_size):
            values = inputs[first : first + batch_size]
            for i, layer in enumerate(layers):
                values = torch.nn.functional.conv2d(values, weights[2 * i], weights[2 * i + 1])
                values = torch.relu(values) if layer.get("activation") == "relu" else values
            loss = torch.mean((values - targets[first : first + batch_size]) ** 2)
            made.zero_grad()
            loss.backward()
            steps += 1
            if name == "Adam":
                # Keras adds epsilon before the correction for the start at zero.
                made.param_groups[0]["eps"] = 1e-7 / math.sqrt(1 - 0.999**steps)
            if clipnorm is not None:
                for weight in weights:
                    weight.grad *= min(1.0, clipnorm / float(torch.linalg.vector_norm(weight.grad)))
            made.step()
            total += loss.item() * len(values)
        losses.append(total / len(x))
    return losses, [weight.detach().numpy() for weight in weights]


@cache
def tensorflow_python():
    """Return an interpreter that has TensorFlow, or None."""
    python = os.environ.get("CONVEXT_TENSORFLOW_PYTHON", sys.executable)
    command = [python, "-c", "import importlib.util as u; assert u.find_spec('tensorflow')"]
    found = subprocess.run(command, check=False, capture_output=True).returncode == 0
    return python if found else None


def train_with_keras(folder, layers, optimizer, x, y, batch_size, before, loss="mse"):
    python = tensorflow_python()
    if python is None:
        pytest.skip("TensorFlow is not installed: see the bench extra and CONTRIBUTING.md")
    name, options = optimizer
    task = {
        "layers": layers,
        "optimizer": name,
        "options": options,
        "batch_size": batch_size,
        "epochs": 5,
        "loss": loss,
    }
    files = [folder / name for name in ("task.json", "data.npz", "result.npz")]
    files[0].write_text(json.dumps(task))
    np.savez(files[1], x=x, y=y, **{f"weight_{i}": w for i, w in enumerate(before)})
    script = Path(__file__).with_name("keras_training.py")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONPATH", None)
    subprocess.run([python, script, *files], check=True, capture_output=True, env=environment)
    return np.load(files[2])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_network_is_trained_as_by_torch(optimizer):
    x, y = network_data()
    made = OPTIMIZERS[optimizer]
    before, losses, model = train(NETWORK, made, x, y, "float64", 16)
    expected, weights = train_with_torch(NETWORK, made, x, y, 16, before)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-10)
    for a, b in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def test_the_textbook_model_is_trained_as_by_torch():
    x, y = textbook_data()
    before, losses, model = train(TEXTBOOK, OPTIMIZERS["adam"], x, y, "float64", 1)
    expected, weights = train_with_torch(TEXTBOOK, OPTIMIZERS["adam"], x, y, 1, before)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-10)
    for a, b in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("loss", ["mse", "mae"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_network_is_trained_as_by_keras(optimizer, loss, tmp_path):
    x, y = network_data()
    made = OPTIMIZERS[optimizer]
    before, losses, model = train(NETWORK, made, x, y, "float32", 16, loss)
    result = train_with_keras(tmp_path, NETWORK, made, x, y, 16, before, loss)
    check_against_keras(model, losses, result)


@pytest.mark.parametrize(
    "layers",
    [
        [{**layer, "activation": activation, "padding": "same"} for layer in NETWORK]
        for activation in ("linear", "leaky_relu", "sigmoid", "tanh")
    ]
    + [
        [
            {"filters": 4, "kernel_size": (4, 3), "padding": "same", "strides": 2},
            {"filters": 3, "kernel_size": 3, "dilation_rate": 2, "use_bias": False},
        ]
    ],
    ids=lambda layers: layers[0].get("activation", "options"),
)
def test_layers_are_those_of_keras(layers, tmp_path):
    x, _ = network_data()
    shape = Sequential([Conv2D(**layer) for layer in layers], seed=0).predict(x).shape
    y = np.random.RandomState(1).rand(*shape)
    made = OPTIMIZERS["adam"]
    before, losses, model = train(layers, made, x, y, "float32", 16)
    result = train_with_keras(tmp_path, layers, made, x, y, 16, before)
    check_against_keras(model, losses, result)
    np.testing.assert_allclose(model.predict(x), result["predicted"], rtol=0, atol=1e-5)


def test_the_textbook_model_is_trained_as_by_keras(tmp_path):
    x, y = textbook_data()
    before, losses, model = train(TEXTBOOK, OPTIMIZERS["adam"], x, y, "float32", 1)
    result = train_with_keras(tmp_path, TEXTBOOK, OPTIMIZERS["adam"], x, y, 1, before)
    check_against_keras(model, losses, result)


def check_against_keras(model, losses, result):
    np.testing.assert_allclose(losses, result["loss"], rtol=0, atol=1e-5)
    for i, weights in enumerate(model.get_weights()):
        np.testing.assert_allclose(weights, result[f"weight_{i}"], rtol=0, atol=1e-5)
