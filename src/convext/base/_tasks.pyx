"""Tasks, shared out to threads."""

from cython.parallel cimport prange

from convext.base._interrupt cimport Interrupt, perform
from convext.base._machine cimport LINE_BYTES
from convext.base._scratch cimport aligned_alloc, aligned_free, aligned_size

cdef extern from *:
    """
    static inline Py_ssize_t convext_take(Py_ssize_t *next)
    {
        return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
    }
    """
    Py_ssize_t take "convext_take"(Py_ssize_t *next) noexcept nogil

cdef enum:
    MOST_SHARES = 64

# Where the next task of a share stands, in a cache line of its own: a thread that takes one does
# not wait for others.
cdef struct Share:
    char[LINE_BYTES] apart
    Py_ssize_t next

# As many shares as threads, or fewer.
cdef struct Shares:
    Py_ssize_t tasks, count
    Share[MOST_SHARES] share


cdef inline Py_ssize_t first_task(const Shares *shares, Py_ssize_t share) noexcept nogil:
    return share * shares.tasks // shares.count


cdef inline void share_out(Shares *shares, Py_ssize_t tasks, int num_threads) noexcept nogil:
    cdef Py_ssize_t i
    shares.tasks = tasks
    shares.count = min(<Py_ssize_t> num_threads, <Py_ssize_t> MOST_SHARES)
    for i in range(shares.count):
        shares.share[i].next = first_task(shares, i)


# -1: no task is left.
cdef inline Py_ssize_t take_task(Shares *shares, Py_ssize_t thread) noexcept nogil:
    cdef Py_ssize_t i, share, task
    for i in range(shares.count):
        share = (thread + i) % shares.count
        task = take(&shares.share[share].next)
        if task < first_task(shares, share + 1):
            return task
    return -1


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
