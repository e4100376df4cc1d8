"""Copies by copy, deepcopy, pickle and other processes: as their originals, and independent."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
from strategies import random_values

import convext


def by_pickle(original, protocol):
    return pickle.loads(pickle.dumps(original, protocol))


MEANS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {p}": partial(by_pickle, protocol=p) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}
by_each_means = pytest.mark.parametrize("means", MEANS.values(), ids=MEANS)
random_copies = pytest.mark.parametrize(
    "count", [20, pytest.param(500, marks=pytest.mark.slow)], ids=["few", "many"]
)


def in_another_process(function, arguments):
    """Return function(argument) for each argument, from a process that begins with an import."""
    with get_context("spawn").Pool(1) as pool:
        return pool.map(function, arguments)


# ---------------------------------------------------------------- prepared kernels


def random_prepared(rng):
    """Return images, kernels for them, prepared kernels, and their options."""
    groups = int(rng.choice([1, 1, 1, 2]))
    channels, filters = groups * rng.integers(1, 20, 2)
    size = rng.choice([1, 2, 3, 3, 5, 7, 9])
    dtype = str(rng.choice(["float32", "float64"]))
    kernels = random_values(rng, (filters, channels // groups, size, size), dtype)
    if rng.random() < 0.2:  # separable
        channels, groups, kernels = 1, 1, np.ones((2, 1, size, size), dtype)
    options = {
        "bias": random_values(rng, (len(kernels),), dtype) if rng.random() < 0.5 else None,
        "groups": groups,
        "stride": int(rng.integers(1, 3)),
        "padding": int(rng.integers(3)),
    }
    shape = (channels, *rng.integers(size, 40, 2))
    images = random_values(rng, shape, dtype)
    return images, kernels, convext.prepare_kernels(kernels, **options), options


@random_copies
@by_each_means
def test_copies_of_prepared_kernels_give_their_results_before_and_after_use(means, count):
    rng = np.random.default_rng(7)
    for _ in range(count):
        images, kernels, prepared, options = random_prepared(rng)
        expected = convext.conv2d(images, kernels, **options)
        copies = [means(prepared)]
        convext.conv2d(images, prepared)
        copies += [means(prepared), means(means(prepared))]
        del prepared
        for copied in copies:
            assert np.array_equal(convext.conv2d(images, copied), expected)
            assert not copied.kernels.flags.writeable


def convolve(pair):
    return convext.conv2d(*pair)


def test_prepared_kernels_can_be_sent_to_another_process():
    rng = np.random.default_rng(8)
    cases = [random_prepared(rng) for _ in range(20)]
    pairs = [(images, prepared) for images, _, prepared, _ in cases]
    expected = [convolve(pair) for pair in pairs]
    results = in_another_process(convolve, pairs)
    assert all(map(np.array_equal, results, expected))


def test_prepared_kernels_do_not_change():
    prepared = convext.prepare_kernels(np.ones((1, 1, 3, 3)))
    for name in ("kernels", "bias", "stride", "padding", "dilation", "groups", "algorithm"):
        with pytest.raises(AttributeError, match=f"{name} cannot be set"):
            setattr(prepared, name, getattr(prepared, name))


class NamedKernels(convext.PreparedKernels):
    name = "none"


@by_each_means
def test_copies_keep_the_class_and_what_it_adds(means):
    named = NamedKernels(np.ones((1, 1, 2, 2)), None, 1, 0, 1, 1, "auto")
    named.name = "box"
    copied = means(named)
    assert type(copied) is NamedKernels
    assert copied.name == "box"
    copied.name = "another"
    assert named.name == "box"
