"""
Learn Sobel, a blur and an unsharp mask
=======================================

Learn image filters from photographs before and after.

Each filter is applied to a photograph by SciPy. From the two pictures alone, before and after,
gradient descent finds the filter's kernel to better than one part in a thousand. Run it so::

    pip install "convext[test]"         # adds SciPy, scikit-image and Matplotlib
    python examples/learn_filters.py
    python examples/learn_filters.py --image holiday.jpg --out holiday_filters.png

.. image:: /docs/pictures/learn_filters.png
   :alt: What the program draws
"""

# sphinx_gallery_thumbnail_path = "docs/pictures/learn_filters.png"

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage.color
import skimage.data
import skimage.io
import skimage.util
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from scipy.signal import correlate2d

import convext

Array = npt.NDArray[np.float64]

# A larger picture only takes longer: its middle has far more pixels than a kernel has numbers.
LARGEST_SIDE = 512
SMALLEST_SIDE = 32

# Training ends when so small a part of the target's mean square is left unexplained.
UNEXPLAINED = 1e-9
MAX_EPOCHS = 5000

# What a kernel has to come within: ||learned - true|| / ||true||.
TOLERANCE = 1e-3

# The figure shows so many pixels of each side: a blur of five pixels is lost in a whole picture.
DETAIL = 110


@dataclass(frozen=True)
class Case:
    """A filter to be learned, and the photograph in scikit-image to learn it from.

    `centre` is the part of the photograph that the figure shows, as fractions of its height and
    width. Results of a `signed` filter are around zero.
    """

    name: str
    kernel: Array
    photograph: str
    centre: tuple[float, float]
    signed: bool = False


@dataclass
class Training:
    """What is learned, and how it went from epoch to epoch."""

    case: Case
    before: Array
    after: Array
    centre: tuple[float, float]
    seconds: float = 0.0
    learned: Array = field(default_factory=lambda: np.zeros((0, 0)))
    losses: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


def sobel_x() -> Array:
    """Return the 3x3 Sobel kernel: smooth down, difference across."""
    return np.outer([1.0, 2.0, 1.0], [-1.0, 0.0, 1.0])


def gaussian(size: int = 5, sigma: float = 1.0) -> Array:
    """Return exp(-(x^2 + y^2) / (2 sigma^2)) on a square grid, scaled to a sum of 1."""
    x = np.arange(size) - size // 2
    bell = np.exp(-(x**2) / (2 * sigma**2))
    return np.outer(bell, bell) / bell.sum() ** 2


def unsharp_mask(amount: float = 1.0) -> Array:
    """Return the kernel of image + amount * (image - blurred image)."""
    blur = gaussian()
    identity = np.zeros_like(blur)
    identity[2, 2] = 1.0
    return identity + amount * (identity - blur)


CASES = (
    Case("Sobel x", sobel_x(), "camera", (0.26, 0.48), signed=True),
    Case("Gaussian blur", gaussian(), "astronaut", (0.21, 0.44)),
    Case("unsharp mask", unsharp_mask(), "chelsea", (0.36, 0.49)),
)


def grey(picture: npt.NDArray[np.generic]) -> Array:
    """Return a picture as grey values, 0 to 1, of shape (H, W); at most its middle."""
    if picture.ndim == 3 and picture.shape[2] == 4:
        picture = skimage.color.rgba2rgb(picture)
    if picture.ndim == 3:
        picture = skimage.color.rgb2gray(picture)
    height, width = (min(side, LARGEST_SIDE) for side in picture.shape)
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return skimage.util.img_as_float64(picture[top : top + height, left : left + width])


def differences(picture: Array) -> Array:
    """Return the differences of neighbouring pixels, across and down, as two samples."""
    across = np.diff(picture, axis=1)[:-1]
    down = np.diff(picture, axis=0)[:, :-1]
    return np.stack([across, down])[:, np.newaxis]


