"""Packing weights, all or a block of them."""

from libc.string cimport memset

from convext.base._geometry cimport Array4, real
from convext.base._interrupt cimport Interrupt
from convext.base._tasks cimport Task, Tasks, run_tasks, tasks_of
from convext.ways._correlation_plan cimport Correlation, first_kernel
from convext.ways._tile cimport Tiling


cdef Py_ssize_t consecutive_weights(const Correlation *correlation) noexcept nogil:
    """How many weights of a kernel, in the order (channel, tap), lie one after the other."""
    cdef const Tiling *tiling = &correlation.tiling
    cdef const Array4 *weights = &correlation.weights.of_group
    if tiling.columns.num_taps > 1 and weights.w_stride != 1:
        return 1
    if tiling.rows.num_taps > 1 and weights.h_stride != tiling.columns.num_taps:
        return 1
    if weights.c_stride == tiling.taps:
        return correlation.channels * tiling.taps
    return tiling.taps


cdef void pack_block(
    const Correlation *correlation, Py_ssize_t group, Py_ssize_t block, Py_ssize_t channel,
    Py_ssize_t channels, real *packed
) noexcept nogil:
    cdef const Array4 *weights = &correlation.weights.of_group
    cdef Py_ssize_t num_columns = correlation.tiling.columns.num_taps
    cdef Py_ssize_t taps = correlation.tiling.taps
    cdef Py_ssize_t begin = first_kernel(correlation, block)
    cdef Py_ssize_t count = first_kernel(correlation, block + 1) - begin
    cdef Py_ssize_t t = 0, tap, run, step = 1
    cdef const real *first = <const real *> weights.data + (
        group * correlation.weights.group_stride
        + begin * weights.n_stride + channel * weights.c_stride
    )
    if count < correlation.width:
        memset(packed, 0, channels * taps * correlation.width * sizeof(real))
    run = min(channels * taps, consecutive_weights(correlation))
    if taps == 1:
        run, step = channels, weights.c_stride
    while t < channels * taps:
        tap = t % taps
        correlation.micro.interleave(
            run, count,
            first + t // taps * weights.c_stride + tap // num_columns * weights.h_stride
            + tap % num_columns * weights.w_stride,
            weights.n_stride, step, packed + t * correlation.width, correlation.width
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
