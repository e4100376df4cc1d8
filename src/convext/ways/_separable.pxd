# Convolution with separable kernels, u[i] * v[j], of one channel each: down the columns with u,
# then along the rows with v.

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4, Geometry

cdef struct Separable:
    const Microkernels *micro
    size_t itemsize
    Array4 source                   # sizes and strides; the data may differ from run to run
    Py_ssize_t kernels              # in all
    Py_ssize_t group_kernels        # of a group, which is a channel
    Py_ssize_t taps_h, taps_w
    Py_ssize_t top, left            # where the first tap of the first result meets the source
    Py_ssize_t out_h, out_w
    Py_ssize_t block_h, block_w     # results of a block
    Py_ssize_t blocks_down, blocks_across
    int num_threads

# Plan the forward convolution, or the gradient with respect to the input, which is one with the
# kernels turned around, where each channel has one kernel: they come back in `turned`. False where
# sizes or options speak for another way.
cdef bint plan_separable(
    Separable *plan, const Array4 *images, const Array4 *kernels, const Geometry *geometry,
    Py_ssize_t out_h, Py_ssize_t out_w, int algorithm, int num_threads, size_t itemsize
) noexcept nogil

cdef bint plan_separable_input_gradient(
    Separable *plan, const Array4 *output_grad, const Array4 *kernels, const Geometry *geometry,
    Py_ssize_t in_h, Py_ssize_t in_w, int algorithm, int num_threads, size_t itemsize,
    Array4 *turned
) noexcept nogil

# The factors u and v of each kernel, or None where not all kernels are separable. What was found is
# kept, where `kept` is not None.
cdef object factors_of(const Separable *plan, const Array4 *kernels, dict kept)

# Compute `out`. `bias` may be NULL.
cdef int convolve_separably(
    const Separable *plan, object factors, const void *bias, const Array4 *out
) except -1
