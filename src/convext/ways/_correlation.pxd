# The one building block of the forward convolution and of the input gradient: a correlation of a
# source with weights at given taps,
#
#   out[n, k, y, x] = bias[k]
#                     + sum over c, i, j of weights[k, c, i, j] * source[n, c, y_i, x_j]
#
# where y_i = y * stride + position of tap i, x_j likewise, and the source is zero outside.

from convext.base._geometry cimport Array4, Weights
from convext.base._interrupt cimport Interrupt
from convext.ways._correlation_plan cimport Correlation
from convext.ways._tile cimport Axis
from convext.ways._ways cimport Needs

# Prepare correlations of `num_samples` samples at most (which decides the number of threads). -1
# when memory runs out, and then nothing is left to free.
cdef int init_correlation(
    Correlation *correlation, const Array4 *source, Py_ssize_t num_samples,
    Axis rows, Axis columns, Py_ssize_t groups, const Weights *weights,
    Py_ssize_t out_h, Py_ssize_t out_w, int num_threads, size_t itemsize
) noexcept nogil

cdef void free_correlation(Correlation *correlation) noexcept nogil

# Say what a correlation of `num_samples` samples needs.
cdef void measure_correlation(
    const Correlation *correlation, Py_ssize_t num_samples, Needs *needs
) noexcept nogil

# Correlate the samples source[order[0]], source[order[1]], ... into out[0], out[1], ...
# (`order` NULL: 0, 1, ...). -1 when memory runs out.
cdef int run_correlation(
    const Correlation *correlation, const void *source, const Py_ssize_t *order,
    Py_ssize_t num_samples, const void *bias, const Array4 *out, Interrupt *interrupt
) noexcept nogil

# The same of samples in their order, once; weights that are used often are packed before.
cdef int pack_and_run(
    Correlation *correlation, const void *source, Py_ssize_t num_samples, const void *bias,
    const Array4 *out, Interrupt *interrupt
) noexcept nogil
