"""Ctrl-C in compiled loops: lets signal handlers run now and then, and ends the loop on one."""

cdef extern from "Python.h":
    int run_signal_handlers "PyErr_CheckSignals"() noexcept

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *time)

cdef double SECONDS_BETWEEN_POLLS = 0.1


cdef double now() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
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
