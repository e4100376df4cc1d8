"""The convolution and its gradients: right to the last bits, on every instruction set."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d
from strategies import cases, random_values

import convext
from convext.base import _dispatch

OPERATIONS = ("conv2d", "conv2d_kernel_grad", "conv2d_input_grad")
FLOATS = ("float32", "float64")

# Where a new interpreter finds the same package as this one.
PACKAGE_PARENT = Path(convext.__file__).parents[1]

# Relative to the sum of absolute products: for sums that add up many results.
LOOSE = {"float32": 1e-5, "float64": 1e-13}

# Widths around the edges of vectors and tiles of every instruction set.
WIDTHS = (1, 2, 3, 5, 8, 9, 15, 16, 17, 31, 33, 48, 64, 65, 100, 131)


def operands(operation, case):
    """Return the two arrays that the operation takes, in its order, and what follows them."""
    return {
        "conv2d": (case.input_data, case.kernels),
        "conv2d_kernel_grad": (case.input_data, case.output_grad, case.kernel_shape),
        "conv2d_input_grad": (case.output_grad, case.kernels, case.input_shape),
    }[operation]


def compute(operation, case, **more):
    """Run the operation of convext on a case."""
    if operation == "conv2d":
        more.setdefault("bias", case.bias)
    more.setdefault("num_threads", case.num_threads)
    return getattr(convext, operation)(*operands(operation, case), **case.options, **more)


def element_by_element(case):
    """Return the algorithm whose errors are relative to an element's own products.

    Large kernels may go by Fourier transforms, whose errors are relative to all pixels' around: see
    test_fft.py.
    """
    return "direct" if math.prod(case.kernels_shape[2:]) >= 49 else "auto"


def expect(operation, case):
    """Run the reference on a case."""
    bias = {"bias": case.bias} if operation == "conv2d" else {}
    function = getattr(reference, operation)
    return function(*operands(operation, case), **case.options, **bias, detailed=True)


def on_every_isa(function):
    """Return {instruction set: result of the function when it is in use}."""
    before = _dispatch.current_isa()
    try:
        results = {}
        for name in convext.get_config()["isas_supported"]:
            _dispatch.use_isa(name)
            results[name] = function()
        return results
    finally:
        _dispatch.use_isa(before)


def same_bits(first, second):
    """Tell whether two arrays are equal bit for bit (-0.0 is not 0.0, NaN is NaN)."""
    alike = (first.shape, first.dtype) == (second.shape, second.dtype)
    return alike and first.tobytes() == second.tobytes()


def leave_nan_in_free_memory():
    """Fill with NaN what the next calls are likely to get as scratch memory."""
    # The first is large, so that the others, being smaller, come from memory that is reused.
    np.full(800_000, np.nan)
    blocks = [np.full(n, np.nan) for n in (200, 1000, 4000, 12_000, 40_000, 100_000) * 3]
    blocks.clear()


def run_python(code, **environment):
    """Run code in a new interpreter; a variable that is None is unset."""
    variables = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=PACKAGE_PARENT,
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def output_of(code, **environment):
    """Return what the code prints; it must succeed."""
    done = run_python(code, **environment)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr}"
    return done.stdout.split()


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("operation", OPERATIONS)
@settings(max_examples=80)
@given(case=cases())
def test_operations_agree_with_the_definition(operation, isa, case):
    actual = compute(operation, case, algorithm=element_by_element(case))
    reference.assert_within_bound(actual, expect(operation, case))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_agree_with_the_definition_on_thousands_of_cases(operation, dtype):
    # The six parametrisations together make at least 5,000 cases, no two of them alike.
    at_least, seen = 900, set()

    @settings(max_examples=at_least + 300)
    @given(case=cases(dtype))
    def compare(case):
        seen.add(case)
        expected = expect(operation, case)
        how = element_by_element(case)
        results = on_every_isa(lambda: compute(operation, case, algorithm=how))
        for isa, actual in results.items():
            assert actual.dtype == dtype
            reference.assert_within_bound(actual, expected, f"with {isa}")

    compare()
    assert len(seen) >= at_least


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_operations_agree_with_the_definition_at_every_tile_edge(isa, width, dtype):
    rng = np.random.default_rng(width)
    for kernels, channels, kernel_hw in ((1, 1, (3, 3)), (2, 3, (2, 2)), (29, 2, (1, 3))):
        x = rng.standard_normal((2, channels, 4, width + kernel_hw[1] - 1)).astype(dtype)
        w = rng.standard_normal((kernels, channels, *kernel_hw)).astype(dtype)
        g = rng.standard_normal((2, kernels, 5 - kernel_hw[0], width)).astype(dtype)
        for actual, expected in (
            (convext.conv2d(x, w), reference.conv2d(x, w, detailed=True)),
            (
                convext.conv2d_kernel_grad(x, g, kernel_hw),
                reference.conv2d_kernel_grad(x, g, kernel_hw, detailed=True),
            ),
            (
                convext.conv2d_input_grad(g, w, x.shape),
                reference.conv2d_input_grad(g, w, x.shape, detailed=True),
            ),
        ):
            reference.assert_within_bound(actual, expected)


# Few kernels over many channels, where the forward convolution and the input gradient shift sums:
# channels, kernels (each per group), groups, image, kernel, options.
FEW_KERNELS = {
    "one": (32, 1, 1, (25, 25), (5, 5), {}),
    "padded": (17, 1, 1, (19, 33), (4, 7), {"padding": ((3, 1), (0, 6))}),
    "dilated": (20, 1, 1, (41, 18), (3, 2), {"dilation": (4, 3), "padding": (4, 1)}),
    "groups": (16, 3, 2, (16, 44), (5, 5), {}),
    "groups, padded": (16, 3, 2, (12, 40), (5, 5), {"padding": 4}),
    "in bands": (24, 1, 1, (90, 70), (3, 3), {"padding": 1}),
    "wide rows": (64, 1, 1, (5, 1201), (3, 3), {"padding": "same"}),
}


@pytest.mark.parametrize("name", FEW_KERNELS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_few_kernels_over_many_channels(isa, name, dtype):
    channels, kernels, groups, image_hw, kernel_hw, options = FEW_KERNELS[name]
    options = {**options, "groups": groups}
    rng = np.random.default_rng(23)
    x = rng.standard_normal((2, channels * groups, *image_hw)).astype(dtype)
    w = rng.standard_normal((kernels * groups, channels, *kernel_hw)).astype(dtype)
    b = rng.standard_normal(kernels * groups).astype(dtype)
    expected = reference.conv2d(x, w, bias=b, **options, detailed=True)
    for threads in (1, 3):
        actual = convext.conv2d(x, w, bias=b, **options, num_threads=threads)
        reference.assert_within_bound(actual, expected)
    assert same_bits(actual, convext.conv2d(x, w, bias=b, **options, num_threads=1))

    # The same sizes the other way round: the gradient's channels are the convolution's kernels.
    shape = (2, kernels * groups, *image_hw)
    w = rng.standard_normal((channels * groups, kernels, *kernel_hw)).astype(dtype)
    g = convext.conv2d(rng.standard_normal(shape).astype(dtype), w, **options)
    expected = reference.conv2d_input_grad(g, w, shape, **options, detailed=True)
    for threads in (1, 3):
        actual = convext.conv2d_input_grad(g, w, shape, **options, num_threads=threads)
        reference.assert_within_bound(actual, expected)
    assert same_bits(actual, convext.conv2d_input_grad(g, w, shape, **options, num_threads=1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_few_kernels_spread_nan_and_infinity_no_further_than_their_windows(isa, value):
    rng = np.random.default_rng(29)
    w = rng.uniform(1, 2, (1, 32, 3, 3))
    marks = one_marked_pixel_each(32, HEIGHT, 18, marked_channel=30)
    x = rng.standard_normal(marks.shape)
    clean = convext.conv2d(np.where(marks, 0, x), w, padding=1)
    result = convext.conv2d(np.where(marks, value, x), w, padding=1)
    covering = reached("conv2d", marks, w.shape, padding=1)
    check_only_reached_are(lambda a: ~np.isfinite(a), result, covering, clean)


# Larger than what is generated: several blocks of channels, of kernels and of rows.
LARGE = {
    "many channels": ((1, 70, 9, 17), (3, 70, 3, 3), {"padding": 1}),
    "many kernels": ((2, 5, 8, 21), (75, 5, 3, 3), {"padding": "same"}),
    "many of both": ((1, 67, 12, 13), (45, 67, 3, 3), {"padding": 1}),
    "one channel": ((1, 1, 150, 401), (1, 1, 5, 5), {"padding": 2}),
    "depthwise": ((1, 40, 30, 31), (40, 1, 5, 5), {"padding": "same", "groups": 40}),
    "depthwise, small maps": ((3, 130, 7, 7), (130, 1, 3, 3), {"padding": 1, "groups": 130}),
    "depthwise, strided": ((2, 21, 75, 91), (42, 1, 3, 3), {"stride": 2, "groups": 21}),
    "depthwise, wide": ((1, 3, 40, 1500), (3, 1, 3, 3), {"padding": 1, "groups": 3}),
    "depthwise, 7x7": ((2, 20, 56, 57), (20, 1, 7, 7), {"padding": 3, "groups": 20}),
    "strided": ((2, 12, 61, 67), (17, 12, 5, 3), {"stride": (2, 3), "padding": (1, 2)}),
    "dilated": ((1, 8, 50, 70), (16, 8, 3, 3), {"dilation": (4, 3), "padding": 6}),
    "large kernel": ((1, 2, 40, 70), (3, 2, 19, 23), {"padding": "same"}),
    "many samples": ((130, 2, 7, 7), (6, 2, 3, 3), {"padding": 1}),
    "wide windows": ((9, 1, 33, 33), (61, 1, 9, 9), {}),
    "wide windows, padded": ((3, 2, 40, 45), (16, 2, 5, 15), {"padding": (2, 7)}),
    "wide windows, strided": ((2, 6, 61, 67), (64, 3, 7, 7), {"stride": 2, "groups": 2}),
    "wide windows in wide rows": ((1, 1, 8, 1400), (32, 1, 3, 6), {"stride": (2, 1)}),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("dtype", FLOATS)
def test_operations_agree_with_the_definition_on_larger_arrays(isa, name, dtype):
    input_shape, kernels_shape, options = LARGE[name]
    rng = np.random.default_rng(7)
    x = rng.standard_normal(input_shape).astype(dtype)
    w = rng.standard_normal(kernels_shape).astype(dtype)
    expected = reference.conv2d(x, w, **options, detailed=True)
    for algorithm in ("auto", "direct"):
        actual = convext.conv2d(x, w, algorithm=algorithm, **options)
        reference.assert_within_bound(actual, expected)

    g = rng.standard_normal(expected.value.shape).astype(dtype)
    expected = reference.conv2d_kernel_grad(x, g, w.shape[2:], **options, detailed=True)
    actual = convext.conv2d_kernel_grad(x, g, w.shape[2:], **options)
    reference.assert_within_bound(actual, expected)

    expected = reference.conv2d_input_grad(g, w, x.shape, **options, detailed=True)
    for algorithm in ("auto", "direct"):
        actual = convext.conv2d_input_grad(g, w, x.shape, algorithm=algorithm, **options)
        reference.assert_within_bound(actual, expected)


# Kernel gradients of few pixels, which are added up where they are returned, and of output
# gradients that are read where they lie: channels, kernels, (samples, height, width) and kernel,
# options.
FEW_PIXELS = {
    "windows": (256, 130, (1, 5, 5), (3, 3), {"padding": 1}),
    "windows of samples": (256, 140, (2, 4, 4), (3, 2), {"padding": 1}),
    "windows, strided down": (256, 130, (1, 9, 6), (3, 3), {"stride": (2, 1), "dilation": (2, 1)}),
    "windows in groups": (128, 120, (1, 5, 6), (2, 3), {"groups": 2}),
    "wide windows": (256, 70, (1, 4, 35), (3, 33), {}),
    "single taps": (96, 45, (3, 9, 10), (1, 1), {}),
    "single taps, strided": (64, 29, (2, 9, 10), (1, 1), {"stride": (1, 2)}),
    "rows that are pages apart": (32, 40, (1, 32, 32), (1, 1), {}),
    "several segments": (32, 43, (1, 56, 75), (1, 1), {}),
    "several segments, padded": (33, 31, (5, 20, 31), (3, 3), {"padding": 1}),
}


@pytest.mark.parametrize("name", FEW_PIXELS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_kernel_gradients_of_many_kernels(isa, name, dtype):
    channels, kernels, (samples, *image_hw), size, options = FEW_PIXELS[name]
    groups = options.get("groups", 1)
    rng = np.random.default_rng(31)
    x = rng.standard_normal((samples, channels * groups, *image_hw)).astype(dtype)
    w = np.zeros((kernels * groups, channels, *size), dtype)
    g = rng.standard_normal(convext.conv2d(x, w, **options).shape).astype(dtype)
    expected = reference.conv2d_kernel_grad(x, g, size, **options, detailed=True)
    results = [convext.conv2d_kernel_grad(x, g, size, **options, num_threads=n) for n in (1, 3)]
    reference.assert_within_bound(results[0], expected)
    assert same_bits(*results)
    elsewhere = np.asfortranarray(x), np.asfortranarray(g)
    actual = convext.conv2d_kernel_grad(*elsewhere, size, **options)
    reference.assert_within_bound(actual, expected)

    marked = kernels // 2
    direct = convext.conv2d_kernel_grad(x, g, size, **options, algorithm="direct")
    g[-1, marked, -1, -1] = np.nan
    actual = convext.conv2d_kernel_grad(x, g, size, **options, num_threads=1)
    assert np.isnan(actual[marked]).all()
    assert same_bits(np.delete(actual, marked, 0), np.delete(direct, marked, 0))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kernel_hw", [(2, 1), (3, 3), (4, 2), (5, 5), (7, 3), (17, 17)])
def test_one_kernel_on_any_number_of_rows(isa, kernel_hw, dtype):
    rng = np.random.default_rng(11)
    for height, width, channels, groups in product((1, 2, 3, 4, 5, 9), (14, 130), (1, 3), (1, 3)):
        if channels % groups:
            continue
        options = {"padding": kernel_hw[0] // 2, "groups": groups}
        x = rng.standard_normal((channels, height + kernel_hw[0] - 1, width)).astype(dtype)
        w = rng.standard_normal((groups, channels // groups, *kernel_hw)).astype(dtype)
        result = convext.conv2d(x, w, **options)
        expected = reference.conv2d(x, w, **options, detailed=True)
        reference.assert_within_bound(result, expected)
        expected = reference.conv2d_input_grad(result, w, x.shape, **options, detailed=True)
        reference.assert_within_bound(
            convext.conv2d_input_grad(result, w, x.shape, **options), expected
        )


def test_a_known_small_convolution_is_a_cross_correlation():
    image = np.arange(9.0).reshape(1, 3, 3)
    kernel = np.array([[[[1.0, 10.0], [100.0, 1000.0]]]])
    assert convext.conv2d(image, kernel).tolist() == [[[4310.0, 5421.0], [7643.0, 8754.0]]]


# SciPy centres even kernels differently from TensorFlow, so "same" takes odd ones alone.
@pytest.mark.parametrize(
    ("mode", "kernel_hw"),
    [
        *product(["valid", "full", "same"], [(1, 1), (3, 3), (5, 3), (7, 7)]),
        *product(["valid", "full"], [(2, 4), (4, 1)]),
    ],
)
def test_one_channel_is_scipy_correlate2d(isa, mode, kernel_hw):
    rng = np.random.default_rng(3)
    image, kernel = rng.standard_normal((20, 45)), rng.standard_normal(kernel_hw)
    padding = {"full": tuple(n - 1 for n in kernel_hw)}.get(mode, mode)
    actual = convext.conv2d(image[np.newaxis], kernel[np.newaxis, np.newaxis], padding=padding)
    np.testing.assert_allclose(actual[0], correlate2d(image, kernel, mode=mode), atol=1e-13)


@settings(max_examples=40)
@given(case=cases())
def test_the_gradients_are_adjoints_of_the_convolution(isa, case):
    # <conv(x, w), g> = <x, input gradient> = <w, kernel gradient>
    value = compute("conv2d", case, bias=None)
    by_input = compute("conv2d_input_grad", case)
    by_kernels = compute("conv2d_kernel_grad", case)
    magnitude = reference.conv2d(
        np.abs(case.input_data.astype(float)), np.abs(case.kernels.astype(float)), **case.options
    )
    x, w, g = (a.astype(float) for a in (case.input_data, case.kernels, case.output_grad))
    allowed = LOOSE[value.dtype.name] * float((magnitude * np.abs(g)).sum())
    product = np.vdot(value, g)
    assert abs(product - np.vdot(x, by_input)) <= allowed
    assert abs(product - np.vdot(w, by_kernels)) <= allowed


OPTIONS = {
    "plain": {},
    "strided": {"stride": (2, 1), "padding": 1},
    "dilated": {"dilation": 2, "padding": ((2, 0), (1, 3))},
    "same": {"padding": "same", "stride": 2},
}


def central_differences(function, array, step=0.5):
    """Return the derivative of a function by each element; exact for a quadratic, any step."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        ends = []
        for signed_step in (step, -step):
            moved = array.copy()
            moved[index] += signed_step
            ends.append(function(moved))
        gradient[index] = (ends[0] - ends[1]) / (2 * step)
    return gradient


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_gradients_are_finite_differences_of_a_loss(options, groups):
    rng = np.random.default_rng(5)
    options = {**options, "groups": groups}
    x = rng.standard_normal((2, 2, 6, 7))
    w = rng.standard_normal((4, 2 // groups, 3, 2))
    target = rng.standard_normal(convext.conv2d(x, w, **options).shape)

    def loss(x, w):
        return 0.5 * np.sum((convext.conv2d(x, w, **options) - target) ** 2)

    residual = convext.conv2d(x, w, **options) - target
    np.testing.assert_allclose(
        convext.conv2d_kernel_grad(x, residual, (3, 2), **options),
        central_differences(lambda moved: loss(x, moved), w),
        atol=1e-10,
    )
    np.testing.assert_allclose(
        convext.conv2d_input_grad(residual, w, x.shape, **options),
        central_differences(lambda moved: loss(moved, w), x),
        atol=1e-10,
    )


def test_bias_is_added_once_to_every_output_of_its_kernel(isa):
    rng = np.random.default_rng(6)
    x, w = rng.integers(-9, 9, (2, 3, 5, 40)), rng.integers(-9, 9, (19, 3, 3, 3))
    bias = rng.integers(-99, 99, 19)
    # Whole numbers: every sum is exact, so that the difference is the bias and nothing else.
    with_bias = convext.conv2d(x, w, bias=bias, padding=1)
    difference = with_bias - convext.conv2d(x, w, padding=1)
    assert (difference == bias[:, np.newaxis, np.newaxis]).all()


def test_a_kernel_that_meets_only_padding_gives_the_bias(isa):
    x, w = np.ones((1, 2, 2)), np.ones((1, 1, 2, 2))
    result = convext.conv2d(x, w, bias=[0.25], padding=5)
    assert result.shape == (1, 11, 11)
    assert result[0, 0, 0] == 0.25
    assert result[0, 5, 5] == 4.25
    assert convext.conv2d(x, w, padding=5)[0, 0, 0] == 0


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "output_hw"),
    [
        ({"stride": (1, 3)}, (8, 3)),
        ({"stride": (3, 1)}, (3, 8)),
        ({"padding": (0, 2)}, (8, 12)),
        ({"padding": (2, 0)}, (12, 8)),
        ({"dilation": (1, 3)}, (8, 4)),
        ({"dilation": (3, 1)}, (4, 8)),
    ],
)
def test_pairs_are_height_then_width(options, output_hw):
    x, w = np.ones((1, 10, 10)), np.ones((1, 1, 3, 3))
    assert convext.conv2d(x, w, **options).shape == (1, *output_hw)


