"""What people type who know Keras or PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import convext


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_may_be_written_in_capitals(padding):
    rng = np.random.default_rng(0)
    x, kernels = rng.random((1, 1, 7, 8)), rng.random((1, 1, 3, 2))
    expected = convext.conv2d(x, kernels, padding=padding)
    other = rng.random(expected.shape)
    for word in (padding.upper(), padding.title()):
        assert np.array_equal(convext.conv2d(x, kernels, padding=word), expected)
        for gradient, arguments in (
            (convext.conv2d_kernel_grad, (x, other, (3, 2))),
            (convext.conv2d_input_grad, (other, kernels, x.shape)),
        ):
            expected_gradient = gradient(*arguments, padding=padding)
            assert np.array_equal(gradient(*arguments, padding=word), expected_gradient)
        statistics = convext.PatchStatistics(1, 1, (3, 2), padding=word)
        statistics.update(x, other)
        layer = convext.Conv2D(1, (3, 2), padding=word)
        assert repr(layer) == repr(convext.Conv2D(1, (3, 2), padding=padding))
        assert convext.Sequential([layer], seed=0).predict(x).shape == expected.shape
