"""Separable kernels, found where they are: right, accurate and no others."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate1d
from strategies import LAYOUTS, lay_out, random_values
from test_operations import leave_nan_in_free_memory, output_of, same_bits

import convext

ORIGINAL_OF = {"float32": "float64", "float64": "longdouble"}


def rank_one(rng, count, taps_h, taps_w, dtype):
    """Return kernels of rank one but for rounding."""
    u, v = (rng.standard_normal((count, n)).astype(ORIGINAL_OF[dtype]) for n in (taps_h, taps_w))
    return (u[:, np.newaxis, :, np.newaxis] * v[:, np.newaxis, np.newaxis]).astype(dtype)


def is_taken(x, w, **options):
    """Tell whether the result is not that of the direct way."""
    direct = convext.conv2d(x, w, **options, algorithm="direct")
    return not same_bits(convext.conv2d(x, w, **options), direct)


def edges_of(padding, kernel_hw):
    """Return the padding as ((top, bottom), (left, right))."""
    return reference.resolve_padding(padding, (1000, 1000), kernel_hw)


def expect(x, u, v, bias, padding):
    """Return the convolution of each channel with its kernels, and the sums of absolute products.

    SciPy centres its windows on the pixels, so that those at the edges of the padded image are no
    results of ours.
    """
    kernels_of_channel = len(u) // x.shape[1]
    edges = edges_of(padding, (u.shape[1], v.shape[1]))
    padded = np.pad(x.astype(float), ((0, 0), (0, 0), *edges))
    inside = tuple(slice(n // 2, -((n - 1) // 2) or None) for n in (u.shape[1], v.shape[1]))
    results = []
    for function in (lambda a: a, np.abs):
        planes = [
            correlate1d(correlate1d(function(plane), function(u[k]), 0), function(v[k]), 1)[inside]
            + (0 if bias is None else function(bias[k]))
            for sample in padded
            for k, plane in enumerate(np.repeat(sample, kernels_of_channel, axis=0))
        ]
        results.append(np.reshape(planes, (len(x), len(u), *planes[0].shape)))
    return results


@pytest.mark.parametrize("axis", [-1, -2])
def test_the_last_block_of_a_long_signal_is_no_narrower_than_a_vector(axis, isa):
    """Of as many blocks of 2048 columns as cover a row, the last one had three columns left."""
    rng = np.random.default_rng(0)
    x = rng.random(2050 * 2048 - 2049)
    expected = np.convolve(x, [1, 4, 6, 4, 1])
    x, kernel = (np.expand_dims(a, (0, 1, -3 - axis)) for a in (x, np.array([1.0, 4, 6, 4, 1])))
    padding = ((0, 0), (4, 4)) if axis == -1 else ((4, 4), (0, 0))
    result = convext.conv2d(x, kernel, padding=padding)
    np.testing.assert_allclose(result.ravel(), expected, rtol=1e-14)


@settings(max_examples=40)
@given(
    dtype=st.sampled_from(["float32", "float64"]),
    kernel_hw=st.one_of(
        st.tuples(st.integers(2, 25), st.integers(2, 25)),
        st.tuples(st.just(1), st.integers(2, 40)),
        st.tuples(st.integers(2, 40), st.just(1)),
    ),
    image_hw=st.tuples(st.integers(160, 260), st.integers(160, 300)),
    padding=st.one_of(
        st.sampled_from([0, "same", 3]),
        st.tuples(*[st.tuples(st.integers(0, 30), st.integers(0, 30))] * 2),
    ),
    samples=st.integers(1, 2),
    groups=st.integers(1, 3),
    group_kernels=st.integers(1, 3),
    with_bias=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    num_threads=st.sampled_from([1, 2, 5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_separable_kernels_agree_with_scipy(
    isa, dtype, kernel_hw, image_hw, padding, samples, groups, group_kernels, with_bias, layout,
    num_threads, seed,
):  # fmt: skip
    rng = np.random.default_rng(seed)
    count = groups * group_kernels
    x = lay_out(random_values(rng, (samples, groups, *image_hw), dtype), layout)
    u, v = (rng.standard_normal((count, n)) for n in kernel_hw)
    w = (u[:, np.newaxis, :, np.newaxis] * v[:, np.newaxis, np.newaxis]).astype(dtype)
    bias = rng.standard_normal(count).astype(dtype) if with_bias else None
    options = {"padding": padding, "groups": groups, "bias": bias}
    leave_nan_in_free_memory()
    actual = convext.conv2d(x, w, **options, num_threads=num_threads)
    expected, magnitude = expect(x, u, v, bias, padding)
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    # A result is the sum of the products of its own window: where these are zero, so is it.
    assert (np.abs(actual - expected) <= 12 * np.finfo(dtype).eps * magnitude).all()
    assert same_bits(actual, convext.conv2d(x, w, **options, num_threads=1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel_hw", [(7, 10), (1, 12), (9, 1)])
@pytest.mark.parametrize("padding", [0, "same", ((3, 14), (0, 5))])
def test_the_input_gradient_agrees_with_scipy(isa, padding, kernel_hw, dtype):
    rng = np.random.default_rng(10)
    u, v = (rng.standard_normal((2, n)) for n in kernel_hw)
    w = (u[:, np.newaxis, :, np.newaxis] * v[:, np.newaxis, np.newaxis]).astype(dtype)
    shape = (2, 2, 200, 220)
    g = convext.conv2d(np.zeros(shape, dtype), w, padding=padding, groups=2)
    g[:] = rng.standard_normal(g.shape)
    actual = convext.conv2d_input_grad(g, w, shape, padding=padding, groups=2)
    # A convolution with the kernels turned around.
    (top, _), (left, _) = edges_of(padding, kernel_hw)
    whole = tuple((n - 1, n - 1) for n in kernel_hw)
    inside = (..., slice(top, top + 200), slice(left, left + 220))
    expected, magnitude = (a[inside] for a in expect(g, u[:, ::-1], v[:, ::-1], None, whole))
    assert (np.abs(actual - expected) <= 12 * np.finfo(dtype).eps * magnitude).all()
    assert same_bits(
        actual, convext.conv2d_input_grad(g, w, shape, padding=padding, groups=2, num_threads=1)
    )
    direct = convext.conv2d_input_grad(g, w, shape, padding=padding, groups=2, algorithm="direct")
    assert 1 in kernel_hw or not same_bits(actual, direct)


# Height and width of the image, of the kernel: several blocks down and across, one row, one column.
LARGE = [
    ((150, 2500), (9, 7)),
    ((700, 300), (5, 15)),
    ((90, 3000), (1, 21)),
    ((1500, 60), (40, 1)),
    ((200, 200), (31, 31)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("padding", [0, "same"])
@pytest.mark.parametrize(("image_hw", "kernel_hw"), LARGE)
def test_separable_kernels_agree_with_scipy_on_larger_images(
    isa, image_hw, kernel_hw, padding, dtype
):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 1, *image_hw)).astype(dtype)
    u, v = (rng.standard_normal((1, n)) for n in kernel_hw)
    expected, magnitude = expect(x, u, v, None, padding)
    w = (u[..., np.newaxis] * v)[np.newaxis].astype(dtype)
    actual = convext.conv2d(x, w, padding=padding)
    assert is_taken(x, w, padding=padding) or 1 in kernel_hw
    assert (np.abs(actual - expected) <= 10 * np.finfo(dtype).eps * magnitude).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("kernel_size", [5, 9, 21])
def test_errors_are_at_most_three_times_those_of_the_direct_algorithm(
    isa, kernel_size, distribution, dtype
):
    rng = np.random.default_rng(kernel_size)
    draw = rng.standard_normal if distribution == "normal" else rng.random
    x = draw((1, 180, 190)).astype(dtype)
    factors = (draw(kernel_size).astype(ORIGINAL_OF[dtype]) for _ in range(2))
    w = np.outer(*factors)[np.newaxis, np.newaxis].astype(dtype)
    exact = reference.conv2d(x, w)
    direct, separable = (
        np.abs(convext.conv2d(x, w, algorithm=algorithm) - exact)
        for algorithm in ("direct", "auto")
    )
    assert np.sqrt((separable**2).mean()) <= 3 * np.sqrt((direct**2).mean())
    assert separable.max() <= 3 * direct.max()
    assert (separable != direct).any()


def gaussian(size, dtype):
    row = np.exp(-((np.arange(size) - size // 2) ** 2) / (size / 2.0)).astype(ORIGINAL_OF[dtype])
    return np.outer(row, row) / row.sum() ** 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_filters_that_are_separable_are_found(isa, dtype):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 160, 170)).astype(dtype)
    binomial = np.array([1, 4, 6, 4, 1])
    for kernel in (
        gaussian(7, dtype),
        np.full((5, 5), 1 / 25),
        np.outer(binomial, [-1, -2, 0, 2, 1]),
        np.outer([0, 1, 0, 2, 3], binomial / 7),
    ):
        w = kernel[np.newaxis, np.newaxis].astype(dtype)
        assert is_taken(x, w)
        # Each tap must be a product: nearly is not enough.
        w[0, 0, 1, 1] += 20 * np.finfo(dtype).eps * np.abs(w).max()
        assert not is_taken(x, w)


def test_only_all_kernels_of_a_call_are_taken_together(isa):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 150, 160), dtype=np.float32)
    w = rank_one(rng, 4, 6, 7, "float32")
    assert is_taken(x, w, groups=2)
    w[3, 0, 2, 2] += 1
    assert not is_taken(x, w, groups=2)


@pytest.mark.parametrize(
    "options", [{"stride": 2}, {"dilation": (1, 2)}, {"padding": 1, "stride": (1, 2)}]
)
def test_other_convolutions_are_computed_directly(isa, options):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((1, 180, 190), dtype=np.float32)
    assert not is_taken(x, rank_one(rng, 1, 6, 6, "float32"), **options)


def test_several_channels_are_computed_directly(isa):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 180, 190), dtype=np.float32)
    assert not is_taken(x, np.repeat(rank_one(rng, 3, 6, 6, "float32"), 2, axis=1))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kernel_hw", [(6, 7), (1, 9), (9, 1)])
def test_nan_and_infinity_in_the_image_reach_what_they_reach_directly(isa, poison, kernel_hw):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((1, 190, 180), dtype=np.float32)
    w = rank_one(rng, 1, *kernel_hw, "float32")
    if kernel_hw == (6, 7):
        w[..., 2] = 0
    clean = convext.conv2d(x, w, padding=3)
    for row, column in ((0, 0), (45, 40), (189, 179)):
        bad = x.copy()
        bad[0, row, column] = poison
        value = convext.conv2d(bad, w, padding=3)
        direct = convext.conv2d(bad, w, padding=3, algorithm="direct")
        finite = np.isfinite(direct)
        assert np.array_equal(value[~finite], direct[~finite], equal_nan=True)
        assert np.array_equal(value[finite], clean[finite])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("kernel_hw", [(6, 7), (1, 9), (9, 1)])
def test_kernels_with_nan_or_infinity_are_not_separable(isa, poison, kernel_hw):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2, 190, 180), dtype=np.float32)
    w = rank_one(rng, 2, *kernel_hw, "float32")
    w[1, 0, 0, 0] = poison
    options = {"padding": 8, "groups": 2}
    value = convext.conv2d(x, w, **options)
    assert same_bits(value, convext.conv2d(x, w, **options, algorithm="direct"))


def test_a_kernel_of_zeros_gives_zeros(isa):
    x = np.random.default_rng(8).standard_normal((1, 190, 180))
    assert not convext.conv2d(x, np.zeros((1, 1, 7, 7))).any()


@pytest.mark.parametrize("with_input_shape", [False, True])
@pytest.mark.parametrize("separable", [False, True])
def test_prepared_kernels_give_the_same_bits(isa, separable, with_input_shape):
    rng = np.random.default_rng(9)
    x = rng.standard_normal((2, 3, 170, 180), dtype=np.float32)
    w = rank_one(rng, 6, 9, 7, "float32")
    if not separable:
        w[5, 0, 3, 3] += 1
    options = {"groups": 3, "padding": 2, "bias": rng.standard_normal(6).astype("float32")}
    expected = convext.conv2d(x, w, **options)
    prepared = convext.prepare_kernels(w, x.shape if with_input_shape else None, **options)
    for _ in range(2):
        assert same_bits(convext.conv2d(x, prepared), expected)
        # In the other type, and too small to be worth it.
        small = x[..., :12, :12]
        assert same_bits(convext.conv2d(small, prepared), convext.conv2d(small, w, **options))
        double = convext.conv2d(x.astype(float), prepared)
        assert same_bits(double, convext.conv2d(x.astype(float), w, **options))


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
            for height, width in ((900, 33), (350, 64), (290, 95)):
                for taps_h, taps_w in ((5, 6), (1, 8), (9, 1)):
                    for padding in (0, 2):
                        x = rng.standard_normal((1, height, width)).astype(dtype)
                        u, v = rng.standard_normal(taps_h), rng.standard_normal(taps_w)
                        w = np.outer(u, v)[None, None].astype(dtype)
                        value = convext.conv2d(x, w, padding=padding)
                        for at_end in (False, True):
                            x_, w_, out = (fenced(a, at_end) for a in (x, w, 0 * value))
                            convext.conv2d(x_, w_, out=out, padding=padding)
                            assert (out == value).all()
    print("done")
"""


def test_nothing_outside_the_arrays_is_read_or_written():
    pytest.importorskip("mmap")
    assert output_of(AT_THE_EDGE_OF_MEMORY) == ["done"]