def test_a_pair_of_pairs_pads_top_bottom_left_and_right():
    x, w = np.full((1, 1, 1), 7.0), np.ones((1, 1, 1, 1))
    result = convext.conv2d(x, w, padding=((1, 2), (3, 4)))
    assert result.shape == (1, 4, 8)
    assert np.argwhere(result).tolist() == [[0, 1, 3]]


@pytest.mark.parametrize("stride", [1, 2, 3, (4, 2)])
@pytest.mark.parametrize("kernel_hw", [(1, 1), (2, 3), (4, 5)])
def test_same_padding_gives_one_output_per_stride(stride, kernel_hw):
    x, w = np.ones((1, 11, 14)), np.ones((1, 1, *kernel_hw))
    sh, sw = reference.pair(stride)
    result = convext.conv2d(x, w, padding="same", stride=stride)
    assert result.shape == (1, -(-11 // sh), -(-14 // sw))
    edges = reference.resolve_padding("same", (11, 14), kernel_hw, stride, 1)
    assert same_bits(result, convext.conv2d(x, w, padding=edges, stride=stride))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_numpy_integers_and_lists_are_taken_as_numbers_and_pairs(operation):
    case = plain_case(operation)
    usual = case(stride=(2, 1), padding=((1, 1), (2, 2)), dilation=(1, 1), groups=1)
    numpys = case(stride=np.array([2, 1]), padding=[1, 2], dilation=np.int32(1), groups=np.int64(1))
    assert same_bits(usual, numpys)


def plain_case(operation):
    """Return a function that runs an operation with options: stride (2, 1), padding (1, 2)."""
    rng = np.random.default_rng(8)
    x, w = rng.standard_normal((2, 3, 6, 7)), rng.standard_normal((4, 3, 3, 3))
    g = rng.standard_normal((2, 4, 3, 9))
    arguments = {
        "conv2d": (x, w),
        "conv2d_kernel_grad": (x, g, [3, np.int64(3)]),
        "conv2d_input_grad": (g, w, [2, 3, 6, np.int64(7)]),
    }[operation]
    return lambda **options: getattr(convext, operation)(*arguments, **options)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_options_are_keywords_only(operation):
    case = plain_case(operation)
    with pytest.raises(TypeError):
        case(strides=2)
    x, w = np.ones((1, 4, 4)), np.ones((1, 1, 2, 2))
    with pytest.raises(TypeError):
        convext.conv2d(x, w, None, 2)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_sample_without_n_gives_the_same_without_n(isa, operation):
    rng = np.random.default_rng(9)
    x, w = rng.standard_normal((1, 3, 9, 20)), rng.standard_normal((5, 3, 3, 3))
    g = rng.standard_normal((1, 5, 9, 20))
    with_n, without_n = {
        "conv2d": ((x, w), (x[0], w)),
        "conv2d_kernel_grad": ((x, g, (3, 3)), (x[0], g[0], (3, 3))),
        "conv2d_input_grad": ((g, w, (1, 3, 9, 20)), (g[0], w, (3, 9, 20))),
    }[operation]
    function = getattr(convext, operation)
    batched, single = function(*with_n, padding=1), function(*without_n, padding=1)
    if operation == "conv2d_kernel_grad":
        assert batched.shape == single.shape == w.shape
        assert same_bits(batched, single)
    else:
        assert batched.ndim == 4
        assert same_bits(batched[0], single)


def test_results_are_new_contiguous_native_arrays():
    case = plain_case("conv2d")
    for operation in OPERATIONS:
        result = plain_case(operation)(stride=(2, 1), padding=(1, 2))
        assert type(result) is np.ndarray
        assert result.flags.c_contiguous
        assert result.flags.writeable
        assert result.flags.owndata
        assert result.dtype.isnative
    assert not np.shares_memory(case(), case())


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("float32", "float64", "float64"),
        ("float64", "float32", "float64"),
        ("float16", "float16", "float32"),
        ("float16", "float32", "float32"),
        ("float16", "float64", "float64"),
        ("int8", "int8", "float64"),
        ("uint8", "uint8", "float64"),
        ("int64", "uint64", "float64"),
        ("bool", "bool", "float64"),
        ("uint8", "float32", "float64"),
        ("bool", "float16", "float64"),
        (">f4", "<f4", "float32"),
        (">f8", "<f4", "float64"),
        (">i2", "<f8", "float64"),
    ],
)
def test_result_types(isa, first, second, result):
    x, w = np.ones((2, 4, 4), first), np.ones((3, 2, 2, 2), second)
    g = np.ones((3, 3, 3), second)
    assert convext.conv2d(x, w).dtype == result
    assert convext.conv2d_kernel_grad(x, g, (2, 2)).dtype == result
    assert convext.conv2d_input_grad(g.astype(first), w, x.shape).dtype == result
    assert (convext.conv2d(x, w) == 8).all()


