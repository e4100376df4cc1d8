"""The loss of a unit, a sample or a batch, as the quadratic function of the kernels that it is."""

from libc.math cimport NAN
from libc.string cimport memcpy

from convext.base._geometry cimport real
from convext.base._scratch cimport aligned_array, data_of

# The terms of the sum cancel as the loss falls; before that costs more than three of sixteen
# digits, it is computed from the pixels again.
cdef double LARGEST_FALL = 1024


cdef class Quadratic:
    """The losses of units for `num_kernels` kernels.

    `products` are float64, C-contiguous: (units, taps, taps).
    """

    def __cinit__(self, products, Py_ssize_t num_kernels):
        cdef Py_ssize_t num_units = len(products), i
        cdef Py_ssize_t size = num_kernels * <Py_ssize_t> products.shape[1]
        self.num_kernels, self.taps = num_kernels, products.shape[1]
        self.products = products
        self.memory = aligned_array((num_units * (1 + 2 * size) + size) * sizeof(double))
        self.sums = <const double *> data_of(products)
        self.squares = <double *> data_of(self.memory)
        self.kernels = self.squares + num_units
        self.half_gradient = self.kernels + num_units * size
        self.step = self.half_gradient + num_units * size
        for i in range(num_units):
            self.squares[i] = NAN

    cdef double expand(
        self, Py_ssize_t unit, const real *kernels, double *half_gradient
    ) noexcept nogil:
        cdef Py_ssize_t taps = self.taps
        cdef Py_ssize_t size = self.num_kernels * taps
        cdef const double *products = self.sums + unit * taps * taps
        cdef const double *first_kernels = self.kernels + unit * size
        cdef const double *first_half = self.half_gradient + unit * size
        cdef double squares = self.squares[unit]
        cdef double *step = self.step
        cdef double product
        cdef Py_ssize_t i, k, t, u
        if squares != squares:
            return NAN
        for k in range(size):
            step[k] = kernels[k] - first_kernels[k]
        # G is symmetric, so that sums along its rows will do; they stay in registers.
        for k in range(self.num_kernels):
            for u in range(taps):
                product = 0
                for t in range(taps):
                    product += products[u * taps + t] * step[k * taps + t]
                i = k * taps + u
                half_gradient[i] = first_half[i] + product
                squares += step[i] * (first_half[i] + half_gradient[i])
        return squares if LARGEST_FALL * squares >= self.squares[unit] else NAN

    cdef void expand_from(
        self, Py_ssize_t unit, const real *kernels, const double *half_gradient, double squares
    ) noexcept nogil:
        cdef Py_ssize_t size = self.num_kernels * self.taps
        cdef Py_ssize_t i
        self.squares[unit] = squares
        memcpy(self.half_gradient + unit * size, half_gradient, size * sizeof(double))
        for i in range(size):
            self.kernels[unit * size + i] = kernels[i]
