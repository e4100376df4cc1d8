"""Winograd's kernel gradient: right on every instruction set, nearly as accurate as the direct."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from strategies import LAYOUTS, lay_out
from test_operations import compute, expect, leave_nan_in_free_memory, output_of, same_bits
from test_winograd import AT_THE_EDGE_OF_MEMORY, ERROR_RATIO, winograd_cases

import convext

# From a pixel to the output gradients of its tile that it does not meet, at most.
REACH = 3

# A tile's sums are of as many products, however few its output gradients.
VALUES = 36

# On 7x7 pixels the direct algorithm sums so few products that it rounds less than anywhere else.
ERROR_RATIO_OF_SMALL_MAPS = 5.5

# Of exact numbers the direct algorithm makes no error to compare with: how many rounding errors of
# a sum, which has the standard deviation of all.
ROUNDINGS_OF_SIGNS = 6
LARGEST_ROUNDING_OF_SIGNS = 40


def by_winograd(x, g, **options):
    return convext.conv2d_kernel_grad(x, g, (3, 3), algorithm="winograd", **options)


def tile_magnitude(case):
    """Return the largest sum of absolute products of each entry's kernel and channel.

    The products of all pixels and output gradients of a tile count: all nine taps share its errors.
    """
    edges = reference.resolve_padding(case.options["padding"], case.input_shape[-2:], (3, 3))
    margin = [tuple(n + REACH for n in edge) for edge in edges]
    reached = (3 + 2 * REACH,) * 2
    operands = (np.abs(a.astype(float)) for a in (case.input_data, case.output_grad))
    magnitude = reference.conv2d_kernel_grad(
        *operands, reached, padding=margin, groups=case.options["groups"]
    )
    return magnitude.max((-1, -2), keepdims=True)


@settings(max_examples=25)
@given(case=winograd_cases([(3, 1)]))
def test_winograd_agrees_with_the_definition(isa, case):
    leave_nan_in_free_memory()
    actual = compute("conv2d_kernel_grad", case, algorithm="winograd")
    expected = expect("conv2d_kernel_grad", case)
    bound = ERROR_RATIO * reference.BOUNDS[actual.dtype] * np.sqrt(max(expected.taps, VALUES))
    error = np.abs(actual.astype(reference.Wide) - expected.value)
    assert actual.shape == expected.value.shape
    assert (error <= bound * tile_magnitude(case)).all()
    one = compute("conv2d_kernel_grad", case, algorithm="winograd", num_threads=1)
    assert same_bits(actual, one)


# (input shape, kernels, groups): several blocks of tiles, strips across, segments, units, groups.
LARGE = {
    "wide": ((1, 3, 9, 4500), 5, 1),
    "many samples": ((230, 17, 6, 5), 33, 1),
    "many channels": ((1, 513, 12, 14), 9, 1),
    "many kernels": ((2, 10, 21, 9), 520, 1),
    "many kernels, several blocks": ((1, 10, 61, 70), 520, 1),
    "many kernels and channels, one block": ((1, 150, 12, 13), 130, 1),
    "large": ((2, 35, 70, 75), 40, 1),
    "many groups": ((3, 21, 40, 50), 70, 7),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LARGE)
def test_winograd_agrees_with_float64_on_larger_arrays(isa, name, dtype):
    input_shape, kernels, groups = LARGE[name]
    rng = np.random.default_rng(1)
    x = rng.standard_normal(input_shape).astype(dtype)
    g = rng.standard_normal((input_shape[0], kernels, *input_shape[2:])).astype(dtype)
    expected = reference.conv2d_kernel_grad(x, g, (3, 3), padding=1, groups=groups)
    one, *more = (by_winograd(x, g, padding=1, groups=groups, num_threads=n) for n in (1, 2, 4, 5))
    # Errors grow like the standard deviation of the sums, which is this, not like their size.
    deviation = np.sqrt(g[:, 0].size)
    assert np.abs(one - expected).max() <= 50 * np.finfo(dtype).eps * deviation
    for other in more:
        assert same_bits(one, other)


# name: (input shape, the largest error allowed, as many times that of the direct algorithm)
SHAPES = {
    "7x7": ((8, 32, 7, 7), ERROR_RATIO_OF_SMALL_MAPS),
    "14x14": ((2, 32, 14, 14), ERROR_RATIO),
    "28x28": ((1, 64, 28, 28), ERROR_RATIO),
    "56x56": ((1, 32, 56, 56), ERROR_RATIO),
    "150x150": ((1, 16, 150, 150), ERROR_RATIO),
    "many samples": ((64, 16, 26, 26), ERROR_RATIO),
}


def errors(shape, draw):
    """Return the errors of the direct and of Winograd's algorithm, and the exact gradient."""
    x = draw(shape).astype(np.float32)
    g = draw((shape[0], 32, *shape[2:])).astype(np.float32)
    exact = reference.conv2d_kernel_grad(x, g, (3, 3), padding=1)
    direct, winograd = (
        np.abs(convext.conv2d_kernel_grad(x, g, (3, 3), padding=1, algorithm=name) - exact)
        for name in ("direct", "winograd")
    )
    return direct, winograd, exact


