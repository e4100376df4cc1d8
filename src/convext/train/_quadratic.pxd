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

cdef class Quadratic:
    cdef Py_ssize_t num_kernels, taps   # taps of a kernel, all channels included
    cdef object products, memory        # which the pointers lead to
    cdef const double *sums             # G, [units][taps][taps]
    # Of each unit where it was computed last: |r0|² (NaN before the first time), w0, g0.
    cdef double *squares                # [units]
    cdef double *kernels                # [units][num_kernels][taps]
    cdef double *half_gradient          # [units][num_kernels][taps]
    cdef double *step                   # [num_kernels][taps], d: scratch memory

    # Write g of a unit at `kernels` to half_gradient[num_kernels * taps], and return the sum of
    # squared residuals: NaN where it has to be computed from the pixels.
    cdef double expand(
        self, Py_ssize_t unit, const real *kernels, double *half_gradient
    ) noexcept nogil

    # Note what was computed from the pixels.
    cdef void expand_from(
        self, Py_ssize_t unit, const real *kernels, const double *half_gradient, double squares
    ) noexcept nogil
