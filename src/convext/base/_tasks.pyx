"""Tasks, shared out to threads."""

from cython.parallel cimport prange

from convext.base._interrupt cimport Interrupt, perform
from convext.base._scratch cimport aligned_alloc, aligned_free, aligned_size

cdef void run_share(
    const Tasks *tasks, Shares *shares, Py_ssize_t thread, void *scratch, Interrupt *interrupt
) noexcept nogil:
    """Run tasks while there are any."""
    cdef Py_ssize_t task = take_task(shares, thread), done = 0
    if task >= 0 and tasks.start != NULL:
        tasks.start(tasks.work, scratch)
    while task >= 0 and not stopped_after(done, interrupt):
        tasks.task(tasks.work, task, scratch, interrupt)
        task = take_task(shares, thread)
        done += 1


cdef void run_alone(const Tasks *tasks, void *scratch, Interrupt *interrupt) noexcept nogil:
    """Run all: a parallel region of one thread takes its time, too."""
    cdef Py_ssize_t task
    if tasks.start != NULL:
        tasks.start(tasks.work, scratch)
    for task in range(tasks.count):
        if stopped_after(task, interrupt):
            break
        tasks.task(tasks.work, task, scratch, interrupt)


cdef int run_tasks(const Tasks *tasks, Interrupt *interrupt) noexcept nogil:
    cdef int num_threads = tasks.num_threads
    cdef Py_ssize_t bytes = 0, thread
    cdef char *scratch = NULL
    cdef Shares shares
    if tasks.scratch > 0:
        bytes = aligned_size(tasks.scratch, 1)
        scratch = <char *> aligned_alloc(num_threads * bytes, 1)
        if scratch == NULL:
            return -1
    if num_threads == 1:
        run_alone(tasks, scratch, interrupt)
    else:
        share_out(&shares, tasks.count, num_threads)
        for thread in prange(num_threads, num_threads=num_threads, schedule="static"):
            run_share(tasks, &shares, thread, scratch + thread * bytes, interrupt)
    if scratch != NULL:
        aligned_free(scratch)
    return 0


cdef int run_described(const void *tasks, Interrupt *interrupt) noexcept nogil:
    return run_tasks(<const Tasks *> tasks, interrupt)


cdef int perform_tasks(str name, const Tasks *tasks) except -1:
    return perform(name, run_described, tasks)