def training_data(before: Array, after: Array) -> tuple[Array, Array]:
    """Return input and target, (2, 1, H, W), with the same kernel but far easier to learn from.

    Neighbouring pixels of a photograph are nearly equal, so gradient descent on the pixels finds
    the sum of the kernel at once and its details after tens of thousands of epochs. Differences of
    neighbours are nearly independent, and since convolutions commute, the differences before and
    after are related by the very same kernel.
    """
    inputs, targets = differences(before), differences(after)
    scale = np.sqrt(np.mean(inputs**2))
    if scale == 0:
        raise ValueError("nothing can be learned from a picture of a single grey")
    return inputs / scale, targets / scale


def learn(case: Case, before: Array, centre: tuple[float, float]) -> Training:
    """Apply the filter, and learn its kernel from the result."""
    after = correlate2d(before, case.kernel, mode="valid")
    result = Training(case, before, after, centre)
    inputs, targets = training_data(before, after)
    enough = UNEXPLAINED * np.mean(targets**2)

    def record(report: convext.EpochReport) -> None:
        result.losses.append(report.loss)
        result.errors.append(relative_error(report.kernels[0, 0], case.kernel))
        if report.loss < enough:
            raise convext.StopTraining

    # Gradient descent is stable up to 1 / (the largest eigenvalue of the mean product of every two
    # pixels of a patch). With a mean square of 1, all eigenvalues together are the size of a patch.
    rate = 1 / case.kernel.size
    started = time.perf_counter()
    kernels = convext.train_model(
        inputs,
        targets,
        1,
        case.kernel.shape,
        rate,
        MAX_EPOCHS,
        batch_size=2,
        seed=0,
        callbacks=[record],
        verbose=False,
    )
    result.seconds = time.perf_counter() - started
    result.learned = kernels[0, 0]
    return result


def relative_error(learned: Array, true: Array) -> float:
    """Return ||learned - true|| / ||true||."""
    return float(np.linalg.norm(learned - true) / np.linalg.norm(true))


def print_table(trainings: Sequence[Training]) -> None:
    """Print a line for each filter."""
    print(
        f"{'filter':<14} {'kernel':>6} {'epochs':>6} {'seconds':>7} {'loss':>8} {'rel. error':>10}"
    )
    for training in trainings:
        height, width = training.learned.shape
        print(
            f"{training.case.name:<14} {f'{height}x{width}':>6} {len(training.losses):>6} "
            f"{training.seconds:>7.2f} {training.losses[-1]:>8.1e} "
            f"{relative_error(training.learned, training.case.kernel):>10.1e}"
        )


