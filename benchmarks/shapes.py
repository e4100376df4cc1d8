"""The convolutions that are measured, and their data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Arrays(NamedTuple):
    """The data of a case."""

    images: np.ndarray
    kernels: np.ndarray
    gradient: np.ndarray


@dataclass(frozen=True)
class Case:
    """A convolution: (N, C, H, W) images with so many square kernels."""

    shape: tuple[int, int, int, int]
    num_kernels: int
    size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    family: str = "reference"

    @property
    def name(self):
        """As it is printed, such as ``1,64,56,56 -> 64, 3x3 s1 p1``."""
        images = ",".join(map(str, self.shape))
        groups = f" g{self.groups}" if self.groups > 1 else ""
        return (
            f"{images} -> {self.num_kernels}, {self.size}x{self.size} "
            f"s{self.stride} p{self.padding}{groups}"
        )

    @property
    def kernels_shape(self):
        """(K, C/groups, kh, kw)."""
        return (self.num_kernels, self.shape[1] // self.groups, self.size, self.size)

    @property
    def output_shape(self):
        """(N, K, OH, OW)."""
        rows, columns = (
            (pixels + 2 * self.padding - self.size) // self.stride + 1 for pixels in self.shape[2:]
        )
        return (self.shape[0], self.num_kernels, rows, columns)

    @property
    def flops(self):
        """Additions and multiplications of the sum as it is defined, in any of the operations."""
        return 2 * int(np.prod(self.output_shape)) * int(np.prod(self.kernels_shape[1:]))

    def arrays(self, dtype):
        """Return the data, which are the same in every process."""
        rng = np.random.default_rng(0)
        shapes = (self.shape, self.kernels_shape, self.output_shape)
        return Arrays(*(rng.standard_normal(shape, dtype) for shape in shapes))

    def matches(self, text):
        """Whether `text` is part of the name, or of the family's name."""
        return text.lower() in self.name or text.lower() in self.family.lower()


def _depthwise(channels, pixels, stride):
    shape = (1, channels, pixels, pixels)
    return Case(shape, channels, 3, stride, 1, groups=channels, family="MobileNet")


# The summary is of these. What is claimed of convext's speed is claimed of them.
REFERENCE = [
    Case((100, 3, 28, 28), 2, 2),
    Case((1, 3, 512, 512), 8, 3),
    Case((1, 1, 1080, 1920), 1, 5),
    Case((1, 1, 512, 512), 1, 15),
    Case((16, 1, 33, 33), 64, 9),
    Case((16, 64, 25, 25), 32, 5),
    Case((64, 32, 26, 26), 64, 3),
    Case((1, 64, 224, 224), 64, 3, 1, 1),
    Case((1, 256, 56, 56), 256, 3, 1, 1),
    Case((1, 64, 56, 56), 64, 3, 1, 1),
    Case((1, 256, 14, 14), 256, 3, 1, 1),
    Case((1, 512, 14, 14), 512, 3, 1, 1),
    Case((1, 3, 224, 224), 64, 7, 2, 3),
    Case((1, 64, 56, 56), 256, 1),
    Case((1, 128, 56, 56), 128, 3, 2, 1),
    Case((1, 2048, 7, 7), 512, 1),
    Case((1, 512, 7, 7), 512, 3, 1, 1),
    Case((4, 64, 40, 40), 64, 3, 1, 1),
]

# Depthwise layers, and the first levels of a network for segmentation.
FURTHER = [
    _depthwise(32, 112, 1),
    _depthwise(64, 112, 2),
    _depthwise(128, 56, 1),
    _depthwise(256, 28, 1),
    _depthwise(512, 14, 1),
    _depthwise(1024, 7, 1),
    Case((1, 1, 256, 256), 32, 3, 1, 1, family="U-Net"),
    Case((1, 32, 256, 256), 32, 3, 1, 1, family="U-Net"),
    Case((1, 32, 128, 128), 64, 3, 1, 1, family="U-Net"),
    Case((1, 64, 128, 128), 64, 3, 1, 1, family="U-Net"),
]

CASES = REFERENCE + FURTHER
