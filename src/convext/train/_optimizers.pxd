# The update of the weights from their gradient, in one pass over weights, gradient and state.

cimport numpy as cnp

from convext.base._geometry cimport real

cdef enum:
    SGD = 0
    ADAM = 1

cdef enum:
    NO_CLIPPING = 0
    BY_VALUE = 1
    BY_NORM = 2             # of each variable
    BY_GLOBAL_NORM = 3      # of all together


cdef class Update:
    cdef int rule, clipping
    cdef bint nesterov
    cdef public Py_ssize_t iterations   # updates made
    cdef public double learning_rate
    cdef double momentum, beta_1, beta_2, epsilon, limit
    cdef Py_ssize_t num_variables
    cdef cnp.ndarray end                # of each variable in the flat weights
    cdef cnp.ndarray multiplier         # of the learning rate, for each variable
    cdef cnp.ndarray frozen             # 1 for each variable that is left alone, or None
    cdef readonly cnp.ndarray first, second     # the state; None where there is none

    # weights -= what the gradient says. The gradient may be changed (clipped).
    cdef void apply(self, real *weights, double *gradient) noexcept nogil