def rms(values):
    return np.sqrt((values**2).mean())


@pytest.mark.parametrize("distribution", ["standard_normal", "random"])
@pytest.mark.parametrize("name", SHAPES)
def test_errors_are_at_most_three_times_those_of_the_direct_algorithm(isa, name, distribution):
    shape, ratio = SHAPES[name]
    direct, winograd, _ = errors(shape, getattr(np.random.default_rng(2), distribution))
    assert rms(winograd) <= ratio * rms(direct)
    assert winograd.max() <= ratio * direct.max()
    # Or else the direct algorithm was measured twice.
    assert (winograd != direct).any()


@pytest.mark.parametrize("name", SHAPES)
def test_errors_of_signs_are_a_few_rounding_errors(isa, name):
    rng = np.random.default_rng(3)
    direct, winograd, exact = errors(SHAPES[name][0], lambda shape: rng.choice([-1.0, 1.0], shape))
    rounding = np.finfo(np.float32).eps * rms(exact)
    assert direct.max() == 0
    assert rms(winograd) <= ROUNDINGS_OF_SIGNS * rounding
    assert winograd.max() <= LARGEST_ROUNDING_OF_SIGNS * rounding


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_bits(isa, layout):
    rng = np.random.default_rng(4)
    # Broadcast layouts repeat their first element, so that the plain copies are made of the views.
    x = lay_out(rng.standard_normal((2, 20, 11, 13), dtype=np.float32), layout)
    g = lay_out(rng.standard_normal((2, 18, 12, 14), dtype=np.float32), layout)
    plain_x, plain_g = (np.array(a, np.float32, order="C") for a in (x, g))
    options = {"padding": ((2, 1), (0, 3))}
    assert same_bits(by_winograd(x, g, **options), by_winograd(plain_x, plain_g, **options))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [3, 7, 14, 30])
