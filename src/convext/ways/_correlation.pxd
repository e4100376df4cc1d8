# The one building block of the forward convolution and of the input gradient: a correlation of a
# source with weights at given taps,
#
#   out[n, k, y, x] = bias[k]
#                     + sum over c, i, j of weights[k, c, i, j] * source[n, c, y_i, x_j]
#
# where y_i = y * stride + position of tap i, x_j likewise, and the source is zero outside.

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4, real
from convext.base._interrupt cimport Interrupt
from convext.ways._tile cimport Axis, Tile, Tiling
from convext.ways._ways cimport Needs

# The weight of tap (i, j) is kernels[k, c, rows[i], columns[j]]; k counts through the groups, c
# within one. Where `swapped`, k and c of each group change places.
cdef struct Weights:
    Array4 kernels
    bint swapped
    const Py_ssize_t *rows
    const Py_ssize_t *columns

cdef struct Correlation:
    const Microkernels *micro
    size_t itemsize
    Tiling tiling
    Array4 source               # sizes and strides; the data may differ from run to run
    Py_ssize_t groups
    Py_ssize_t channels         # of a group
    Py_ssize_t kernels          # of a group
    bint by_kernels             # vectors hold kernels, else pixels
    int slide                   # one kernel on several rows: its taps go down (1) or up (-1); or 0
    Py_ssize_t num_blocks       # the kernels of a group are computed in so many blocks
    Py_ssize_t width            # packed weights of a tap of a block
    Py_ssize_t num_chunks       # and the blocks shared out to so many tasks
    Py_ssize_t tasks_per_sample
    Py_ssize_t results_pitch    # vectors of pixels: from one row of a tile's results to the next
    Py_ssize_t row_size         # elements of a kernel's results in the scratch memory
    Py_ssize_t scratch_size     # elements of scratch memory for a thread while it runs
    Weights weights             # as they were given, and
    void *packed                # packed, see pack_weights; NULL: each block is when it is needed
    Py_ssize_t *weight_offset   # [tiling.block * taps] in a block of packed weights
    int num_threads

# Prepare correlations of `num_samples` samples at most (which decides the number of threads). The
# axes become the correlation's own. -1 when memory runs out, and then nothing is left to free.
cdef int init_correlation(
    Correlation *correlation, const Array4 *source, Py_ssize_t num_samples,
    Axis rows, Axis columns, Py_ssize_t groups, Py_ssize_t num_kernels,
    Py_ssize_t out_h, Py_ssize_t out_w, int num_threads, size_t itemsize
) noexcept nogil

cdef void free_correlation(Correlation *correlation) noexcept nogil

# The first kernel, within its group, of a block.
cdef inline Py_ssize_t first_kernel(
    const Correlation *correlation, Py_ssize_t block
) noexcept nogil:
    return min(block * correlation.width, correlation.kernels)


# At most so many blocks of kernels are computed by one task.
cdef inline Py_ssize_t blocks_of_chunk(const Correlation *correlation) noexcept nogil:
    return (correlation.num_blocks + correlation.num_chunks - 1) // correlation.num_chunks


# Elements of all packed weights. Their order depends on the kernels and `width` alone.
cdef inline Py_ssize_t all_weights(const Correlation *correlation) noexcept nogil:
    return (
        correlation.groups * correlation.num_blocks * correlation.channels
        * correlation.tiling.taps * correlation.width
    )


# Say what a correlation of `num_samples` samples needs.
cdef void measure_correlation(
    const Correlation *correlation, Py_ssize_t num_samples, Needs *needs
) noexcept nogil

# Pack all weights of a correlation for the micro-kernels, to `packed` there, in the order group,
# block of kernels, channel, tap, kernel within the block.
cdef int pack_weights(const void *correlation, Interrupt *interrupt) noexcept nogil

# The packed weights of some channels of a block of a group, which may be packed into `scratch`.
cdef const real *weights_of_block(
    const Correlation *correlation, Py_ssize_t group, Py_ssize_t block, Py_ssize_t channel,
    Py_ssize_t channels, real *scratch
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
