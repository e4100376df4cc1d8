# Channels that each meet kernels of their own, and no other channel's.

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4, Geometry

cdef struct Depthwise:
    const Microkernels *micro
    size_t itemsize
    Array4 source                   # sizes and strides
    Py_ssize_t multiplier           # kernels of a channel
    Py_ssize_t taps_h, taps_w
    bint turned                     # the taps are taken from the last one to the first
    Py_ssize_t top, left            # where the first window begins
    Py_ssize_t stride_h, stride_w, dilation_h, dilation_w
    Py_ssize_t out_h, out_w
    Py_ssize_t band_h, bands        # rows of results at a time
    Py_ssize_t planes, blocks       # channels at a time
    Py_ssize_t segment              # columns of pixels that lie a stride apart, side by side
    Py_ssize_t pitch                # all segments of a row
    Py_ssize_t plane_size           # elements of the pixels under a band
    Py_ssize_t gradient_pitch       # of the output gradients of a band
    int num_threads

# Whether the forward convolution, or the gradient, should be computed so.
cdef bint plan_depthwise(
    Depthwise *plan, const Array4 *images, const Array4 *kernels, const Geometry *geometry,
    const Array4 *out, int num_threads, size_t itemsize
) noexcept nogil
cdef bint plan_depthwise_input_gradient(
    Depthwise *plan, const Array4 *output_grad, const Array4 *kernels, const Geometry *geometry,
    const Array4 *input_grad, int num_threads, size_t itemsize
) noexcept nogil
cdef bint plan_depthwise_kernel_gradient(
    Depthwise *plan, const Array4 *images, const Array4 *output_grad, const Geometry *geometry,
    Py_ssize_t kernel_h, Py_ssize_t kernel_w, int num_threads, size_t itemsize
) noexcept nogil

# Write it to `out`, plus the bias of each kernel (or NULL); or to `kernel_grad`, which is
# C-contiguous. Raises where memory runs out, or when the user interrupts.
cdef int convolve_depthwise(
    const Depthwise *plan, const Array4 *kernels, const void *bias, const Array4 *out
) except -1
cdef int differentiate_depthwise(
    const Depthwise *plan, const Array4 *output_grad, void *kernel_grad
) except -1
