"""
Which filter was it?
====================

Find out which filter made one photograph of another.

Pillow filters a photograph and rounds the result to 8 bits. From the two pictures alone, least
squares recovers each filter to the fraction. Run it so::

    pip install "convext[test]"         # adds scikit-image, Pillow and Matplotlib
    python examples/which_filter.py

.. image:: /docs/pictures/which_filter.png
   :alt: What the program draws
"""

# sphinx_gallery_thumbnail_path = "docs/pictures/which_filter.png"

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import skimage.data
from PIL import Image, ImageFilter

import convext
from convext.plotting import plot_solution
from convext.solve.fractions import common_fraction

FILTERS = {
    "smooth": ImageFilter.SMOOTH,
    "sharpen": ImageFilter.SHARPEN,
    "emboss": ImageFilter.EMBOSS,
    "find edges": ImageFilter.FIND_EDGES,
}


def as_array(picture: Image.Image) -> np.ndarray:
    """Return a grey picture as one channel with values in [0, 1]."""
    return np.asarray(picture)[np.newaxis] / 255


def standard_errors(statistics: convext.PatchStatistics, solution: convext.Solution) -> np.ndarray:
    """Return how far off each number of the kernel may be, because pixels are rounded."""
    covariance = solution.loss * np.linalg.inv(statistics.products[0])
    return np.sqrt(np.diag(covariance)[:-1]).reshape(solution.kernels[0].shape)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Find out which filter made one photograph of another."
    )
    parser.add_argument("--image", help="a photograph (default: one from scikit-image)")
    parser.add_argument("--out", default="which_filter.png", help="the last report to write")
    arguments = parser.parse_args(argv)
    picture = (
        Image.open(arguments.image) if arguments.image else Image.fromarray(skimage.data.camera())
    )
    picture = picture.convert("L")
    before = as_array(picture)
    for name, chosen in FILTERS.items():
        after = as_array(picture.filter(chosen))
        # Where the result was cut off at black or white, no filter explains it.
        unclipped = (after > 0) & (after < 1)
        statistics = convext.PatchStatistics(1, 1, (3, 3), bias=True)
        statistics.update(before, after[:, 1:-1, 1:-1], unclipped[:, 1:-1, 1:-1])
        solution = statistics.solve()
        fraction = common_fraction(solution.kernels[0], standard_errors(statistics, solution))
        error = 255 * np.sqrt(solution.loss)
        print(f"{name:<11} {fraction}")
        print(f"{'':<11} plus {255 * solution.bias[0]:.1f}, off by {error:.2f} of 255 levels")
    predicted = convext.conv2d(before, solution.kernels, bias=solution.bias)
    plot_solution(before, after[:, 1:-1, 1:-1], predicted, solution.kernels, arguments.out)
    print(f"the last one: {arguments.out}")


if __name__ == "__main__":
    main()
