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


def horizontal_differences(*pictures):
    return [np.diff(picture, axis=1)[np.newaxis, np.newaxis] for picture in pictures]


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_is_learned_from_a_photograph_before_and_after(name):
    kernel = FILTERS[name]
    before = grey("camera")
    after = filtered(before, kernel)
    # Neighbouring pixels are nearly equal; gradient descent learns from differences far sooner,
    # and they are related by the same kernel, since convolutions commute.
    inputs, targets = horizontal_differences(before, after)
    rate = 1 / (np.mean(inputs**2) * kernel.size)
    learned = convext.train_model(
        inputs, targets, 1, kernel.shape, rate, 3000, seed=0, verbose=False
    )[0, 0]
    assert np.linalg.norm(learned - kernel) / np.linalg.norm(kernel) < 1e-3

    other = grey("chelsea")
    predicted = convext.conv2d(other[np.newaxis], learned[np.newaxis, np.newaxis])[0]
    assert np.abs(predicted - filtered(other, kernel)).max() < 5e-3
