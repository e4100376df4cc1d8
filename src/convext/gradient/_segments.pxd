# Sums over segments of the work, added up in an order that does not depend on the threads.

from convext.base._geometry cimport real
from convext.base._interrupt cimport Interrupt
from convext.base._tasks cimport Task, Tasks, divide_up, run_tasks, tasks_of

cdef enum:
    ENTRIES_TO_ADD = 4096       # of a task

cdef struct Segments:
    double *sums                # [segments][size]
    Py_ssize_t segments, size
    void *to                    # [size]


cdef inline void add_entries(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Add up the sums of all segments for some entries, and round them."""
    cdef const Segments *segments = <const Segments *> work
    cdef double *sums = segments.sums
    cdef Py_ssize_t begin = task * ENTRIES_TO_ADD
    cdef Py_ssize_t end = min(begin + ENTRIES_TO_ADD, segments.size)
    cdef Py_ssize_t segment, i
    for segment in range(1, segments.segments):
        for i in range(begin, end):
            sums[i] += sums[segment * segments.size + i]
    for i in range(begin, end):
        (<real *> segments.to)[i] = <real> sums[i]


cdef inline int add_segments(
    double *sums, Py_ssize_t segments, Py_ssize_t size, void *to, size_t itemsize,
    int num_threads, Interrupt *interrupt
) noexcept nogil:
    cdef Segments work = Segments(sums, segments, size, to)
    cdef Tasks adding = tasks_of(
        &work, itemsize, <Task> add_entries[float], <Task> add_entries[double],
        divide_up(size, ENTRIES_TO_ADD), 0, num_threads
    )
    return run_tasks(&adding, interrupt)
