"""
A lens's blur over the field
============================

A simple lens is sharp in the middle of a picture, and draws each point near the corners as a
little comet. No single kernel says what it does, but within a small part of the picture one nearly
does. So a chart that is known is photographed and divided into 8 x 8 fields, and for each field a
kernel is found that says what the lens does there (its point spread function, or PSF, which varies
spatially), and one that undoes it.
"""

import matplotlib.pyplot as plt
import numpy as np
import skimage.data

import convext
from convext.image import psnr

# %%
# The lens. Along the line from the middle it spreads light, outwards more than inwards, and across
# it less; all the more, the further from the middle. ``lens`` adds up the neighbours of each pixel
# with weights of its own.

SIDE, FIELDS, REACH = 512, 8, 7
rows, columns = (np.mgrid[:SIDE, :SIDE] + 0.5) * 2 / SIDE - 1
distance = np.hypot(rows, columns)
generator = np.random.default_rng(0)


def weights(y: int, x: int) -> np.ndarray:
    """Return how much each pixel takes of the one that is y pixels lower and x to the right."""
    along, across = (y * rows + x * columns) / distance, (x * rows - y * columns) / distance
    spread = 0.5 + np.where(along > 0, 0.5, 1.6) * distance**2
    return np.exp(-((along / spread) ** 2 + (across / (0.5 + 0.6 * distance**2)) ** 2) / 2)


def mirrored(picture: np.ndarray) -> np.ndarray:
    """Return (channels, rows, columns) with as much around them as a kernel reaches."""
    return np.pad(picture, ((0, 0), (REACH, REACH), (REACH, REACH)), mode="symmetric")


def lens(picture: np.ndarray) -> np.ndarray:
    """Return a picture as the lens draws it, with a camera's noise."""
    around, seen, total = mirrored(picture), np.zeros_like(picture), np.zeros((SIDE, SIDE))
    for y in range(2 * REACH + 1):
        for x in range(2 * REACH + 1):
            weight = weights(y - REACH, x - REACH)
            seen += weight * around[:, y : y + SIDE, x : x + SIDE]
            total += weight
    return seen / total + 0.004 * generator.standard_normal(picture.shape)


# %%
# The chart: discs of many sizes, one over the other. It has edges everywhere, in all directions.

chart = np.full((1, SIDE, SIDE), 0.5)
for radius in np.sort(3 * generator.pareto(1.6, 6000) + 2)[::-1].clip(2, 120):
    row, column = generator.uniform(0, SIDE, 2)
    top, left = int(max(0, row - radius)), int(max(0, column - radius))
    near = chart[0, top : int(row + radius) + 2, left : int(column + radius) + 2]
    y, x = np.ogrid[: near.shape[0], : near.shape[1]]
    near[np.hypot(y + top - row, x + left - column) < radius] = generator.uniform(0.05, 0.95)
photographed = lens(chart)

# %%
# The kernels of each field, from the chart to its photograph, and back.

SIZE = SIDE // FIELDS
SHAPE = (2 * REACH + 1, 2 * REACH + 1)
blurs, undos = {}, {}
for place in np.ndindex(FIELDS, FIELDS):
    top, left = SIZE * np.array(place)
    field = np.s_[
        :, max(0, top - REACH) : top + SIZE + REACH, max(0, left - REACH) : left + SIZE + REACH
    ]
    blurs[place] = convext.solve_kernels(chart[field], photographed[field], SHAPE).kernels
    undos[place] = convext.solve_kernels(photographed[field], chart[field], SHAPE).kernels

# %%
# Another picture, through the same lens: galaxies, as the Hubble telescope has seen them. From the
# middle of a field to that of the next its kernel fades out, so that no seams show.

truth = np.moveaxis(skimage.data.hubble_deep_field()[340:852, 60:572] / 255, -1, 0)
seen = lens(truth)
middles = SIZE * (np.arange(FIELDS) + 0.5)
pixels = np.arange(SIDE).clip(middles[0], middles[-1])
share = np.maximum(0, 1 - abs(pixels - middles[:, np.newaxis]) / SIZE)
corrected = np.zeros_like(seen)
for (down, right), undo in undos.items():
    undone = convext.conv2d(mirrored(seen)[:, np.newaxis], undo)[:, 0]
    corrected += np.outer(share[down], share[right]) * undone

# %%
# One kernel for the whole picture does less: what is right for the corners is wrong for the middle.

undo = convext.solve_kernels(photographed, chart, SHAPE).kernels
pictures = {
    "through the lens": seen,
    "one kernel for all": convext.conv2d(mirrored(seen)[:, np.newaxis], undo)[:, 0],
    "a kernel for each field": corrected,
}

# %%
# Left, what the lens makes of a point in each of the 64 fields, which is the field's kernel turned
# around; right, two parts of the picture that are near its corners.

figure = plt.figure(figsize=(13, 6), layout="constrained")
axes = figure.subplot_mosaic(
    [["map", "map", 0, 1, 2], ["map", "map", 3, 4, 5]], width_ratios=[1, 1, 1.05, 1.05, 1.05]
)
points = np.zeros((FIELDS, SHAPE[0] + 2, FIELDS, SHAPE[1] + 2))
for (down, right), blur in blurs.items():
    points[down, 1:-1, right, 1:-1] = blur[0, 0, ::-1, ::-1] / blur.max()
points = points.reshape(FIELDS * (SHAPE[0] + 2), -1).clip(0)
axes["map"].imshow(points**0.6, cmap="inferno", interpolation="bicubic")
axes["map"].set_title("what the lens makes of a point")
for number, (title, picture) in enumerate(pictures.items()):
    shown = np.moveaxis(picture.clip(0, 1), 0, -1)
    axes[number].imshow(shown[5:115, 5:115])
    axes[number].set_title(f"{title}\n{psnr(picture.clip(0, 1), truth):.1f} dB")
    axes[number + 3].imshow(shown[330:440, 395:505])
for axis in axes.values():
    axis.set_axis_off()
plt.show()
