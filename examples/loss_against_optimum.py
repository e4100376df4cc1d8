"""
The textbook's loss against the optimum
=======================================

The textbook trains two 2x2 kernels for ten epochs, with a step for each sample, and sees the loss
fall. How much further could it fall? The loss is a quadratic function of the kernels, and its
minimum can be computed.
"""

import matplotlib.pyplot as plt
import numpy as np

import convext

# %%
# The textbook's data: 100 random samples of 3x28x28, and random targets.

images = np.random.default_rng(0).random((100, 3, 28, 28))
targets = np.random.default_rng(1).random((100, 2, 27, 27))

# %%
# Patch statistics give the loss of any kernels on the whole data set without reading it again,
# and the least one.

statistics = convext.PatchStatistics(3, 2, (2, 2))
statistics.update(images, targets)
least = statistics.solve().loss

# %%
# Two trainings: a step for each sample, as in the textbook, and a step for all samples at once.


def excess_losses(batch_size: int, num_epochs: int) -> list[float]:
    """Return how far above the least one the loss on all samples is after each epoch."""
    losses: list[float] = []

    def record(report: convext.EpochReport) -> None:
        losses.append(statistics.loss(report.kernels) - least)

    convext.train_model(
        images,
        targets,
        2,
        (2, 2),
        0.1,
        num_epochs,
        batch_size=batch_size,
        seed=0,
        callbacks=[record],
        verbose=False,
    )
    return losses


one_by_one, all_at_once = excess_losses(1, 3000), excess_losses(100, 3000)

# %%
# With a step for each sample, the kernels never arrive: each step pulls them towards what suits
# its own sample, and after ten epochs they stand as near to the optimum as they ever will. With a
# step for all, there are a hundred times fewer steps in an epoch; but they lead to the optimum,
# to the last digit.

figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
epochs = np.arange(1, 3001)
axes.loglog(epochs, one_by_one, label="a step for each sample, the textbook's")
axes.loglog(epochs, np.maximum(all_at_once, 1e-16), label="a step for all samples")
axes.axvline(10, color="0.5", linestyle=":")
axes.annotate("the textbook ends here", (10, 1e-9), (13, 1e-9), color="0.4")
axes.set_xlabel("epoch")
axes.set_ylabel(f"loss above the least one, {least:.5f}")
axes.grid(alpha=0.25)
axes.legend(frameon=False, loc="lower left")
plt.show()
