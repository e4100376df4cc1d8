"""The Fourier transforms: right on every instruction set, about as accurate as the direct way."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from scipy.signal import fftconvolve
from strategies import LAYOUTS, cases, lay_out
from test_operations import (
    compute,
    expect,
    leave_nan_in_free_memory,
    operands,
    output_of,
    same_bits,
)

import convext

# The largest error allowed, in units of the type, relative to the products of the norms of pixels
# and kernels: all results of a tile share their errors.
ERROR = 8


def norms(operation, case):
    """Return for each channel of the result the sum of |pixels| |kernels| over what it sums up."""
    pixels, kernels, *_ = (np.abs(np.asarray(a, float)) for a in operands(operation, case))
    pixels = np.sqrt((pixels.reshape(-1, *pixels.shape[-3:]) ** 2).sum((-1, -2)))
    kernels = np.sqrt((kernels**2).sum((-1, -2)))
    groups = case.groups
    kernels = kernels.reshape(groups, -1, kernels.shape[1])
    if operation == "conv2d_input_grad":
        kernels = kernels.swapaxes(1, 2)
    pixels = pixels.reshape(len(pixels), groups, -1)
    return np.einsum("ngc,gkc->ngk", pixels, kernels).reshape(len(pixels), -1)


def assert_within_norms(actual, expected, norm):
    error = np.abs(actual.astype(reference.Wide) - expected).reshape(-1, *actual.shape[-3:])
    allowed = ERROR * np.finfo(actual.dtype).eps * (norm[..., np.newaxis, np.newaxis])
    assert actual.shape == expected.shape
    assert (error <= allowed).all()


@pytest.mark.parametrize("operation", ["conv2d", "conv2d_input_grad"])
@settings(max_examples=60)
@given(case=cases())
def test_fft_agrees_with_the_definition(operation, isa, case):
    leave_nan_in_free_memory()
    actual = compute(operation, case, algorithm="fft")
    norm = norms(operation, case)
    if operation == "conv2d" and case.bias is not None:
        norm = norm + np.abs(np.asarray(case.bias, float))
    assert_within_norms(actual, expect(operation, case).value, norm)
    one = compute(operation, case, algorithm="fft", num_threads=1)
    assert same_bits(actual, one)


# (input shape, kernels, options): tiles of all sizes, kernels in several pieces, more channels and
# more kernels than are transformed at a time.
LARGE = {
    "many tiles": ((1, 1, 300, 700), (1, 1, 9, 12), {}),
    "a large kernel": ((2, 1, 90, 120), (2, 1, 60, 70), {}),
    "pieces down": ((1, 2, 320, 30), (2, 2, 3, 3), {"dilation": (150, 1)}),
    "pieces across": ((1, 2, 30, 610), (2, 2, 2, 3), {"dilation": (1, 290), "padding": 20}),
    "pieces": ((1, 1, 400, 500), (1, 1, 3, 2), {"dilation": (170, 333)}),
    "many channels": ((1, 12, 250, 250), (3, 12, 2, 3), {"dilation": (230, 110)}),
    "many groups": ((1, 70, 40, 50), (140, 1, 5, 5), {"groups": 70, "padding": 2}),
    "many kernels": ((1, 3, 50, 50), (300, 3, 2, 2), {"dilation": 40}),
    "strides": ((2, 2, 200, 210), (3, 2, 8, 9), {"stride": (3, 4), "padding": 5}),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LARGE)
def test_fft_agrees_with_the_definition_on_larger_arrays(isa, name, dtype):
    input_shape, kernels_shape, options = LARGE[name]
    rng = np.random.default_rng(1)
    x = rng.standard_normal(input_shape).astype(dtype)
    w = rng.standard_normal(kernels_shape).astype(dtype)
    bias = rng.standard_normal(kernels_shape[:1]).astype(dtype)
    expected = reference.conv2d(x, w, bias=bias, **options).astype(float)
    g = rng.standard_normal(expected.shape).astype(dtype)
    expected_gradient = reference.conv2d_input_grad(g, w, x.shape, **options).astype(float)
    for operation, arguments, more, value in (
        ("conv2d", (x, w), {"bias": bias}, expected),
        ("conv2d_input_grad", (g, w, x.shape), {}, expected_gradient),
    ):
        function = getattr(convext, operation)
        one, two, five = (
            function(*arguments, **options, **more, algorithm="fft", num_threads=n)
            for n in (1, 2, 5)
        )
        assert np.abs(one - value).max() <= 6 * np.finfo(dtype).eps * np.abs(value).max()
        assert same_bits(one, two)
        assert same_bits(one, five)


@pytest.mark.parametrize("kernel_size", [1, 2, 3])
def test_input_gradients_of_windows_that_lie_apart(kernel_size):
    """Between the pixels of some windows and those of others are some that no window holds."""
    rng = np.random.default_rng(0)
    g, w = rng.random((2, 4, 5)), rng.random((2, 3, kernel_size, kernel_size))
    shape = (3, 23, 30)
    expected = reference.conv2d_input_grad(g, w, shape, (6, 6)).astype(float)
    for algorithm in ("fft", "auto"):
        actual = convext.conv2d_input_grad(g, w, shape, stride=(6, 6), algorithm=algorithm)
        np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kernel_size", [31, 101, 257])
def test_fft_agrees_with_scipy_on_dense_kernels(isa, kernel_size):
    rng = np.random.default_rng(kernel_size)
    x = rng.standard_normal((300, 310))
    w = rng.standard_normal((kernel_size, kernel_size))
    expected = fftconvolve(x, w[::-1, ::-1], mode="same")
    actual = convext.conv2d(x[None], w[None, None], padding=kernel_size // 2, algorithm="fft")[0]
    assert np.abs(actual - expected).max() <= 1e-14 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("kernel_size", [9, 15, 31])
def test_errors_are_of_the_size_of_those_of_the_direct_algorithm(
    isa, kernel_size, distribution, dtype
):
    rng = np.random.default_rng(kernel_size)
    draw = rng.standard_normal if distribution == "normal" else rng.random
    x = draw((1, 2, 60, 70)).astype(dtype)
    w = draw((2, 2, kernel_size, kernel_size)).astype(dtype)
    exact = reference.conv2d(x, w)
    direct, fft = (
        np.abs(convext.conv2d(x, w, algorithm=algorithm) - exact) for algorithm in ("direct", "fft")
    )
    assert np.sqrt((fft**2).mean()) <= 3 * np.sqrt((direct**2).mean())
    assert fft.max() <= 3 * direct.max()
    # Or else the direct algorithm was measured twice.
    assert (fft != direct).any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_bits(isa, layout):
    rng = np.random.default_rng(2)
    # Broadcast layouts repeat their first element, so that the plain copies are made of the views.
    x = lay_out(rng.standard_normal((2, 4, 71, 83), dtype=np.float32), layout)
    w = lay_out(rng.standard_normal((4, 2, 7, 9), dtype=np.float32), layout)
    plain_x, plain_w = (np.array(a, np.float32, order="C") for a in (x, w))
    options = {"padding": ((2, 1), (0, 3)), "groups": 2, "algorithm": "fft"}
    value = convext.conv2d(plain_x, plain_w, **options)
    assert same_bits(convext.conv2d(x, w, **options), value)
    g = lay_out(value, layout)
    gradient = convext.conv2d_input_grad(np.array(g, np.float32), plain_w, x.shape, **options)
    assert same_bits(convext.conv2d_input_grad(g, w, x.shape, **options), gradient)


def test_samples_kernels_and_groups_do_not_depend_on_each_other(isa):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 4, 60, 40), dtype=np.float32)
    w = rng.standard_normal((6, 2, 9, 9), dtype=np.float32)
    clean = convext.conv2d(x, w, groups=2, algorithm="fft")
    for n in range(3):
        assert same_bits(clean[n], convext.conv2d(x[n], w, groups=2, algorithm="fft"))
    for poison in (np.nan, np.inf):
        bad_x, bad_w = x.copy(), w.copy()
        bad_x[1, 3] = poison
        bad_w[1, 0, 4, 4] = poison
        value = convext.conv2d(bad_x, bad_w, groups=2, algorithm="fft")
        expected = clean.copy()
        expected[1, 3:] = np.nan
        expected[:, 1] = np.nan
        assert np.array_equal(np.isnan(value), np.isnan(expected))
        assert np.array_equal(value[~np.isnan(value)], clean[~np.isnan(value)])


def test_nan_reaches_two_tiles_at_most_beyond_its_windows(isa):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((1, 800, 900), dtype=np.float32)
    w = rng.standard_normal((1, 1, 9, 9), dtype=np.float32)
    clean = convext.conv2d(x, w, algorithm="fft")
    x[0, 400, 450] = np.nan
    value = convext.conv2d(x, w, algorithm="fft")
    bad = np.isnan(value)
    assert bad[0, 392:401, 442:451].all()
    assert bad.mean() < 0.5
    assert (value[~bad] == clean[~bad]).all()


@pytest.mark.parametrize("algorithm", ["auto", "fft"])
@pytest.mark.parametrize(
    ("input_shape", "kernels_shape", "options"),
    [
        ((2, 1, 150, 130), (1, 1, 21, 21), {}),
        ((2, 4, 90, 90), (6, 2, 15, 15), {"groups": 2, "padding": 7}),
        ((1, 12, 250, 250), (11, 12, 2, 3), {"dilation": (230, 110)}),
    ],
)
def test_prepared_kernels_give_the_same_bits(isa, input_shape, kernels_shape, options, algorithm):
    rng = np.random.default_rng(5)
    x = rng.standard_normal(input_shape, dtype=np.float32)
    w = rng.standard_normal(kernels_shape, dtype=np.float32)
    options = {"bias": rng.standard_normal(len(w)).astype("float32"), **options}
    expected = convext.conv2d(x, w, **options, algorithm=algorithm)
    for input_shape in (None, x.shape):
        prepared = convext.prepare_kernels(w, input_shape, **options, algorithm=algorithm)
        for _ in range(2):
            assert same_bits(convext.conv2d(x, prepared), expected)
        # An image of another size, cut into other tiles.
        other = np.concatenate([x[..., 1:, :], x], axis=-2)
        again = convext.conv2d(other, w, **options, algorithm=algorithm)
        assert same_bits(convext.conv2d(other, prepared), again)


# ---------------------------------------------------------------- which algorithm


@pytest.mark.parametrize(
    ("input_shape", "kernels_shape", "options", "expected"),
    [
        ((1, 300, 300), (1, 1, 21, 21), {}, "fft"),
        ((3, 200, 200), (4, 3, 15, 15), {"padding": 7}, "fft"),
        ((30, 64, 64), (30, 1, 31, 31), {"groups": 30, "padding": 15}, "fft"),
        ((1, 300, 300), (1, 1, 5, 5), {}, "direct"),
        ((1, 300, 300), (1, 1, 21, 21), {"stride": 8}, "direct"),
        ((1, 24, 24), (1, 1, 21, 21), {}, "direct"),
        ((1, 400, 400), (1, 1, 7, 7), {"dilation": 50}, "direct"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_auto_takes_fft_where_it_saves_time(
    isa, dtype, input_shape, kernels_shape, options, expected
):
    rng = np.random.default_rng(6)
    x = rng.standard_normal(input_shape).astype(dtype)
    w = rng.standard_normal(kernels_shape).astype(dtype)
    value = convext.conv2d(x, w, **options)
    assert same_bits(value, convext.conv2d(x, w, **options, algorithm=expected))
    other = {"direct": "fft", "fft": "direct"}[expected]
    assert not same_bits(value, convext.conv2d(x, w, **options, algorithm=other))


def test_auto_takes_fft_for_the_input_gradient(isa):
    rng = np.random.default_rng(7)
    g = rng.standard_normal((2, 100, 120), dtype=np.float32)
    w = rng.standard_normal((2, 1, 21, 23), dtype=np.float32)
    auto, fft, direct = (
        convext.conv2d_input_grad(g, w, (1, 120, 142), algorithm=algorithm)
        for algorithm in ("auto", "fft", "direct")
    )
    assert same_bits(auto, fft)
    assert not same_bits(auto, direct)


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

    rng = np.random.default_rng(8)
    for isa in convext.get_config()["isas_supported"]:
        _dispatch.use_isa(isa)
        for dtype in (np.float32, np.float64):
            for size in (9, 16, 17, 40, 150):
                for options in ({}, {"padding": 4}, {"stride": 2}, {"dilation": (1, 2)}):
                    x = rng.standard_normal((1, 2, size, size + 9)).astype(dtype)
                    w = rng.standard_normal((2, 2, 7, 8)).astype(dtype)
                    value = convext.conv2d(x, w, algorithm="fft", **options)
                    gradient = convext.conv2d_input_grad(
                        value, w, x.shape, algorithm="fft", **options
                    )
                    for at_end in (False, True):
                        x_, w_, out, g = (fenced(a, at_end) for a in (x, w, 0 * value, value))
                        convext.conv2d(x_, w_, out=out, algorithm="fft", **options)
                        assert (out == value).all()
                        again = convext.conv2d_input_grad(
                            g, w_, x.shape, algorithm="fft", **options
                        )
                        assert (again == gradient).all()
    print("done")
"""


