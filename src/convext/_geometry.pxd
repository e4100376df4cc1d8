# How the compiled modules describe arrays and convolutions to each other.

cimport numpy as cnp

ctypedef fused real:
    float
    double

# A four-dimensional array in any layout: images (N, C, H, W) or kernels (K, C, kh, kw).
# Strides are in elements.
cdef struct Array4:
    void *data
    Py_ssize_t n, c, h, w
    Py_ssize_t n_stride, c_stride, h_stride, w_stride

# The options of a convolution. The padding at the bottom and on the right follows from the size
# of the output.
cdef struct Geometry:
    Py_ssize_t stride_h, stride_w
    Py_ssize_t padding_top, padding_left
    Py_ssize_t dilation_h, dilation_w
    Py_ssize_t groups


# Where `array` lies; it must outlive the description.
cdef inline Array4 describe(cnp.ndarray array) noexcept:
    cdef Py_ssize_t itemsize = cnp.PyArray_ITEMSIZE(array)
    cdef Array4 description
    description.data = cnp.PyArray_DATA(array)
    description.n = cnp.PyArray_DIM(array, 0)
    description.c = cnp.PyArray_DIM(array, 1)
    description.h = cnp.PyArray_DIM(array, 2)
    description.w = cnp.PyArray_DIM(array, 3)
    description.n_stride = cnp.PyArray_STRIDE(array, 0) // itemsize
    description.c_stride = cnp.PyArray_STRIDE(array, 1) // itemsize
    description.h_stride = cnp.PyArray_STRIDE(array, 2) // itemsize
    description.w_stride = cnp.PyArray_STRIDE(array, 3) // itemsize
    return description


cdef inline Geometry geometry_of(
    tuple stride, tuple padding_before, tuple dilation, Py_ssize_t groups
):
    cdef Geometry geometry
    geometry.stride_h, geometry.stride_w = stride
    geometry.padding_top, geometry.padding_left = padding_before
    geometry.dilation_h, geometry.dilation_w = dilation
    geometry.groups = groups
    return geometry
