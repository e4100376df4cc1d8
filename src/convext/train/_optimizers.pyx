"""The update of the weights from their gradient, in one pass over weights, gradient and state.

All weights lie one after the other in a flat array; a variable is a stretch of them: the kernels,
or the bias, of one layer. The formulas are Keras's.
"""

cimport numpy as cnp
from libc.math cimport pow, sqrt
from libc.string cimport memset

from convext.base._geometry cimport check_number

cnp.import_array()

RULES = {"sgd": SGD, "adam": ADAM}
CLIPPING = {
    "": NO_CLIPPING, "clipvalue": BY_VALUE, "clipnorm": BY_NORM, "global_clipnorm": BY_GLOBAL_NORM
}


cdef class Update:
    """How weights are updated, with the state that this needs.

    `first` and `second` are flat arrays of the weights' type, or None: the velocity of SGD with
    momentum, the two moments of Adam.
    """

    def __init__(
        self, int rule, cnp.ndarray end, cnp.ndarray multiplier, cnp.ndarray first=None,
        cnp.ndarray second=None, int clipping=NO_CLIPPING, double limit=0, double momentum=0,
        bint nesterov=False, double beta_1=0, double beta_2=0, double epsilon=0
    ):
        check_number("rule", rule, ADAM)
        check_number("clipping", clipping, BY_GLOBAL_NORM)
        self.rule, self.end, self.multiplier = rule, end, multiplier
        self.num_variables = end.shape[0]
        self.first, self.second = first, second
        self.momentum, self.nesterov = momentum, nesterov
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.clipping, self.limit = clipping, limit
        self.iterations = 0
        self.learning_rate = 0

    cdef void apply(self, real *weights, double *gradient) noexcept nogil:
        cdef const Py_ssize_t *end = <const Py_ssize_t *> state(self.end)
        cdef const double *multiplier = <const double *> state(self.multiplier)
        cdef Py_ssize_t v, begin = 0
        cdef double rate
        cdef const unsigned char *frozen = <const unsigned char *> state(self.frozen)
        cdef real *first = <real *> state(self.first)
        cdef real *second = <real *> state(self.second)
        if frozen != NULL:
            # Norms are those of the others.
            for v in range(self.num_variables):
                if frozen[v]:
                    memset(gradient + begin, 0, (end[v] - begin) * sizeof(double))
                begin = end[v]
            begin = 0
        if self.clipping != NO_CLIPPING:
            clip(self, gradient)
        self.iterations += 1
        for v in range(self.num_variables):
            rate = self.learning_rate * multiplier[v]
            if frozen != NULL and frozen[v]:
                begin = end[v]
                continue
            if self.rule == ADAM:
                rate *= sqrt(1 - pow(self.beta_2, <double> self.iterations)) / (
                    1 - pow(self.beta_1, <double> self.iterations)
                )
                move_by_moments(
                    end[v] - begin, weights + begin, gradient + begin, first + begin,
                    second + begin, <real> rate, <real> (1 - self.beta_1),
                    <real> (1 - self.beta_2), <real> self.epsilon
                )
            elif first != NULL:
                move_by_velocity(
                    end[v] - begin, weights + begin, gradient + begin, first + begin,
                    <real> rate, <real> self.momentum, self.nesterov
                )
            else:
                move(end[v] - begin, weights + begin, gradient + begin, rate)
            begin = end[v]

    def freeze(self, cnp.ndarray frozen):
        """Leave variables alone from now on: 1 for each of these, in uint8; None for all moving."""
        self.frozen = frozen

    def update(self, cnp.ndarray weights, cnp.ndarray gradient):
        """Update flat `weights`, in place, by a gradient in float64."""
        cdef double *values = <double *> cnp.PyArray_DATA(gradient)
        if cnp.PyArray_ITEMSIZE(weights) == sizeof(float):
            self.apply(<float *> cnp.PyArray_DATA(weights), values)
        else:
            self.apply(<double *> cnp.PyArray_DATA(weights), values)


cdef inline void *state(cnp.ndarray array) noexcept nogil:
    return NULL if array is None else cnp.PyArray_DATA(array)


cdef void move(
    Py_ssize_t count, real *weights, const double *gradient, double rate
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        weights[i] -= <real> (rate * gradient[i])


cdef void move_by_velocity(
    Py_ssize_t count, real *weights, const double *gradient, real *velocity, real rate,
    real momentum, bint nesterov
) noexcept nogil:
    cdef Py_ssize_t i
    cdef real step
    for i in range(count):
        step = rate * <real> gradient[i]
        velocity[i] = velocity[i] * momentum - step
        weights[i] += momentum * velocity[i] - step if nesterov else velocity[i]


cdef void move_by_moments(
    Py_ssize_t count, real *weights, const double *gradient, real *mean, real *square,
    real rate, real mean_share, real square_share, real epsilon
) noexcept nogil:
    cdef Py_ssize_t i
    cdef real g
    for i in range(count):
        g = <real> gradient[i]
        mean[i] += (g - mean[i]) * mean_share
        square[i] += (g * g - square[i]) * square_share
        weights[i] -= mean[i] * rate / (<real> sqrt(square[i]) + epsilon)


cdef void clip(Update update, double *gradient) noexcept nogil:
    cdef const Py_ssize_t *end = <const Py_ssize_t *> state(update.end)
    cdef Py_ssize_t v, i, begin = 0
    cdef Py_ssize_t last = update.num_variables - 1
    if update.clipping == BY_VALUE:
        for i in range(end[last]):
            gradient[i] = max(-update.limit, min(update.limit, gradient[i]))
    elif update.clipping == BY_GLOBAL_NORM:
        clip_norm(end[last], gradient, update.limit)
    elif update.clipping == BY_NORM:
        for v in range(last + 1):
            clip_norm(end[v] - begin, gradient + begin, update.limit)
            begin = end[v]


cdef void clip_norm(Py_ssize_t count, double *gradient, double limit) noexcept nogil:
    cdef double squares = 0
    cdef Py_ssize_t i
    for i in range(count):
        squares += gradient[i] * gradient[i]
    if squares > limit * limit:
        for i in range(count):
            gradient[i] *= limit / sqrt(squares)
