"""What the examples that train networks share: photographs, and training for a given time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import skimage.data

import convext
from convext.image.images import load_images, luminance

Array = npt.NDArray[np.float64]

# Of scikit-image's photographs: the first two are for testing, the others for training.
OWN = ("astronaut", "chelsea", "coffee", "rocket", "camera", "brick", "grass", "gravel")


def photographs(
    train_folder: str | None, test_folder: str | None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the luminance of the images in two folders, by name."""
    own = {name: np.atleast_3d(getattr(skimage.data, name)() / 255) for name in OWN}
    images = {name: np.moveaxis(image, -1, 0) for name, image in own.items()}
    train = load_images(train_folder) if train_folder else {n: images[n] for n in OWN[2:]}
    test = load_images(test_folder) if test_folder else {n: images[n] for n in OWN[:2]}
    return by_name(train), by_name(test)


def by_name(images: dict[str, Array]) -> dict[str, Array]:
    return {
        file.split(".")[0].removesuffix("_GT"): luminance(image) for file, image in images.items()
    }


class Clock:
    """A learning rate that falls along half a cosine wave until the time for training is over."""

    def __init__(self, minutes: float, rate: float) -> None:
        self.budget, self.rate = 60 * minutes, rate
        self.seconds = 0.0

    def __call__(self, epoch: int) -> float:
        progress = min(self.seconds / self.budget, 1.0)
        return self.rate * (0.01 + 0.99 * (1 + np.cos(np.pi * progress)) / 2)

    def count(self, report: convext.EpochReport) -> bool:
        """Count an epoch; return whether there is no time for another one."""
        self.seconds += report.seconds
        return self.seconds + report.seconds > self.budget