def draw(trainings: Sequence[Training], file: Path) -> None:
    """Draw a row for each filter: before, after, the learned kernel, and how it went."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.1)
    figure = Figure(figsize=(12.6, 3.3 * len(trainings)), layout=layout)
    rows = figure.subplots(
        len(trainings), 4, squeeze=False, gridspec_kw={"width_ratios": [1, 1, 1, 1.25]}
    )
    for axes, training in zip(rows, trainings, strict=True):
        draw_pictures(axes[0], axes[1], training)
        draw_kernel(axes[2], training)
        draw_curves(axes[3], training)
    figure.savefig(file, dpi=90)


def draw_pictures(left: Axes, right: Axes, training: Training) -> None:
    """Show a detail before and after, with the same greys; signed results in two colours."""
    border = np.array(training.case.kernel.shape) // 2
    corner = detail_corner(training.after.shape, training.centre)
    before = cut(training.before, corner + border)
    after = cut(training.after, corner)
    greys = {"cmap": "gray", "vmin": before.min(), "vmax": before.max()}
    largest = np.abs(after).max()
    colours = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    left.imshow(before, interpolation="nearest", **greys)
    right.imshow(after, interpolation="nearest", **(colours if training.case.signed else greys))
    left.set_title("before (detail)")
    right.set_title(f"after: {training.case.name}")
    for axes in (left, right):
        axes.set_xticks([])
        axes.set_yticks([])


def detail_corner(shape: tuple[int, ...], centre: tuple[float, float]) -> npt.NDArray[np.intp]:
    """Return the top left corner of the detail, so that all of it is in the picture if it can."""
    corners = [
        min(max(round(side * where) - DETAIL // 2, 0), max(side - DETAIL, 0))
        for side, where in zip(shape, centre, strict=True)
    ]
    return np.array(corners)


def cut(picture: Array, corner: npt.NDArray[np.intp]) -> Array:
    """Return the detail of `picture` whose top left pixel is `corner`."""
    top, left = corner
    return picture[top : top + DETAIL, left : left + DETAIL]


def draw_kernel(axes: Axes, training: Training) -> None:
    """Show the numbers of the learned kernel, red above zero and blue below."""
    kernel = training.learned
    # The square root makes small numbers visible beside a large one.
    shades = np.sign(kernel) * np.sqrt(np.abs(kernel) / np.abs(kernel).max())
    axes.imshow(shades, cmap="RdBu_r", vmin=-1, vmax=1)
    # Adding 0 turns a rounded -0.0 into 0.0.
    for (row, column), value in np.ndenumerate(kernel.round(3) + 0.0):
        axes.text(
            column,
            row,
            f"{value:.3f}",
            ha="center",
            va="center",
            fontsize=9 if kernel.shape[0] > 3 else 12,
            color="white" if abs(shades[row, column]) > 0.7 else "black",
        )
    axes.set_title(f"learned kernel (error {relative_error(kernel, training.case.kernel):.1e})")
    axes.set_xticks([])
    axes.set_yticks([])


def draw_curves(axes: Axes, training: Training) -> None:
    """Show the loss and the kernel's error after each epoch."""
    epochs = np.arange(1, len(training.losses) + 1)
    axes.semilogy(epochs, training.losses, label="loss")
    axes.semilogy(epochs, training.errors, label="relative error of the kernel")
    axes.axhline(TOLERANCE, color="0.5", linewidth=1, linestyle=":")
    axes.set_title(f"learned in {len(epochs)} epochs")
    axes.set_xlabel("epoch")
    axes.set_xlim(1, len(epochs))
    axes.grid(alpha=0.25)
    axes.legend(loc="upper right", frameon=False)


def read_picture(file: Path) -> Array:
    """Return the picture in a file as grey values."""
    picture = skimage.io.imread(file)
    if picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,), (4,)):
        raise ValueError(f"{file} is not a single grey or colour picture: shape {picture.shape}")
    if min(picture.shape[:2]) < SMALLEST_SIDE:
        raise ValueError(f"{file} is too small: shape {picture.shape}")
    return grey(picture)


def learn_all(file: Path | None) -> list[Training]:
    """Learn each filter, from the picture in `file` or from its own photograph."""
    if file is not None:
        picture = read_picture(file)
        return [learn(case, picture, (0.5, 0.5)) for case in CASES]
    return [
        learn(case, grey(getattr(skimage.data, case.photograph)()), case.centre) for case in CASES
    ]


def main() -> int:
    """Run the example; return 0 when every kernel was learned to the tolerance."""
    parser = argparse.ArgumentParser(
        description="Learn image filters from photographs before and after."
    )
    parser.add_argument(
        "--image", type=Path, help="learn from this picture, not scikit-image's photographs"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("learned_filters.png"), help="the figure to write"
    )
    arguments = parser.parse_args()
    try:
        trainings = learn_all(arguments.image)
        print_table(trainings)
        draw(trainings, arguments.out)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"figure: {arguments.out}")
    missed = [training.case.name for training in trainings if training.errors[-1] >= TOLERANCE]
    if missed:
        print(f"not learned to {TOLERANCE:g}, the picture has too little detail: {missed}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
