# NumPy's arrays as the compiled modules describe them. Only what is called from Python knows NumPy:
# each module that does, if only by what it imports, asks for all of NumPy's types.

cimport numpy as cnp

from convext.base._geometry cimport Array4


# Where `array` lies; it must outlive the description. Three dimensions are those of one sample.
cdef inline Array4 describe(cnp.ndarray array) noexcept:
    # Elements have four or eight bytes; dividing by a variable would take longer than the rest.
    cdef int shift = 2 if cnp.PyArray_ITEMSIZE(array) == 4 else 3
    cdef int channel = cnp.PyArray_NDIM(array) - 3
    cdef const cnp.npy_intp *shape = cnp.PyArray_DIMS(array)
    cdef const cnp.npy_intp *stride = cnp.PyArray_STRIDES(array)
    cdef Array4 description
    description.data = cnp.PyArray_DATA(array)
    description.n = shape[0] if channel == 1 else 1
    description.c = shape[channel]
    description.h = shape[channel + 1]
    description.w = shape[channel + 2]
    description.n_stride = stride[0] >> shift if channel == 1 else 0
    description.c_stride = stride[channel] >> shift
    description.h_stride = stride[channel + 1] >> shift
    # The stride of a single column is arbitrary, and no way of computing may depend on it.
    description.w_stride = stride[channel + 2] >> shift if description.w > 1 else 1
    return description
