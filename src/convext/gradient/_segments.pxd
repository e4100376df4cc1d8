# Sums over segments of the work, added up in an order that does not depend on the threads.

from cython.parallel cimport prange

from convext.base._geometry cimport real
from convext.base._tasks cimport divide_up

cdef enum:
    ENTRIES_TO_ADD = 4096       # so many at a time


# Add up the sums of all segments for a block of entries, and round them.
cdef inline void add_block_of_segments(
    double *sums, Py_ssize_t segments, Py_ssize_t size, Py_ssize_t block, real *to
) noexcept nogil:
    cdef Py_ssize_t begin = block * ENTRIES_TO_ADD
    cdef Py_ssize_t end = min(begin + ENTRIES_TO_ADD, size)
    cdef Py_ssize_t segment, i
    for segment in range(1, segments):
        for i in range(begin, end):
            sums[i] += sums[segment * size + i]
    for i in range(begin, end):
        to[i] = <real> sums[i]


# The same for all `size` entries.
cdef inline void add_segments(
    double *sums, Py_ssize_t segments, Py_ssize_t size, real *to, int num_threads
) noexcept nogil:
    cdef Py_ssize_t blocks = divide_up(size, ENTRIES_TO_ADD), block
    if num_threads == 1:    # a parallel region of one thread takes its time, too
        for block in range(blocks):
            add_block_of_segments(sums, segments, size, block, to)
        return
    for block in prange(blocks, schedule="static", num_threads=num_threads):
        add_block_of_segments(sums, segments, size, block, to)
