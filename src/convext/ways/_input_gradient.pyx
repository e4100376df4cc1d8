"""The gradient with respect to the input.

An input pixel collects from every output pixel whose window covers it. Along one axis, pixel
q * stride + p of the padded input meets tap i (at i * dilation) only where p - i * dilation is a
whole number of strides, and then with output q + (p - i * dilation) / stride. So for each phase p
the gradient is a correlation of the output gradient, stride 1, with the taps of that phase, and
its results lie `stride` pixels apart.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memset

from convext.ways._correlation cimport (
    free_correlation, init_correlation, measure_correlation, pack_and_run
)
from convext.ways._correlation_plan cimport Correlation
from convext.base._geometry cimport Array4, Convolution, Geometry
from convext.base._interrupt cimport Interrupt, check_memory, stopped
from convext.ways._tile cimport Axis, init_axis_at
from convext.ways._ways cimport Needs

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
    Correlation *correlation, const Convolution *convolution, const Phase *rows,
    const Phase *columns
) noexcept nogil:
    cdef Axis row_axis, column_axis
    if init_axis_at(&row_axis, rows.num_taps, 1, rows.position) == -1:
        return -1
    if init_axis_at(&column_axis, columns.num_taps, 1, columns.position) == -1:
        free(row_axis.distance)
        return -1
    if init_correlation(
        correlation, &convolution.outputs, convolution.outputs.n, row_axis, column_axis,
        convolution.geometry.groups, convolution.images.c, rows.count, columns.count,
        convolution.num_threads, convolution.itemsize
    ) == -1:
        return -1
    correlation.weights.kernels = convolution.kernels
    correlation.weights.swapped = True
    correlation.weights.rows = rows.tap
    correlation.weights.columns = columns.tap
    return 0


cdef int run_phase(
    const Convolution *convolution, const Phase *rows, const Phase *columns, Interrupt *interrupt
) noexcept nogil:
    cdef const Array4 *output_grad = &convolution.outputs
    cdef Array4 out = convolution.images
    cdef Correlation correlation
    cdef int status
    out.data = <char *> out.data + <Py_ssize_t> convolution.itemsize * (
        rows.first * out.h_stride + columns.first * out.w_stride
    )
    out.h_stride *= convolution.geometry.stride_h
    out.w_stride *= convolution.geometry.stride_w
    if init_phase_correlation(&correlation, convolution, rows, columns) == -1:
        return -1
    status = pack_and_run(
        &correlation, output_grad.data, output_grad.n, NULL, &out, interrupt
    )
    free_correlation(&correlation)
    return status


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


cdef void clear(const Array4 *array, size_t itemsize) noexcept nogil:
    """Write zeros to all of an array."""
    cdef Py_ssize_t i, y, x
    cdef char *row
    for i in range(array.n * array.c):
        for y in range(array.h):
            row = <char *> array.data + <Py_ssize_t> itemsize * (
                i // array.c * array.n_stride + i % array.c * array.c_stride + y * array.h_stride
            )
            if array.w_stride == 1:
                memset(row, 0, array.w * itemsize)
                continue
            for x in range(array.w):
                memset(row + x * array.w_stride * <Py_ssize_t> itemsize, 0, itemsize)


cdef int run_row_phase(
    const Convolution *convolution, const Phase *rows, Interrupt *interrupt
) noexcept nogil:
    """Compute the input rows of one phase, column phase by column phase."""
    cdef const Geometry *geometry = &convolution.geometry
    cdef Phase columns
    cdef Py_ssize_t p
    cdef int status = 0
    for p in range(min(geometry.stride_w, convolution.images.w)):
        if status == -1 or stopped(interrupt):
            break
        status = init_phase(
            &columns, p, convolution.images.w, convolution.kernels.w, geometry.stride_w,
            geometry.padding_left, geometry.dilation_w
        )
        if status == 0 and columns.num_taps > 0:
            status = run_phase(convolution, rows, &columns, interrupt)
        free(columns.tap)
    return status


cdef int gather_directly(const void *described, Interrupt *interrupt) noexcept nogil:
    """Compute the gradient, phase by phase. Pixels that no window covers are zero."""
    cdef const Convolution *convolution = <const Convolution *> described
    cdef const Array4 *input_grad = &convolution.images
    cdef const Array4 *kernels = &convolution.kernels
    cdef const Geometry *geometry = &convolution.geometry
    cdef Phase rows
    cdef Py_ssize_t p
    cdef int status = 0
    if has_gaps(
        input_grad.h, kernels.h, geometry.stride_h, geometry.padding_top, geometry.dilation_h
    ) or has_gaps(
        input_grad.w, kernels.w, geometry.stride_w, geometry.padding_left, geometry.dilation_w
    ):
        clear(input_grad, convolution.itemsize)
    for p in range(min(geometry.stride_h, input_grad.h)):
        if status == -1 or stopped(interrupt):
            break
        status = init_phase(
            &rows, p, input_grad.h, kernels.h, geometry.stride_h, geometry.padding_top,
            geometry.dilation_h
        )
        if status == 0 and rows.num_taps > 0:
            status = run_row_phase(convolution, &rows, interrupt)
        free(rows.tap)
    return status


cdef int init_largest_phase(
    Phase *phase, Py_ssize_t input_size, Py_ssize_t kernel_size, Py_ssize_t stride,
    Py_ssize_t padding, Py_ssize_t dilation
) noexcept nogil:
    """Describe the phase of an axis that has the most taps."""
    cdef Py_ssize_t p, best = 0, most = 0
    for p in range(min(stride, input_size)):
        if init_phase(phase, p, input_size, kernel_size, stride, padding, dilation) == -1:
            return -1
        if phase.num_taps > most:
            best, most = p, phase.num_taps
        free(phase.tap)
    return init_phase(phase, best, input_size, kernel_size, stride, padding, dilation)


cdef int measure_gathering(const Convolution *convolution, Needs *needs) except -1:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *kernels = &convolution.kernels
    cdef Correlation correlation
    cdef Phase rows, columns
    cdef int status = 0
    needs[0] = Needs(1, 0, 0)
    columns.tap = NULL
    if init_largest_phase(
        &rows, convolution.images.h, kernels.h, geometry.stride_h, geometry.padding_top,
        geometry.dilation_h
    ) == -1 or init_largest_phase(
        &columns, convolution.images.w, kernels.w, geometry.stride_w, geometry.padding_left,
        geometry.dilation_w
    ) == -1:
        status = -1
    elif rows.num_taps > 0 and columns.num_taps > 0:
        status = init_phase_correlation(&correlation, convolution, &rows, &columns)
        if status == 0:
            measure_correlation(&correlation, convolution.outputs.n, needs)
            free_correlation(&correlation)
    free(rows.tap)
    free(columns.tap)
    return check_memory(status, "an input gradient")
