"""
Super-resolution
================

Super-resolution by SRCNN 9-1-5: train it on photographs, and measure it as its paper does.

An image is made three times smaller and enlarged again by bicubic interpolation; the network turns
that into something nearer to the image. Trained and measured on the luminance, as in C. Dong et
al., Learning a Deep Convolutional Network for Image Super-Resolution, ECCV 2014. The images of that
paper are T91 (for training) and Set5; without folders, scikit-image's photographs take their place.
Run it so::

    pip install "convext[test]"         # adds Pillow, scikit-image and Matplotlib
    python examples/super_resolution.py --train t91 --test set5 --minutes 6
    convext enhance srcnn.npz small.png large.png --scale 3

.. image:: /docs/pictures/super_resolution.png
   :alt: What the program draws
"""

# sphinx_gallery_thumbnail_path = "docs/pictures/super_resolution.png"

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from common import Array, Clock, photographs
from matplotlib.figure import Figure
from PIL import Image

import convext
from convext.image.images import extract_patches, psnr

PATCH, STRIDE = 33, 14

# Rows and columns that the three layers lose on each side, 4 + 0 + 2, and that the paper leaves out
# of its measurements.
MARGIN, BORDER = 6, 3

# Table 1 of the paper: the PSNR of bicubic interpolation and of SRCNN on Set5, scale 3.
PAPER = {
    "baby": (33.91, 35.01),
    "bird": (32.58, 34.91),
    "butterfly": (24.04, 27.58),
    "head": (32.88, 33.55),
    "woman": (28.56, 30.92),
}


