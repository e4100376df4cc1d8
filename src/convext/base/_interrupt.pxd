# Ctrl-C in compiled loops.

cdef struct Interrupt:
    double next_poll   # when to look again, in seconds of the monotonic clock
    bint raised        # a signal handler raised an exception, which is still set

cdef void start_polling(Interrupt *interrupt) noexcept nogil

# Whether the loop must end. Called by the thread that entered the compiled code, between its
# tasks, it lets Python run signal handlers twenty times a second; others only read the answer.
cdef bint interrupted(Interrupt *interrupt, bint may_poll) noexcept nogil

# With the GIL held, after the loop: raise what the handler raised.
cdef int finish_polling(Interrupt *interrupt) except -1
