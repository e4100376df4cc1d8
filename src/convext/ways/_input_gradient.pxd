from convext.base._geometry cimport Convolution
from convext.base._interrupt cimport Interrupt
from convext.ways._ways cimport Needs

# Compute a Convolution's gradient with respect to the input; say what that needs.
cdef int gather_directly(const void *described, Interrupt *interrupt) noexcept nogil
cdef int measure_gathering(const Convolution *convolution, Needs *needs) except -1
