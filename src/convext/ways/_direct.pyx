"""The direct way computes everything, and the rows that are not safe for others.

A forward convolution is one correlation with the kernels' own taps. In an input gradient an input
pixel collects from every output pixel whose window covers it. Along one axis, pixel
q * stride + p of the padded input meets tap i (at i * dilation) only where p - i * dilation is a
whole number of strides, and then with output q + (p - i * dilation) / stride. So for each phase p
the gradient is a correlation of the output gradient, stride 1, with the taps of that phase, and
its results lie `stride` pixels apart.
"""

from libc.string cimport memset

from convext.base._geometry cimport (
    FORWARD, INPUT_GRADIENT, Array4, Convolution, Geometry, Weights, every, result_of, source_of,
    weights_of
)
from convext.base._interrupt cimport Interrupt, check_memory, perform, stopped
from convext.base._scratch cimport aligned_array, data_of
from convext.base._tasks cimport divide_up
from convext.ways._bands cimport Bands, Region, next_region, rows_of, samples_of
from convext.ways._correlation cimport (
    free_correlation, init_correlation, measure_correlation, pack_and_run
)
from convext.ways._correlation_plan cimport Correlation, all_weights
from convext.ways._tile cimport Axis, axis_across, axis_down, axis_of
from convext.ways._ways cimport Needs, Way, direct_products, time_of_results
from convext.ways._weights cimport pack_weights

# The results first, first + step, ... along an axis, which meet the kernel's taps tap,
# tap + tap_step, ...
cdef struct Phase:
    Py_ssize_t first, step, count
    Py_ssize_t tap, tap_step
    Axis axis               # of these taps, over the source

cdef struct Phases:
    Phase down, across


# ---------------------------------------------------------------- the phases


