"""
Learning rates and the edge of stability
========================================

A learning rate that is too small learns slowly; one that is too large learns nothing at all. For
a convolution and the mean squared error there is an edge between: gradient descent on the whole
set is stable exactly when the learning rate is below 2 / λ, with λ the largest eigenvalue of the
loss's second derivative.
"""

import matplotlib.pyplot as plt
import numpy as np

import convext

# %%
# Random images, and targets from a filter with some noise. The edge is known before any training.

generator = np.random.default_rng(0)
images = generator.random((20, 1, 24, 24))
targets = convext.conv2d(images, generator.standard_normal((1, 1, 3, 3)))
targets += 0.1 * generator.standard_normal(targets.shape)
statistics = convext.PatchStatistics(1, 1, (3, 3))
statistics.update(images, targets)
least, edge = statistics.solve().loss, statistics.max_learning_rate()
print(f"stable below {edge:.4f}")

# %%
# Trainings on the whole set, with rates below the edge and beyond it. What becomes infinite ends
# in a ``DivergenceError``, which says what rate would have been stable.


def train(rate: float, epochs: int) -> list[float]:
    """Return how far above the least one the loss of each epoch is."""
    losses: list[float] = []
    try:
        convext.train_model(
            images,
            targets,
            1,
            (3, 3),
            rate,
            epochs,
            batch_size=len(images),
            kernels=np.zeros((1, 1, 3, 3)),
            callbacks=[lambda report: losses.append(report.loss - least)],
            verbose=False,
        )
    except convext.DivergenceError as error:
        print(f"{rate / edge:.2f} of the edge: diverged; stable: {error.stable_learning_rate:.4f}")
    return losses


shares = [0.1, 0.5, 0.9, 0.99, 1.01, 1.1]
curves = [train(share * edge, 200) for share in shares]

# %%
# A sweep over rates: the loss after 200 epochs falls with the rate until close to
# the edge, where it jumps.

sweep = np.linspace(0.02, 1.08, 54)
final = [max(train(share * edge, 200)[-1], 1e-17) for share in sweep]

# %%
# At 0.99 and 1.01 of the edge the curves begin alike, and part.

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
for curve, share, colour in zip(
    curves, shares, plt.colormaps["coolwarm"](np.linspace(0, 1, len(shares))), strict=True
):
    left.semilogy(range(1, len(curve) + 1), curve, color=colour, label=f"{share:g}")
left.set_ylim(1e-6, 1e3)
left.set_xlabel("epoch")
left.set_ylabel("loss above the least one")
left.legend(title="rate / edge", frameon=False, ncols=2)
right.semilogy(sweep, final, "o-", markersize=3, color="0.2")
right.axvline(1, color="tab:red", linewidth=1)
right.set_ylim(1e-17, 1e3)
right.text(0.98, 1e1, "2 / λ", color="tab:red", ha="right")
right.set_xlabel("rate / edge")
right.set_title("after 200 epochs")
for axes in (left, right):
    axes.grid(alpha=0.25)
plt.show()
