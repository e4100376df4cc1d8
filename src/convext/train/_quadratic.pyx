"""The loss of a unit, a sample or a batch, as the quadratic function of the kernels that it is."""

from libc.math cimport NAN
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from convext.base._geometry cimport real

# The terms of the sum cancel as the loss falls; before that costs more than three of sixteen
# digits, it is computed from the pixels again.
cdef double LARGEST_FALL = 1024


cdef int init_quadratic(
    Quadratic *quadratic, const double *products, Py_ssize_t num_units, Py_ssize_t num_kernels,
    Py_ssize_t taps
) noexcept nogil:
    cdef Py_ssize_t size = num_kernels * taps
    cdef Py_ssize_t i
    cdef double *block = <double *> malloc(
        (num_units * (1 + 2 * size) + size) * sizeof(double)
    )
    quadratic.num_kernels = num_kernels
    quadratic.taps = taps
    quadratic.products = products
    quadratic.squares = block
    if block == NULL:
        return -1
    quadratic.kernels = block + num_units
    quadratic.half_gradient = quadratic.kernels + num_units * size
    quadratic.step = quadratic.half_gradient + num_units * size
    for i in range(num_units):
        block[i] = NAN
    return 0


cdef void free_quadratic(Quadratic *quadratic) noexcept nogil:
    free(quadratic.squares)


cdef double expand(
    const Quadratic *quadratic, Py_ssize_t unit, const real *kernels, double *half_gradient
) noexcept nogil:
    cdef Py_ssize_t taps = quadratic.taps
    cdef Py_ssize_t size = quadratic.num_kernels * taps
    cdef const double *products = quadratic.products + unit * taps * taps
    cdef const double *first_kernels = quadratic.kernels + unit * size
    cdef const double *first_half = quadratic.half_gradient + unit * size
    cdef double squares = quadratic.squares[unit]
    cdef double *step = quadratic.step
    cdef double product
    cdef Py_ssize_t i, k, t, u
    if squares != squares:
        return NAN
    for k in range(size):
        step[k] = kernels[k] - first_kernels[k]
    # G is symmetric, so that sums along its rows will do; they stay in registers.
    for k in range(quadratic.num_kernels):
        for u in range(taps):
            product = 0
            for t in range(taps):
                product += products[u * taps + t] * step[k * taps + t]
            i = k * taps + u
            half_gradient[i] = first_half[i] + product
            squares += step[i] * (first_half[i] + half_gradient[i])
    return squares if LARGEST_FALL * squares >= quadratic.squares[unit] else NAN


cdef void expand_from(
    Quadratic *quadratic, Py_ssize_t unit, const real *kernels, const double *half_gradient,
    double squares
) noexcept nogil:
    cdef Py_ssize_t size = quadratic.num_kernels * quadratic.taps
    cdef Py_ssize_t i
    quadratic.squares[unit] = squares
    memcpy(
        quadratic.half_gradient + unit * size, half_gradient, size * sizeof(double)
    )
    for i in range(size):
        quadratic.kernels[unit * size + i] = kernels[i]
