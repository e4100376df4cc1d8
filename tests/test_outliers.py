"""With "auto", outliers and values that are not finite reach the results that see them, no others.

The bound of docs/winograd.md: the error of a result is at most 32 roundings of the product of two
norms, that of the pixels under its window and that of its kernel.
"""

import numpy as np
import pytest
from reference import conv2d as convolve_by_definition
from reference import conv2d_input_grad as input_grad_by_definition
from reference import conv2d_kernel_grad as kernel_grad_by_definition

import convext

MULTIPLE = 32

# Input, kernels, padding and stride of convolutions that "auto" transforms.
WINOGRAD = {
    "3x3": ((16, 14, 18), 16, 3, 1, 1),
    "3x3, full": ((24, 11, 9), 40, 3, 2, 1),
    "5x5": ((16, 12, 13), 16, 5, 2, 1),
    "3x3, two apart": ((64, 24, 24), 64, 3, 1, 2),
    "5x5, two apart": ((32, 16, 16), 32, 5, 2, 2),
    "9x9 in parts": ((1, 24, 30), 32, 9, 4, 1),
}
FOURIER = {
    "17x17": ((1, 64, 64), 1, 17, 8, 1),
    "12x12, three channels": ((3, 60, 40), 6, 12, 0, 1),
    "9x9, three channels": ((3, 60, 40), 6, 9, 4, 1),
    "9x9": ((1, 96, 100), 8, 9, 4, 1),
}
SHAPES = {**WINOGRAD, **FOURIER}
DTYPES = (np.float32, np.float64)
QUICK = ("3x3, full", "5x5", "9x9 in parts", "17x17")


def arrays_of(name, dtype, samples, seed=0):
    """Random images and kernels, and the options of their convolution."""
    (channels, *size), kernels, taps, padding, stride = SHAPES[name]
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, channels, *size)).astype(dtype)
    k = rng.standard_normal((kernels, channels, taps, taps)).astype(dtype)
    return x, k, {"padding": padding, "stride": stride}, rng


def places_in(rng, array, count):
    """So many samples, each with the index of a pixel: the corners, then anywhere."""
    height, width = array.shape[2:]
    corners = [(0, 0), (height - 1, 0), (0, width - 1), (height - 1, width - 1)]
    for sample in range(count):
        place = corners[sample] if sample < 4 else (rng.integers(height), rng.integers(width))
        yield (sample, rng.integers(array.shape[1]), *place)


def norms(images, kernels, options):
    """Of each result, the norm of the pixels under its window times that of its kernel."""
    squares = np.square(images.astype(np.longdouble)).sum(axis=1, keepdims=True)
    window = np.ones((1, 1, *kernels.shape[2:]))
    under = convolve_by_definition(squares, window, **options)
    of_kernels = np.square(kernels.astype(np.longdouble)).sum(axis=(1, 2, 3))
    return np.sqrt(under * of_kernels[:, np.newaxis, np.newaxis])


def assert_within(actual, expected, bound, where=True, multiple=MULTIPLE):
    error = np.abs(actual.astype(np.longdouble) - expected)
    allowed = multiple * np.finfo(actual.dtype).eps * bound
    wrong = (error > allowed) & where
    assert not wrong.any(), (
        f"{wrong.sum()} results are wrong, by up to "
        f"{np.max(error[wrong] / np.maximum(allowed[wrong], 1e-300)):.3g} times the bound"
    )


@pytest.mark.parametrize("name", SHAPES)
def test_even_data_are_transformed(name):
    """Else the other tests of this file would look at the direct way alone."""
    x, k, options, _ = arrays_of(name, np.float32, 1)
    way = "winograd" if name in WINOGRAD else "fft"
    transformed = convext.conv2d(x, k, algorithm=way, **options)
    assert (convext.conv2d(x, k, **options) == transformed).all()
    assert (convext.conv2d(x, k, algorithm="direct", **options) != transformed).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", QUICK)
def test_outliers_reach_the_windows_that_cover_them(isa, name, dtype):
    check_outliers(name, dtype)


@pytest.mark.parametrize("name", sorted(SHAPES.keys() - QUICK))
def test_outliers_reach_the_windows_of_other_ways(name):
    check_outliers(name, np.float32)


def check_outliers(name, dtype):
    sizes = [5, 30, 300, 65535, 1e8, 3e38]
    x, k, options, rng = arrays_of(name, dtype, len(sizes), 1)
    k *= dtype(2.0**-40)  # no sum is to overflow
    for size, place in zip(sizes, places_in(rng, x, len(sizes)), strict=True):
        x[place] = -size
    expected = convolve_by_definition(x, k, **options)
    result = convext.conv2d(x, k, **options)
    assert_within(result, expected, norms(x, k, options))
    prepared = convext.prepare_kernels(k, **options)
    for num_threads in (1, 3):
        again = convext.conv2d(x[..., ::-1].copy()[..., ::-1], prepared, num_threads=num_threads)
        assert again.tobytes() == result.tobytes()


