"""Winograd's algorithm: right on every instruction set, nearly as accurate as the direct one."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import LAYOUTS, Case, lay_out
from test_operations import compute, expect, operands, output_of, same_bits

import convext

# Results of a tile along an axis, by the size of the kernels and the stride.
TILE = {(3, 1): 4, (5, 1): 2, (3, 2): 4, (5, 2): 4}

# Kernels that are cut into parts of 3x3 taps, in tiles of 4x4 results.
PARTS = [(4, 4), (3, 5), (6, 6), (9, 9), (8, 4), (7, 9)]

# The errors allowed, as many times those of the direct algorithm: the largest, and in the mean.
ERROR_RATIO = 3
RMS_RATIO = 2.5


def tiles_along(size, tile, stride):
    """Return the tiles of so many results: without a stride the last ones may have one less."""
    count = -(-size // tile)
    smaller = min(count, count * tile - size) if stride == 1 and count <= 14 else 0
    sizes = [tile] * (count - smaller) + [tile - 1] * smaller
    starts = np.cumsum([0, *sizes])
    return [slice(start, start + n) for start, n in zip(starts, sizes, strict=False)]


def tile_magnitude(function, pixels, kernels, *shape, **options):
    """Return the largest sum of absolute products of each channel, also beyond its edges.

    A tile's results share their errors, those that are dropped included, and errors of all taps
    are in them, also of those that meet no pixel.
    """
    kernel_hw, stride = kernels.shape[-2:], options["stride"]
    square = kernel_hw[0] == kernel_hw[1]
    tile = TILE.get((kernel_hw[0], stride), 4) if square else 4
    edges = [np.array([taps - 1, tile - 1]) for taps in kernel_hw]
    margin = [(0, 0)] * (pixels.ndim - 2) + [n if shape else stride * n for n in edges]
    larger = [
        (*sizes[:-2], *(n + stride * sum(e) for n, e in zip(sizes[-2:], edges, strict=True)))
        for sizes in shape
    ]
    pixels = np.pad(np.abs(pixels.astype(float)), margin)
    return function(pixels, np.abs(kernels.astype(float)), *larger, **options).max((-1, -2))


def assert_within_tile_bound(actual, expected, magnitude):
    """Check each error against the largest products of its channel."""
    bound = ERROR_RATIO * reference.BOUNDS[actual.dtype] * np.sqrt(expected.taps)
    error = np.abs(actual.astype(reference.Wide) - expected.value)
    assert actual.shape == expected.value.shape
    assert (error <= bound * magnitude[..., np.newaxis, np.newaxis]).all()


@st.composite
def winograd_cases(draw, kinds=tuple(TILE), parts=()):
    """Draw a convolution that Winograd's algorithm computes, any layouts and types."""
    edge = st.integers(0, 5)
    taps, stride = draw(st.sampled_from(kinds))
    kernel_hw = draw(st.sampled_from([(taps, taps), *(parts if stride == 1 else ())]))
    padding = draw(
        st.one_of(
            st.integers(0, 2),
            st.just("same" if stride == 1 else 1),
            st.tuples(*[st.tuples(edge, edge)] * 2),
        )
    )
    edges = reference.resolve_padding(padding, kernel_hw, kernel_hw)
    height, width = (
        max(draw(st.integers(1, 22)), taps - sum(margin))
        for taps, margin in zip(kernel_hw, edges, strict=True)
    )
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, kernels = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    batch = draw(st.sampled_from([(), (1,), (2,), (5,)]))
    return Case(
        input_shape=(*batch, groups * channels, height, width),
        kernels_shape=(groups * kernels, channels, *kernel_hw),
        stride=stride,
        padding=padding,
        dilation=1,
        groups=groups,
        with_bias=draw(st.booleans()),
        dtypes=(draw(st.sampled_from(["float32", "float32", "float64"])),) * 3,
        layouts=draw(st.tuples(*[st.sampled_from(LAYOUTS)] * 3)),
        num_threads=draw(st.sampled_from([None, 1, 2, 5])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@pytest.mark.parametrize("operation", ["conv2d", "conv2d_input_grad"])
@settings(max_examples=40)
@given(case=winograd_cases(parts=PARTS))
def test_winograd_agrees_with_the_definition(operation, isa, case):
    actual = compute(operation, case, algorithm="winograd")
    magnitude = tile_magnitude(
        getattr(reference, operation), *operands(operation, case), **case.options
    )
    if operation == "conv2d" and case.bias is not None:
        magnitude = magnitude + np.abs(case.bias.astype(float))
    assert_within_tile_bound(actual, expect(operation, case), magnitude)
    one = compute(operation, case, algorithm="winograd", num_threads=1)
    assert same_bits(actual, one)


# (input shape, kernels): several blocks of tiles, strips across, chunks and units of kernels, these
# transformed by each thread for itself and, where they are too many, for all.
LARGE = {
    "wide": ((1, 3, 9, 1500), (5, 3, 3, 3)),
    "many samples": ((70, 17, 6, 5), (33, 17, 3, 3)),
    "many channels": ((1, 513, 12, 14), (9, 513, 3, 3)),
    "many kernels": ((2, 10, 21, 9), (520, 10, 3, 3)),
    "some kernels and channels": ((1, 128, 24, 24), (128, 128, 3, 3)),
    "many kernels and channels": ((1, 200, 15, 22), (290, 200, 3, 3)),
    "tall": ((1, 33, 130, 7), (31, 33, 3, 3)),
    "5x5, wide": ((1, 3, 9, 700), (5, 3, 5, 5)),
    "5x5, many samples": ((30, 17, 6, 5), (33, 17, 5, 5)),
    "5x5, many channels": ((1, 261, 12, 14), (9, 261, 5, 5)),
    "5x5, many kernels": ((2, 10, 13, 9), (270, 10, 5, 5)),
    "in parts, wide": ((1, 3, 9, 700), (5, 3, 9, 7)),
    "in parts, many samples": ((16, 1, 33, 33), (64, 1, 9, 9)),
    "in parts, many channels": ((1, 50, 12, 14), (9, 50, 7, 7)),
    "in parts, many kernels": ((2, 10, 13, 9), (130, 10, 6, 6)),
}


@pytest.mark.parametrize(
    ("name", "stride"),
    [(name, stride) for name in LARGE for stride in (1, 2) if stride == 1 or "parts" not in name],
)
def test_winograd_agrees_with_the_definition_on_larger_arrays(isa, name, stride):
    options = {"padding": 1, "stride": stride}
    input_shape, kernels_shape = LARGE[name]
    rng = np.random.default_rng(1)
    x = rng.standard_normal(input_shape, dtype=np.float32)
    w = rng.standard_normal(kernels_shape, dtype=np.float32)
    expected = reference.conv2d(x, w, **options, detailed=True)
    g = rng.standard_normal(expected.value.shape, dtype=np.float32)
    expected_gradient = reference.conv2d_input_grad(g, w, x.shape, **options, detailed=True)
    for operation, arguments, value in (
        ("conv2d", (x, w), expected),
        ("conv2d_input_grad", (g, w, x.shape), expected_gradient),
    ):
        function = getattr(convext, operation)
        one, two, five = (
            function(*arguments, **options, algorithm="winograd", num_threads=n) for n in (1, 2, 5)
        )
        assert_within_tile_bound(one, value, value.magnitude.max((-1, -2)))
        assert same_bits(one, two)
        assert same_bits(one, five)


DISTRIBUTIONS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "positive": lambda rng, shape: rng.random(shape),
    "centred": lambda rng, shape: rng.random(shape) * 2 - 1,
}


@pytest.mark.parametrize("operation", ["conv2d", "conv2d_input_grad"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("channels", [32, 256, 512, 2048])
def test_errors_are_at_most_three_times_those_of_the_direct_algorithm(
    isa, channels, distribution, operation
):
    rng = np.random.default_rng(channels)
    x, w = (
        DISTRIBUTIONS[distribution](rng, shape).astype(np.float32)
        for shape in ((1, channels, 20, 20), (12, channels, 3, 3))
    )
    # The input gradient is a convolution with the kernels turned and swapped.
    exact = reference.conv2d(x.astype(float), w.astype(float), padding=1)
    if operation == "conv2d":
        function, arguments = convext.conv2d, (x, w)
    else:
        turned = np.ascontiguousarray(w.transpose(1, 0, 2, 3)[..., ::-1, ::-1])
        function, arguments = convext.conv2d_input_grad, (x, turned, (1, 12, 20, 20))
    direct, winograd = (
        np.abs(function(*arguments, padding=1, algorithm=algorithm) - exact)
        for algorithm in ("direct", "winograd")
    )
    assert_nearly_as_accurate(winograd, direct)


@pytest.mark.parametrize("operation", ["conv2d", "conv2d_input_grad"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("channels", [32, 256, 1024])
@pytest.mark.parametrize("taps", [3, 5])
def test_with_a_stride_errors_are_at_most_three_times_those_of_the_direct_algorithm(
    isa, taps, channels, distribution, operation
):
    rng = np.random.default_rng(channels)
    # What is summed over lies in `channels`; the sums, in 12.
    shapes = {
        "conv2d": [(1, channels, 30, 30), (12, channels, taps, taps)],
        "conv2d_input_grad": [(1, channels, 15, 15), (channels, 12, taps, taps)],
    }[operation]
    pixels, w = (DISTRIBUTIONS[distribution](rng, shape).astype(np.float32) for shape in shapes)
    function, options = getattr(convext, operation), {"padding": taps // 2, "stride": 2}
    larger = () if operation == "conv2d" else ((1, 12, 30, 30),)
    exact = getattr(reference, operation)(pixels.astype(float), w.astype(float), *larger, **options)
    direct, winograd = (
        np.abs(function(pixels, w, *larger, **options, algorithm=algorithm) - exact)
        for algorithm in ("direct", "winograd")
    )
    assert_nearly_as_accurate(winograd, direct)


@pytest.mark.parametrize("operation", ["conv2d", "conv2d_input_grad"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(("channels", "taps"), [(4, 9), (16, 4), (64, 7), (200, 9)])
def test_in_parts_errors_are_at_most_three_times_those_of_the_direct_algorithm(
    isa, channels, taps, distribution, operation
):
    rng = np.random.default_rng(channels)
    x, w = (
        DISTRIBUTIONS[distribution](rng, shape).astype(np.float32)
        for shape in ((1, channels, 33, 33), (12, channels, taps, taps))
    )
    exact = reference.conv2d(x.astype(float), w.astype(float))
    if operation == "conv2d":
        function, arguments, options = convext.conv2d, (x, w), {}
    else:  # a convolution with the kernels turned and swapped
        turned = np.ascontiguousarray(w.transpose(1, 0, 2, 3)[..., ::-1, ::-1])
        options = {"padding": taps - 1}
        function, arguments = convext.conv2d_input_grad, (x, turned, (1, 12, *exact.shape[-2:]))
    direct, winograd = (
        np.abs(function(*arguments, **options, algorithm=algorithm) - exact)
        for algorithm in ("direct", "winograd")
    )
    assert_nearly_as_accurate(winograd, direct)


def assert_nearly_as_accurate(winograd, direct):
    """Compare the errors of both algorithms."""
    assert np.sqrt((winograd**2).mean()) <= RMS_RATIO * np.sqrt((direct**2).mean())
    # The mean of the kernels' largest errors varies less than the largest of all.
    assert winograd.max((-1, -2)).mean() <= ERROR_RATIO * direct.max((-1, -2)).mean()
    # Or else the direct algorithm was measured twice.
    assert (winograd != direct).any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("taps", "stride"), [*TILE, (7, 1)])
def test_any_layout_gives_the_same_bits(isa, layout, taps, stride):
    rng = np.random.default_rng(2)
    # Broadcast layouts repeat their first element, so that the plain copies are made of the views.
    x = lay_out(rng.standard_normal((2, 20, 11, 13), dtype=np.float32), layout)
    w = lay_out(rng.standard_normal((18, 20, taps, taps), dtype=np.float32), layout)
    plain_x, plain_w = (np.array(a, np.float32, order="C") for a in (x, w))
    options = {"padding": ((2, 1), (0, 3)), "stride": stride, "algorithm": "winograd"}
    value = convext.conv2d(plain_x, plain_w, **options)
    assert same_bits(convext.conv2d(x, w, **options), value)
    g = lay_out(value, layout)
    gradient = convext.conv2d_input_grad(np.array(g, np.float32), plain_w, x.shape, **options)
    assert same_bits(convext.conv2d_input_grad(g, w, x.shape, **options), gradient)


@pytest.mark.parametrize("columns", [14, 17, 66])
@pytest.mark.parametrize(("taps", "stride"), [*TILE, (7, 1)])
def test_a_sample_does_not_depend_on_the_others(isa, taps, stride, columns):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((9, 33, 13, columns), dtype=np.float32)
    w = rng.standard_normal((40, 33, taps, taps), dtype=np.float32)
    options = {"stride": stride, "algorithm": "winograd"}
    whole = convext.conv2d(x, w, **options)
    for n in (0, 4, 8):
        assert same_bits(whole[n], convext.conv2d(x[n], w, **options))


@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("rows", [*range(1, 10), 58])
@pytest.mark.parametrize("columns", [*range(1, 10), 59])
def test_tiles_of_every_size_at_the_edges(rows, columns, taps):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((3, 4, rows + taps - 1, columns + taps - 1))
    w = rng.standard_normal((3, 4, taps, taps))
    expected = reference.conv2d(x, w).astype(float)
    for num_threads in (1, 2):
        actual = convext.conv2d(x, w, algorithm="winograd", num_threads=num_threads)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-13)


@pytest.mark.parametrize(("taps", "stride"), [*TILE, (6, 1)])
def test_prepared_kernels_give_the_same_bits(isa, taps, stride):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, 72, 28 * stride, 28 * stride), dtype=np.float32)
    w = rng.standard_normal((80, 72, taps, taps), dtype=np.float32)
    bias = rng.standard_normal(80, dtype=np.float32)
    options = {"bias": bias, "padding": 1, "stride": stride}
    expected = convext.conv2d(x, w, **options)
    assert same_bits(expected, convext.conv2d(x, w, **options, algorithm="winograd"))
    for input_shape in (None, x.shape):
        prepared = convext.prepare_kernels(w, input_shape, **options)
        for _ in range(2):
            assert same_bits(convext.conv2d(x, prepared), expected)
    prepared = convext.prepare_kernels(w, **options, algorithm="direct")
    assert not same_bits(convext.conv2d(x, prepared), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_many_prepared_kernels_for_few_pixels_give_the_same_bits(isa, dtype, num_threads):
    # One image has too few tiles to read so many kernels transformed; four images have enough.
    rng = np.random.default_rng(9)
    x = rng.standard_normal((1, 256, 7, 7)).astype(dtype)
    w = rng.standard_normal((160, 256, 3, 3)).astype(dtype)
    prepared = convext.prepare_kernels(w, x.shape, padding=1, algorithm="winograd")
    expected = convext.conv2d(x, w, padding=1, algorithm="winograd")
    more = np.concatenate([x] * 4)
    for _ in range(2):
        assert same_bits(convext.conv2d(x, prepared, num_threads=num_threads), expected)
        assert same_bits(
            convext.conv2d(more, prepared, num_threads=num_threads),
            np.concatenate([expected] * 4),
        )


@pytest.mark.parametrize(("taps", "stride"), TILE)
def test_nan_spreads_over_the_tiles_that_it_meets_and_no_further(isa, taps, stride):
    tile = TILE[taps, stride]
    options = {"stride": stride, "algorithm": "winograd"}
    rng = np.random.default_rng(5)
    x = rng.standard_normal((16, 15, 20), dtype=np.float32)
    w = rng.standard_normal((16, 16, taps, taps), dtype=np.float32)
    clean = convext.conv2d(x, w, **options)
    for pixel in ((0, 0), (4, 9), (6, 11), (14, 18)):
        poisoned = x.copy()
        poisoned[(3, *pixel)] = np.nan
        met = [
            [
                slice_
                for slice_ in tiles_along(size, tile, stride)
                if slice_.start * stride <= at < (slice_.stop - 1) * stride + taps
            ]
            for at, size in zip(pixel, clean.shape[1:], strict=True)
        ]
        spread = np.zeros(clean.shape, bool)
        for rows in met[0]:
            for columns in met[1]:
                spread[:, rows, columns] = True
        result = convext.conv2d(poisoned, w, **options)
        assert np.isnan(result[spread]).any()
        assert (result[~spread] == clean[~spread]).all()


# ---------------------------------------------------------------- which algorithm


@pytest.mark.parametrize(
    ("dtype", "input_shape", "kernels_shape", "stride", "expected"),
    [
        ("float32", (1, 64, 28, 28), (64, 64, 3, 3), 1, "winograd"),
        ("float32", (16, 128, 7, 7), (128, 128, 3, 3), 1, "winograd"),
        ("float64", (1, 64, 28, 28), (64, 64, 3, 3), 1, "winograd"),
        ("float32", (16, 64, 25, 25), (32, 64, 5, 5), 1, "winograd"),
        ("float64", (1, 64, 28, 28), (64, 64, 5, 5), 1, "winograd"),
        ("float64", (1, 3, 100, 100), (64, 3, 3, 3), 1, "direct"),
        ("float32", (1, 3, 100, 100), (64, 3, 3, 3), 1, "direct"),
        ("float32", (1, 64, 100, 100), (1, 64, 3, 3), 1, "shifted_sums"),
        ("float32", (1, 64, 100, 100), (1, 64, 5, 5), 1, "shifted_sums"),
        ("float32", (1, 64, 2, 2), (64, 64, 3, 3), 1, "direct"),
        ("float32", (1, 3, 30, 30), (8, 3, 5, 5), 1, "direct"),
        ("float32", (16, 1, 33, 33), (64, 1, 9, 9), 1, "winograd"),
        ("float64", (1, 128, 28, 28), (128, 128, 6, 6), 1, "winograd"),
        ("float32", (1, 64, 56, 56), (64, 64, 4, 4), 1, "winograd"),
        ("float32", (16, 1, 33, 33), (64, 1, 7, 7), 1, "direct"),
        ("float32", (1, 1, 30, 30), (4, 1, 9, 9), 1, "direct"),
        ("float64", (1, 128, 7, 56), (64, 128, 7, 7), 1, "direct"),
        ("float32", (1, 128, 56, 56), (128, 128, 3, 3), 2, "winograd"),
        ("float64", (1, 128, 56, 56), (128, 128, 3, 3), 2, "winograd"),
        ("float32", (1, 64, 56, 56), (64, 64, 5, 5), 2, "winograd"),
        ("float32", (1, 3, 224, 224), (32, 3, 3, 3), 2, "direct"),
        ("float32", (1, 64, 5, 5), (64, 64, 3, 3), 2, "direct"),
        ("float32", (1, 64, 56, 56), (64, 64, 3, 3), 3, "direct"),
    ],
)
def test_auto_takes_winograd_where_it_saves_time(
    isa, dtype, input_shape, kernels_shape, stride, expected
):
    rng = np.random.default_rng(6)
    x = rng.standard_normal(input_shape).astype(dtype)
    w = rng.standard_normal(kernels_shape).astype(dtype)
    options = {"padding": 1, "stride": stride}
    value = convext.conv2d(x, w, **options)
    assert same_bits(value, convext.conv2d(x, w, **options, algorithm=expected))
    other = "direct" if expected == "winograd" else "winograd"
    if stride <= 2:
        assert not same_bits(value, convext.conv2d(x, w, **options, algorithm=other))


@pytest.mark.parametrize(("stride", "channels"), [(1, 32), (2, 128)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_auto_takes_winograd_for_the_input_gradient(isa, dtype, stride, channels):
    rng = np.random.default_rng(7)
    g = rng.standard_normal((2, 96, 28, 28)).astype(dtype)
    w = rng.standard_normal((96, channels, 3, 3)).astype(dtype)
    shape = (2, channels, 28 * stride, 28 * stride)
    auto, winograd, direct = (
        convext.conv2d_input_grad(
            g, w, shape, padding=1, stride=stride, algorithm=algorithm, num_threads=2
        )
        for algorithm in ("auto", "winograd", "direct")
    )
    assert same_bits(auto, winograd)
    assert not same_bits(auto, direct)


def call(operation, kernel_hw=(3, 3), **options):
    """Run an operation on ones, of a size that fits."""
    x, w = np.ones((4, 8, 8)), np.ones((4, 4, *kernel_hw))
    if operation == "conv2d":
        return convext.conv2d(x, w, **options)
    g = np.ones(convext.conv2d(x, w, **{**options, "algorithm": "auto"}).shape)
    return convext.conv2d_input_grad(g, w, x.shape, **options)


OPERATIONS = ("conv2d", "conv2d_input_grad")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("algorithm", ["FFT", "Winograd", ""])
def test_an_unknown_algorithm_is_an_error_that_names_those_there_are(operation, algorithm):
    with pytest.raises(ValueError, match=r"algorithm.*'auto', 'winograd', .* or 'direct', got"):
        call(operation, algorithm=algorithm)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("algorithm", [None, 2, b"direct", ["direct"]])
def test_an_algorithm_that_is_no_text_is_a_type_error(operation, algorithm):
    with pytest.raises(TypeError, match=r"algorithm.*'auto', 'winograd', .* or 'direct', got"):
        call(operation, algorithm=algorithm)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kernel_hw": (2, 4)}, "2x4"),
        ({"kernel_hw": (3, 1)}, "3x1"),
        ({"kernel_hw": (4, 4), "stride": 2}, "4x4"),
        ({"stride": 3}, r"stride \(3, 3\)"),
        ({"stride": (1, 2)}, r"stride \(1, 2\)"),
        ({"dilation": (1, 2)}, r"dilation \(1, 2\)"),
    ],
)
def test_winograd_where_it_cannot_be_is_an_error_that_says_why(operation, options, named):
    with pytest.raises(ValueError, match=rf"(?s)'winograd'.*3x3 to 9x9 .*{named}"):
        call(operation, algorithm="winograd", **options)


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
        for size, taps, stride in (
            (3, 3, 1), (4, 3, 1), (7, 3, 1), (17, 3, 1), (33, 3, 1), (5, 5, 1), (6, 5, 1),
            (17, 5, 1), (3, 3, 2), (4, 3, 2), (18, 3, 2), (35, 3, 2), (5, 5, 2), (20, 5, 2),
            (4, 4, 1), (17, 7, 1), (33, 9, 1),
        ):
            for channels, kernels in ((1, 1), (17, 33), (32, 16), (35, 5)):
                x = rng.standard_normal((1, channels, size, size), dtype=np.float32)
                w = rng.standard_normal((kernels, channels, taps, taps), dtype=np.float32)
                options = {"padding": size % 2, "stride": stride, "algorithm": "winograd"}
                value = convext.conv2d(x, w, **options)
                gradient = convext.conv2d_input_grad(value, w, x.shape, **options)
                for at_end in (False, True):
                    x_, w_, out, g = (fenced(a, at_end) for a in (x, w, 0 * value, value))
                    assert (convext.conv2d(x_, w_, out=out, **options) == value).all()
                    again = convext.conv2d_input_grad(g, w_, x.shape, **options)
                    assert (again == gradient).all()
    print("done")
"""


def test_nothing_outside_the_arrays_is_read_or_written():
    pytest.importorskip("mmap")
    assert output_of(AT_THE_EDGE_OF_MEMORY) == ["done"]
