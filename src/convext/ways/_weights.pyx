"""Packing weights, all or a block of them."""

from libc.string cimport memset

from convext.base._geometry cimport Array4, real
from convext.base._interrupt cimport Interrupt
from convext.base._tasks cimport Task, Tasks, run_tasks, tasks_of
from convext.ways._correlation_plan cimport Correlation, Weights, first_kernel
from convext.ways._tile cimport Tiling


cdef Py_ssize_t consecutive_weights(
    const Correlation *correlation, Py_ssize_t channel_stride
) noexcept nogil:
    """How many weights of a kernel, in the order (channel, tap), lie one after the other."""
    cdef const Tiling *tiling = &correlation.tiling
    cdef const Weights *weights = &correlation.weights
    cdef Py_ssize_t i, j, distance
    for i in range(tiling.rows.num_taps):
        for j in range(tiling.columns.num_taps):
            distance = (
                (weights.rows[i] - weights.rows[0]) * weights.kernels.h_stride
                + (weights.columns[j] - weights.columns[0]) * weights.kernels.w_stride
            )
            if distance != i * tiling.columns.num_taps + j:
                return 1
    if channel_stride == tiling.taps:
        return correlation.channels * tiling.taps
    return tiling.taps


cdef Py_ssize_t first_weight(
    const Correlation *correlation, Py_ssize_t group, Py_ssize_t kernel, Py_ssize_t channel
) noexcept nogil:
    """Where, in the kernels as they were given, the weights of a kernel of a group begin."""
    cdef const Array4 *kernels = &correlation.weights.kernels
    if correlation.weights.swapped:
        return (
            (group * correlation.channels + channel) * kernels.n_stride + kernel * kernels.c_stride
        )
    return (group * correlation.kernels + kernel) * kernels.n_stride + channel * kernels.c_stride


cdef void pack_block(
    const Correlation *correlation, Py_ssize_t group, Py_ssize_t block, Py_ssize_t channel,
    Py_ssize_t channels, real *packed
) noexcept nogil:
    cdef const Weights *weights = &correlation.weights
    cdef const Array4 *kernels = &weights.kernels
    cdef Py_ssize_t kernel_stride = kernels.c_stride if weights.swapped else kernels.n_stride
    cdef Py_ssize_t channel_stride = kernels.n_stride if weights.swapped else kernels.c_stride
    cdef Py_ssize_t num_columns = correlation.tiling.columns.num_taps
    cdef Py_ssize_t taps = correlation.tiling.taps
    cdef Py_ssize_t begin = first_kernel(correlation, block)
    cdef Py_ssize_t count = first_kernel(correlation, block + 1) - begin
    cdef Py_ssize_t t = 0, tap, run, step = 1
    cdef const real *first
    if count < correlation.width:
        memset(packed, 0, channels * taps * correlation.width * sizeof(real))
    run = min(channels * taps, consecutive_weights(correlation, channel_stride))
    if taps == 1:
        run, step = channels, channel_stride
    first = <const real *> kernels.data + first_weight(correlation, group, begin, channel)
    while t < channels * taps:
        tap = t % taps
        correlation.micro.interleave(
            run, count,
            first + t // taps * channel_stride
            + weights.rows[tap // num_columns] * kernels.h_stride
            + weights.columns[tap % num_columns] * kernels.w_stride,
            kernel_stride, step, packed + t * correlation.width, correlation.width
        )
        t += run


cdef void pack_indexed_block(
    const void *work, Py_ssize_t index, real *scratch, Interrupt *interrupt
) noexcept nogil:
    cdef const Correlation *correlation = <const Correlation *> work
    pack_block(
        correlation, index // correlation.num_blocks, index % correlation.num_blocks, 0,
        correlation.channels, <real *> correlation.packed + (
            index * correlation.channels * correlation.tiling.taps * correlation.width
        )
    )


cdef int pack_weights(const void *prepared, Interrupt *interrupt) noexcept nogil:
    cdef const Correlation *correlation = <const Correlation *> prepared
    cdef Tasks blocks = tasks_of(
        correlation, correlation.itemsize, <Task> pack_indexed_block[float],
        <Task> pack_indexed_block[double], correlation.groups * correlation.num_blocks, 0,
        correlation.num_threads
    )
    return run_tasks(&blocks, interrupt)


cdef const real *weights_of_block(
    const Correlation *correlation, Py_ssize_t group, Py_ssize_t block, Py_ssize_t channel,
    Py_ssize_t channels, real *scratch
) noexcept nogil:
    cdef Py_ssize_t index = (
        (group * correlation.num_blocks + block) * correlation.channels + channel
    )
    if correlation.packed != NULL:
        return <const real *> correlation.packed + (
            index * correlation.tiling.taps * correlation.width
        )
    pack_block(correlation, group, block, channel, channels, scratch)
    return scratch