cdef Phase phase_of(
    Py_ssize_t first, Py_ssize_t results, Py_ssize_t taps, Py_ssize_t stride, Py_ssize_t padding,
    Py_ssize_t dilation
) noexcept nogil:
    """The phase of an input gradient that begins with the pixel `first`."""
    cdef Phase phase
    cdef Py_ssize_t padded = first + padding
    phase.first, phase.step = first, stride
    phase.count = divide_up(results - first, stride)
    phase.tap = 0
    while phase.tap < taps and (padded - phase.tap * dilation) % stride != 0:
        phase.tap += 1
    phase.tap_step = 1
    while phase.tap_step < taps and phase.tap_step * dilation % stride != 0:
        phase.tap_step += 1
    phase.axis = axis_of(
        divide_up(taps - phase.tap, phase.tap_step), 1, (padded - phase.tap * dilation) // stride,
        -(phase.tap_step * dilation // stride)
    )
    return phase


cdef Py_ssize_t phases_across(const Convolution *convolution) noexcept nogil:
    return min(convolution.geometry.stride_w, convolution.images.w)


cdef Py_ssize_t count_phases(const Convolution *convolution) noexcept nogil:
    if convolution.operation == FORWARD:
        return 1
    return phases_across(convolution) * min(convolution.geometry.stride_h, convolution.images.h)


cdef Phases phases_at(const Convolution *convolution, Py_ssize_t index) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *kernels = &convolution.kernels
    cdef const Array4 *results = result_of(convolution)
    if convolution.operation == FORWARD:
        return Phases(
            Phase(0, 1, results.h, 0, 1, axis_down(kernels.h, geometry)),
            Phase(0, 1, results.w, 0, 1, axis_across(kernels.w, geometry))
        )
    return Phases(
        phase_of(
            index // phases_across(convolution), results.h, kernels.h, geometry.stride_h,
            geometry.padding_top, geometry.dilation_h
        ),
        phase_of(
            index % phases_across(convolution), results.w, kernels.w, geometry.stride_w,
            geometry.padding_left, geometry.dilation_w
        )
    )


cdef inline Py_ssize_t taps_of(const Phases *phases) noexcept nogil:
    return phases.down.axis.num_taps * phases.across.axis.num_taps


cdef int init_phases(
    Correlation *correlation, const Convolution *convolution, const Phases *phases
) noexcept nogil:
    """Prepare a correlation for all samples."""
    cdef const Phase *down = &phases.down
    cdef const Phase *across = &phases.across
    cdef const Array4 *source = source_of(convolution)
    cdef Array4 kernels = every(
        &convolution.kernels, down.tap, down.tap_step, across.tap, across.tap_step,
        convolution.itemsize
    )
    cdef Weights weights = weights_of(
        &kernels, convolution.geometry.groups, convolution.operation == INPUT_GRADIENT
    )
    return init_correlation(
        correlation, source, source.n, down.axis, across.axis, convolution.geometry.groups,
        &weights, down.count, across.count, convolution.num_threads, convolution.itemsize
    )


# A correlation that was prepared for phases of a convolution.
cdef struct Prepared:
    Correlation correlation
    const Convolution *convolution
    Phases phases


cdef int run_prepared(const void *work, Interrupt *interrupt) noexcept nogil:
    cdef Prepared *prepared = <Prepared *> work
    cdef const Convolution *convolution = prepared.convolution
    cdef const Phase *down = &prepared.phases.down
    cdef const Phase *across = &prepared.phases.across
    cdef const Array4 *source = source_of(convolution)
    cdef Array4 out = every(
        result_of(convolution), down.first, down.step, across.first, across.step,
        convolution.itemsize
    )
    return pack_and_run(
        &prepared.correlation, source.data, source.n, convolution.bias, &out, interrupt
    )


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


cdef int compute_directly(const void *described, Interrupt *interrupt) noexcept nogil:
    """Compute a Convolution, phase by phase. Pixels that no window covers are zero."""
    cdef Prepared prepared
    cdef Py_ssize_t i, count
    cdef int status = 0
    prepared.convolution = <const Convolution *> described
    count = count_phases(prepared.convolution)
    for i in range(count):
        prepared.phases = phases_at(prepared.convolution, i)
        if taps_of(&prepared.phases) == 0:
            clear(result_of(prepared.convolution), prepared.convolution.itemsize)
            break
    for i in range(count):
        if status == -1 or (i > 0 and stopped(interrupt)):
            break
        prepared.phases = phases_at(prepared.convolution, i)
        if taps_of(&prepared.phases) == 0:
            continue
        status = init_phases(&prepared.correlation, prepared.convolution, &prepared.phases)
        if status == 0:
            status = run_prepared(&prepared, interrupt)
            free_correlation(&prepared.correlation)
    return status


cdef str name_of(const Convolution *convolution):
    return "an input gradient" if convolution.operation == INPUT_GRADIENT else "a convolution"


# ---------------------------------------------------------------- prepared kernels


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


cdef int use_kept(const Convolution *convolution, dict kept, bint only_keep) except -1:
    """Pack the kernels of a forward convolution, if need be; then compute it with them."""
    cdef Prepared prepared
    cdef object _packed        # must live as long as it is read
    prepared.convolution = convolution
    prepared.phases = phases_at(convolution, 0)
    check_memory(
        init_phases(&prepared.correlation, convolution, &prepared.phases), name_of(convolution)
    )
    try:
        _packed = kept_weights(&prepared.correlation, kept)
        if not only_keep:
            perform(name_of(convolution), run_prepared, &prepared)
    finally:
        free_correlation(&prepared.correlation)
    return 0


# ---------------------------------------------------------------- the way


cdef const char *objection(const Convolution *convolution) noexcept nogil:
    return NULL


cdef double time(const Convolution *convolution, void *plan) noexcept nogil:
    return direct_products(convolution) + time_of_results(convolution)


cdef bint run(const Convolution *convolution, void *plan, dict kept) except -1:
    if kept is not None:
        use_kept(convolution, kept, False)
    else:
        perform(name_of(convolution), compute_directly, convolution)
    return True


cdef bint keep(const Convolution *convolution, void *plan, dict kept) except -1:
    use_kept(convolution, kept, True)
    return True


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    """What the phases need that have the most taps."""
    cdef Correlation correlation
    cdef Phases phases, largest = phases_at(convolution, 0)
    cdef Py_ssize_t i
    for i in range(1, count_phases(convolution)):
        phases = phases_at(convolution, i)
        if taps_of(&phases) > taps_of(&largest):
            largest = phases
    needs[0] = Needs(1, 0, 0)
    if taps_of(&largest) > 0:
        check_memory(init_phases(&correlation, convolution, &largest), name_of(convolution))
        measure_correlation(&correlation, source_of(convolution).n, needs)
        free_correlation(&correlation)
    return True


cdef Way direct_way() noexcept:
    return Way("direct", objection, time, NULL, NULL, run, keep, measure)


# ---------------------------------------------------------------- rows that others leave


cdef Convolution part_of(
    const Convolution *convolution, const Region *region
) noexcept nogil:
    """The part whose results are a region: their convolution, or input gradient."""
    cdef Convolution part = convolution[0]
    cdef size_t itemsize = convolution.itemsize
    if convolution.operation == FORWARD:
        part.images = samples_of(&convolution.images, region, itemsize)
        part.outputs = rows_of(&convolution.outputs, region, itemsize)
        part.geometry.padding_top -= region.top * part.geometry.stride_h
    else:
        part.images = rows_of(&convolution.images, region, itemsize)
        part.outputs = samples_of(&convolution.outputs, region, itemsize)
        part.geometry.padding_top += region.top
    return part


cdef struct MarkedBands:
    const Bands *bands
    const Convolution *convolution


cdef int compute_regions(const void *work, Interrupt *interrupt) noexcept nogil:
    cdef const MarkedBands *marked = <const MarkedBands *> work
    cdef Region region
    cdef Convolution part
    cdef int status = 0
    region.next = 0
    while status == 0 and not stopped(interrupt) and next_region(marked.bands, &region):
        part = part_of(marked.convolution, &region)
        status = compute_directly(&part, interrupt)
    return status


cdef int compute_bands(const Convolution *convolution, const Bands *bands) except -1:
    cdef MarkedBands marked = MarkedBands(bands, convolution)
    return perform(name_of(convolution), compute_regions, &marked) if bands.any else 0
