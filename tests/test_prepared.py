"""Prepared kernels: the same results as with kernels given at every call, and nothing shared."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import reference
from strategies import random_values

import convext

# (input shape, kernels, options): by vectors of pixels and of kernels, packed and in place.
CONVOLUTIONS = [
    ((2, 3, 9, 11), (5, 3, 2, 3), {}),
    ((1, 16, 14, 14), (40, 16, 3, 3), {"padding": 1}),
    ((2, 12, 7, 9), (24, 4, 3, 3), {"groups": 3, "stride": 2, "padding": ((1, 0), (2, 1))}),
    ((1, 33, 7, 7), (70, 33, 1, 1), {}),
    ((3, 6, 10, 8), (6, 1, 3, 3), {"groups": 6, "padding": "same", "dilation": 2}),
]


def random_convolution(input_shape, kernel_shape, dtype):
    rng = np.random.default_rng(3)
    return (
        random_values(rng, input_shape, dtype),
        random_values(rng, kernel_shape, dtype),
        random_values(rng, kernel_shape[:1], dtype),
    )


@pytest.mark.parametrize("with_input_shape", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("input_shape", "kernel_shape", "options"), CONVOLUTIONS)
def test_results_are_right_call_after_call(
    isa, input_shape, kernel_shape, options, dtype, with_input_shape
):
    images, kernels, bias = random_convolution(input_shape, kernel_shape, dtype)
    prepared = convext.prepare_kernels(
        kernels,
        input_shape if with_input_shape else None,
        bias=bias,
        algorithm="direct",
        **options,
    )
    expected = reference.conv2d(images, kernels, bias=bias, **options, detailed=True)
    for _ in range(2):
        result = convext.conv2d(images, prepared)
        assert result.dtype == dtype
        reference.assert_within_bound(result, expected)


@pytest.mark.parametrize("algorithm", ["auto", "direct", "winograd"])
@pytest.mark.parametrize("with_input_shape", [False, True])
def test_each_algorithm_gives_the_bits_that_it_gives_without_preparation(
    isa, algorithm, with_input_shape
):
    input_shape = (2, 40, 15, 18)
    images, kernels, bias = random_convolution(input_shape, (50, 40, 3, 3), "float32")
    options = {"bias": bias, "padding": 1, "algorithm": algorithm}
    prepared = convext.prepare_kernels(
        kernels, input_shape if with_input_shape else None, **options
    )
    expected = convext.conv2d(images, kernels, **options)
    for _ in range(2):
        assert np.array_equal(convext.conv2d(images, prepared), expected)


def test_images_of_any_shape_may_follow():
    _, kernels, _ = random_convolution((1,), (20, 3, 3, 3), "float32")
    prepared = convext.prepare_kernels(kernels, (3, 8, 8), padding=1)
    rng = np.random.default_rng(5)
    for shape in [(3, 8, 8), (2, 3, 5, 64), (3, 1, 1), (1, 3, 200, 3), (3, 8, 8)]:
        images = random_values(rng, shape, "float32")
        reference.assert_within_bound(
            convext.conv2d(images, prepared),
            reference.conv2d(images, kernels, padding=1, detailed=True),
        )


def test_images_of_the_other_type_are_computed_in_float64():
    images, kernels, bias = random_convolution((3, 9, 9), (4, 3, 3, 3), "float32")
    prepared = convext.prepare_kernels(kernels, bias=bias)
    result = convext.conv2d(images.astype(np.float64), prepared)
    assert result.dtype == np.float64
    expected = reference.conv2d(images, kernels, bias=bias, detailed=True)
    reference.assert_within_bound(result, expected)


@pytest.mark.parametrize("input_shape", [None, (3, 9, 9)])
def test_nothing_is_shared_with_the_arrays_given(input_shape):
    images, kernels, bias = random_convolution((3, 9, 9), (4, 3, 3, 3), "float64")
    expected = convext.conv2d(images, kernels, bias=bias)
    prepared = convext.prepare_kernels(kernels, input_shape, bias=bias)
    kernels[:] = np.nan
    bias[:] = np.nan
    assert np.array_equal(convext.conv2d(images, prepared), expected)
    for array in (prepared.kernels, prepared.bias):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_one_set_serves_several_threads_at_once():
    images, kernels, _ = random_convolution((8, 16, 20, 20), (32, 16, 3, 3), "float32")
    expected = convext.conv2d(images, kernels)
    for _ in range(20):
        prepared = convext.prepare_kernels(kernels)
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(convext.conv2d, images, prepared) for _ in range(4)]
            assert all(np.array_equal(future.result(), expected) for future in futures)


def test_what_it_shows_of_itself():
    kernels = np.zeros((4, 2, 3, 3), np.float32)
    prepared = convext.prepare_kernels(kernels, bias=np.zeros(4), stride=2, groups=2)
    assert prepared.shape == (4, 2, 3, 3)
    assert prepared.dtype == np.float64
    assert repr(prepared) == "<PreparedKernels (4, 2, 3, 3) float64, bias, stride=2, groups=2>"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kernels": "text"}, TypeError, "kernels must hold real numbers"),
        ({"kernels": np.zeros((3, 3))}, ValueError, r"kernels must have the shape \(K, C"),
        ({"kernels": np.zeros((0, 1, 3, 3))}, ValueError, "kernels is empty: K is 0"),
        ({"bias": [1.0]}, ValueError, r"bias must have the shape \(4,\)"),
        ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"padding": "half"}, ValueError, "padding must be"),
        ({"padding": -1}, ValueError, "padding must be at least 0"),
        ({"dilation": 1.5}, TypeError, "dilation must be an integer"),
        ({"algorithm": "FFT"}, ValueError, "algorithm must be 'auto', 'winograd', 'separable'"),
        (
            {"algorithm": "winograd", "stride": 3},
            ValueError,
            "algorithm 'winograd' does not apply: it is for kernels of 3x3",
        ),
        ({"algorithm": 1}, TypeError, "algorithm must be"),
        ({"groups": 3}, ValueError, "groups is 3, which does not divide the 4 kernels"),
        ({"input_shape": (5, 5)}, ValueError, "input_shape must be"),
        ({"input_shape": (3, 9, 9)}, ValueError, "kernels has 2 channels but input_data has 3"),
        ({"input_shape": (2, 2, 2)}, ValueError, "do not fit|larger than"),
    ],
)
def test_bad_arguments(arguments, error, message):
    arguments = {"kernels": np.zeros((4, 2, 3, 3)), **arguments}
    with pytest.raises(error, match=message):
        convext.prepare_kernels(**arguments)


@pytest.mark.parametrize(
    "option",
    [
        {"bias": [0.0]},
        {"stride": 2},
        {"padding": 1},
        {"dilation": (2, 2)},
        {"groups": 2},
        {"algorithm": "direct"},
    ],
)
def test_options_are_not_given_twice(option):
    prepared = convext.prepare_kernels(np.zeros((1, 1, 2, 2)))
    (name,) = option
    with pytest.raises(ValueError, match=f"^{name} is part of prepared kernels"):
        convext.conv2d(np.zeros((1, 4, 4)), prepared, **option)


@pytest.mark.parametrize("algorithm", ["auto", "winograd"])
def test_padding_that_depends_on_the_image(isa, algorithm):
    """ "same", with a stride, pads images of even and odd sizes at different places."""
    rng = np.random.default_rng(2)
    channels = 128 if algorithm == "auto" else 3
    for size in (3, 5):
        w = rng.standard_normal((channels, channels, size, size)).astype("float32")
        options = {"stride": 2, "padding": "same", "algorithm": algorithm}
        prepared = convext.prepare_kernels(w, **options)
        for height, width in ((24, 24), (25, 24), (24, 25), (25, 25), (24, 24)):
            x = rng.standard_normal((channels, height, width)).astype("float32")
            assert np.array_equal(convext.conv2d(x, prepared), convext.conv2d(x, w, **options))
