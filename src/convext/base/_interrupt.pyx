"""Operations that take long: signal handlers run now and then, and one that raises ends them."""

cdef extern from "Python.h":
    int run_signal_handlers "PyErr_CheckSignals"() noexcept

cdef extern from *:
    """
    /* Milliseconds are fine enough, from a clock that is read in a few nanoseconds. */
    #ifdef _WIN32
    #define WIN32_LEAN_AND_MEAN
    #include <windows.h>

    static inline size_t this_thread(void)
    {
        return GetCurrentThreadId();
    }

    static inline double now(void)
    {
        return 1e-3 * (double)GetTickCount64();
    }
    #else
    #include <pthread.h>
    #include <time.h>

    #ifdef CLOCK_MONOTONIC_COARSE
    enum { QUICK_CLOCK = CLOCK_MONOTONIC_COARSE };
    #else
    enum { QUICK_CLOCK = CLOCK_MONOTONIC };
    #endif

    static inline size_t this_thread(void)
    {
        return (size_t)pthread_self();
    }

    static inline double now(void)
    {
        struct timespec time;
        clock_gettime(QUICK_CLOCK, &time);
        return time.tv_sec + 1e-9 * time.tv_nsec;
    }
    #endif
    """
    size_t this_thread() nogil
    double now() nogil

cdef double SECONDS_BETWEEN_POLLS = 0.05


cdef bint stopped(Interrupt *interrupt) noexcept nogil:
    cdef double time
    if not interrupt.raised and interrupt.thread == this_thread():
        time = now()
        # Small calls end before they look at the clock.
        if interrupt.next_poll == 0:
            interrupt.next_poll = time + SECONDS_BETWEEN_POLLS
        elif time >= interrupt.next_poll:
            interrupt.next_poll = time + SECONDS_BETWEEN_POLLS
            with gil:
                # The exception stays set in this thread until the operation has ended.
                interrupt.raised = run_signal_handlers() == -1
    return interrupt.raised


cdef int perform(str name, Operation operation, const void *work) except -1:
    cdef Interrupt interrupt
    cdef int status
    with nogil:
        interrupt.thread = this_thread()
        interrupt.next_poll = 0
        interrupt.raised = False
        status = operation(work, &interrupt)
    return -1 if interrupt.raised else check_memory(status, name)


cdef int check_memory(int status, str name) except -1:
    if status == -1:
        raise MemoryError(f"not enough memory for {name}")
    return 0
