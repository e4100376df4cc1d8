"""The forward convolution: a correlation with the kernels' own taps."""

cimport numpy as cnp
from libc.stdlib cimport free, malloc

from convext._correlation cimport (
    Correlation, free_correlation, init_correlation, pack_weights, run_correlation
)
from convext._geometry cimport Array4, Geometry, describe, geometry_of, real
from convext._interrupt cimport Interrupt, finish_polling, start_polling
from convext._tile cimport Axis, init_axis


cdef int init_forward(
    Correlation *correlation, const Array4 *images, const Array4 *kernels, Py_ssize_t num_samples,
    const Geometry *geometry, Py_ssize_t out_h, Py_ssize_t out_w, int num_threads, size_t itemsize
) noexcept nogil:
    cdef Axis rows, columns
    if init_axis(
        &rows, kernels.h, geometry.stride_h, geometry.padding_top, geometry.dilation_h
    ) == -1:
        return -1
    if init_axis(
        &columns, kernels.w, geometry.stride_w, geometry.padding_left, geometry.dilation_w
    ) == -1:
        free(rows.distance)
        return -1
    return init_correlation(
        correlation, images, num_samples, rows, columns, geometry.groups, kernels.n,
        out_h, out_w, num_threads, itemsize
    )


cdef int set_kernels(
    Correlation *correlation, const Array4 *kernels, real *weights
) noexcept nogil:
    cdef Py_ssize_t size = max(kernels.h, kernels.w)
    cdef Py_ssize_t *every = <Py_ssize_t *> malloc(size * sizeof(Py_ssize_t))
    cdef Py_ssize_t t
    if every == NULL:
        return -1
    for t in range(size):
        every[t] = t
    pack_weights(correlation, kernels, False, every, every, weights)
    free(every)
    return 0


cdef int convolve(
    const Array4 *images, const Array4 *kernels, const real *bias, const Array4 *out,
    const Geometry *geometry, int num_threads, Interrupt *interrupt
) noexcept nogil:
    cdef Correlation correlation
    cdef int status
    if init_forward(
        &correlation, images, kernels, images.n, geometry, out.h, out.w, num_threads, sizeof(real)
    ) == -1:
        return -1
    status = set_kernels(&correlation, kernels, <real *> correlation.weights)
    if status == 0:
        run_correlation(
            &correlation, <const real *> images.data, NULL, images.n, bias, out, interrupt
        )
    free_correlation(&correlation)
    return status


def conv2d(
    cnp.ndarray input_data, cnp.ndarray kernels, cnp.ndarray bias, cnp.ndarray out,
    tuple stride, tuple padding_before, tuple dilation, Py_ssize_t groups, int num_threads
):
    """Write the convolution of `input_data` with `kernels`, plus `bias` (or None), to `out`.

    All arrays are four-dimensional (bias is flat), of one type, aligned; the sizes fit.
    """
    cdef Array4 images = describe(input_data)
    cdef Array4 weights = describe(kernels)
    cdef Array4 result = describe(out)
    cdef Geometry geometry = geometry_of(stride, padding_before, dilation, groups)
    cdef void *offsets = NULL if bias is None else cnp.PyArray_DATA(bias)
    cdef bint single = cnp.PyArray_ITEMSIZE(out) == sizeof(float)
    cdef Interrupt interrupt
    cdef int status
    with nogil:
        start_polling(&interrupt)
        if single:
            status = convolve[float](
                &images, &weights, <const float *> offsets, &result, &geometry, num_threads,
                &interrupt
            )
        else:
            status = convolve[double](
                &images, &weights, <const double *> offsets, &result, &geometry, num_threads,
                &interrupt
            )
    finish_polling(&interrupt)
    if status == -1:
        raise MemoryError("not enough memory for the convolution's scratch space")
