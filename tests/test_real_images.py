"""Known filters, learned from real photographs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

import convext

data = pytest.importorskip("skimage.data", reason="the photographs come with scikit-image")

GAUSSIAN = np.outer(*2 * [np.exp([-2, -0.5, 0, -0.5, -2])])
GAUSSIAN /= GAUSSIAN.sum()
IDENTITY = np.pad([[1.0]], 2)

FILTERS = {
    "Sobel": np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]),
    "Gaussian blur": GAUSSIAN,
    "unsharp mask": 2 * IDENTITY - GAUSSIAN,
}


def grey(name):
    picture = getattr(data, name)()
    return (picture.mean(axis=2) if picture.ndim == 3 else picture)[:300, :300] / 255


def filtered(picture, kernel):
    """Return the filter's result, less the border that depends on what is beyond the picture."""
    margin = kernel.shape[0] // 2
    return ndimage.correlate(picture, kernel)[margin:-margin, margin:-margin]


def differences(picture):
    """Return the differences of neighbouring pixels, across and down, as two samples."""
    across, down = np.diff(picture, axis=1)[:-1], np.diff(picture, axis=0)[:, :-1]
    return np.stack([across, down])[:, np.newaxis]


def learn(before, after, kernel_shape):
    # Neighbouring pixels are nearly equal; gradient descent learns from differences far sooner,
    # and they are related by the same kernel, since convolutions commute.
    inputs, targets = differences(before), differences(after)
    rate = 1 / (np.mean(inputs**2) * np.prod(kernel_shape))

    def stop(report):
        if report.loss < 1e-9 * np.mean(targets**2):
            raise convext.StopTraining

    options = {"batch_size": 2, "seed": 0, "callbacks": [stop], "verbose": False}
    return convext.train_model(inputs, targets, 1, kernel_shape, rate, 3000, **options)


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_is_learned_from_a_photograph_before_and_after(name):
    kernel = FILTERS[name]
    before = grey("camera")
    learned = learn(before, filtered(before, kernel), kernel.shape)
    assert np.linalg.norm(learned[0, 0] - kernel) / np.linalg.norm(kernel) < 1e-3

    other = grey("chelsea")
    expected = filtered(other, kernel)
    predicted = convext.conv2d(other[np.newaxis], learned)[0]
    assert np.abs(predicted - expected).max() < 1e-3 * np.abs(expected).max()
