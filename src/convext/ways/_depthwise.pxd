# Channels that each meet kernels of their own, and no other channel's.

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4, Convolution, Windows
from convext.ways._ways cimport Way

cdef struct Depthwise:
    const Convolution *convolution
    const Microkernels *micro
    const Array4 *source
    const Array4 *results           # of which each has a window; for the kernel gradient, outputs
    Windows windows
    Py_ssize_t multiplier           # kernels of a channel
    Py_ssize_t band_h, bands        # rows of results at a time
    Py_ssize_t planes, blocks       # channels at a time
    Py_ssize_t phase_w              # columns of pixels that lie a stride apart, side by side
    Py_ssize_t pitch                # all phases of a row
    Py_ssize_t plane_size           # elements of the pixels under a band
    Py_ssize_t gradient_pitch       # of the output gradients of a band
    int num_threads

cdef Way depthwise_way() noexcept
