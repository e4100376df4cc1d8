"""
Undo a blur
===========

Which kernel comes nearest to undoing a blur? The same question as "which filter was it?", with
before and after exchanged. Noise makes it interesting: a kernel that undid the blur altogether
would blow the noise up, and least squares find the best of what is between (the Wiener filter,
learned from an example).
"""

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
from scipy.ndimage import gaussian_filter

import convext
from convext.image import psnr

# %%
# The blur and its noise are the same for two photographs. On one the kernel is learned, on the
# other it is shown.

generator = np.random.default_rng(0)


def spoil(image: np.ndarray) -> np.ndarray:
    """Return an image blurred, with noise."""
    return gaussian_filter(image, 1.5) + 0.004 * generator.standard_normal(image.shape)


known = skimage.data.astronaut()[..., 1] / 255
wanted = skimage.data.camera() / 255
undo = convext.solve_kernels(spoil(known)[np.newaxis], known[np.newaxis], (17, 17)).kernels

# %%
# The kernel has never seen the other photograph, whose borders are mirrored.

spoilt = spoil(wanted)
around = np.pad(spoilt, 8, mode="symmetric")
undone = convext.conv2d(around[np.newaxis], undo)[0].clip(0, 1)

# %%
# The kernel has the rings of a filter that sharpens; values near 0 are drawn strongly, so that
# they show.

detail = np.s_[70:220, 170:320]
figure, axes = plt.subplots(1, 4, figsize=(12, 3.6), layout="constrained")
pictures = {"truth": wanted, "blurred, with noise": spoilt, "undone": undone}
for axis, (title, image) in zip(axes, pictures.items(), strict=False):
    quality = "" if image is wanted else f", {psnr(image[np.newaxis], wanted[np.newaxis]):.1f} dB"
    axis.imshow(image[detail], cmap="gray", vmin=0, vmax=1)
    axis.set_title(title + quality)
shades = np.sign(undo[0, 0]) * np.sqrt(np.abs(undo[0, 0]))
axes[3].imshow(shades, cmap="RdBu_r", vmin=-np.abs(shades).max(), vmax=np.abs(shades).max())
axes[3].set_title("the kernel")
for axis in axes:
    axis.set_axis_off()
plt.show()
