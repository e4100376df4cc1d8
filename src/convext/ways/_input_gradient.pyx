"""The gradient with respect to the input.

An input pixel collects from every output pixel whose window covers it. Along one axis, pixel
q * stride + p of the padded input meets tap i (at i * dilation) only where p - i * dilation is a
whole number of strides, and then with output q + (p - i * dilation) / stride. So for each phase p
the gradient is a correlation of the output gradient, stride 1, with the taps of that phase, and
its results lie `stride` pixels apart.
"""

cimport numpy as cnp
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from convext.ways._bands cimport (
    Bands, Region, free_bands, next_region, no_bands, rows_of, samples_of
)
from convext.ways._correlation cimport (
    Correlation, all_weights, free_correlation, init_correlation, pack_weights, run_correlation,
    worth_packing
)
from convext.ways._depthwise cimport (
    Depthwise, convolve_depthwise, plan_depthwise_input_gradient
)
from convext.ways._fft cimport Fourier, convolve_by_fft, plan_fft_input_gradient
from convext.base._geometry cimport (
    AUTO, FFT, Array4, Geometry, check_number, describe, geometry_of, real
)
from convext.base._interrupt cimport Interrupt, finish_polling, interrupted, start_polling
from convext.base._scratch cimport aligned_alloc, aligned_free
from convext.ways._separable cimport (
    Separable, convolve_separably, factors_of, plan_separable_input_gradient
)
from convext.ways._shifted_sums cimport (
    ShiftedSums, convolve_by_shifts, plan_input_gradient_by_shifts
)
from convext.ways._tile cimport Axis, init_axis_at
from convext.ways._winograd cimport (
    Winograd, convolve_by_winograd, plan_input_gradient
)

NO_MEMORY = "not enough memory for the gradient's scratch space"

# One phase of one axis: the input pixels first, first + stride, ..., `count` of them.
cdef struct Phase:
    Py_ssize_t first, count, num_taps
    Py_ssize_t *tap         # [num_taps] which taps of the kernel
    Py_ssize_t *position    # [num_taps] where, for the first pixel, in the output gradient


cdef int init_phase(
    Phase *phase, Py_ssize_t first, Py_ssize_t input_size, Py_ssize_t kernel_size,
    Py_ssize_t stride, Py_ssize_t padding, Py_ssize_t dilation
) noexcept nogil:
    cdef Py_ssize_t i, padded
    phase.first = first
    phase.count = (input_size - first + stride - 1) // stride
    phase.num_taps = 0
    phase.tap = <Py_ssize_t *> malloc(2 * kernel_size * sizeof(Py_ssize_t))
    if phase.tap == NULL:
        return -1
    phase.position = phase.tap + kernel_size
    for i in range(kernel_size):
        padded = first + padding - i * dilation
        if padded % stride == 0:
            phase.tap[phase.num_taps] = i
            phase.position[phase.num_taps] = padded // stride
            phase.num_taps += 1
    return 0


cdef int init_phase_correlation(
    Correlation *correlation, const Array4 *output_grad, const Array4 *kernels,
    const Phase *rows, const Phase *columns, Py_ssize_t groups, int num_threads, size_t itemsize
) noexcept nogil:
    cdef Axis row_axis, column_axis
    if init_axis_at(&row_axis, rows.num_taps, 1, rows.position) == -1:
        return -1
    if init_axis_at(&column_axis, columns.num_taps, 1, columns.position) == -1:
        free(row_axis.distance)
        return -1
    return init_correlation(
        correlation, output_grad, output_grad.n, row_axis, column_axis, groups,
        kernels.c * groups, rows.count, columns.count, num_threads, itemsize
    )


