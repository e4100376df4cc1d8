"""Ctrl-C in compiled loops: lets signal handlers run now and then, and ends the loop on one."""

cdef extern from "Python.h":
    int run_signal_handlers "PyErr_CheckSignals"() noexcept

cdef extern from *:
    """
    #include <time.h>

    /* Milliseconds are fine enough, from a clock that is read in a few nanoseconds. */
    #ifdef CLOCK_MONOTONIC_COARSE
    enum { QUICK_CLOCK = CLOCK_MONOTONIC_COARSE };
    #else
    enum { QUICK_CLOCK = CLOCK_MONOTONIC };
    #endif
    """
    struct timespec:
        long tv_sec
        long tv_nsec
    int QUICK_CLOCK
    int clock_gettime(int clock, timespec *time) nogil

cdef double SECONDS_BETWEEN_POLLS = 0.05


cdef double now() noexcept nogil:
    cdef timespec time
    clock_gettime(QUICK_CLOCK, &time)
    return time.tv_sec + 1e-9 * time.tv_nsec


cdef void start_polling(Interrupt *interrupt) noexcept nogil:
    interrupt.next_poll = now() + SECONDS_BETWEEN_POLLS
    interrupt.raised = False


cdef bint interrupted(Interrupt *interrupt, bint may_poll) noexcept nogil:
    cdef double time
    if may_poll and not interrupt.raised:
        time = now()
        if time >= interrupt.next_poll:
            interrupt.next_poll = time + SECONDS_BETWEEN_POLLS
            with gil:
                # The exception stays set in this thread until finish_polling.
                interrupt.raised = run_signal_handlers() == -1
    return interrupt.raised


cdef int finish_polling(Interrupt *interrupt) except -1:
    return -1 if interrupt.raised else 0
