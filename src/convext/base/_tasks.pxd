# How work is shared out to threads. Tasks are cut at places that depend on the shapes alone.

from convext.base._interrupt cimport Interrupt, stopped
from convext.base._machine cimport MIN_PRODUCTS_PER_THREAD

cdef enum:
    MIN_PRODUCTS_TO_SHARE = 2 * MIN_PRODUCTS_PER_THREAD
    # Tasks that work is cut into, at least, where it is worth several threads and can be.
    ENOUGH_TASKS = 16
    TASKS_PER_POLL = 8


cdef inline int threads_for(double products, Py_ssize_t tasks, int num_threads) noexcept nogil:
    """How many threads the work is worth."""
    return <int> max(1., min(
        min(<double> num_threads, <double> tasks), products / MIN_PRODUCTS_PER_THREAD
    ))


cdef inline Py_ssize_t divide_up(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


# Tasks take a millisecond, or much less than a look at the clock: it is looked at after some.
cdef inline bint stopped_after(Py_ssize_t tasks, Interrupt *interrupt) noexcept nogil:
    return interrupt.raised or (tasks % TASKS_PER_POLL == TASKS_PER_POLL - 1 and stopped(interrupt))


# Compute one of the tasks of `work`, in scratch memory of the thread's own. An argument is passed
# alike whatever a pointer points to: functions are converted to this type whose `scratch` points to
# floats or doubles.
ctypedef void (*Task)(
    const void *work, Py_ssize_t task, void *scratch, Interrupt *interrupt
) noexcept nogil

# What a thread does once, before its first task.
ctypedef void (*Start)(const void *work, void *scratch) noexcept nogil

cdef struct Tasks:
    const void *work
    Task task
    Py_ssize_t count
    Py_ssize_t scratch      # bytes of scratch memory for a thread, on a cache line
    int num_threads
    Start start             # or NULL


# The tasks of `work`, of which `of_floats` or `of_doubles` computes one.
cdef inline Tasks tasks_of(
    const void *work, size_t itemsize, Task of_floats, Task of_doubles, Py_ssize_t count,
    Py_ssize_t scratch, int num_threads
) noexcept nogil:
    cdef Tasks tasks
    tasks.work = work
    tasks.task = of_floats if itemsize == sizeof(float) else of_doubles
    tasks.count = count
    tasks.scratch = scratch
    tasks.num_threads = num_threads
    tasks.start = NULL
    return tasks


# Run all tasks. Each thread has a share of them, those that follow each other: so it works where it
# worked the last time, which is in its caches, and not beside other threads. Then it takes what
# these have left. Once the user has interrupted, what is left is not run. -1 when memory runs out.
cdef int run_tasks(const Tasks *tasks, Interrupt *interrupt) noexcept nogil

# The same as an operation of its own, see perform.
cdef int perform_tasks(str name, const Tasks *tasks) except -1