cdef int run_phase(
    const Array4 *output_grad, const Array4 *kernels, const Array4 *input_grad,
    real *first_pixel, const Phase *rows, const Phase *columns, const Geometry *geometry,
    int num_threads, Interrupt *interrupt
) noexcept nogil:
    cdef Correlation correlation
    cdef real *packed = NULL
    cdef Array4 out = input_grad[0]
    out.data = first_pixel
    out.h_stride *= geometry.stride_h
    out.w_stride *= geometry.stride_w
    if init_phase_correlation(
        &correlation, output_grad, kernels, rows, columns, geometry.groups, num_threads,
        sizeof(real)
    ) == -1:
        return -1
    correlation.weights.kernels = kernels[0]
    correlation.weights.swapped = True
    correlation.weights.rows = rows.tap
    correlation.weights.columns = columns.tap
    if worth_packing(&correlation, output_grad.n):
        packed = <real *> aligned_alloc(all_weights(&correlation), sizeof(real))
        if packed == NULL:
            free_correlation(&correlation)
            return -1
        pack_weights(&correlation, packed)
        correlation.packed = packed
    run_correlation(
        &correlation, <const real *> output_grad.data, NULL, output_grad.n, <const real *> NULL,
        &out, interrupt
    )
    aligned_free(packed)
    free_correlation(&correlation)
    return 0


cdef bint has_gaps(
    Py_ssize_t input_size, Py_ssize_t kernel_size, Py_ssize_t stride, Py_ssize_t padding,
    Py_ssize_t dilation
) noexcept nogil:
    """Whether some pixels along an axis meet no tap, wherever the window is."""
    cdef Py_ssize_t p, i, taps
    for p in range(min(stride, input_size)):
        taps = 0
        for i in range(kernel_size):
            taps += (p + padding - i * dilation) % stride == 0
        if taps == 0:
            return True
    return False


cdef void clear(const Array4 *array, real *data) noexcept nogil:
    """Write zeros to all of an array."""
    cdef Py_ssize_t i, y, x
    cdef real *row
    for i in range(array.n * array.c):
        for y in range(array.h):
            row = data + (
                i // array.c * array.n_stride + i % array.c * array.c_stride + y * array.h_stride
            )
            if array.w_stride == 1:
                memset(row, 0, array.w * sizeof(real))
                continue
            for x in range(array.w):
                row[x * array.w_stride] = 0


cdef int run_row_phase(
    const Array4 *output_grad, const Array4 *kernels, const Array4 *input_grad,
    real *first_pixel, const Phase *rows, const Geometry *geometry, int num_threads,
    Interrupt *interrupt
) noexcept nogil:
    """Compute the input rows of one phase, column phase by column phase."""
    cdef Phase columns
    cdef Py_ssize_t p
    cdef int status = 0
    for p in range(min(geometry.stride_w, input_grad.w)):
        if status == -1 or interrupted(interrupt, True):
            break
        status = init_phase(
            &columns, p, input_grad.w, kernels.w, geometry.stride_w, geometry.padding_left,
            geometry.dilation_w
        )
        if status == 0 and columns.num_taps > 0:
            status = run_phase(
                output_grad, kernels, input_grad, first_pixel + p * input_grad.w_stride,
                rows, &columns, geometry, num_threads, interrupt
            )
        free(columns.tap)
    return status


cdef int gather(
    const Array4 *output_grad, const Array4 *kernels, const Array4 *input_grad,
    real *first_pixel, const Geometry *geometry, int num_threads, Interrupt *interrupt
) noexcept nogil:
    """Compute the gradient, phase by phase. Pixels that no window covers are zero."""
    cdef Phase rows
    cdef Py_ssize_t p
    cdef int status = 0
    if has_gaps(
        input_grad.h, kernels.h, geometry.stride_h, geometry.padding_top, geometry.dilation_h
    ) or has_gaps(
        input_grad.w, kernels.w, geometry.stride_w, geometry.padding_left, geometry.dilation_w
    ):
        clear(input_grad, first_pixel)
    for p in range(min(geometry.stride_h, input_grad.h)):
        if status == -1 or interrupted(interrupt, True):
            break
        status = init_phase(
            &rows, p, input_grad.h, kernels.h, geometry.stride_h, geometry.padding_top,
            geometry.dilation_h
        )
        if status == 0 and rows.num_taps > 0:
            status = run_row_phase(
                output_grad, kernels, input_grad, first_pixel + p * input_grad.h_stride,
                &rows, geometry, num_threads, interrupt
            )
        free(rows.tap)
    return status


