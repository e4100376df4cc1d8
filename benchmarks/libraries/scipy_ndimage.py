"""SciPy's filter of one image by one kernel, which always runs on one thread."""

import scipy
from scipy import ndimage

VERSION = scipy.__version__


def start(settings):
    """Do nothing: there is nothing to set."""


def operations(case, arrays):
    """Return the forward operation on one channel."""
    if case.shape[:2] != (1, 1) or case.num_kernels != 1 or case.stride != 1:
        return {}
    image, kernel = arrays.images[0, 0], arrays.kernels[0, 0]
    # The filter's result is of the image's size: as if it were padded by half a kernel.
    first = case.size // 2 - case.padding
    rows, columns = (slice(first, first + count) for count in case.output_shape[2:])

    def forward():
        return ndimage.correlate(image, kernel, mode="constant")[None, None, rows, columns]

    return {"forward": forward}
