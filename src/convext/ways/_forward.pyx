"""The forward convolution: a correlation with the kernels' own taps."""

cimport numpy as cnp
from libc.stdlib cimport free, malloc

from convext.ways._bands cimport (
    Bands, Region, free_bands, next_region, no_bands, rows_of, samples_of
)
from convext.ways._correlation cimport (
    Correlation, all_weights, free_correlation, init_correlation, pack_weights, run_correlation,
    worth_packing
)
from convext.ways._depthwise cimport Depthwise, convolve_depthwise, plan_depthwise
from convext.ways._fft cimport (
    Fourier, convolve_by_fft, keep_fft_kernels, plan_fft_forward
)
from convext.base._geometry cimport (
    AUTO, DIRECT, FFT, WINOGRAD, Array4, Geometry, check_number, contiguous, describe, geometry_of,
    real
)
from convext.base._interrupt cimport Interrupt, finish_polling, interrupted, start_polling
from convext.base._scratch cimport aligned_alloc, aligned_array, aligned_free
from convext.ways._shifted_sums cimport ShiftedSums, convolve_by_shifts, plan_forward_by_shifts
from convext.ways._separable cimport (
    Separable, convolve_separably, factors_of, plan_separable
)
from convext.ways._tile cimport Axis, init_axis
from convext.ways._winograd cimport (
    Winograd, convolve_by_winograd, kept_kernels, plan_forward
)

NO_MEMORY = "not enough memory for the convolution's scratch space"


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


cdef cnp.ndarray kept_weights(const Correlation *correlation, dict kept):
    """The packed kernels in `kept`, which are packed where they are not there."""
    cdef size_t itemsize = correlation.itemsize
    cdef tuple key = ("direct", itemsize, correlation.width)
    cdef cnp.ndarray memory = kept.get(key)
    cdef void *packed
    if memory is not None:
        return memory
    memory = aligned_array(all_weights(correlation) * itemsize)
    packed = cnp.PyArray_DATA(memory)
    with nogil:
        if itemsize == sizeof(float):
            pack_weights(correlation, <float *> packed)
        else:
            pack_weights(correlation, <double *> packed)
    # Another thread may have packed them meanwhile.
    return kept.setdefault(key, memory)


cdef int convolve(
    Correlation *correlation, const Array4 *images, const real *bias, const Array4 *out,
    Interrupt *interrupt
) noexcept nogil:
    """Run a correlation that was prepared; pack the kernels where they are not and should be."""
    cdef real *packed = NULL
    if correlation.packed == NULL and worth_packing(correlation, images.n):
        packed = <real *> aligned_alloc(all_weights(correlation), sizeof(real))
        if packed == NULL:
            return -1
        pack_weights(correlation, packed)
        correlation.packed = packed
    run_correlation(correlation, <const real *> images.data, NULL, images.n, bias, out, interrupt)
    aligned_free(packed)
    return 0


ALGORITHMS = {"auto": AUTO, "direct": DIRECT, "winograd": WINOGRAD, "fft": FFT}


cdef int convolve_rows(
    const Array4 *images, const Array4 *kernels, const Geometry *geometry, const void *bias,
    const Array4 *out, const Region *region, int num_threads, size_t itemsize,
    Interrupt *interrupt
) noexcept nogil:
    """Compute some rows of the output directly."""
    cdef Array4 source = samples_of(images, region, itemsize)
    cdef Array4 rows = rows_of(out, region, itemsize)
    cdef Geometry options = geometry[0]
    cdef Correlation correlation
    cdef int status
    options.padding_top -= region.top * geometry.stride_h
    if init_forward(
        &correlation, &source, kernels, source.n, &options, rows.h, rows.w, num_threads, itemsize
    ) == -1:
        return -1
    if itemsize == sizeof(float):
        status = convolve[float](&correlation, &source, <const float *> bias, &rows, interrupt)
    else:
        status = convolve[double](&correlation, &source, <const double *> bias, &rows, interrupt)
    free_forward(&correlation)
    return status


