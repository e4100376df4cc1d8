"""The forward convolution: a correlation with the kernels' own taps."""

cimport numpy as cnp
from libc.stdlib cimport free, malloc

from convext.ways._bands cimport Bands, compute_bands, free_bands, no_bands
from convext.ways._correlation cimport (
    Correlation, all_weights, free_correlation, init_correlation, pack_and_run, pack_weights
)
from convext.ways._depthwise cimport Depthwise, convolve_depthwise, plan_depthwise
from convext.ways._fft cimport (
    Fourier, convolve_by_fft, keep_fft_kernels, plan_fft_forward
)
from convext.base._geometry cimport (
    AUTO, DIRECT, FFT, FORWARD, WINOGRAD, Array4, Convolution, Geometry, check_number, contiguous,
    describe, geometry_of
)
from convext.base._interrupt cimport Interrupt, perform
from convext.base._scratch cimport aligned_array
from convext.ways._shifted_sums cimport ShiftedSums, convolve_by_shifts, plan_forward_by_shifts
from convext.ways._separable cimport (
    Separable, convolve_separably, factors_of, plan_separable
)
from convext.ways._tile cimport Axis, init_axis
from convext.ways._winograd cimport (
    Winograd, convolve_by_winograd, kept_kernels, plan_forward
)


cdef int init_forward(
    Correlation *correlation, const Array4 *images, const Array4 *kernels, Py_ssize_t num_samples,
    const Geometry *geometry, Py_ssize_t out_h, Py_ssize_t out_w, int num_threads, size_t itemsize
) noexcept nogil:
    cdef Axis rows, columns
    cdef Py_ssize_t size = max(kernels.h, kernels.w)
    cdef Py_ssize_t *every
    cdef Py_ssize_t t
    if init_axis(
        &rows, kernels.h, geometry.stride_h, geometry.padding_top, geometry.dilation_h
    ) == -1:
        return -1
    if init_axis(
        &columns, kernels.w, geometry.stride_w, geometry.padding_left, geometry.dilation_w
    ) == -1:
        free(rows.distance)
        return -1
    if init_correlation(
        correlation, images, num_samples, rows, columns, geometry.groups, kernels.n,
        out_h, out_w, num_threads, itemsize
    ) == -1:
        return -1
    every = <Py_ssize_t *> malloc(size * sizeof(Py_ssize_t))
    if every == NULL:
        free_correlation(correlation)
        return -1
    for t in range(size):
        every[t] = t
    correlation.weights.kernels = kernels[0]
    correlation.weights.swapped = False
    correlation.weights.rows = every
    correlation.weights.columns = every
    return 0


cdef void free_forward(Correlation *correlation) noexcept nogil:
    free(<void *> correlation.weights.rows)
    free_correlation(correlation)


cdef cnp.ndarray kept_weights(Correlation *correlation, dict kept):
    """Let the correlation read the packed kernels in `kept`, where they are packed if need be."""
    cdef tuple key = ("direct", correlation.itemsize, correlation.width)
    cdef cnp.ndarray memory = kept.get(key)
    if memory is None:
        memory = aligned_array(all_weights(correlation) * correlation.itemsize)
        correlation.packed = cnp.PyArray_DATA(memory)
        perform("prepared kernels", pack_weights, correlation)
        # Another thread may have packed them meanwhile.
        memory = kept.setdefault(key, memory)
    correlation.packed = cnp.PyArray_DATA(memory)
    return memory


# A correlation that was prepared for a convolution.
cdef struct Prepared:
    Correlation *correlation
    const Convolution *convolution


cdef int convolve(const void *work, Interrupt *interrupt) noexcept nogil:
    cdef const Prepared *prepared = <const Prepared *> work
    cdef const Convolution *convolution = prepared.convolution
    return pack_and_run(
        prepared.correlation, convolution.images.data, convolution.images.n, convolution.bias,
        &convolution.outputs, interrupt
    )


cdef int init_whole(Correlation *correlation, const Convolution *convolution) noexcept nogil:
    """Prepare for all samples at a time."""
    return init_forward(
        correlation, &convolution.images, &convolution.kernels, convolution.images.n,
        &convolution.geometry, convolution.outputs.h, convolution.outputs.w,
        convolution.num_threads, convolution.itemsize
    )


cdef int convolve_directly(const void *described, Interrupt *interrupt) noexcept nogil:
    """Compute a Convolution, its kernels used once."""
    cdef Correlation correlation
    cdef Prepared prepared = Prepared(&correlation, <const Convolution *> described)
    cdef int status
    if init_whole(&correlation, prepared.convolution) == -1:
        return -1
    status = convolve(&prepared, interrupt)
    free_forward(&correlation)
    return status


cdef int convolve_with_kept(const Convolution *convolution, dict kept) except -1:
    """The same with packed kernels from `kept`, or left there."""
    cdef Correlation correlation
    cdef Prepared prepared = Prepared(&correlation, convolution)
    cdef cnp.ndarray _packed        # must live as long as it is read
    if init_whole(&correlation, convolution) == -1:
        raise MemoryError("not enough memory for a convolution")
    try:
        _packed = kept_weights(&correlation, kept)
        perform("a convolution", convolve, &prepared)
    finally:
        free_forward(&correlation)
    return 0


