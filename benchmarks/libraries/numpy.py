"""NumPy: all windows as a view, and a sum of products over it."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

VERSION = np.__version__


def start(settings):
    """Do nothing: the threads of its linear algebra are set in the environment."""


def operations(case, arrays):
    """Return the forward operation and the gradient that is a sum over windows, too."""
    images = arrays.images
    kernels = _grouped(arrays.kernels, 0, case.groups)
    gradient = _grouped(arrays.gradient, 1, case.groups)
    margin = (case.padding, case.padding)

    def windows():
        padded = np.pad(images, ((0, 0), (0, 0), margin, margin))
        every = sliding_window_view(padded, (case.size, case.size), axis=(2, 3))
        return _grouped(every[:, :, :: case.stride, :: case.stride], 1, case.groups)

    def forward():
        sums = np.einsum("ngchwij,gkcij->ngkhw", windows(), kernels, optimize=True)
        return sums.reshape(case.output_shape)

    def kernel_gradient():
        sums = np.einsum("ngchwij,ngkhw->gkcij", windows(), gradient, optimize=True)
        return sums.reshape(case.kernels_shape)

    return {"forward": forward, "kernel gradient": kernel_gradient}


def _grouped(array, axis, groups):
    """Split the axis of the channels, or of the kernels, by groups; a view of any array."""
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