def main() -> None:
    arguments = parse_arguments()
    scale = arguments.scale
    train, test = (
        {name: whole(eight_bits(image), scale) for name, image in images.items()}
        for images in photographs(arguments.train, arguments.test)
    )
    x, y = training_patches(train, scale)
    print(f"{len(train)} images for training, {len(x)} patches; {len(test)} images for testing")

    layers = [
        convext.Conv2D(64, 9, activation="relu"),
        convext.Conv2D(32, 1, activation="relu"),
        convext.Conv2D(1, 5),
    ]
    model = convext.Sequential(
        layers, residual=arguments.residual, input_channels=1, seed=arguments.seed
    )
    model.summary()
    clock = Clock(arguments.minutes, arguments.learning_rate)
    model.compile(convext.Adam(clock))
    watch = Watch(clock, test, scale)
    batches = turned_batches(x, y, arguments.batch_size)
    history = model.fit(batches, epochs=10**6, callbacks=[watch], verbose=False)
    print(
        f"trained for {clock.seconds / 60:.1f} minutes on {convext.get_num_threads()} threads: "
        f"{len(history.loss)} epochs, {len(history.loss) * len(x) / clock.seconds:.0f} patches/s"
    )
    report(model, test, scale)
    model.compile(convext.Adam(arguments.learning_rate))
    model.save(arguments.model)
    draw(model, test, scale, arguments.picture)
    print(f"Model: {arguments.model}   Picture: {arguments.picture}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[4])
    add = parser.add_argument
    add("--train", metavar="FOLDER", help="photographs to train on")
    add("--test", metavar="FOLDER", help="photographs to measure on")
    add("--scale", type=int, default=3)
    add("--minutes", type=float, default=6.0, help="how long to train (default: 6)")
    add("--batch-size", type=int, default=16)
    add("--learning-rate", type=float, default=1e-3)
    add("--residual", action="store_true", help="learn what to add to the bicubic enlargement")
    add("--seed", type=int, default=0)
    add("--model", default="srcnn.npz", help="where to save the model")
    add("--picture", default="super_resolution.png", help="where to save the picture")
    return parser.parse_args()


def eight_bits(image: Array) -> Array:
    return np.rint(np.clip(image, 0, 1) * 255) / 255


def whole(image: Array, scale: int) -> Array:
    """Cut an image so that its sides are multiples of the scale."""
    height, width = (size // scale * scale for size in image.shape[1:])
    return image[:, :height, :width]


def resize(image: Array, height: int, width: int) -> Array:
    """Bicubic interpolation; antialiased where it makes the image smaller."""
    picture = Image.fromarray(image[0].astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))[np.newaxis]


def degraded(image: Array, scale: int) -> Array:
    """Make an image smaller and enlarge it again."""
    _, height, width = image.shape
    return resize(resize(image, height // scale, width // scale), height, width)


def training_patches(images: dict[str, Array], scale: int) -> tuple[Array, Array]:
    y = extract_patches([image.astype(np.float32) for image in images.values()], PATCH, STRIDE)
    x = extract_patches([degraded(image, scale) for image in images.values()], PATCH, STRIDE)
    return x, y[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]


def turned_batches(
    x: Array, y: Array, size: int
) -> Callable[[np.random.Generator], Iterator[tuple[Array, Array]]]:
    """Return a function that gives the patches in random order, turned and mirrored at random."""

    def batches(generator: np.random.Generator) -> Iterator[tuple[Array, Array]]:
        order = generator.permutation(len(x))
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            turns, mirrored = generator.integers(4), generator.integers(2)
            pair = (np.rot90(patches[chosen], turns, axes=(2, 3)) for patches in (x, y))
            inputs, targets = (patches[..., ::-1] if mirrored else patches for patches in pair)
            yield inputs, targets

    return batches


def enlarged(model: convext.Sequential, bicubic: Array) -> Array:
    """Return what the model makes of a bicubic enlargement, as large as that."""
    sides = ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN))
    return eight_bits(model.predict(np.pad(bicubic, sides, mode="edge")))


class Watch:
    """A callback: keeps the clock, measures the model now and then, and ends the training."""

    def __init__(self, clock: Clock, test: dict[str, Array], scale: int) -> None:
        self.clock = clock
        self.test = {name: (degraded(image, scale), image) for name, image in test.items()}
        self.next_look = 0.0

    def __call__(self, report: convext.EpochReport) -> None:
        clock = self.clock
        over = clock.count(report)
        if over or clock.seconds >= self.next_look:
            self.next_look += clock.budget / 20
            mean = np.mean(
                [
                    psnr(enlarged(report.model, bicubic), image, BORDER)
                    for bicubic, image in self.test.values()
                ]
            )
            print(
                f"{clock.seconds:5.0f} s  epoch {report.epoch:3}  loss {report.loss:.4e}  "
                f"rate {report.learning_rate:.1e}  PSNR {mean:.2f} dB",
                flush=True,
            )
        if over:
            raise convext.StopTraining


def report(model: convext.Sequential, test: dict[str, Array], scale: int) -> None:
    """Print the table of the paper beside what was measured."""
    print(f"PSNR in dB      {'bicubic':>15}  {'SRCNN':>15}")
    print(f"{'':10}      {'here':>7} {'paper':>7}  {'here':>7} {'paper':>7}")
    rows = []
    for name, image in test.items():
        bicubic = degraded(image, scale)
        rows.append(
            [
                psnr(eight_bits(bicubic), image, BORDER),
                PAPER.get(name, (np.nan, np.nan))[0],
                psnr(enlarged(model, bicubic), image, BORDER),
                PAPER.get(name, (np.nan, np.nan))[1],
            ]
        )
    for name, row in zip([*test, "mean"], [*rows, np.mean(rows, axis=0)], strict=True):
        here, paper, model_here, model_paper = (
            " " * 7 if np.isnan(v) else f"{v:7.2f}" for v in row
        )
        print(f"{name:15} {here} {paper}  {model_here} {model_paper}")


def draw(model: convext.Sequential, test: dict[str, Array], scale: int, file: str) -> None:
    """Draw the middle of the image that gained most: bicubic, convext and the truth."""
    gains = {}
    for name, image in test.items():
        bicubic = degraded(image, scale)
        results = eight_bits(bicubic), enlarged(model, bicubic)
        gains[name] = psnr(results[1], image, BORDER) - psnr(results[0], image, BORDER)
    name = max(gains, key=gains.__getitem__)
    image = test[name]
    bicubic = degraded(image, scale)
    pictures = {"bicubic": eight_bits(bicubic), "convext": enlarged(model, bicubic), "truth": image}
    side = min(150, *image.shape[1:])
    top, left = ((size - side) // 2 for size in image.shape[1:])
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(1, 3), pictures.items(), strict=True):
        gained = "" if title == "truth" else f", {psnr(picture, image, BORDER):.2f} dB"
        detail = picture[0, top : top + side, left : left + side]
        axes.imshow(detail, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(f"{name}: {title}{gained}")
        axes.set_axis_off()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
