"""Networks of convolutions and their training written from the definitions, in NumPy."""

from __future__ import annotations

import numpy as np
import reference

ACTIVATIONS = {
    "linear": lambda z: z,
    "relu": lambda z: np.where(z > 0, z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, z / 5),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
}

LOSSES = {"mse": lambda d, w=1.0: np.mean(w * d**2), "mae": lambda d, w=1.0: np.mean(w * np.abs(d))}


def predict(layers, weights, x, residual=False):
    """Return the output of `layers`: dictionaries of an activation and the options of conv2d."""
    values = np.asarray(x, reference.Wide)
    weights = list(weights)
    for layer in layers:
        options = {k: v for k, v in layer.items() if k not in ("activation", "use_bias")}
        kernels = weights.pop(0)
        bias = weights.pop(0) if layer.get("use_bias", True) else None
        values = reference.conv2d(values, kernels, **options)
        if bias is not None:
            values = values + np.asarray(bias, reference.Wide)[:, np.newaxis, np.newaxis]
        values = ACTIVATIONS[layer["activation"]](values)
    if residual:
        top, left = ((a - b) // 2 for a, b in zip(x.shape[2:], values.shape[2:], strict=True))
        values = values + x[:, :, top : top + values.shape[2], left : left + values.shape[3]]
    return values


SLOPES = {
    "linear": np.ones_like,
    "relu": lambda a: np.where(a > 0, 1.0, 0.0),
    "leaky_relu": lambda a: np.where(a > 0, 1.0, 0.2),
    "sigmoid": lambda a: a * (1 - a),
    "tanh": lambda a: 1 - a**2,
}


def differentiate(layers, weights, x, y, residual=False, sample_weight=1.0):
    """Return the mean squared error and its gradient for each array of weights, by the chain rule.

    The slope of an activation follows from its value. `sample_weight` is (N, 1, 1, 1), or a number.
    """
    values, used = [np.asarray(x, reference.Wide)], []
    for layer in layers:
        used.append(list(weights[sum(map(len, used)) :][: 1 + layer["use_bias"]]))
        values.append(predict([layer], used[-1], values[-1]))
    difference = predict(layers, weights, x, residual) - y
    gradient, gradients_ = 2 * sample_weight * difference / difference.size, []
    for layer, arrays, before, after in reversed(
        list(zip(layers, used, values[:-1], values[1:], strict=True))
    ):
        options = {k: v for k, v in layer.items() if k not in ("activation", "use_bias")}
        gradient = gradient * SLOPES[layer["activation"]](after)
        if layer["use_bias"]:
            gradients_.insert(0, gradient.sum((0, 2, 3)))
        shape = arrays[0].shape[2:]
        gradients_.insert(0, reference.conv2d_kernel_grad(before, gradient, shape, **options))
        gradient = reference.conv2d_input_grad(gradient, arrays[0], before.shape, **options)
    return np.mean(sample_weight * difference**2), gradients_


def gradients(loss, weights, step=1e-6):
    """Return the gradient of loss(weights) for each array, by central differences."""
    weights = [np.array(array, reference.Wide) for array in weights]
    result = []
    for array in weights:
        gradient = np.empty(array.shape, reference.Wide)
        for index in np.ndindex(array.shape):
            value = array[index]
            array[index] = value + step
            above = loss(weights)
            array[index] = value - step
            below = loss(weights)
            array[index] = value
            gradient[index] = (above - below) / (2 * reference.Wide(step))
        result.append(gradient)
    return result
