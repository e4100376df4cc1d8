# What happens to the values of a layer between the convolutions.

cimport numpy as cnp

cdef int check_activation(int activation) except -1

# to[i] = source[order[i]] for every i < count, converted to the type of `to`: (n, C, H, W).
cdef int gather(cnp.ndarray source, const Py_ssize_t *order, Py_ssize_t count, cnp.ndarray to) \
    except -1