def test_nan_reaches_only_the_kernel_and_the_channel_that_hold_it(isa, size, dtype):
    rng = np.random.default_rng(size)
    x = rng.standard_normal((2, 35, size, size)).astype(dtype)
    g = rng.standard_normal((2, 34, size, size)).astype(dtype)
    clean = by_winograd(x, g, padding=1)
    for array, of, spread in ((x, 17, np.s_[:, 17]), (x, 34, np.s_[:, 34]), (g, 33, np.s_[33])):
        for row, column in ((0, 0), (size // 2, size - 1), (size - 1, size // 2)):
            poisoned = array.copy()
            poisoned[1, of, row, column] = np.nan
            reached = np.zeros(clean.shape, bool)
            reached[spread] = True
            result = by_winograd(*((poisoned, g) if array is x else (x, poisoned)), padding=1)
            assert np.isnan(result).any((-1, -2))[spread].all()
            assert (result[~reached] == clean[~reached]).all()


def test_backprop_takes_the_algorithm_it_is_given(isa):
    rng = np.random.default_rng(5)
    x, w, target = (
        rng.standard_normal(s, dtype=np.float32)
        for s in ((2, 32, 20, 20), (32, 32, 3, 3), (2, 32, 18, 18))
    )
    value = convext.conv2d(x, w)
    residual = convext.mse_loss_gradient(value, target)
    results = {}
    for algorithm in ("direct", "winograd"):
        results[algorithm] = convext.conv2d_backprop(x, w, target, value, algorithm=algorithm)
        expected = convext.conv2d_kernel_grad(x, residual, (3, 3), algorithm=algorithm)
        assert same_bits(results[algorithm], expected)
    assert not same_bits(*results.values())


# ---------------------------------------------------------------- which algorithm


@pytest.mark.parametrize(
    ("input_shape", "num_kernels", "expected"),
    [
        ((1, 64, 28, 28), 64, "winograd"),
        ((16, 128, 8, 8), 128, "winograd"),
        ((16, 128, 7, 7), 128, "direct"),
        ((3, 32, 100, 100), 16, "winograd"),
        ((1, 3, 100, 100), 64, "direct"),
        ((1, 64, 100, 100), 1, "direct"),
        ((4, 64, 2, 2), 64, "direct"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_auto_takes_winograd_where_it_saves_time(isa, dtype, input_shape, num_kernels, expected):
    rng = np.random.default_rng(7)
    x = rng.standard_normal(input_shape).astype(dtype)
    g = rng.standard_normal((input_shape[0], num_kernels, *input_shape[2:])).astype(dtype)
    auto, winograd, direct = (
        convext.conv2d_kernel_grad(x, g, (3, 3), padding=1, algorithm=algorithm)
        for algorithm in ("auto", "winograd", "direct")
    )
    assert same_bits(auto, {"winograd": winograd, "direct": direct}[expected])
    assert not same_bits(winograd, direct)


@pytest.mark.parametrize(
    ("kernel_shape", "options"),
    [((5, 5), {}), ((3, 1), {}), ((3, 3), {"stride": 2}), ((3, 3), {"dilation": (1, 2)})],
)
def test_auto_computes_other_convolutions_directly(isa, kernel_shape, options):
    rng = np.random.default_rng(8)
    x = rng.standard_normal((2, 64, 30, 30), dtype=np.float32)
    shape = convext.conv2d(x, np.ones((64, 64, *kernel_shape), np.float32), **options).shape
    g = rng.standard_normal(shape, dtype=np.float32)
    auto, direct = (
        convext.conv2d_kernel_grad(x, g, kernel_shape, algorithm=algorithm, **options)
        for algorithm in ("auto", "direct")
    )
    assert same_bits(auto, direct)


# ---------------------------------------------------------------- errors


def call(operation, kernel_hw=(3, 3), *, algorithm, **options):
    """Run an operation on ones, of a size that fits."""
    x, w = np.ones((4, 8, 8)), np.ones((4, 4, *kernel_hw))
    value = convext.conv2d(x, w, **options)
    if operation == "conv2d_backprop":
        return convext.conv2d_backprop(x, w, value, value, algorithm=algorithm)
    return convext.conv2d_kernel_grad(x, value, kernel_hw, algorithm=algorithm, **options)


OPERATIONS = ("conv2d_kernel_grad", "conv2d_backprop")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("algorithm", ["fft", "Winograd", ""])
def test_an_unknown_algorithm_is_an_error_that_names_those_there_are(operation, algorithm):
    with pytest.raises(
        ValueError, match=r"algorithm.*'auto', 'winograd', 'depthwise' or 'direct', got"
    ):
        call(operation, algorithm=algorithm)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("algorithm", [None, 2, b"direct", ["direct"]])
def test_an_algorithm_that_is_no_text_is_a_type_error(operation, algorithm):
    with pytest.raises(
        TypeError, match=r"algorithm.*'auto', 'winograd', 'depthwise' or 'direct', got"
    ):
        call(operation, algorithm=algorithm)


@pytest.mark.parametrize(
    ("operation", "options", "named"),
    [
        ("conv2d_backprop", {"kernel_hw": (5, 5)}, "5x5"),
        ("conv2d_kernel_grad", {"kernel_hw": (5, 5)}, "5x5"),
        ("conv2d_kernel_grad", {"kernel_hw": (3, 1)}, "3x1"),
        ("conv2d_kernel_grad", {"stride": 2}, r"stride \(2, 2\)"),
        ("conv2d_kernel_grad", {"dilation": (1, 2)}, r"dilation \(1, 2\)"),
    ],
)
def test_winograd_where_it_cannot_be_is_an_error_that_says_why(operation, options, named):
    with pytest.raises(ValueError, match=rf"(?s)'winograd'.*3x3.*{named}"):
        call(operation, algorithm="winograd", **options)


# ---------------------------------------------------------------- memory

# The same fences, around the operands of the kernel gradient.
_PREPARE, _LOOP = AT_THE_EDGE_OF_MEMORY.split("    rng =", 1)
GRADIENT_AT_THE_EDGE_OF_MEMORY = f"""{_PREPARE}
    rng = np.random.default_rng(6)
    for isa in convext.get_config()["isas_supported"]:
        _dispatch.use_isa(isa)
        for size in (3, 4, 7, 17, 33):
            for channels, kernels in ((1, 1), (17, 33), (32, 16), (35, 5)):
                x = rng.standard_normal((1, channels, size, size), dtype=np.float32)
                height = size - 2 + 2 * (size % 2)
                g = rng.standard_normal((1, kernels, height, height), dtype=np.float32)
                options = {{"padding": size % 2, "algorithm": "winograd"}}
                value = convext.conv2d_kernel_grad(x, g, (3, 3), **options)
                for at_end in (False, True):
                    again = convext.conv2d_kernel_grad(
                        fenced(x, at_end), fenced(g, at_end), (3, 3), **options
                    )
                    assert (again == value).all()
    print("done")
"""


def test_nothing_outside_the_arrays_is_read():
    pytest.importorskip("mmap")
    assert output_of(GRADIENT_AT_THE_EDGE_OF_MEMORY) == ["done"]
