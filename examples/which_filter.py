"""Find out which filter made one photograph of another.

Pillow filters a photograph and rounds the result to 8 bits. From the two pictures alone, least
squares recovers each filter to the fraction.

    pip install "convext[test]"         # adds scikit-image, Pillow and Matplotlib
    python examples/which_filter.py
"""

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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
        solution = convext.solve_kernels(before, after, (3, 3), bias=True, mask=unclipped)
        error = 255 * np.sqrt(solution.loss)
        print(f"{name:<11} {common_fraction(solution.kernels[0])}")
        print(f"{'':<11} plus {255 * solution.bias[0]:.1f}, off by {error:.2f} of 255 levels")
    predicted = convext.conv2d(before, solution.kernels, bias=solution.bias)
    plot_solution(before, after[:, 1:-1, 1:-1], predicted, solution.kernels, arguments.out)
    print(f"the last one: {arguments.out}")


if __name__ == "__main__":
    main()
