# Operations that take long, in compiled code: Ctrl-C, and no memory.

cdef struct Interrupt:
    size_t thread      # which began the operation: it alone lets signal handlers run
    double next_poll   # when to look again, in seconds of the monotonic clock; or 0
    bint raised        # a signal handler raised an exception, which is still set

# Whether the operation must end. Asked between its tasks, it lets Python run signal handlers twenty
# times a second; in threads other than the one that began the operation it says what they did.
cdef bint stopped(Interrupt *interrupt) noexcept nogil

# What computes `work`. -1 when memory runs out.
ctypedef int (*Operation)(const void *work, Interrupt *interrupt) noexcept nogil

# Run an operation without the GIL; then raise what a signal handler raised, or that there is not
# enough memory for what `name` says.
cdef int perform(str name, Operation operation, const void *work) except -1

# Raise the latter where `status` is -1.
cdef int check_memory(int status, str name) except -1