ALGORITHMS = {"auto": AUTO, "direct": DIRECT, "winograd": WINOGRAD, "fft": FFT}


def conv2d(
    cnp.ndarray input_data, cnp.ndarray kernels, cnp.ndarray bias, cnp.ndarray out,
    tuple stride, tuple padding_before, tuple dilation, Py_ssize_t groups, int num_threads,
    dict kept=None, int algorithm=AUTO
):
    """Write the convolution of `input_data` with `kernels`, plus `bias` (or None), to `out`.

    All arrays are three- or four-dimensional (bias is flat), of one type, aligned; the sizes fit,
    and the algorithm applies. Packed kernels are looked up in `kept`, and left there for the next
    call.
    """
    cdef void *offsets = NULL if bias is None else cnp.PyArray_DATA(bias)
    cdef size_t itemsize = cnp.PyArray_ITEMSIZE(out)
    cdef Convolution convolution
    cdef Array4 *images = &convolution.images
    cdef Array4 *weights = &convolution.kernels
    cdef Array4 *result = &convolution.outputs
    cdef Geometry *geometry = &convolution.geometry
    cdef Winograd plan
    cdef Bands bands = no_bands()
    cdef ShiftedSums by_shifts
    cdef Separable separable
    cdef Depthwise depthwise
    cdef Fourier fourier
    cdef object factors
    check_number("algorithm", algorithm, FFT)
    convolution.operation = FORWARD
    convolution.images = describe(input_data)
    convolution.kernels = describe(kernels)
    convolution.outputs = describe(out)
    convolution.bias = offsets
    convolution.geometry = geometry_of(stride, padding_before, dilation, groups)
    convolution.itemsize = itemsize
    convolution.num_threads = num_threads
    if images.n == 0:
        return
    if plan_forward(
        &plan, images, weights, geometry, result.h, result.w, algorithm, num_threads, itemsize
    ):
        try:
            convolve_by_winograd(
                &plan, weights, offsets, result, kept, &bands if algorithm == AUTO else NULL
            )
            compute_bands("a convolution", &bands, &convolution, convolve_directly)
        finally:
            free_bands(&bands)
        return
    if plan_separable(
        &separable, images, weights, geometry, result.h, result.w, algorithm, num_threads,
        itemsize
    ):
        factors = factors_of(&separable, weights, kept)
        if factors is not None:
            convolve_separably(&separable, factors, offsets, result)
            return
    if algorithm != FFT and plan_depthwise(
        &depthwise, images, weights, geometry, result, num_threads, itemsize
    ):
        convolve_depthwise(&depthwise, weights, offsets, result)
        return
    if plan_fft_forward(
        &fourier, images, weights, geometry, result.h, result.w, algorithm, num_threads,
        itemsize
    ):
        try:
            convolve_by_fft(
                &fourier, weights, offsets, result, kept, &bands if algorithm == AUTO else NULL
            )
            compute_bands("a convolution", &bands, &convolution, convolve_directly)
        finally:
            free_bands(&bands)
        return
    if plan_forward_by_shifts(
        &by_shifts, images, weights, geometry, result, num_threads, itemsize
    ):
        convolve_by_shifts(&by_shifts, offsets, result)
        return
    if kept is not None:
        convolve_with_kept(&convolution, kept)
        return
    perform("a convolution", convolve_directly, &convolution)


def keep_kernels(
    cnp.ndarray kernels, tuple input_shape, tuple output_shape,
    tuple stride, tuple padding_before, tuple dilation, Py_ssize_t groups, dict kept,
    int algorithm=AUTO
):
    """Leave in `kept` what `conv2d` wants for an input and an output of such shapes."""
    cdef Array4 images = contiguous(input_shape)
    cdef Array4 weights = describe(kernels)
    cdef Array4 result = contiguous(output_shape)
    cdef Geometry geometry = geometry_of(stride, padding_before, dilation, groups)
    cdef size_t itemsize = cnp.PyArray_ITEMSIZE(kernels)
    cdef Winograd plan
    cdef Separable separable
    cdef Depthwise depthwise
    cdef Fourier fourier
    cdef Correlation correlation
    check_number("algorithm", algorithm, FFT)
    if images.n == 0:
        return
    if plan_forward(
        &plan, &images, &weights, &geometry, result.h, result.w, algorithm, 1, itemsize
    ):
        kept_kernels(&plan, &weights, kept)
        return
    if plan_separable(
        &separable, &images, &weights, &geometry, result.h, result.w, algorithm, 1, itemsize
    ) and factors_of(&separable, &weights, kept) is not None:
        return
    if algorithm != FFT and plan_depthwise(
        &depthwise, &images, &weights, &geometry, &result, 1, itemsize
    ):
        return
    if plan_fft_forward(
        &fourier, &images, &weights, &geometry, result.h, result.w, algorithm, 1, itemsize
    ):
        keep_fft_kernels(&fourier, &weights, kept)
        return
    if init_forward(
        &correlation, &images, &weights, images.n, &geometry, result.h, result.w, 1, itemsize
    ) == -1:
        raise MemoryError("not enough memory for prepared kernels")
    try:
        kept_weights(&correlation, kept)
    finally:
        free_forward(&correlation)
