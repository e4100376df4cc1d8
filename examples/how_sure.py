"""
How sure is a kernel?
=====================

A kernel that was found between two noisy images is not exact. How far off each of its numbers may
be follows from the same sums over the pixels as the kernel itself: with G the sums of products of
every two pixels of a window, and s² the variance of the noise, the covariance of the kernel's
numbers is s² G⁻¹.
"""

import matplotlib.pyplot as plt
import numpy as np
import skimage.data

import convext

# %%
# A photograph is sharpened, and noise is added to the result.

generator = np.random.default_rng(0)
before = skimage.data.camera()[np.newaxis, 60:124, 150:214] / 255
sharpen = np.array([[-1, -2, -1], [-2, 20, -2], [-1, -2, -1]]) / 8
clean = convext.conv2d(before, sharpen[np.newaxis, np.newaxis])
noise = 0.05
after = clean + noise * generator.standard_normal(clean.shape)

# %%
# The sums give the kernel, what is left of the error, and the standard errors.

statistics = convext.PatchStatistics(1, 1, (3, 3))
statistics.update(before, after)
solution = statistics.solve()
unexplained = solution.loss * after.size / (after.size - sharpen.size)
covariance = unexplained * np.linalg.inv(statistics.products[0])
standard_errors = np.sqrt(np.diag(covariance)).reshape(3, 3)

# %%
# Is it true? With new noise the kernel is found again, 1,000 times, and its numbers scatter.

found = []
for _ in range(1000):
    again = convext.PatchStatistics(1, 1, (3, 3))
    again.update(before, clean + noise * generator.standard_normal(clean.shape))
    found.append(again.solve().kernels[0, 0])
scatter = np.std(found, axis=0)

# %%
# Left, the kernel with its standard errors; right, for each number, the true value (line), what
# was found with new noise (bars), and the bell curve that the standard error promises. The number
# in the middle is the least certain: neighbouring pixels are alike, so what is taken from one can
# be given to the next.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
left.imshow(solution.kernels[0, 0], cmap="RdBu_r", vmin=-2.5, vmax=2.5)
for (row, column), value in np.ndenumerate(solution.kernels[0, 0]):
    text = f"{value:.3f}\n± {standard_errors[row, column]:.3f}"
    left.text(column, row, text, ha="center", va="center", color="w" if value > 1 else "k")
left.set_title("the kernel, and how sure it is")
left.set_axis_off()
colours = plt.colormaps["viridis"]([0.2, 0.5, 0.8])
for colour, (name, place) in zip(
    colours, {"corner": (0, 0), "edge": (0, 1), "middle": (1, 1)}.items(), strict=True
):
    values = np.array([kernel[place] for kernel in found]) - sharpen[place]
    sigma = standard_errors[place]
    x = np.linspace(-4 * sigma, 4 * sigma, 200)
    right.hist(values, 30, density=True, alpha=0.35, color=colour)
    bell = np.exp(-((x / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
    right.plot(x, bell, color=colour, label=f"{name}: {scatter[place]:.4f}, promised {sigma:.4f}")
right.axvline(0, color="k", linewidth=0.8)
right.set_xlabel("error of the number")
right.set_yticks([])
right.set_ylim(top=1.5 * right.get_ylim()[1])
right.set_title("1,000 times new noise")
right.legend(frameon=False, title="standard deviation")
plt.show()
