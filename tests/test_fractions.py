"""Kernels as common fractions."""

from __future__ import annotations

import numpy as np
import pytest

from convext.solve.fractions import common_fraction


@pytest.mark.parametrize(
    ("numerators", "denominator", "text"),
    [
        ([[1, 2, 1], [2, 4, 2], [1, 2, 1]], 16, "1/16 × [1 2 1; 2 4 2; 1 2 1]"),
        ([[-1, 0, 1]], 2, "1/2 × [-1 0 1]"),
        ([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], 1, "[0 -1 0; -1 5 -1; 0 -1 0]"),
        ([[[3]], [[6]], [[1]]], 10, "1/10 × [3 | 6 | 1]"),
        (np.ones((5, 5), int), 25, "1/25 × [" + "; ".join(["1 1 1 1 1"] * 5) + "]"),
        ([[1, 4, 6, 4, 1]], 256, "1/256 × [1 4 6 4 1]"),
    ],
)
def test_a_fraction_is_found_and_printed(numerators, denominator, text):
    found = common_fraction(np.array(numerators) / denominator)
    assert found.denominator == denominator
    assert np.array_equal(found.numerators, numerators)
    assert str(found) == text


def test_noise_does_not_hide_a_fraction():
    rng = np.random.default_rng(0)
    blur = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    for _ in range(100):
        found = common_fraction(blur / 16 + rng.uniform(-1e-3, 1e-3, (3, 3)), 4e-4)
        assert (found.denominator, found.numerators.tolist()) == (16, blur.tolist())


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 3), (5, 5), (3, 3, 3)])
def test_random_kernels_are_hardly_ever_fractions(shape):
    rng = np.random.default_rng(1)
    found = sum(common_fraction(rng.uniform(-1, 1, shape)) is not None for _ in range(300))
    assert found <= 3


def test_zeros_are_no_fraction():
    assert common_fraction(np.zeros((3, 3))) is None
