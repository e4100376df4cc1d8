# The ways of computing a convolution, and the choice between them.
#
# All times are in one unit: multiply-adds of the direct way at its usual speed. What it takes for a
# result besides these, to lay out pixels and to write, counts as RESULT of them. Models that were
# fitted beside the multiply-adds alone add that, too.

from convext.base._geometry cimport INPUT_GRADIENT, Array4, Convolution, result_of
from convext.base._tasks cimport divide_up

cdef enum:
    RESULT = 8

# The threads of a way, and the memory that it takes while it runs, in bytes.
cdef struct Needs:
    int num_threads
    Py_ssize_t of_thread, shared

# An entry of a list of ways. `time` begins to fill the memory `plan`, and the others go on with it.
cdef struct Way:
    const char *name
    # Why it cannot compute this or, unless it was asked for, should not; NULL: it applies.
    const char *(*objection)(const Convolution *convolution) noexcept nogil
    double (*time)(const Convolution *convolution, void *plan) noexcept nogil
    # Whether those below it are not looked at where it is the best so far; NULL: they are.
    bint (*settles)(const Convolution *convolution) noexcept nogil
    # What the kernels' values must be like; NULL, or returns it: they may be any.
    const char *(*condition)(const Convolution *convolution) noexcept nogil
    # 0: it does not compute these values. `kept` is what prepared kernels keep, or None.
    bint (*run)(const Convolution *convolution, void *plan, dict kept) except -1
    # Leave in `kept` what `run` will read there. 0 as above. NULL: it reads nothing.
    bint (*keep)(const Convolution *convolution, void *plan, dict kept) except -1
    bint (*measure)(const Convolution *convolution, void *plan, Needs *needs) except -1

cdef struct Ways:
    const Way *way
    int count               # the last one computes everything, others are compared with it
    char *plans             # memory for two plans
    size_t plan_size        # bytes of each


cdef inline double direct_products(const Convolution *convolution) noexcept nogil:
    """The multiply-adds of the direct way. An input gradient's stride shares out the taps."""
    cdef double products = (
        <double> convolution.outputs.n * convolution.kernels.n * convolution.kernels.c
        * convolution.kernels.h * convolution.kernels.w
    )
    if convolution.operation == INPUT_GRADIENT:
        return (
            products * divide_up(convolution.images.h, convolution.geometry.stride_h)
            * divide_up(convolution.images.w, convolution.geometry.stride_w)
        )
    return products * convolution.outputs.h * convolution.outputs.w


cdef inline double time_of_results(const Convolution *convolution) noexcept nogil:
    cdef const Array4 *result = result_of(convolution)
    return <double> RESULT * result.n * result.c * result.h * result.w


# Compute it: by the way whose number in the list is `algorithm`, from 1 on, or for 0 ("auto") by
# the one that is predicted to take the least time. Or only leave in `kept` what that way will read.
cdef int compute(
    const Ways *ways, Convolution *convolution, int algorithm, dict kept, bint only_keep
) except -1

# The names of a list, whose order is that of their numbers.
cdef tuple names_of(const Way *ways, int count)

# Rows of what `convext.explain` says, by way, and which of them is taken. The values of kernels are
# looked at where there are any.
cdef tuple explain_ways(const Ways *ways, Convolution *convolution)
