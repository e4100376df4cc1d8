# How work is shared out to threads. Tasks are cut at places that depend on the shapes alone.

cdef enum:
    # Below so many multiplications a second thread costs more than it brings.
    MIN_PRODUCTS_PER_THREAD = 250000
    MIN_PRODUCTS_TO_SHARE = 2 * MIN_PRODUCTS_PER_THREAD
    # Work that is worth several threads is cut into at least so many tasks where it can be.
    ENOUGH_TASKS = 16


cdef inline int threads_for(double products, Py_ssize_t tasks, int num_threads) noexcept nogil:
    """How many threads so much work is worth."""
    return <int> max(1., min(
        min(<double> num_threads, <double> tasks), products / MIN_PRODUCTS_PER_THREAD
    ))


cdef inline Py_ssize_t divide_up(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


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

# Tasks of which each thread has a share, those that follow each other. A loop over them that is
# scheduled dynamically takes one in each iteration: of the thread's own share, so that it works
# where it worked the last time, which is in its caches, and not beside other threads, and then what
# these have left.
cdef struct Shares:
    Py_ssize_t tasks, count
    Py_ssize_t[MOST_SHARES] next        # task of a share


cdef inline Py_ssize_t first_task(const Shares *shares, Py_ssize_t share) noexcept nogil:
    return share * shares.tasks // shares.count


cdef inline Shares share_out(Py_ssize_t tasks, int num_threads) noexcept nogil:
    cdef Shares shares
    cdef Py_ssize_t i
    shares.tasks = tasks
    shares.count = min(<Py_ssize_t> num_threads, <Py_ssize_t> MOST_SHARES)
    for i in range(shares.count):
        shares.next[i] = first_task(&shares, i)
    return shares


cdef inline Py_ssize_t take_task(Shares *shares, Py_ssize_t thread) noexcept nogil:
    cdef Py_ssize_t i, share, task
    for i in range(shares.count):
        share = (thread + i) % shares.count
        task = take(&shares.next[share])
        if task < first_task(shares, share + 1):
            return task
    return -1       # not reached: there are as many iterations as tasks
