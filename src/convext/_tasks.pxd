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
