"""The reference against the definition loop by loop, SciPy and known answers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d
from strategies import LAYOUTS, MOST_PRODUCTS, cases, lay_out, random_values

# The reference rounds a little itself where long double is no wider than float64.
EXACT = 1e-13


@st.composite
def tiny_cases(draw):
    """Draw shapes and options small enough for loops over single numbers."""
    small = st.integers(1, 3)
    groups, channels, kernels = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(small)
    kernel_hw, stride, dilation = draw(st.tuples(*[st.tuples(small, small)] * 3))
    edges = draw(st.tuples(*[st.tuples(*[st.integers(0, 4)] * 2)] * 2))
    extent = reference.kernel_extent(kernel_hw, dilation)
    image = tuple(n + draw(st.integers(0, 3)) for n in extent)
    x_shape = (draw(st.integers(1, 2)), groups * channels, *image)
    return x_shape, (groups * kernels, channels, *kernel_hw), stride, edges, dilation, groups


def products(x_shape, w_shape, stride, edges, dilation, groups):
    """Yield the indices (of output, kernel value, pixel) of every product but those with zeros."""
    output_hw = reference.output_size(x_shape[2:], w_shape[2:], stride, edges, dilation)
    counts = (x_shape[0], w_shape[0], *output_hw, *w_shape[1:])
    for n, k, y, x, c, i, j in product(*map(range, counts)):
        row = y * stride[0] + i * dilation[0] - edges[0][0]
        column = x * stride[1] + j * dilation[1] - edges[1][0]
        if 0 <= row < x_shape[2] and 0 <= column < x_shape[3]:
            channel = k // (w_shape[0] // groups) * w_shape[1] + c
            yield (n, k, y, x), (k, c, i, j), (n, channel, row, column)


@settings(max_examples=25)
@given(tiny_cases(), st.integers(0, 99))
def test_all_three_operations_are_the_sums_of_the_definition(tiny, seed):
    x_shape, w_shape, stride, edges, dilation, groups = tiny
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    output_hw = reference.output_size(x_shape[2:], w_shape[2:], stride, edges, dilation)
    g = rng.standard_normal((x_shape[0], w_shape[0], *output_hw))

    value, x_grad, w_grad = np.zeros_like(g), np.zeros_like(x), np.zeros_like(w)
    for output, kernel, pixel in products(*tiny):
        value[output] += x[pixel] * w[kernel]
        x_grad[pixel] += w[kernel] * g[output]
        w_grad[kernel] += x[pixel] * g[output]

    options = (stride, edges, dilation, groups)
    tolerance = {"rtol": 0, "atol": 1e-12}
    np.testing.assert_allclose(reference.conv2d(x, w, None, *options), value, **tolerance)
    np.testing.assert_allclose(
        reference.conv2d_kernel_grad(x, g, w_shape[2:], *options), w_grad, **tolerance
    )
    np.testing.assert_allclose(
        reference.conv2d_input_grad(g, w, x_shape, *options), x_grad, **tolerance
    )


@pytest.mark.parametrize("kernel_hw", [(1, 1), (2, 3), (3, 3), (5, 4)])
def test_one_channel_is_scipy_correlate2d(kernel_hw):
    rng = np.random.default_rng(1)
    image, kernel = rng.standard_normal((9, 11)), rng.standard_normal(kernel_hw)
    full = tuple(n - 1 for n in kernel_hw)
    for mode, padding in (("valid", 0), ("full", full)):
        actual = reference.conv2d(image[None], kernel[None, None], padding=padding)
        expected = correlate2d(image, kernel, mode=mode)
        np.testing.assert_allclose(actual[0].astype(float), expected, rtol=0, atol=1e-13)


def test_channels_add_up_and_the_bias_is_added_once():
    x = np.arange(2 * 3 * 3.0).reshape(2, 3, 3)
    w = np.ones((1, 2, 3, 3))
    expected = reference.conv2d(x, w, [0.5], detailed=True)
    assert expected.value.item() == x.sum() + 0.5
    assert expected.magnitude.item() == x.sum() + 0.5
    assert expected.taps == 2 * 3 * 3 + 1


def test_magnitudes_are_sums_of_absolute_products_and_taps_count_them():
    x, w, g = np.full((2, 2, 4, 4), -1.0), np.full((3, 2, 3, 3), 2.0), np.full((2, 3, 2, 2), -5.0)
    forward = reference.conv2d(x, w, detailed=True)
    assert forward.taps == 18
    assert (forward.value == -36).all()
    assert (forward.magnitude == 36).all()
    kernel_grad = reference.conv2d_kernel_grad(x, g, (3, 3), detailed=True)
    assert kernel_grad.taps == 2 * 2 * 2
    assert (kernel_grad.value == 40).all()
    assert (kernel_grad.magnitude == 40).all()
    input_grad = reference.conv2d_input_grad(g, w, x.shape, detailed=True)
    assert input_grad.taps == 27
    # A corner pixel lies under one window only, of each of the three kernels.
    assert input_grad.value[0, 0, 0, 0] == -30
    assert input_grad.magnitude[0, 0, 0, 0] == 30


@settings(max_examples=25)
@given(cases("float64"))
def test_the_gradients_are_adjoints_of_the_convolution(case):
    x, w, g = case.input_data, case.kernels, case.output_grad
    value, magnitude, _ = reference.conv2d(x, w, **case.options, detailed=True)
    by_kernels = reference.conv2d_kernel_grad(x, g, case.kernel_shape, **case.options)
    by_input = reference.conv2d_input_grad(g, w, case.input_shape, **case.options)
    g, w, x = (a.astype(reference.Wide) for a in (g, w, x))
    scale = EXACT * (magnitude * np.abs(g)).sum()
    assert abs((value * g).sum() - (by_kernels * w).sum()) <= scale
    assert abs((value * g).sum() - (by_input * x).sum()) <= scale


@pytest.mark.parametrize(
    ("padding", "edges"),
    [
        (2, ((2, 2), (2, 2))),
        ((1, 3), ((1, 1), (3, 3))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ("valid", ((0, 0), (0, 0))),
    ],
)
def test_every_form_of_padding_has_one_meaning(padding, edges):
    assert reference.resolve_padding(padding, (9, 9), (3, 3), 1, 1) == edges


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "edge"),
    [
        # Worked out by hand from TensorFlow's definition.
        (5, 3, 1, 1, (1, 1)),
        (5, 2, 1, 1, (0, 1)),
        (6, 3, 2, 1, (0, 1)),
        (5, 3, 2, 1, (1, 1)),
        (7, 5, 3, 1, (2, 2)),
        (8, 1, 3, 1, (0, 0)),
        (5, 3, 1, 2, (2, 2)),
        (4, 3, 2, 3, (2, 3)),
    ],
)
def test_same_padding_is_tensorflow_s(size, kernel, stride, dilation, edge):
    arguments = ("same", (size, size), (kernel, kernel), stride, dilation)
    assert reference.resolve_padding(*arguments) == (edge, edge)
    output = reference.output_size((size, size), (kernel, kernel), stride, "same", dilation)
    assert output == (-(-size // stride),) * 2


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "bool"])
def test_layouts_keep_shape_type_and_values(layout, dtype):
    values = random_values(np.random.default_rng(2), (2, 3, 4, 5), dtype)
    array = lay_out(values, layout)
    assert array.shape == values.shape
    assert array.dtype.newbyteorder("=") == values.dtype
    if not layout.startswith("broadcast"):
        np.testing.assert_array_equal(array, values)


def test_layouts_are_what_they_say():
    values = np.random.default_rng(3).standard_normal((2, 3, 4, 5))
    arrays = {layout: lay_out(values, layout) for layout in LAYOUTS}
    assert arrays["c_order"].flags.c_contiguous
    assert arrays["fortran_order"].flags.f_contiguous
    assert arrays["channels_last"].strides[1] == 8
    assert max(arrays["reversed"].strides) < 0
    assert arrays["stepped"].strides[3] == 16
    assert arrays["cropped"].strides[3] == 8
    assert arrays["broadcast_first"].strides[0] == 0
    assert arrays["broadcast_last"].strides[3] == 0
    assert not arrays["unaligned"].flags.aligned
    assert not arrays["read_only"].flags.writeable
    assert not arrays["swapped_bytes"].dtype.isnative


@settings(max_examples=50)
@given(cases())
def test_generated_cases_are_legal_and_small(case):
    assert min(case.output_shape) >= 1
    assert case.input_shape[-3] == case.kernels_shape[1] * case.groups
    assert case.kernels_shape[0] % case.groups == 0
    per_output = np.prod(case.kernels_shape[1:], dtype=int)
    assert np.prod(case.output_shape, dtype=int) * per_output <= MOST_PRODUCTS


def test_the_bound_rejects_an_error_a_nan_and_a_value_where_zero_is_due():
    expected = reference.Expected(
        np.array([1, 0], reference.Wide), np.array([1, 0], reference.Wide), 4
    )
    reference.assert_within_bound(np.array([1 + 1.9e-15, 0]), expected)
    for wrong in ([1 + 2.5e-15, 0], [1, 1e-300], [np.nan, 0], [0, 0]):
        with pytest.raises(AssertionError):
            reference.assert_within_bound(np.array(wrong, float), expected)
    with pytest.raises(AssertionError):
        reference.assert_within_bound(np.zeros(3), expected)
