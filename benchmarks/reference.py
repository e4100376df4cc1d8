"""What every library's result is checked against: sums over taps in float64, with NumPy alone."""

from __future__ import annotations

import numpy as np

# How far a result may be off, as a part of the largest number in it. float32's leaves room for
# Winograd's and Fourier's transforms, and for sums over two million pixels in plain order.
TOLERANCES = {"float32": 1e-4, "float64": 1e-11}


def expected(case, operation, dtype):
    """Return what `operation` must give."""
    images, kernels, gradient = (array.astype(np.float64) for array in case.arrays(dtype))
    if operation == "kernel gradient":
        return _kernel_gradient(case, _padded(case, images), gradient)
    if operation == "input gradient":
        return _input_gradient(case, kernels, gradient)
    return _forward(case, _padded(case, images), kernels)


def error_of(result, reference):
    """Return by how much `result` is off, as a part of the largest number in `reference`."""
    if result.shape != reference.shape:
        raise ValueError(f"has the shape {result.shape} instead of {reference.shape}")
    return float(np.abs(result - reference).max() / np.abs(reference).max())


def _forward(case, padded, kernels):
    result = 0
    for row, column in np.ndindex(case.size, case.size):
        weights = _grouped(case, kernels[..., row, column], axis=0)
        result = result + weights @ _pixels(case, padded, row, column)
    return result.reshape(case.output_shape)


def _kernel_gradient(case, padded, gradient):
    result = np.empty(case.kernels_shape)
    output = _pixels_of_output(case, gradient)
    for row, column in np.ndindex(case.size, case.size):
        pixels = _pixels(case, padded, row, column)
        sums = (output @ pixels.swapaxes(-1, -2)).sum(axis=0)
        result[..., row, column] = sums.reshape(case.kernels_shape[:2])
    return result


def _input_gradient(case, kernels, gradient):
    padded = _padded(case, np.zeros(case.shape))
    output = _pixels_of_output(case, gradient)
    for row, column in np.ndindex(case.size, case.size):
        weights = _grouped(case, kernels[..., row, column], axis=0)
        window = _window(case, padded, row, column)
        window += (weights.swapaxes(-1, -2) @ output).reshape(window.shape)
    rows, columns = (slice(case.padding, case.padding + pixels) for pixels in case.shape[2:])
    return padded[..., rows, columns]


def _padded(case, images):
    margin = (case.padding, case.padding)
    return np.pad(images, ((0, 0), (0, 0), margin, margin))


def _window(case, padded, row, column):
    """Return a view of the pixels that the tap at (row, column) sees: (N, C, OH, OW)."""
    rows, columns = (
        slice(start, start + case.stride * (count - 1) + 1, case.stride)
        for start, count in zip((row, column), case.output_shape[2:], strict=True)
    )
    return padded[..., rows, columns]


def _pixels(case, padded, row, column):
    """Return these as matrices, (N, groups, C/groups, OH * OW)."""
    window = _window(case, padded, row, column)
    return _grouped(case, window.reshape(*window.shape[:2], -1), axis=1)


def _pixels_of_output(case, gradient):
    """Return (N, groups, K/groups, OH * OW)."""
    return _grouped(case, gradient.reshape(*gradient.shape[:2], -1), axis=1)


def _grouped(case, array, axis):
    """Split the axis of the channels, or of the kernels, by groups."""
    shape = array.shape
    return array.reshape(*shape[:axis], case.groups, shape[axis] // case.groups, *shape[axis + 1 :])
