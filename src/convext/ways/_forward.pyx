"""The forward convolution, directly: a correlation with the kernels' own taps."""

from libc.stdlib cimport free, malloc

from convext.ways._correlation cimport (
    free_correlation, init_correlation, measure_correlation, pack_and_run
)
from convext.ways._correlation_plan cimport Correlation, all_weights
from convext.ways._weights cimport pack_weights
from convext.base._geometry cimport Array4, Convolution, Geometry
from convext.base._interrupt cimport Interrupt, check_memory, perform
from convext.base._scratch cimport aligned_array, data_of
from convext.ways._tile cimport Axis, init_axis
from convext.ways._ways cimport Needs


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


cdef object kept_weights(Correlation *correlation, dict kept):
    """Let the correlation read the packed kernels in `kept`, where they are packed if need be."""
    cdef tuple key = ("direct", correlation.itemsize, correlation.width)
    cdef object memory = kept.get(key)
    if memory is None:
        memory = aligned_array(all_weights(correlation) * correlation.itemsize)
        correlation.packed = data_of(memory)
        perform("prepared kernels", pack_weights, correlation)
        # Another thread may have packed them meanwhile.
        memory = kept.setdefault(key, memory)
    correlation.packed = data_of(memory)
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
    cdef object _packed        # must live as long as it is read
    check_memory(init_whole(&correlation, convolution), "a convolution")
    try:
        _packed = kept_weights(&correlation, kept)
        perform("a convolution", convolve, &prepared)
    finally:
        free_forward(&correlation)
    return 0


cdef int keep_directly(const Convolution *convolution, dict kept) except -1:
    cdef Correlation correlation
    check_memory(init_whole(&correlation, convolution), "a convolution")
    try:
        kept_weights(&correlation, kept)
    finally:
        free_forward(&correlation)
    return 0


cdef int measure_directly(const Convolution *convolution, Needs *needs) except -1:
    cdef Correlation correlation
    check_memory(init_whole(&correlation, convolution), "a convolution")
    measure_correlation(&correlation, convolution.images.n, needs)
    free_forward(&correlation)
    return 0
