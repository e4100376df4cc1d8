"""A batch of no samples gives results of no samples and gradients of zero, as in the frameworks."""

from __future__ import annotations

import numpy as np
import pytest

import convext

# Images, kernels and options, of which "auto" takes each of its ways.
WAYS = {
    "direct": ((3, 8, 9), (4, 3, 3, 3), {"padding": 1}),
    "winograd": ((64, 20, 20), (64, 64, 3, 3), {"padding": 1}),
    "fourier": ((1, 100, 100), (1, 1, 31, 31), {}),
    "depthwise": ((8, 20, 20), (8, 1, 3, 3), {"groups": 8}),
    "shifted sums": ((512, 30, 40), (1, 512, 3, 3), {}),
    "strides": ((4, 17, 19), (2, 2, 3, 5), {"stride": (2, 3), "groups": 2, "padding": "same"}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("way", WAYS)
def test_an_empty_batch_has_empty_results_and_zero_gradients(way, dtype):
    shape, kernel_shape, options = WAYS[way]
    kernels = np.ones(kernel_shape, dtype)
    one = convext.conv2d(np.ones(shape, dtype), kernels, **options)
    images, grad = np.empty((0, *shape), dtype), np.empty((0, *one.shape), dtype)
    out = np.empty_like(grad)
    bias = np.ones(len(kernels), dtype)
    prepared = convext.prepare_kernels(kernels, images.shape, **options)
    for result in (
        convext.conv2d(images, kernels, **options),
        convext.conv2d(images, kernels, bias=bias, num_threads=3, **options),
        convext.conv2d(images, prepared),
    ):
        assert result.shape == grad.shape
        assert result.dtype == dtype
    assert convext.conv2d(images, kernels, out=out, **options) is out
    # What was prepared for no images is right for one.
    assert (convext.conv2d(np.ones(shape, dtype), prepared) == one).all()
    for input_shape in (images.shape, shape):
        result = convext.conv2d_input_grad(grad, kernels, input_shape, **options)
        assert result.shape == images.shape
        assert result.dtype == dtype
    result = convext.conv2d_kernel_grad(images, grad, kernel_shape[2:], **options)
    assert result.shape == kernel_shape
    assert result.dtype == dtype
    assert not result.any()


def test_the_loss_of_nothing_has_a_gradient_but_no_value():
    images, kernels = np.ones((0, 2, 5, 5)), np.ones((3, 2, 2, 2))
    nothing = np.ones((0, 3, 4, 4))
    assert not convext.conv2d_backprop(images, kernels, nothing, nothing).any()
    assert convext.conv2d_backprop(images, kernels, nothing, nothing).shape == kernels.shape
    assert convext.mse_loss_gradient(nothing, nothing).shape == nothing.shape
    with pytest.raises(ValueError, match="there is no mean"):
        convext.mse_loss(nothing, nothing)


def test_networks_predict_nothing_for_nothing_but_have_no_loss():
    layers = [convext.Conv2D(4, 3, activation="relu"), convext.Conv2D(2, 1)]
    model = convext.Sequential(layers, input_channels=3)
    model.compile("sgd")
    x, y = np.empty((0, 3, 9, 8), np.float32), np.empty((0, 2, 7, 6), np.float32)
    assert model.predict(x).shape == y.shape
    assert model.predict(x).dtype == np.float32
    for use in (model.evaluate, model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match=r"empty|no samples"):
            use(x, y)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_other_axes_may_not_be_empty(axis):
    shape = [0, 2, 5, 5]
    shape[axis] = 0
    name = "NCHW"[axis]
    with pytest.raises(ValueError, match=f"input_data is empty: {name} is 0"):
        convext.conv2d(np.empty(shape), np.ones((3, 2, 2, 2)))
    with pytest.raises(ValueError, match="kernels is empty: K is 0"):
        convext.conv2d(np.empty((0, 2, 5, 5)), np.empty((0, 2, 2, 2)))


def test_the_other_arguments_are_checked_as_ever():
    images, kernels = np.empty((0, 2, 5, 5)), np.ones((3, 2, 2, 2))
    with pytest.raises(ValueError, match="channels"):
        convext.conv2d(images, np.ones((3, 1, 2, 2)))
    with pytest.raises(ValueError, match="out must have the shape"):
        convext.conv2d(images, kernels, out=np.empty((1, 3, 4, 4)))
    with pytest.raises(ValueError, match="output_grad must have the shape"):
        convext.conv2d_kernel_grad(images, np.empty((1, 3, 4, 4)), (2, 2))
    with pytest.raises(ValueError, match="output_grad must have the shape"):
        convext.conv2d_input_grad(np.empty((0, 3, 4, 4)), kernels, (1, 2, 5, 5))