def test_integers_are_computed_without_overflow_in_their_own_type(isa):
    x, w = np.full((3, 4, 4), 255, np.uint8), np.full((1, 3, 3, 3), -128, np.int8)
    assert (convext.conv2d(x, w) == 27 * 255 * -128).all()


def test_float64_is_computed_in_float64_and_float16_in_float32(isa):
    exact = np.array([[[1.0, 2.0**-40]]])
    assert convext.conv2d(exact, np.ones((1, 1, 1, 2))).item() == 1 + 2.0**-40
    half = np.full((1, 1, 3000), 1, np.float16)
    # 3000 ones are 2048 in float16, where counting by one gets stuck.
    assert convext.conv2d(half, np.ones((1, 1, 1, 3000), np.float16)).item() == 3000


@pytest.mark.parametrize("operation", OPERATIONS)
@settings(max_examples=60)
@given(case=cases())
def test_inputs_are_never_modified(operation, isa, case):
    arrays = [case.input_data, case.kernels, case.output_grad]
    arrays += [] if case.bias is None else [case.bias]
    whole = [a if a.base is None or isinstance(a.base, bytearray) else a.base for a in arrays]
    before = [a.tobytes() for a in whole]
    flags = [(a.flags.writeable, a.strides, a.dtype) for a in arrays]
    compute(operation, case)
    assert [a.tobytes() for a in whole] == before
    assert [(a.flags.writeable, a.strides, a.dtype) for a in arrays] == flags


