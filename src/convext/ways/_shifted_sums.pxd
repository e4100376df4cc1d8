# A convolution of many channels with few kernels: first the products of every pixel with all taps,
# summed over the channels, then these sums, shifted to the results that they belong to.

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4, Geometry

cdef struct ShiftedSums:
    const Microkernels *micro
    size_t itemsize
    Array4 source, weights
    Py_ssize_t groups
    Py_ssize_t channels, kernels    # of a group
    bint swapped                    # the weights' channels are the kernels here
    # Source pixel (y, x) meets tap (i, j) in the result (y + down + i * step_h, x + ...).
    Py_ssize_t down, right, step_h, step_w
    Py_ssize_t out_h, out_w
    Py_ssize_t bands                # the results of a sample and group are shared out to so many
    Py_ssize_t sums                 # of each pixel: the taps of all kernels
    Py_ssize_t num_blocks, width    # which are computed in so many blocks of so many
    Py_ssize_t chunk_h              # source rows whose sums are in the scratch memory,
    Py_ssize_t columns              # and the parts into which they are cut
    int num_threads

# Whether the forward convolution, or the input gradient, should be computed so.
cdef bint plan_forward_by_shifts(
    ShiftedSums *plan, const Array4 *images, const Array4 *kernels, const Geometry *geometry,
    const Array4 *out, int num_threads, size_t itemsize
) noexcept nogil
cdef bint plan_input_gradient_by_shifts(
    ShiftedSums *plan, const Array4 *output_grad, const Array4 *kernels, const Geometry *geometry,
    const Array4 *input_grad, int num_threads, size_t itemsize
) noexcept nogil

# Write it to `out`, plus the bias of each kernel (or NULL). Raises where memory runs out, or when
# the user interrupts.
cdef int convolve_by_shifts(
    const ShiftedSums *plan, const void *bias, const Array4 *out
) except -1