cdef int convolve_bands(
    const Array4 *images, const Array4 *kernels, const Geometry *geometry, const void *bias,
    const Array4 *out, const Bands *bands, int num_threads, size_t itemsize
) except -1:
    """Compute the rows that a transform is not safe for."""
    cdef Region region
    cdef Interrupt interrupt
    cdef int status = 0
    if not bands.any:
        return 0
    region.next = 0
    with nogil:
        start_polling(&interrupt)
        while status == 0 and not interrupted(&interrupt, True) and next_region(bands, &region):
            status = convolve_rows(
                images, kernels, geometry, bias, out, &region, num_threads, itemsize, &interrupt
            )
    finish_polling(&interrupt)
    if status == -1:
        raise MemoryError(NO_MEMORY)
    return 0


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
    cdef Array4 images = describe(input_data)
    cdef Array4 weights = describe(kernels)
    cdef Array4 result = describe(out)
    cdef Geometry geometry = geometry_of(stride, padding_before, dilation, groups)
    cdef void *offsets = NULL if bias is None else cnp.PyArray_DATA(bias)
    cdef size_t itemsize = cnp.PyArray_ITEMSIZE(out)
    cdef Winograd plan
    cdef Bands bands = no_bands()
    cdef ShiftedSums by_shifts
    cdef Separable separable
    cdef Depthwise depthwise
    cdef Fourier fourier
    cdef object factors
    cdef Correlation correlation
    cdef cnp.ndarray packed         # must live as long as it is read
    cdef Interrupt interrupt
    cdef int status
    check_number("algorithm", algorithm, FFT)
    if images.n == 0:
        return
    if plan_forward(
        &plan, &images, &weights, &geometry, result.h, result.w, algorithm, num_threads, itemsize
    ):
        try:
            convolve_by_winograd(
                &plan, &weights, offsets, &result, kept, &bands if algorithm == AUTO else NULL
            )
            convolve_bands(
                &images, &weights, &geometry, offsets, &result, &bands, num_threads, itemsize
            )
        finally:
            free_bands(&bands)
        return
    if plan_separable(
        &separable, &images, &weights, &geometry, result.h, result.w, algorithm, num_threads,
        itemsize
    ):
        factors = factors_of(&separable, &weights, kept)
        if factors is not None:
            convolve_separably(&separable, factors, offsets, &result)
            return
    if algorithm != FFT and plan_depthwise(
        &depthwise, &images, &weights, &geometry, &result, num_threads, itemsize
    ):
        convolve_depthwise(&depthwise, &weights, offsets, &result)
        return
    if plan_fft_forward(
        &fourier, &images, &weights, &geometry, result.h, result.w, algorithm, num_threads,
        itemsize
    ):
        try:
            convolve_by_fft(
                &fourier, &weights, offsets, &result, kept, &bands if algorithm == AUTO else NULL
            )
            convolve_bands(
                &images, &weights, &geometry, offsets, &result, &bands, num_threads, itemsize
            )
        finally:
            free_bands(&bands)
        return
    if plan_forward_by_shifts(
        &by_shifts, &images, &weights, &geometry, &result, num_threads, itemsize
    ):
        convolve_by_shifts(&by_shifts, offsets, &result)
        return
    status = init_forward(
        &correlation, &images, &weights, images.n, &geometry, result.h, result.w, num_threads,
        itemsize
    )
    if status == -1:
        raise MemoryError(NO_MEMORY)
    if kept is not None:
        try:
            packed = kept_weights(&correlation, kept)
            correlation.packed = cnp.PyArray_DATA(packed)
        except BaseException:
            free_forward(&correlation)
            raise
    with nogil:
        start_polling(&interrupt)
        if itemsize == sizeof(float):
            status = convolve[float](
                &correlation, &images, <const float *> offsets, &result, &interrupt
            )
        else:
            status = convolve[double](
                &correlation, &images, <const double *> offsets, &result, &interrupt
            )
        free_forward(&correlation)
    finish_polling(&interrupt)
    if status == -1:
        raise MemoryError(NO_MEMORY)


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
        raise MemoryError(NO_MEMORY)
    try:
        kept_weights(&correlation, kept)
    finally:
        free_forward(&correlation)