def test_nothing_outside_the_arrays_is_read_or_written():
    pytest.importorskip("mmap")
    assert output_of(AT_THE_EDGE_OF_MEMORY) == ["done"]


SCRATCH_OF = """
    import numpy as np
    import convext

    def peak():  # in KiB; ru_maxrss would be at least that of the process that started this one
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    x, w = np.ones((12, 300, 300)), np.ones((20, 12, 2, 2))
    out = np.empty((20, 70, 70))
    convext.conv2d(x[:1], w[:1, :1], out=out[:1], dilation=230, num_threads=1, algorithm="fft")
    before = peak()
    convext.conv2d(x, w, out=out, dilation=230, num_threads=1, algorithm="fft")
    print((peak() - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
def test_scratch_memory_is_bounded():
    # All transformed kernels would be half a gigabyte or more. In mebibytes:
    assert int(output_of(SCRATCH_OF)[0]) < 64


@pytest.mark.parametrize("size", [9, 31])
@pytest.mark.parametrize("data", ["normal", "uniform", "offset", "offset, kernels of no sum"])
def test_errors_are_relative_to_the_pixels_as_the_note_says(isa, data, size):
    """docs/fft.md; in units of the last place of the largest result they may be thousands."""
    rng = np.random.default_rng(8)
    x = rng.random((1, 1, 130, 110)) if data == "uniform" else rng.standard_normal((1, 1, 130, 110))
    k = rng.standard_normal((1, 1, size, size))
    if "offset" in data:
        x += 1000
    if "no sum" in data:
        k -= k.mean()
    x, k = x.astype(np.float32), k.astype(np.float32)
    expected = reference.conv2d(x, k)
    unit = np.finfo(np.float32).eps * np.sqrt(np.mean(x**2.0) * np.sum(k**2.0))
    for algorithm, largest in (("fft", 16), ("direct", 32)):
        errors = (convext.conv2d(x, k, algorithm=algorithm) - expected) / unit
        assert np.sqrt(np.mean(errors**2)) < 4
        assert np.abs(errors).max() < largest
