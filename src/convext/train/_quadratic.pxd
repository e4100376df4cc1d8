# The loss of a unit, a sample or a batch, is a quadratic function of the kernels. With the
# residuals r0 at kernels w0, the sums G of the products of every two pixels of a patch, over all
# patches, and d = w - w0,
#
#   sum of squared residuals at w   =  |r0|² + d · (2 g0 + G d)
#   half of its gradient, g         =  g0 + G d
#
# where g0 is g at w0. So once G is known, and r0 was computed once, neither pixels nor targets need
# to be read again.

from convext.base._geometry cimport real

cdef struct Quadratic:
    Py_ssize_t num_kernels, taps    # taps of a kernel, all channels included
    const double *products          # G, [units][taps][taps]
    # Of each unit where it was computed last: |r0|² (NaN before the first time), w0, g0.
    double *squares                 # [units]
    double *kernels                 # [units][num_kernels][taps]
    double *half_gradient           # [units][num_kernels][taps]
    double *step                    # [num_kernels][taps], d: scratch memory

# `products` stay the caller's. -1 when memory runs out.
cdef int init_quadratic(
    Quadratic *quadratic, const double *products, Py_ssize_t num_units, Py_ssize_t num_kernels,
    Py_ssize_t taps
) noexcept nogil

cdef void free_quadratic(Quadratic *quadratic) noexcept nogil

# Write g of a unit at `kernels` to half_gradient[num_kernels * taps], and return the sum of
# squared residuals: NaN where it has to be computed from the pixels.
cdef double expand(
    const Quadratic *quadratic, Py_ssize_t unit, const real *kernels, double *half_gradient
) noexcept nogil

# Note what was computed from the pixels.
cdef void expand_from(
    Quadratic *quadratic, Py_ssize_t unit, const real *kernels, const double *half_gradient,
    double squares
) noexcept nogil
