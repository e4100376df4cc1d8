"""
Denoise
=======

Denoising by a DnCNN of seven layers, beside a Gaussian blur, non-local means and BM3D.

Gaussian noise of standard deviation 25/255 is added to grey photographs; the network learns what to
add to take it away again (K. Zhang et al., Beyond a Gaussian Denoiser, TIP 2017; without batch
normalisation). All methods are measured on the same noisy images. Run it so::

    pip install "convext[test]" bm3d    # adds Pillow, scikit-image, SciPy and Matplotlib
    python examples/denoise.py --train t91 --test set5 --minutes 10

.. image:: /docs/pictures/denoise.png
   :alt: What the program draws
"""

# sphinx_gallery_thumbnail_path = "docs/pictures/denoise.png"

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from common import Array, Clock, photographs
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from skimage.restoration import denoise_nl_means

import convext
from convext.image.images import extract_patches, psnr

try:
    import bm3d
except ImportError:
    bm3d = None

SIGMA = 25 / 255
PATCH, STRIDE = 40, 20
LAYERS, FILTERS = 7, 64


def main() -> None:
    arguments = parse_arguments()
    train, test = (
        {name: image.astype(np.float32) for name, image in images.items()}
        for images in photographs(arguments.train, arguments.test)
    )
    clean = extract_patches(train.values(), PATCH, STRIDE)
    print(f"{len(train)} images for training, {len(clean)} patches; {len(test)} images for testing")

    layers = [
        convext.Conv2D(
            FILTERS, 3, padding="same", activation="relu", kernel_initializer="he_normal"
        )
        for _ in range(LAYERS - 1)
    ]
    layers.append(convext.Conv2D(1, 3, padding="same"))
    model = convext.Sequential(layers, residual=True, input_channels=1, seed=arguments.seed)
    model.summary()
    clock = Clock(arguments.minutes, arguments.learning_rate)
    model.compile(convext.Adam(clock))
    noise = np.random.default_rng(25)
    noisy = {
        name: image + noise.normal(0, SIGMA, image.shape).astype(np.float32)
        for name, image in test.items()
    }

    def watch(report: convext.EpochReport) -> None:
        over = clock.count(report)
        values = [psnr(model.predict(noisy[name]), image) for name, image in test.items()]
        print(
            f"{clock.seconds:5.0f} s  epoch {report.epoch:3}  loss {report.loss:.3e}  "
            f"rate {report.learning_rate:.1e}  PSNR {np.mean(values):.2f} dB",
            flush=True,
        )
        if over:
            raise convext.StopTraining

    batches = noisy_batches(clean, arguments.batch_size)
    history = model.fit(
        batches, epochs=10**6, steps_per_epoch=arguments.steps, callbacks=[watch], verbose=False
    )
    patches = len(history.loss) * arguments.steps * arguments.batch_size
    print(
        f"trained for {clock.seconds / 60:.1f} minutes on {convext.get_num_threads()} threads: "
        f"{patches} patches, {patches / clock.seconds:.0f} per second"
    )
    results = report(model, test, noisy)
    model.compile(convext.Adam(arguments.learning_rate))
    model.save(arguments.model)
    draw(results, test, noisy, arguments.picture)
    print(f"Model: {arguments.model}   Picture: {arguments.picture}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[4])
    add = parser.add_argument
    add("--train", metavar="FOLDER", help="photographs to train on")
    add("--test", metavar="FOLDER", help="photographs to measure on")
    add("--minutes", type=float, default=10.0, help="how long to train (default: 10)")
    add("--batch-size", type=int, default=16)
    add("--steps", type=int, default=100, help="of an epoch")
    add("--learning-rate", type=float, default=1e-3)
    add("--seed", type=int, default=0)
    add("--model", default="dncnn.npz", help="where to save the model")
    add("--picture", default="denoise.png", help="where to save the picture")
    return parser.parse_args()


def noisy_batches(
    clean: Array, size: int
) -> Callable[[np.random.Generator], Iterator[tuple[Array, Array]]]:
    """Return a function that gives patches, turned and mirrored at random, with new noise."""

    def batches(generator: np.random.Generator) -> Iterator[tuple[Array, Array]]:
        while True:
            patches = clean[generator.integers(len(clean), size=size)]
            patches = np.rot90(patches, generator.integers(4), axes=(2, 3))
            if generator.integers(2):
                patches = patches[..., ::-1]
            noise = generator.standard_normal(patches.shape, np.float32)
            yield patches + np.float32(SIGMA) * noise, patches

    return batches


def methods(model: convext.Sequential) -> dict[str, Callable[[Array], Array]]:
    """Return the denoisers: functions of a noisy image."""

    def non_local_means(noisy: Array) -> Array:
        return denoise_nl_means(
            noisy[0], patch_size=5, patch_distance=6, h=0.8 * SIGMA, sigma=SIGMA, fast_mode=True
        )[np.newaxis]

    result: dict[str, Callable[[Array], Array]] = {
        "Gaussian blur": lambda noisy: gaussian_filter(noisy, (0, 1.0, 1.0)),
        "non-local means": non_local_means,
    }
    if bm3d is not None:
        result["BM3D"] = lambda noisy: bm3d.bm3d(noisy[0], SIGMA)[np.newaxis]
    result["convext"] = model.predict
    return result


def report(
    model: convext.Sequential, test: dict[str, Array], noisy: dict[str, Array]
) -> dict[str, dict[str, Array]]:
    """Print what each method reaches on each image; return the results."""
    results = {
        method: {name: np.clip(denoise(noisy[name]), 0, 1) for name in test}
        for method, denoise in methods(model).items()
    }
    print(f"{'PSNR in dB':15}", *(f"{name:>10}" for name in test), f"{'mean':>10}")
    for method, images in {"noisy": noisy, **results}.items():
        values = [psnr(images[name], image) for name, image in test.items()]
        print(f"{method:15}", *(f"{value:10.2f}" for value in [*values, np.mean(values)]))
    return results


def draw(
    results: dict[str, dict[str, Array]],
    test: dict[str, Array],
    noisy: dict[str, Array],
    file: str,
) -> None:
    """Draw the middle of an image as each method leaves it."""
    name = next((name for name in test if name == "butterfly"), next(iter(test)))
    pictures = {"truth": test, "noisy": noisy, **results}
    side = min(140, *test[name].shape[1:])
    top, left = ((size - side) // 2 for size in test[name].shape[1:])
    figure = Figure(figsize=(12, 8.4), layout="constrained")
    for axes, (title, images) in zip(figure.subplots(2, 3).flat, pictures.items(), strict=False):
        quality = "" if title == "truth" else f", {psnr(images[name], test[name]):.2f} dB"
        detail = images[name][0, top : top + side, left : left + side]
        axes.imshow(detail, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(f"{title}{quality}")
        axes.set_axis_off()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
