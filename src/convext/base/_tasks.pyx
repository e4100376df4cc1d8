"""Tasks, shared out to threads."""

from cython.parallel cimport prange

from convext.base._interrupt cimport Interrupt, perform
from convext.base._machine cimport LINE_BYTES
from convext.base._scratch cimport aligned_alloc, aligned_free, aligned_size

cdef extern from *:
    """
    static inline Py_ssize_t convext_add(Py_ssize_t *number, Py_ssize_t more)
    {
        return __atomic_fetch_add(number, more, __ATOMIC_RELAXED);
    }

    #ifdef _WIN32
    /* Nothing forks there: no child needs threads of its own. */
    typedef int convext_thread;
    enum { convext_forked = 0 };

    static inline int convext_watch_forks(void)
    {
        return 0;
    }

    static inline int convext_start_thread(
        convext_thread *thread, void *(*start)(void *), void *work
    )
    {
        (void)thread, (void)start, (void)work;
        return -1;
    }

    static inline void convext_join_thread(convext_thread thread)
    {
        (void)thread;
    }
    #else
    #include <pthread.h>

    typedef pthread_t convext_thread;

    /* GCC's OpenMP waits for ever in a forked child, which has none of its parent's threads
       (https://gcc.gnu.org/bugzilla/show_bug.cgi?id=58378). */
    static int convext_forked;

    static void convext_after_fork(void)
    {
    #ifdef _OPENMP
        convext_forked = 1;
    #endif
    }

    static inline int convext_watch_forks(void)
    {
        return pthread_atfork(NULL, NULL, convext_after_fork);
    }

    static inline int convext_start_thread(
        convext_thread *thread, void *(*start)(void *), void *work
    )
    {
        return pthread_create(thread, NULL, start, work);
    }

    static inline void convext_join_thread(convext_thread thread)
    {
        pthread_join(thread, NULL);
    }
    #endif
    """
    Py_ssize_t fetch_and_add "convext_add"(Py_ssize_t *number, Py_ssize_t more) noexcept nogil
    const bint forked "convext_forked"
    ctypedef struct Thread "convext_thread":
        pass
    int watch_forks "convext_watch_forks"() noexcept nogil
    int start_thread "convext_start_thread"(
        Thread *thread, void *(*start)(void *) noexcept nogil, void *work
    ) noexcept nogil
    void join_thread "convext_join_thread"(Thread thread) noexcept nogil

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
        task = fetch_and_add(&shares.share[share].next, 1)
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


# A thread of a forked child, and what it runs.
cdef struct Started:
    Thread handle
    const Tasks *tasks
    Shares *shares
    Py_ssize_t thread
    void *scratch
    Interrupt *interrupt


cdef void *run_started(void *work) noexcept nogil:
    cdef Started *started = <Started *> work
    run_share(
        started.tasks, started.shares, started.thread, started.scratch, started.interrupt
    )
    return NULL


cdef void run_in_started_threads(
    const Tasks *tasks, Shares *shares, char *scratch, Py_ssize_t bytes, Interrupt *interrupt
) noexcept nogil:
    """Start threads for this call alone. Tasks of those that can't be started are taken by others.
    """
    cdef Started[MOST_SHARES] started
    cdef Py_ssize_t count = 1, i
    while count < shares.count:
        started[count] = Started(
            tasks=tasks, shares=shares, thread=count, scratch=scratch + count * bytes,
            interrupt=interrupt,
        )
        if start_thread(&started[count].handle, run_started, &started[count]) != 0:
            break
        count += 1
    run_share(tasks, shares, 0, scratch, interrupt)
    for i in range(1, count):
        join_thread(started[i].handle)


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
        if forked:
            run_in_started_threads(tasks, &shares, scratch, bytes, interrupt)
        else:
            for thread in prange(num_threads, num_threads=num_threads, schedule="static"):
                run_share(tasks, &shares, thread, scratch + thread * bytes, interrupt)
    if scratch != NULL:
        aligned_free(scratch)
    return 0


cdef int run_described(const void *tasks, Interrupt *interrupt) noexcept nogil:
    return run_tasks(<const Tasks *> tasks, interrupt)


cdef int perform_tasks(str name, const Tasks *tasks) except -1:
    return perform(name, run_described, tasks)


if watch_forks() != 0:
    raise MemoryError("not enough memory for what a forked process does first")
