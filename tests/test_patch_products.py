"""The sums of the products of every two pixels of a patch, against sums in extended precision."""

from __future__ import annotations

import numpy as np
import pytest
import reference

from convext.gradient import _statistics
from convext.ops.shapes import resolve

# Images, kernel size, stride, dilation: large ones go by displacement, small and strided ones by
# plain products.
CASES = [
    ((1, 1, 80, 90), (3, 5), 1, 1),
    ((2, 3, 60, 70), (5, 3), 1, 1),
    ((5, 2, 45, 50), (3, 3), 1, (2, 3)),
    ((1, 2, 100, 110), (1, 1), 1, 1),
    ((1, 1, 100, 110), (7, 1), 1, (3, 1)),
    ((1, 1, 70, 110), (1, 9), 1, 1),
    ((1, 18, 30, 41), (3, 3), 1, 1),
    ((3, 2, 20, 25), (3, 2), (2, 1), (1, 2)),
    ((3, 3, 40, 50), (4, 4), (3, 4), 1),
    ((4, 3, 28, 28), (2, 2), 1, 1),
    ((1, 1, 9, 9), (9, 9), 1, 1),
    ((2, 1, 9, 8), (5, 6), 1, 1),
]


def patch_products(images, kernel_size, stride=1, dilation=1, samples_of_unit=None, num_threads=1):
    options = resolve(
        images.shape, kernel_size, stride=stride, padding=0, dilation=dilation, groups=1
    )
    samples_of_unit = samples_of_unit or len(images)
    taps = images.shape[1] * kernel_size[0] * kernel_size[1]
    products = np.zeros((-(-len(images) // samples_of_unit), taps, taps))
    _statistics.patch_products(
        images, kernel_size, options.stride, options.dilation, options.output_shape,
        samples_of_unit, products, num_threads,
    )  # fmt: skip
    return products


def patches(images, kernel_size, stride=1, dilation=1):
    """Return all patches in extended precision: (N, taps, OH * OW)."""
    taps = images.shape[1] * kernel_size[0] * kernel_size[1]
    alone = np.eye(taps).reshape(taps, images.shape[1], *kernel_size)
    return reference.conv2d(images, alone, None, stride, 0, dilation).reshape(len(images), taps, -1)


def plain_products(images, kernel_size, stride=1, dilation=1):
    """Return the sums for each sample, and those of the products' magnitudes."""
    every = patches(images, kernel_size, stride, dilation)
    magnitude = np.abs(every)
    return every @ every.transpose(0, 2, 1), magnitude @ magnitude.transpose(0, 2, 1)


def random_images(shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("samples_of_unit", [None, 1, 2])
def test_products_are_those_of_every_two_pixels_of_a_patch(case, samples_of_unit, isa):
    shape, *options = case
    images = random_images(shape)
    products = patch_products(images, *options, samples_of_unit)
    expected, magnitude = plain_products(images, *options)
    step = samples_of_unit or len(images)
    starts = np.arange(0, len(images), step)
    error = np.abs(products - np.add.reduceat(expected, starts))
    assert (error <= 1e-15 * 30 * np.add.reduceat(magnitude, starts)).all()
    assert np.array_equal(products, products.transpose(0, 2, 1))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("samples_of_unit", [None, 1])
def test_products_have_the_same_bits_for_any_number_of_threads(case, samples_of_unit):
    shape, *options = case
    images = random_images(shape)
    one = patch_products(images, *options, samples_of_unit)
    for threads in (2, 5):
        more = patch_products(images, *options, samples_of_unit, threads)
        assert more.tobytes() == one.tobytes()


@pytest.mark.parametrize("case", CASES[:3] + CASES[-3:], ids=str)
def test_any_layout_will_do(case):
    shape, *options = case
    images = random_images(shape)
    larger = np.full(tuple(n + 3 for n in shape), np.nan)
    inside = larger[tuple(slice(1, n + 1) for n in shape)]
    inside[...] = images
    expected = patch_products(images, *options)
    for view in (np.asfortranarray(images), inside, images[:, :, ::-1].copy()[:, :, ::-1]):
        np.testing.assert_allclose(patch_products(view, *options), expected, rtol=1e-12)


def test_integers_are_summed_exactly():
    images = np.random.default_rng(0).integers(0, 256, (1, 1, 150, 130)).astype(np.float64)
    products = patch_products(images, (5, 5))
    every = patches(images, (5, 5))[0].astype(np.int64)
    assert np.array_equal(products[0], every @ every.T)


def test_a_bright_border_does_not_cost_the_core_its_accuracy():
    """Sums that were subtracted at the edges would lose all digits of the entries without it."""
    images = random_images((1, 1, 90, 80))
    images[:, :, 0, :] = 1e12
    products = patch_products(images, (3, 3))
    expected, _ = plain_products(images, (3, 3))
    below = slice(3, None)  # taps that the first row never meets
    np.testing.assert_allclose(products[0, below, below], expected[0, below, below], atol=1e-10)


def test_a_sample_with_nan_leaves_the_others_alone():
    images = random_images((5, 2, 40, 30))
    good = patch_products(images, (3, 3), samples_of_unit=1)
    images[2, 0, 5, 5] = np.nan
    images[4, 1, 9, 9] = np.inf
    products = patch_products(images, (3, 3), samples_of_unit=1)
    assert np.array_equal(products[[0, 1, 3]], good[[0, 1, 3]])
    assert np.isnan(products[2]).any()
    assert not np.isfinite(products[4]).all()
