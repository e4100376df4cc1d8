"""SciPy's convolution by Fourier transforms, in overlapping blocks."""

import numpy as np
import scipy
from scipy.signal import oaconvolve

VERSION = scipy.__version__

_ROWS_AND_COLUMNS = (2, 3)


def start(settings):
    """Set the number of threads."""
    # Entered and never left: they are for the whole process.
    scipy.fft.set_workers(settings.threads).__enter__()


def operations(case, arrays):
    """Return the operations on images of one channel, without a stride."""
    if case.shape[1] != 1 or case.stride != 1:
        return {}
    images, kernels, gradient = arrays
    margin = [(case.padding, case.padding)] * 2
    kernels = kernels.swapaxes(0, 1)

    def forward():
        padded = np.pad(images, [(0, 0), (0, 0), *margin])
        return oaconvolve(padded, _flipped(kernels), "valid", axes=_ROWS_AND_COLUMNS)

    def kernel_gradient():
        padded = np.pad(images, [(0, 0), (0, 0), *margin])
        by_image = oaconvolve(padded, _flipped(gradient), "valid", axes=_ROWS_AND_COLUMNS)
        return by_image.sum(axis=0)[:, None]

    def input_gradient():
        by_kernel = oaconvolve(gradient, kernels, "full", axes=_ROWS_AND_COLUMNS)
        rows, columns = (slice(case.padding, case.padding + size) for size in case.shape[2:])
        return by_kernel.sum(axis=1, keepdims=True)[..., rows, columns]

    return {
        "forward": forward,
        "kernel gradient": kernel_gradient,
        "input gradient": input_gradient,
    }


def _flipped(array):
    return array[..., ::-1, ::-1]
