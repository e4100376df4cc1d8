"""OpenCV: its filter of one image by one kernel."""

import cv2

VERSION = cv2.__version__


def start(settings):
    """Set the number of threads."""
    cv2.setNumThreads(settings.threads)


def operations(case, arrays):
    """Return the forward operation on one channel."""
    if case.shape[:2] != (1, 1) or case.num_kernels != 1 or case.stride != 1:
        return {}
    image, kernel = arrays.images[0, 0], arrays.kernels[0, 0]
    # The filter's result is of the image's size: as if it were padded by half a kernel.
    first = case.size // 2 - case.padding
    rows, columns = (slice(first, first + count) for count in case.output_shape[2:])

    def forward():
        filtered = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_CONSTANT)
        return filtered[None, None, rows, columns]

    return {"forward": forward}