@pytest.mark.parametrize("data", ["dark halves", "black halves", "sparse", "an offset", "tiny"])
@pytest.mark.parametrize("name", SHAPES)
def test_uneven_images_keep_the_bound(name, data):
    x, k, options, rng = arrays_of(name, np.float32, 2, 2)
    if data == "sparse":
        x *= rng.random(x.shape) < 0.05
    elif data == "an offset":
        x += 1000
        k -= k.mean(axis=(2, 3), keepdims=True)
    elif data == "tiny":
        x[..., : x.shape[3] // 2] *= np.float32(1e-8)
        x *= np.float32(1e-18)
    else:
        x[..., : x.shape[3] // 2] *= np.float32(1e-5 if data == "dark halves" else 0)
    expected = convolve_by_definition(x, k, **options)
    assert_within(convext.conv2d(x, k, **options), expected, norms(x, k, options))


@pytest.mark.parametrize("name", SHAPES)
def test_values_that_are_not_finite_reach_the_windows_that_cover_them(isa, name):
    values = [np.inf, -np.inf, np.nan, np.inf, np.nan]
    x, k, options, rng = arrays_of(name, np.float32, len(values), 3)
    for value, place in zip(values, places_in(rng, x, len(values)), strict=True):
        x[place] = value
    bad = (~np.isfinite(x)).any(axis=1, keepdims=True).astype(float)
    covered = convolve_by_definition(bad, np.ones((1, 1, *k.shape[2:])), **options) > 0
    finite = np.where(np.isfinite(x), x, 0)
    result = convext.conv2d(x, k, **options)
    assert (np.isfinite(result) == np.broadcast_to(~covered, result.shape)).all()
    expected = convolve_by_definition(finite, k, **options)
    assert_within(np.where(covered, 0, result), expected, norms(finite, k, options), where=~covered)


@pytest.mark.parametrize("taps", [(1, 64), (64, 1), (2, 40)])
def test_kernels_of_few_rows_or_columns_keep_the_bound(taps):
    rng = np.random.default_rng(8)
    x = rng.standard_normal((1, 8, 140, 140), np.float32)
    k = rng.standard_normal((4, 8, *taps), np.float32)
    assert (convext.conv2d(x, k) == convext.conv2d(x, k, algorithm="fft")).all()
    x[..., 70:] *= np.float32(1e-6)
    x[..., :70, :] *= np.float32(1e6)
    assert_within(convext.conv2d(x, k), convolve_by_definition(x, k), norms(x, k, {}))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("name", SHAPES)
def test_kernels_that_are_not_finite_leave_others_alone(isa, name, value):
    x, k, options, _ = arrays_of(name, np.float32, 1, 4)
    k[-1, -1, 1, 1] = value
    prepared = convext.prepare_kernels(k, x.shape, **options)
    direct = convext.conv2d(x, k, algorithm="direct", **options)
    for result in (convext.conv2d(x, k, **options), convext.conv2d(x, prepared)):
        assert (np.isfinite(result) == np.isfinite(direct)).all()
        assert np.isfinite(result[:, :-1]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("kernels", "padding"), [(1, 0), (1, 1), (3, 3)])
def test_kernels_that_are_not_finite_meet_the_padding(isa, kernels, padding, value):
    """Zeros that shifted sums do not multiply are NaN by such a weight."""
    rng = np.random.default_rng(9)
    x = rng.standard_normal((2, 130, 20, 70), np.float32)
    k = rng.standard_normal((kernels, 130, 3, 3), np.float32)
    k[-1, -1, 0, 2] = value
    assert convext.explain("conv2d", x, k, padding=padding).taken == "shifted_sums"
    prepared = convext.prepare_kernels(k, x.shape, padding=padding)
    direct = convext.conv2d(x, k, padding=padding, algorithm="direct")
    for result in (convext.conv2d(x, k, padding=padding), convext.conv2d(x, prepared)):
        assert (np.isnan(result) == np.isnan(direct)).all()
        assert (np.isinf(result) == np.isinf(direct)).all()
        assert np.isfinite(result[:, :-1]).all()
    turned, shape = k.swapaxes(0, 1), (2, kernels, 22, 72)
    assert convext.explain("conv2d_input_grad", shape, turned, dtype="f").taken == "shifted_sums"
    result = convext.conv2d_input_grad(x, turned, shape)
    direct = convext.conv2d_input_grad(x, turned, shape, algorithm="direct")
    assert (np.isnan(result) == np.isnan(direct)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_outliers_in_output_gradients_reach_the_pixels_that_they_meet(name, dtype):
    sizes = [50, 65535, 1e12, np.nan, np.inf]
    x, k, options, rng = arrays_of(name, dtype, len(sizes), 5)
    grad = np.ones_like(convext.conv2d(x, k, **options))
    grad *= rng.standard_normal(grad.shape).astype(dtype)
    for size, place in zip(sizes, places_in(rng, grad, len(sizes)), strict=True):
        grad[place] = size
    result = convext.conv2d_input_grad(grad, k, x.shape, **options)
    finite = np.where(np.isfinite(grad), grad, 0)
    ones = np.ones((1, 1, *k.shape[2:]))
    met = (
        input_grad_by_definition(
            (~np.isfinite(grad)).any(axis=1, keepdims=True).astype(float),
            ones,
            (len(sizes), 1, *x.shape[2:]),
            **options,
        )
        > 0
    )
    assert (np.isfinite(result) == np.broadcast_to(~met, result.shape)).all()
    squares = np.square(finite.astype(np.longdouble)).sum(axis=1, keepdims=True)
    under = input_grad_by_definition(squares, ones, (len(sizes), 1, *x.shape[2:]), **options)
    if name in FOURIER:
        # Beyond the edge, windows count as the nearest ones that lie inside by a half.
        half = (k.shape[2] + 1) // 2
        under = np.maximum(under, nearest(under, half - options["padding"]))
    of_kernels = np.square(k.astype(np.longdouble)).sum(axis=(0, 2, 3))
    expected = input_grad_by_definition(finite, k, x.shape, **options)
    assert_within(
        np.where(met, 0, result),
        expected,
        np.sqrt(under * of_kernels[:, np.newaxis, np.newaxis]),
        where=~met,
    )


def nearest(array, margin):
    """For each place within so many of the edge, the value of the nearest place that is not."""
    if margin <= 0:
        return array
    rows, columns = (np.clip(np.arange(n), margin, n - 1 - margin) for n in array.shape[2:])
    return array[:, :, rows[:, np.newaxis], columns]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("where", ["pixel", "gradient", "both", "row", "not finite"])
def test_outliers_reach_the_taps_that_meet_them(where, padding, dtype):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 16, 18, 20)).astype(dtype)
    grad = rng.standard_normal((2, 24, 16 + 2 * padding, 18 + 2 * padding)).astype(dtype)
    for size in (40, 65535, 1e8):
        for place in places_in(rng, x[:1], 1):
            if where in ("pixel", "both"):
                x[place] = size
        for place in places_in(rng, grad[:1], 1):
            if where in ("gradient", "both"):
                grad[place] = size
        if where == "row":
            x[:, :, 0] = size
        if where == "not finite":
            x[0, 3, 0, 0], grad[1, 5, -1, -1] = np.nan, np.inf
        result = convext.conv2d_kernel_grad(x, grad, (3, 3), padding=padding)
        direct = convext.conv2d_kernel_grad(x, grad, (3, 3), padding=padding, algorithm="direct")
        assert (np.isfinite(result) == np.isfinite(direct)).all()
        if where == "not finite":
            return
        expected = kernel_grad_by_definition(x, grad, (3, 3), padding=padding)
        squares = [np.square(a.astype(np.longdouble)) for a in (x, grad)]
        ones = kernel_grad_by_definition(
            squares[0], np.ones_like(squares[1]), (3, 3), padding=padding
        )
        bound = np.sqrt(ones * squares[1].sum(axis=(0, 2, 3)).reshape(-1, 1, 1, 1))
        assert_within(result, expected, bound)
        for num_threads in (1, 3):
            again = convext.conv2d_kernel_grad(
                x, grad, (3, 3), padding=padding, num_threads=num_threads
            )
            assert again.tobytes() == result.tobytes()


@pytest.mark.parametrize("data", ["even", "an outlier"])
def test_kernel_gradients_of_even_data_are_transformed_alone(data):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2, 16, 18, 20), np.float32)
    grad = rng.standard_normal((2, 24, 16, 18), np.float32)
    if data == "an outlier":
        x[1, 3, 0, 7] = 1e8
    auto, direct, winograd = (
        convext.conv2d_kernel_grad(x, grad, (3, 3), algorithm=way)
        for way in ("auto", "direct", "winograd")
    )
    assert (auto == (winograd if data == "even" else direct)).all()
    assert (direct != winograd).any()
