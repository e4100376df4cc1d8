"""
Match two telescopes
====================

Two telescopes photograph the same stars, one of them less sharp, and a star flares up between the
two nights. To see it, the images must be subtracted; but every star is blurred otherwise. The
kernel between both images makes the sharp one as blurred as the other, and what is left is what
changed. (C. Alard and R. H. Lupton, A Method for Optimal Image Subtraction, The Astrophysical
Journal 503, 1998.)
"""

import matplotlib.pyplot as plt
import numpy as np

import convext

# %%
# A field of 400 stars. A telescope shows each as a little hill, wider in the second one and
# leaning to one side.

generator = np.random.default_rng(7)
SIDE = 200
places = generator.uniform(0, SIDE, (400, 2))
fluxes = generator.pareto(1.2, 400) + 0.5
rows, columns = np.mgrid[:SIDE, :SIDE]


def photograph(stars: list[tuple[float, float, float]], wide: float, high: float) -> np.ndarray:
    """Return an image of stars (row, column, flux) as hills of these widths, with noise."""
    image = np.zeros((SIDE, SIDE))
    for row, column, flux in stars:
        across = ((columns - column) + 0.3 * (rows - row)) / wide
        image += flux * np.exp(-(across**2 + ((rows - row) / high) ** 2) / 2) / (wide * high)
    return image + 0.01 * generator.standard_normal(image.shape)


stars = [(*place, flux) for place, flux in zip(places, fluxes, strict=True)]
flare = (118.3, 74.6, 1.5)
sharp = photograph(stars, 1.2, 1.2)
blurred = photograph([*stars, flare], 2.4, 1.7) + 0.05

# %%
# The kernel from the first to the second image, and a number for the brighter sky.

solution = convext.solve_kernels(sharp[np.newaxis], blurred[np.newaxis], (15, 15), bias=True)
matched = convext.conv2d(sharp[np.newaxis], solution.kernels, bias=solution.bias, padding="same")[0]
print(f"sky: {solution.bias[0]:.4f}")

# %%
# Subtracted as they are, the images show nothing but stars; matched first, they show the new one.

figure, axes = plt.subplots(1, 5, figsize=(13, 3), layout="constrained")
pictures = {
    "first night": (sharp, 0, 1),
    "second night": (blurred, 0, 1),
    "difference as it is": (blurred - sharp, -0.3, 0.3),
    "difference, matched": (blurred - matched, -0.3, 0.3),
}
for axis, (title, (image, darkest, brightest)) in zip(axes, pictures.items(), strict=False):
    inside = image[8:-8, 8:-8]
    axis.imshow(inside, cmap="gray", vmin=darkest, vmax=brightest, origin="lower")
    axis.set_title(title)
    axis.set_axis_off()
axes[3].plot(flare[1] - 8, flare[0] - 8, "o", markersize=18, mfc="none", mec="tab:orange")
axes[4].imshow(solution.kernels[0, 0], cmap="magma", origin="lower")
axes[4].set_title("kernel")
axes[4].set_axis_off()
plt.show()
