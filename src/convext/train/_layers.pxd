# What happens to the values of a layer between the convolutions.

cimport numpy as cnp

from convext.base._geometry cimport real

cdef int check_activation(int activation) except -1

# out[n, k] = activation(out[n, k] + bias[k]) for all pixels; `bias` may be None.
cdef void activate_planes(
    real *out, const real *bias, Py_ssize_t num_samples, Py_ssize_t channels, Py_ssize_t plane,
    int activation, int num_threads
) noexcept nogil

# gradient *= slope of the activation at `activated`; bias_grad[k] = the sums, where not NULL.
cdef void differentiate_planes(
    real *gradient, const real *activated, real *bias_grad, Py_ssize_t num_samples,
    Py_ssize_t channels, Py_ssize_t plane, int activation, int num_threads
) noexcept nogil

# to[i] = source[order[i]] for every i < count, converted to the type of `to`: (n, C, H, W).
cdef int gather(cnp.ndarray source, const Py_ssize_t *order, Py_ssize_t count, cnp.ndarray to) \
    except -1