cdef int gather_rows(
    const Array4 *output_grad, const Array4 *kernels, const Array4 *input_grad,
    const Geometry *geometry, const Region *region, int num_threads, size_t itemsize,
    Interrupt *interrupt
) noexcept nogil:
    """Compute some rows of the gradient directly."""
    cdef Array4 source = samples_of(output_grad, region, itemsize)
    cdef Array4 rows = rows_of(input_grad, region, itemsize)
    cdef Geometry options = geometry[0]
    options.padding_top += region.top
    if itemsize == sizeof(float):
        return gather[float](
            &source, kernels, &rows, <float *> rows.data, &options, num_threads, interrupt
        )
    return gather[double](
        &source, kernels, &rows, <double *> rows.data, &options, num_threads, interrupt
    )


cdef int gather_bands(
    const Array4 *output_grad, const Array4 *kernels, const Array4 *input_grad,
    const Geometry *geometry, const Bands *bands, int num_threads, size_t itemsize
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
            status = gather_rows(
                output_grad, kernels, input_grad, geometry, &region, num_threads, itemsize,
                &interrupt
            )
    finish_polling(&interrupt)
    if status == -1:
        raise MemoryError(NO_MEMORY)
    return 0


def conv2d_input_grad(
    cnp.ndarray output_grad, cnp.ndarray kernels, cnp.ndarray input_grad,
    tuple stride, tuple padding_before, tuple dilation, Py_ssize_t groups, int num_threads,
    int algorithm=AUTO
):
    """Write the gradient with respect to the input to `input_grad`.

    All arrays are four-dimensional, of one type, aligned; the sizes fit, and the algorithm applies.
    """
    cdef Array4 gradients = describe(output_grad)
    cdef Array4 weights = describe(kernels)
    cdef Array4 result = describe(input_grad)
    cdef Geometry geometry = geometry_of(stride, padding_before, dilation, groups)
    cdef size_t itemsize = cnp.PyArray_ITEMSIZE(input_grad)
    cdef bint single = itemsize == sizeof(float)
    cdef Winograd plan
    cdef Bands bands = no_bands()
    cdef ShiftedSums by_shifts
    cdef Separable separable
    cdef Depthwise depthwise
    cdef Array4 turned
    cdef object factors
    cdef Fourier fourier
    cdef Interrupt interrupt
    cdef int status
    check_number("algorithm", algorithm, FFT)
    if gradients.n == 0:
        return
    if plan_input_gradient(
        &plan, &gradients, &weights, &geometry, result.h, result.w, algorithm, num_threads,
        itemsize
    ):
        try:
            convolve_by_winograd(
                &plan, &weights, NULL, &result, None, &bands if algorithm == AUTO else NULL
            )
            gather_bands(
                &gradients, &weights, &result, &geometry, &bands, num_threads, itemsize
            )
        finally:
            free_bands(&bands)
        return
    if plan_separable_input_gradient(
        &separable, &gradients, &weights, &geometry, result.h, result.w, algorithm, num_threads,
        itemsize, &turned
    ):
        factors = factors_of(&separable, &turned, None)
        if factors is not None:
            convolve_separably(&separable, factors, NULL, &result)
            return
    if algorithm != FFT and plan_depthwise_input_gradient(
        &depthwise, &gradients, &weights, &geometry, &result, num_threads, itemsize
    ):
        convolve_depthwise(&depthwise, &weights, NULL, &result)
        return
    if plan_fft_input_gradient(
        &fourier, &gradients, &weights, &geometry, result.h, result.w, algorithm, num_threads,
        itemsize
    ):
        try:
            convolve_by_fft(
                &fourier, &weights, NULL, &result, None, &bands if algorithm == AUTO else NULL
            )
            gather_bands(
                &gradients, &weights, &result, &geometry, &bands, num_threads, itemsize
            )
        finally:
            free_bands(&bands)
        return
    if plan_input_gradient_by_shifts(
        &by_shifts, &gradients, &weights, &geometry, &result, num_threads, itemsize
    ):
        convolve_by_shifts(&by_shifts, NULL, &result)
        return
    with nogil:
        start_polling(&interrupt)
        if single:
            status = gather[float](
                &gradients, &weights, &result, <float *> result.data, &geometry, num_threads,
                &interrupt
            )
        else:
            status = gather[double](
                &gradients, &weights, &result, <double *> result.data, &geometry, num_threads,
                &interrupt
            )
    finish_polling(&interrupt)
    if status == -1:
        raise MemoryError(NO_MEMORY)
