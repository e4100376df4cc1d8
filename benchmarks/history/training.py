"""The textbook run: 100 samples of 3x28x28, two 2x2 kernels, batch size 1, float64."""

import numpy as np

import convext


class Textbook:
    """Ten epochs, so that what is done once for all of them does not count for much."""

    def setup(self):
        """Make the data."""
        rng = np.random.default_rng(0)
        self.inputs, self.targets = rng.random((100, 3, 28, 28)), rng.random((100, 2, 27, 27))
        self.kernels = rng.random((2, 3, 2, 2))

    def time_ten_epochs(self):
        """All of `train_model`."""
        convext.train_model(
            self.inputs,
            self.targets,
            2,
            (2, 2),
            learning_rate=0.1,
            num_epochs=10,
            kernels=self.kernels,
            verbose=False,
        )