# ---------------------------------------------------------------- out


def test_out_is_written_in_place_and_returned(isa):
    rng = np.random.default_rng(10)
    x, w = rng.standard_normal((2, 3, 8, 37)), rng.standard_normal((5, 3, 3, 3))
    # `out` has neighbours on both sides, which must stay as they are.
    buffer = np.full((4, 5, 6, 35), np.nan)
    out = buffer[1:3]
    assert convext.conv2d(x, w, bias=np.arange(5), out=out) is out
    assert same_bits(out.copy(), convext.conv2d(x, w, bias=np.arange(5)))
    assert np.isnan(buffer[0]).all()
    assert np.isnan(buffer[3]).all()


def test_out_without_n_and_in_float32(isa):
    x, w = np.ones((2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float16)
    out = np.full((3, 3, 3), np.nan, np.float32)
    assert convext.conv2d(x, w, out=out) is out
    assert (out == 18).all()


def test_out_beside_the_input_in_one_buffer_is_no_overlap(isa):
    buffer = np.arange(50.0)
    x, out = buffer[:25].reshape(1, 5, 5), buffer[25:].reshape(1, 5, 5)
    convext.conv2d(x, np.full((1, 1, 1, 1), 2.0), out=out)
    assert (buffer[25:] == 2 * np.arange(25)).all()
    assert (buffer[:25] == np.arange(25)).all()


@settings(max_examples=40)
@given(case=cases())
def test_out_receives_every_element_whatever_it_held(isa, case):
    expected = compute("conv2d", case)
    out = np.full(expected.shape, np.nan, expected.dtype)
    assert compute("conv2d", case, out=out) is out
    assert same_bits(out, expected)


# ---------------------------------------------------------------- NaN and infinity


def one_marked_pixel_each(channels, height, width, marked_channel):
    """Return the indicator (H * W, C, H, W) whose sample i marks pixel i of one channel."""
    marks = np.zeros((height * width, channels, height, width))
    marks[:, marked_channel] = np.eye(height * width).reshape(-1, height, width)
    return marks


SPREADS = {
    "plain": ((3, 3), {}),
    "padded": ((3, 3), {"padding": ((1, 0), (2, 1))}),
    "strided": ((2, 3), {"stride": (2, 3), "padding": (1, 2)}),
    "strided past the kernel": ((1, 1), {"stride": (1, 2)}),
    "dilated": ((2, 3), {"dilation": (1, 4), "padding": (0, 5)}),
    "one row": ((1, 5), {"padding": "same"}),
    "two groups": ((2, 2), {"groups": 2, "padding": 1}),
}
HEIGHT = 4


def spread_output_hw(width, kernel_hw, options):
    """Return the output's height and width of one of `SPREADS`."""
    names = ("stride", "padding", "dilation")
    chosen = {name: options[name] for name in names if name in options}
    return reference.output_size((HEIGHT, width), kernel_hw, **chosen)


def reached(operation, marks, other_shape, *shape, **options):
    """Return which results have a product with a marked element."""
    return getattr(reference, operation)(marks, np.ones(other_shape), *shape, **options) > 0


def check_only_reached_are(isnonfinite, result, spread, clean):
    """Check that a value reached all that it must, and that all else is as if it were not there."""
    np.testing.assert_array_equal(isnonfinite(result), spread)
    tolerance = 1e-4 if result.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(result[~spread], clean[~spread], rtol=0, atol=tolerance)


@pytest.mark.parametrize("width", [3, 8, 17, 40, 131])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_in_the_input_reaches_the_outputs_that_cover_it_and_no_others(
    isa, spread, width, dtype
):
    kernel_hw, options = SPREADS[spread]
    rng = np.random.default_rng(width)
    marks = one_marked_pixel_each(2, HEIGHT, width, marked_channel=1)
    x = rng.standard_normal(marks.shape).astype(dtype)
    w = rng.standard_normal((4, 2 // options.get("groups", 1), *kernel_hw)).astype(dtype)
    clean = convext.conv2d(np.where(marks, 0, x).astype(dtype), w, **options)
    result = convext.conv2d(np.where(marks, np.nan, x).astype(dtype), w, **options)
    covering = reached("conv2d", marks, w.shape, **options)
    check_only_reached_are(np.isnan, result, covering, clean)


@pytest.mark.parametrize("width", [3, 17, 70])
@pytest.mark.parametrize("spread", SPREADS)
def test_infinity_in_the_input_makes_no_nan(isa, spread, width):
    kernel_hw, options = SPREADS[spread]
    marks = one_marked_pixel_each(2, HEIGHT, width, marked_channel=0)
    rng = np.random.default_rng(width)
    w = rng.uniform(1, 2, (16, 2 // options.get("groups", 1), *kernel_hw))
    x = rng.standard_normal(marks.shape)
    clean = convext.conv2d(np.where(marks, 0, x), w, **options)
    covering = reached("conv2d", marks, w.shape, **options)
    for infinity in (np.inf, -np.inf):
        result = convext.conv2d(np.where(marks, infinity, x), w, **options)
        check_only_reached_are(lambda a, value=infinity: a == value, result, covering, clean)


@pytest.mark.parametrize("width", [3, 8, 17, 40, 131])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_in_the_output_gradient_reaches_only_the_pixels_under_its_window(
    isa, spread, width, dtype
):
    kernel_hw, options = SPREADS[spread]
    output_hw = spread_output_hw(width, kernel_hw, options)
    marks = one_marked_pixel_each(4, *output_hw, marked_channel=3)
    rng = np.random.default_rng(width)
    g = rng.standard_normal(marks.shape).astype(dtype)
    w = rng.standard_normal((4, 2 // options.get("groups", 1), *kernel_hw)).astype(dtype)
    shape = (len(marks), 2, HEIGHT, width)
    clean, result = (
        convext.conv2d_input_grad(np.where(marks, v, g).astype(dtype), w, shape, **options)
        for v in (0, np.nan)
    )
    covered = reached("conv2d_input_grad", marks, w.shape, shape, **options)
    check_only_reached_are(np.isnan, result, covered, clean)


@pytest.mark.parametrize("width", [3, 9, 37])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_in_the_input_reaches_only_the_kernel_gradients_that_use_it(isa, spread, width, dtype):
    kernel_hw, options = SPREADS[spread]
    output_hw = spread_output_hw(width, kernel_hw, options)
    rng = np.random.default_rng(width)
    g = rng.standard_normal((4, *output_hw)).astype(dtype)
    for mark in one_marked_pixel_each(2, HEIGHT, width, marked_channel=1):
        x = rng.standard_normal(mark.shape).astype(dtype)
        clean, result = (
            convext.conv2d_kernel_grad(np.where(mark, v, x).astype(dtype), g, kernel_hw, **options)
            for v in (0, np.nan)
        )
        used = reached("conv2d_kernel_grad", mark, g.shape, kernel_hw, **options)
        check_only_reached_are(np.isnan, result, used, clean)


@pytest.mark.parametrize("width", [3, 16, 45])
def test_nan_in_the_output_gradient_reaches_only_its_kernel(isa, width):
    rng = np.random.default_rng(width)
    x, g = rng.standard_normal((2, 2, 4, width + 2)), rng.standard_normal((2, 16, 3, width))
    clean = convext.conv2d_kernel_grad(x, g, (2, 3))
    for column in range(width):
        poisoned = g.copy()
        poisoned[1, 13, 1, column] = np.nan
        spread = np.zeros(clean.shape, bool)
        spread[13] = True
        result = convext.conv2d_kernel_grad(x, poisoned, (2, 3))
        check_only_reached_are(np.isnan, result, spread, clean)


def test_nan_in_one_kernel_reaches_only_its_outputs(isa):
    rng = np.random.default_rng(11)
    x, w = rng.standard_normal((2, 3, 5, 40)), rng.standard_normal((31, 3, 3, 3))
    clean = convext.conv2d(x, w)
    for kernel in (0, 5, 13, 14, 30):
        poisoned = w.copy()
        poisoned[kernel, 2, 1, 0] = np.nan
        spread = np.zeros(clean.shape, bool)
        spread[:, kernel] = True
        check_only_reached_are(np.isnan, convext.conv2d(x, poisoned), spread, clean)


@pytest.mark.parametrize("operation", OPERATIONS)
@settings(max_examples=40)
@given(case=cases())
def test_an_earlier_call_on_nan_leaves_nothing_behind(operation, isa, case):
    # The same sizes full of NaN fill the very scratch memory that the next call may get.
    before = compute(operation, case)
    poisoned = [np.full(a.shape, np.nan, before.dtype) for a in operands(operation, case)[:2]]
    rest = operands(operation, case)[2:]
    threads = {"num_threads": case.num_threads}
    getattr(convext, operation)(*poisoned, *rest, **case.options, **threads)
    after = compute(operation, case)
    assert np.isfinite(after).all()
    assert same_bits(before, after)


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("batch", [(), (2,)])
def test_backprop_is_the_kernel_gradient_of_the_mean_squared_error(isa, batch):
    rng = np.random.default_rng(12)
    x, w, target = (rng.random(s) for s in ((*batch, 3, 6, 7), (2, 3, 3, 2), (*batch, 2, 4, 6)))
    gradient = convext.conv2d_backprop(x, w, target, convext.conv2d(x, w))
    differences = central_differences(
        lambda moved: reference.mse_loss(reference.conv2d(x, moved), target), w
    )
    assert gradient.shape == w.shape
    np.testing.assert_allclose(gradient, differences, rtol=1e-10, atol=1e-12)


def test_backprop_uses_the_prediction_it_is_given(isa):
    rng = np.random.default_rng(13)
    x, w, target, prediction = (
        rng.random(shape) for shape in ((3, 6, 6), (2, 3, 3, 3), (2, 4, 4), (2, 4, 4))
    )
    actual = convext.conv2d_backprop(x, w, target, prediction)
    residual = 2 * (prediction - target) / target.size
    expected = reference.conv2d_kernel_grad(x, residual, (3, 3)).astype(float)
    np.testing.assert_allclose(actual, expected, rtol=1e-13)


def test_a_step_against_backprop_lowers_the_loss():
    rng = np.random.default_rng(14)
    x, w, target = rng.random((3, 9, 9)), rng.random((2, 3, 2, 2)), rng.random((2, 8, 8))
    prediction = convext.conv2d(x, w)
    better = w - 0.01 * convext.conv2d_backprop(x, w, target, prediction)
    loss = convext.mse_loss(convext.conv2d(x, better), target)
    assert loss < convext.mse_loss(prediction, target)


@settings(max_examples=50)
@given(
    shape=st.lists(st.integers(1, 6), min_size=0, max_size=4).map(tuple),
    dtypes=st.tuples(*[st.sampled_from(["float32", "float64", "uint8", "float16"])] * 2),
    seed=st.integers(0, 999),
)
def test_mse_loss_and_its_gradient(shape, dtypes, seed):
    rng = np.random.default_rng(seed)
    predicted, target = (random_values(rng, shape, dtype) for dtype in dtypes)
    loss = convext.mse_loss(predicted, target)
    assert type(loss) is float
    both_single = set(dtypes) <= {"float32", "float16"}
    assert loss == pytest.approx(reference.mse_loss(predicted, target), rel=1e-5, abs=0)

    gradient = convext.mse_loss_gradient(predicted, target)
    assert gradient.dtype == (np.float32 if both_single else np.float64)
    expected = 2 * (predicted.astype(float) - target) / predicted.size
    np.testing.assert_allclose(gradient, expected, rtol=1e-6 if both_single else 1e-14)


def test_the_mse_loss_of_two_numbers_is_the_square_of_their_difference():
    for single in (float, np.float32, np.array):
        assert convext.mse_loss(single(3), single(1)) == 4
        gradient = convext.mse_loss_gradient(single(3), single(1))
        assert isinstance(gradient, np.ndarray)
        assert (gradient.shape, gradient) == ((), 4)


def test_mse_loss_is_accurate_in_float64():
    rng = np.random.default_rng(15)
    predicted, target = rng.random((2, 3, 40, 50)), rng.random((2, 3, 40, 50))
    expected = reference.mse_loss(predicted, target)
    assert convext.mse_loss(predicted, target) == pytest.approx(expected, rel=1e-14, abs=0)
    assert convext.mse_loss(target, target) == 0


def test_the_loss_gradient_is_the_finite_difference_of_the_loss():
    rng = np.random.default_rng(16)
    predicted, target = rng.random((2, 3, 4)), rng.random((2, 3, 4))
    differences = central_differences(lambda moved: convext.mse_loss(moved, target), predicted)
    gradient = convext.mse_loss_gradient(predicted, target)
    np.testing.assert_allclose(gradient, differences, rtol=1e-11)


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize("operation", OPERATIONS)
@settings(max_examples=40)
@given(case=cases())
def test_results_have_the_same_bits_for_any_thread_count(operation, isa, case):
    results = []
    for num_threads in (1, 2, 5):
        leave_nan_in_free_memory()
        results.append(compute(operation, case, num_threads=num_threads))
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])


# Tiles of different heights, on several threads: each thread has scratch memory of its own, and
# the first tile that it meets may not fill it.
NAN_IN_FREE_MEMORY = """
    import numpy as np
    import convext
    from convext.base import _dispatch

    CASES = (
        ((1, 3, 30, 69), (1, 3, 10, 10), {"padding": 9}),
        ((1, 3, 57, 69), (2, 3, 5, 5), {}),
        ((2, 3, 50, 69), (4, 3, 3, 3), {"padding": 1}),
        ((1, 1, 120, 130), (2, 1, 5, 5), {"padding": 2}),
        ((1, 3, 101, 99), (5, 3, 3, 3), {"stride": 2, "padding": 1}),
        ((1, 6, 61, 57), (3, 6, 3, 3), {"dilation": 2, "padding": 2}),
        ((1, 9, 60, 59), (7, 9, 1, 2), {"stride": 3}),
        ((1, 9, 60, 59), (7, 9, 3, 3), {"stride": 2, "dilation": 2}),
    )

    def leave_nan_in_free_memory():
        blocks = [np.full(n, np.nan) for n in (200, 1000, 4000, 12_000, 40_000, 100_000) * 3]

    def check(function, *arguments, **options):
        expected = function(*arguments, **options, num_threads=1)
        assert np.isfinite(expected).all()
        for num_threads in (1, *(2, 5) * 12):
            leave_nan_in_free_memory()
            result = function(*arguments, **options, num_threads=num_threads)
            if result.tobytes() != expected.tobytes():
                where = (function.__name__, isa, dtype.__name__, result.shape, num_threads)
                raise AssertionError(f"differs on {where} by {abs(result - expected).max()}")

    # A first large block is given back to the system, after which smaller ones are kept for reuse.
    np.full(800_000, np.nan)
    rng = np.random.default_rng(22)
    for isa in convext.get_config()["isas_supported"]:
        _dispatch.use_isa(isa)
        for dtype in (np.float32, np.float64):
            for input_shape, kernels_shape, options in CASES:
                # Backwards rows cannot be used where they lie.
                x = rng.standard_normal(input_shape).astype(dtype)[..., ::-1]
                w = rng.standard_normal(kernels_shape).astype(dtype)
                g = rng.standard_normal(convext.conv2d(x, w, **options).shape).astype(dtype)
                check(convext.conv2d, x, w, **options)
                check(convext.conv2d_kernel_grad, x, g, w.shape[2:], **options)
                check(convext.conv2d_input_grad, g, w, x.shape, **options)
    print("done")
"""


def test_results_do_not_depend_on_what_free_memory_holds():
    # In a process of its own, whose few free blocks are sure to be those with the NaN.
    assert output_of(NAN_IN_FREE_MEMORY) == ["done"]


# Each at least a million products, so that several threads do take part.
THREADED = {
    "photograph": ((3, 200, 301), (4, 3, 3, 3), {"padding": 1}),
    "one grey image": ((1, 500, 700), (1, 1, 5, 5), {}),
    "layer": ((2, 32, 28, 28), (40, 32, 3, 3), {"padding": 1}),
    "batch": ((64, 3, 28, 28), (2, 3, 2, 2), {}),
    "few pixels": ((1, 130, 7, 7), (96, 130, 3, 3), {"padding": 1}),
    "strided": ((2, 16, 101, 99), (24, 16, 3, 3), {"stride": 2, "padding": "same"}),
    "depthwise": ((1, 48, 60, 61), (48, 1, 5, 5), {"groups": 48, "padding": 2}),
    "grouped": ((1, 24, 50, 50), (36, 8, 3, 3), {"groups": 3, "dilation": 2}),
    "one row": ((8, 1, 30_000), (8, 8, 1, 7), {}),
}


@pytest.mark.parametrize("name", THREADED)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("algorithm", ["auto", "direct"])
def test_large_results_have_the_same_bits_for_any_thread_count(isa, name, dtype, algorithm):
    input_shape, kernels_shape, options = THREADED[name]
    rng = np.random.default_rng(17)
    x = rng.standard_normal(input_shape).astype(dtype)
    w = rng.standard_normal(kernels_shape).astype(dtype)
    chosen = {**options, "algorithm": algorithm}
    results = [convext.conv2d(x, w, **chosen, num_threads=n) for n in (1, 2, 5)]
    g = rng.standard_normal(results[0].shape).astype(dtype)
    assert g.size * w[0].size >= 1_000_000
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])

    kernel_shape = w.shape[2:]
    for function in (
        lambda n: convext.conv2d_kernel_grad(x, g, kernel_shape, **options, num_threads=n),
        lambda n: convext.conv2d_input_grad(g, w, x.shape, **chosen, num_threads=n),
    ):
        one, two, five = (function(n) for n in (1, 2, 5))
        assert same_bits(one, two)
        assert same_bits(one, five)
        assert np.abs(one).sum() > 0


COUNT_NEW_THREADS = """
    import os
    import numpy as np
    import convext

    x = np.ones((8, 32, 64, 64), np.float32)
    w = np.ones((32, 32, 3, 3), np.float32)
    arguments = {
        "conv2d": (x, w),
        "conv2d_kernel_grad": (x, x, (3, 3)),
        "conv2d_input_grad": (x, w, x.shape),
    }["OPERATION"]
    before = len(os.listdir("/proc/self/task"))
    convext.OPERATION(*arguments, padding=1, num_threads=NUM_THREADS)
    # OpenMP keeps its threads for the next call, so that they can be counted after it.
    print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.openmp
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_num_threads_is_how_many_threads_work(operation):
    def new_threads(num_threads, **environment):
        code = COUNT_NEW_THREADS.replace("OPERATION", operation)
        (count,) = output_of(code.replace("NUM_THREADS", repr(num_threads)), **environment)
        return int(count)

    assert new_threads(1, OMP_NUM_THREADS="3") == 0
    assert new_threads(3, OMP_NUM_THREADS="1") == 2
    assert new_threads(None, OMP_NUM_THREADS="3") == 2


@pytest.mark.openmp
def test_set_num_threads_sets_the_default(restored_num_threads):
    for number in (1, 3):
        convext.set_num_threads(number)
        assert convext.get_num_threads() == number
        assert convext.get_config()["num_threads"] == number


@pytest.mark.openmp
def test_the_default_number_of_threads_is_omp_num_threads():
    code = "import convext; print(convext.get_num_threads())"
    assert output_of(code, OMP_NUM_THREADS="3") == ["3"]
    assert output_of(code, OMP_NUM_THREADS="1") == ["1"]


@pytest.mark.openmp
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_the_default_number_of_threads_is_the_cpus_that_the_process_may_use():
    code = """
        import os
        cpus = sorted(os.sched_getaffinity(0))[:LIMIT]
        os.sched_setaffinity(0, cpus)
        import convext
        print(len(cpus), convext.get_num_threads())
    """
    for limit in ("1", "2"):
        cpus, threads = output_of(code.replace("LIMIT", limit), OMP_NUM_THREADS=None)
        assert cpus == threads


def layer():
    """Return arrays of a layer that several threads share the work of."""
    rng = np.random.default_rng(18)
    x = rng.standard_normal((2, 8, 40, 41), dtype=np.float32)
    return x, rng.standard_normal((16, 8, 3, 3), dtype=np.float32)


def layer_results(num_threads):
    """Return the three operations' results on the layer."""
    x, w = layer()
    value = convext.conv2d(x, w, num_threads=num_threads)
    return (
        value,
        convext.conv2d_kernel_grad(x, value, (3, 3), num_threads=num_threads),
        convext.conv2d_input_grad(value, w, x.shape, num_threads=num_threads),
    )


def test_calls_from_several_python_threads_do_not_disturb_each_other(isa):
    expected = layer_results(1)
    with ThreadPoolExecutor(4) as pool:
        every_result = list(pool.map(layer_results, [1, 2, 5, None] * 8))
    for results in every_result:
        assert all(map(same_bits, results, expected))


def test_other_python_threads_run_during_a_call():
    x, w = np.ones((4, 64, 64, 64), np.float32), np.ones((64, 64, 3, 3), np.float32)
    convext.conv2d(x, w, num_threads=1)
    span = []

    def work():
        span.append(time.perf_counter())
        convext.conv2d(x, w, num_threads=1)
        span.append(time.perf_counter())

    # A busy machine may let no one run in between; held throughout, the lock never would.
    for _ in range(5):
        span.clear()
        worker, ticks = threading.Thread(target=work), []
        worker.start()
        while worker.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.0002)
        start, end = span
        middle = [t for t in ticks if start + (end - start) / 4 < t < end - (end - start) / 4]
        if middle:
            return
    pytest.fail("no other thread ran during the call: the GIL was held")


# ---------------------------------------------------------------- memory


AT_THE_EDGE_OF_MEMORY = """
    import ctypes, mmap
    import numpy as np
    import convext
    from convext.base import _dispatch

    PAGE = mmap.PAGESIZE
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def fenced(values, at_end):
        # A copy with a page that nobody may touch before and after it, right at one of them.
        size = -(-values.nbytes // PAGE) * PAGE
        memory = np.frombuffer(mmap.mmap(-1, size + 2 * PAGE), np.uint8)
        for fence in (0, PAGE + size):
            assert mprotect(memory.ctypes.data + fence, PAGE, 0) == 0
        start = PAGE + (size - values.nbytes if at_end else 0)
        copy = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
        copy[...] = values
        return copy

    CHANNELS_KERNELS_GROUPS = (1, 1, 1), (3, 2, 1), (2, 15, 1), (4, 4, 4), (32, 61, 1)
    rng = np.random.default_rng(19)
    for isa in convext.get_config()["isas_supported"]:
        _dispatch.use_isa(isa)
        for dtype in (np.float32, np.float64):
            for width in (3, 4, 7, 8, 15, 17, 33, 70, 131):
                for channels, kernels, groups in CHANNELS_KERNELS_GROUPS:
                    for options in ({}, {"padding": 1}, {"stride": 2}, {"dilation": (1, 2)}):
                        options = {**options, "groups": groups}
                        for size in ((3, 3), (2, 2), (1, 1), (2, 7)):
                            if (size[1] - 1) * 2 >= width:
                                continue
                            x = rng.random((channels, 4, width)).astype(dtype)
                            w = rng.random((kernels, channels // groups, *size)).astype(dtype)
                            expected = convext.conv2d(x, w, **options)
                            g = rng.random(expected.shape).astype(dtype)
                            wg = convext.conv2d_kernel_grad(x, g, size, **options)
                            xg = convext.conv2d_input_grad(g, w, x.shape, **options)
                            for at_end in (False, True):
                                a, b, c, out = (fenced(v, at_end) for v in (x, w, g, 0 * g))
                                convext.conv2d(a, b, **options, out=out)
                                assert (out == expected).all()
                                again = convext.conv2d_kernel_grad(a, c, size, **options)
                                assert (again == wg).all()
                                again = convext.conv2d_input_grad(c, b, x.shape, **options)
                                assert (again == xg).all()
    print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="calls mprotect as on Linux")
def test_nothing_outside_the_arrays_is_read_or_written():
    # In a process of its own: a touch of a forbidden page is a segmentation fault.
    assert output_of(AT_THE_EDGE_OF_MEMORY) == ["done"]


SCRATCH_OF = """
    import numpy as np
    import convext

    def peak():  # in KiB; ru_maxrss would be at least that of the process that started this one
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    options = {"padding": 1, "num_threads": 1}
    x, w = np.ones((1, 4000, 4000), np.float32), np.ones((1, 1, 3, 3), np.float32)
    out = np.ones_like(x)
    before = peak()
    result = CALL
    kib = peak() - before
    print(kib / 1024 - (0 if result is out else result.nbytes / 2**20))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="ASan's own memory counts")
@pytest.mark.parametrize(
    "call",
    [
        "convext.conv2d(x, w, out=out, **options)",
        "convext.conv2d_kernel_grad(x, out, (3, 3), **options)",
        "convext.conv2d_input_grad(out, w, x.shape, **options)",
    ],
)
def test_scratch_memory_does_not_grow_with_the_image(call):
    # The image takes 61 MiB; one thread's scratch must be a few, so no copy of it was made.
    (mib,) = output_of(SCRATCH_OF.replace("CALL", call))
    assert float(mib) < 16


# ---------------------------------------------------------------- instruction sets


def test_instruction_sets_are_what_the_configuration_says(isa):
    config = convext.get_config()
    assert config["isa"] == isa
    assert isa in config["isas_supported"]
    assert set(config["isas_supported"]) <= set(config["isas_built"])
    assert "baseline" in config["isas_supported"]


def test_convext_isa_chooses_the_instruction_set():
    code = "import convext; print(convext.get_config()['isa'])"
    for name in convext.get_config()["isas_supported"]:
        assert output_of(code, CONVEXT_ISA=name) == [name]
    best = output_of(code, CONVEXT_ISA=None)
    assert best[0] in convext.get_config()["isas_supported"]


def test_an_unknown_instruction_set_is_a_clear_error():
    done = run_python("import convext; convext.get_config()", CONVEXT_ISA="sse9")
    assert done.returncode != 0
    assert "CONVEXT_ISA" in done.stderr
    assert "sse9" in done.stderr
    assert "baseline" in done.stderr


# Sums of equal numbers are the hardest: each addition is rounded the same way, so that errors grow
# with the number of products unless sums are taken in blocks.
LONG_SUMS = [
    ((1, 512, 4, 4), (3, 3)),
    ((1, 1, 70, 70), (61, 61)),
    ((2, 20, 60, 60), (3, 3)),
    ((1, 1, 3, 4000), (1, 1)),
    ((1, 40, 1, 900), (1, 1)),
    ((4, 3, 150, 150), (2, 1)),
]


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "kernel_shape"), LONG_SUMS)
def test_long_sums_of_equal_numbers_stay_within_the_bound(shape, kernel_shape, dtype, value, isa):
    pixel, weight, gradient = (dtype(number) for number in (value, 1.1, 0.9))
    images = np.full(shape, pixel)
    kernels = np.full((5, shape[1], *kernel_shape), weight)
    output = convext.conv2d(images, kernels)
    kernel_grad = convext.conv2d_kernel_grad(images, np.full(output.shape, gradient), kernel_shape)
    bound = reference.BOUNDS[np.dtype(dtype)]
    for result, taps, term in (
        (output, kernels[0].size, np.longdouble(pixel) * weight),
        (kernel_grad, output[:, 0].size, np.longdouble(pixel) * gradient),
    ):
        error = np.abs(result.astype(np.longdouble) - taps * term).max()
        assert error <= bound * np.sqrt(taps) * taps * term


def test_taps_that_lie_far_beyond_the_image_need_little_memory():
    # Only the middle tap of each kernel meets the image.
    far = 10**8
    rng = np.random.default_rng(21)
    images, kernels = rng.standard_normal((16, 3, 3)), rng.standard_normal((4, 16, 3, 3))
    options = {"padding": far, "dilation": far}
    output = convext.conv2d(images, kernels, **options)
    expected = np.einsum("chw,kc->khw", images, kernels[:, :, 1, 1])
    np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)
    gradient = convext.conv2d_kernel_grad(images, output, (3, 3), **options)
    middle = np.zeros_like(kernels)
    middle[:, :, 1, 1] = np.einsum("chw,khw->kc", images, output)
    np.testing.assert_allclose(gradient, middle, rtol=1e-12, atol=1e-12)
