"""Depthwise convolutions: as many groups as channels, and little to compute for each pixel.

The pixels under a band of results are laid out with zeros around them, a few channels at a time so
that they stay in the L1 cache, and met by the kernels there. Columns that lie a stride apart are
laid out side by side.
"""

from libc.string cimport memset

from convext.base._dispatch cimport microkernels
from convext.base._geometry cimport (
    INPUT_GRADIENT, KERNEL_GRADIENT, Array4, Convolution, Geometry, extent_of, real, source_of,
    windows_of
)
from convext.base._interrupt cimport Interrupt, stopped
from convext.base._machine cimport L1_BYTES, L2_BYTES
from convext.base._scratch cimport aligned_size
from convext.ways._tile cimport Positions, copy_rectangle, positions
from convext.base._tasks cimport Task, Tasks, divide_up, perform_tasks, tasks_of, threads_for
from convext.ways._ways cimport Needs, Way, direct_products, time_of_results

# Sums of more products should be added up in blocks, as others do.
cdef enum:
    MAX_TAPS = 64

# The pixels of a few channels should stay in L1, together with results and gradients.
cdef Py_ssize_t MAX_BYTES = L1_BYTES // 2
cdef Py_ssize_t MAX_PLANES = 8

# The rows of pixels under two bands are laid out for both.
cdef Py_ssize_t MIN_BAND_EXTENTS = 4

# Of wide rows and of taps far apart there is more to lay out than stays in any cache.
cdef Py_ssize_t MAX_PLANE_BYTES = L2_BYTES


# ---------------------------------------------------------------- the plan


cdef const char *objection(const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef Py_ssize_t taps = convolution.kernels.h * convolution.kernels.w
    cdef Depthwise plan
    if convolution.kernels.c > 1:
        return "each channel must meet kernels of its own"
    if taps > MAX_TAPS:
        return "it is for kernels of 64 taps at most"
    if convolution.operation == INPUT_GRADIENT and (
        geometry.stride_h > 1 or geometry.stride_w > 1
        or convolution.kernels.n > geometry.groups
    ):
        return "gradients must have stride 1, and each channel one kernel"
    if convolution.asked:
        return NULL
    if geometry.groups == 1 or taps == 1:
        return "it is for several groups and more than one tap"
    make_plan(&plan, convolution)
    if plan.plane_size * <Py_ssize_t> convolution.itemsize > MAX_PLANE_BYTES:
        return "the pixels under its rows do not stay in any cache"
    return NULL


cdef double time(const Convolution *convolution, void *plan) noexcept nogil:
    """As long as the direct way, at most: it stands before that in the list."""
    make_plan(<Depthwise *> plan, convolution)
    return direct_products(convolution) + time_of_results(convolution)


cdef bint settles(const Convolution *convolution) noexcept nogil:
    """It takes less time than predicted."""
    return True


cdef void make_plan(Depthwise *plan, const Convolution *convolution) noexcept nogil:
    plan.convolution = convolution
    plan.micro = microkernels(convolution.itemsize)
    plan.source = source_of(convolution)
    plan.results = &convolution.outputs
    if convolution.operation == INPUT_GRADIENT:
        # As many output gradients as groups: each channel has one kernel only.
        plan.results = &convolution.images
    plan.windows = windows_of(convolution)
    plan.multiplier = convolution.kernels.n // convolution.geometry.groups
    cut_into_tasks(plan)
    plan.num_threads = threads_for(
        direct_products(convolution), plan.source.n * plan.blocks * plan.bands,
        convolution.num_threads
    )
    if convolution.operation == KERNEL_GRADIENT:
        plan.num_threads = <int> min(<Py_ssize_t> plan.num_threads, plan.blocks)


cdef inline Py_ssize_t rows_under(const Depthwise *plan, Py_ssize_t rows) noexcept nogil:
    """So many rows of pixels lie under rows of results."""
    cdef const Geometry *geometry = &plan.convolution.geometry
    return (rows - 1) * geometry.stride_h + extent_of(plan.windows.taps.h, geometry.dilation_h)


cdef void cut_into_tasks(Depthwise *plan) noexcept nogil:
    cdef const Geometry *geometry = &plan.convolution.geometry
    cdef Py_ssize_t itemsize = plan.convolution.itemsize, lanes = plan.micro.lanes
    cdef Py_ssize_t width = plan.results.w, extent = rows_under(plan, 1)
    plan.phase_w = (
        width + (extent_of(plan.windows.taps.w, geometry.dilation_w) - 1) // geometry.stride_w
    )
    plan.pitch = geometry.stride_w * plan.phase_w
    plan.band_h = min(plan.results.h, max(
        divide_up(MIN_BAND_EXTENTS * extent, geometry.stride_h),
        (MAX_BYTES // (plan.pitch * itemsize) - extent) // geometry.stride_h + 1
    ))
    plan.bands = divide_up(plan.results.h, plan.band_h)
    plan.band_h = divide_up(plan.results.h, plan.bands)
    plan.bands = divide_up(plan.results.h, plan.band_h)
    # The last vector may reach beyond the last row.
    plan.plane_size = aligned_size(rows_under(plan, plan.band_h) * plan.pitch + lanes, itemsize)
    plan.planes = max(1, min(MAX_PLANES, MAX_BYTES // (plan.plane_size * itemsize)))
    plan.blocks = divide_up(plan.source.c, plan.planes)
    plan.gradient_pitch = divide_up(width, lanes) * lanes


# The scratch memory of a thread, in bytes: the pixels; for the kernel gradient, the output
# gradients of a band, and the sums so far.
cdef struct Scratch:
    Py_ssize_t gradient, sums, end      # where each begins


cdef Scratch arrange(const Depthwise *plan) noexcept nogil:
    cdef const Array4 *taps = &plan.windows.taps
    cdef Py_ssize_t itemsize = plan.convolution.itemsize
    cdef Scratch layout
    layout.gradient = plan.planes * plan.plane_size * itemsize
    layout.sums = layout.end = layout.gradient
    if plan.convolution.operation == KERNEL_GRADIENT:
        layout.sums += itemsize * aligned_size(plan.band_h * plan.gradient_pitch, itemsize)
        layout.end = layout.sums + plan.planes * plan.multiplier * taps.h * taps.w * (
            <Py_ssize_t> sizeof(double)
        )
    return layout


cdef void clear(const void *plan, void *scratch) noexcept nogil:
    # The zeros beside pixels and gradients are the same for all tasks.
    memset(scratch, 0, arrange(<const Depthwise *> plan).sums)


# ---------------------------------------------------------------- pixels


cdef void find_columns(const Depthwise *plan, Py_ssize_t *offset) noexcept nogil:
    """Find where the columns of taps lie in a row."""
    cdef const Geometry *geometry = &plan.convolution.geometry
    cdef Py_ssize_t j, distance
    for j in range(plan.windows.taps.w):
        distance = j * geometry.dilation_w
        offset[j] = distance % geometry.stride_w * plan.phase_w + distance // geometry.stride_w


cdef void fill_planes(
    const Depthwise *plan, Py_ssize_t sample, Py_ssize_t channel, Py_ssize_t channels,
    Py_ssize_t first, Py_ssize_t num_rows, real *planes
) noexcept nogil:
    """Lay out pixels under some rows of results, where zeros are to the left and right."""
    cdef const Geometry *geometry = &plan.convolution.geometry
    cdef const Array4 *source = plan.source
    cdef const real *image = <const real *> source.data + (
        sample * source.n_stride + channel * source.c_stride
    )
    cdef Positions rows = positions(
        plan.windows.top + first * geometry.stride_h, 1, rows_under(plan, num_rows), source.h
    )
    cdef Positions columns
    cdef Py_ssize_t i, phase
    for i in range(channels):
        for phase in range(geometry.stride_w):
            columns = positions(
                plan.windows.left + phase, geometry.stride_w, plan.phase_w, source.w
            )
            copy_rectangle(
                plan.micro, source, image + i * source.c_stride, &rows, &columns,
                planes + i * plan.plane_size + phase * plan.phase_w, plan.pitch, zero_sides=True
            )


# ---------------------------------------------------------------- the convolution


cdef void convolve_band(
    const void *work, Py_ssize_t task, real *planes, Interrupt *interrupt
) noexcept nogil:
    """Compute a band of results of some channels of a sample."""
    cdef const Depthwise *plan = <const Depthwise *> work
    cdef const Geometry *geometry = &plan.convolution.geometry
    cdef const Array4 *taps = &plan.windows.taps
    cdef const Array4 *out = plan.results
    cdef const real *bias = <const real *> plan.convolution.bias
    cdef Py_ssize_t first = task % plan.bands * plan.band_h
    cdef Py_ssize_t channel = task // plan.bands % plan.blocks * plan.planes
    cdef Py_ssize_t sample = task // plan.bands // plan.blocks
    cdef Py_ssize_t num_rows = min(plan.band_h, out.h - first)
    cdef Py_ssize_t channels = min(plan.planes, plan.source.c - channel)
    cdef Py_ssize_t i, y, x, kernel = channel * plan.multiplier
    cdef Py_ssize_t[MAX_TAPS] offset
    cdef real[MAX_TAPS] weights
    cdef const real *first_tap
    cdef real *results = <real *> out.data + sample * out.n_stride + first * out.h_stride
    find_columns(plan, offset)
    fill_planes(plan, sample, channel, channels, first, num_rows, planes)
    for i in range(channels * plan.multiplier):
        first_tap = <const real *> taps.data + (kernel + i) * taps.n_stride
        for y in range(taps.h):
            for x in range(taps.w):
                weights[y * taps.w + x] = first_tap[y * taps.h_stride + x * taps.w_stride]
        plan.micro.depthwise(
            taps.h, taps.w, weights, bias[kernel + i] if bias != NULL else 0.,
            planes + i // plan.multiplier * plan.plane_size, geometry.stride_h * plan.pitch,
            geometry.dilation_h * plan.pitch, offset, num_rows, out.w,
            results + (kernel + i) * out.c_stride, out.h_stride
        )


# ---------------------------------------------------------------- the kernel gradient


cdef void add_band(
    const Depthwise *plan, Py_ssize_t sample, Py_ssize_t channel, Py_ssize_t channels,
    Py_ssize_t first, real *planes, real *gradient, double *sums
) noexcept nogil:
    """Add a band of a sample to the sums of some channels' kernels."""
    cdef const Geometry *geometry = &plan.convolution.geometry
    cdef const Array4 *taps = &plan.windows.taps
    cdef const Array4 *output_grad = plan.results
    cdef Py_ssize_t num_rows = min(plan.band_h, output_grad.h - first)
    cdef Py_ssize_t kernel = channel * plan.multiplier
    cdef Py_ssize_t[MAX_TAPS] offset
    cdef real[MAX_TAPS] sums_of_band
    cdef Py_ssize_t i, t
    cdef const real *gradients = <const real *> output_grad.data + (
        sample * output_grad.n_stride + first * output_grad.h_stride
    )
    find_columns(plan, offset)
    fill_planes(plan, sample, channel, channels, first, num_rows, planes)
    for i in range(channels * plan.multiplier):
        plan.micro.pack(
            num_rows, output_grad.w, gradients + (kernel + i) * output_grad.c_stride,
            output_grad.h_stride, output_grad.w_stride, gradient, plan.gradient_pitch
        )
        plan.micro.depthwise_gradient(
            taps.h, taps.w, gradient, plan.gradient_pitch,
            planes + i // plan.multiplier * plan.plane_size, geometry.stride_h * plan.pitch,
            geometry.dilation_h * plan.pitch, offset, num_rows, output_grad.w, sums_of_band
        )
        for t in range(taps.h * taps.w):
            sums[i * taps.h * taps.w + t] += sums_of_band[t]


cdef void differentiate_block(
    const void *work, Py_ssize_t block, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Compute the gradient with respect to the kernels of some channels."""
    cdef const Depthwise *plan = <const Depthwise *> work
    cdef const Array4 *taps = &plan.windows.taps
    cdef Scratch layout = arrange(plan)
    cdef Py_ssize_t channel = block * plan.planes
    cdef Py_ssize_t channels = min(plan.planes, plan.source.c - channel)
    cdef Py_ssize_t entries = plan.multiplier * taps.h * taps.w
    cdef real *gradient = <real *> (<char *> scratch + layout.gradient)
    cdef double *sums = <double *> (<char *> scratch + layout.sums)
    cdef real *kernel_grad = <real *> taps.data + channel * entries
    cdef Py_ssize_t sample, band, i
    memset(sums, 0, channels * entries * sizeof(double))
    for sample in range(plan.source.n):
        if stopped(interrupt):
            return
        for band in range(plan.bands):
            add_band(
                plan, sample, channel, channels, band * plan.band_h, scratch, gradient, sums
            )
    for i in range(channels * entries):
        kernel_grad[i] = <real> sums[i]


# ---------------------------------------------------------------- the way


cdef bint run_way(const Convolution *convolution, void *plan, dict kept) except -1:
    cdef const Depthwise *depthwise = <const Depthwise *> plan
    cdef str name = "a depthwise convolution"
    cdef Tasks tasks
    if convolution.operation == KERNEL_GRADIENT:
        name = "the gradient of a depthwise convolution"
        tasks = tasks_of(
            plan, convolution.itemsize, <Task> differentiate_block[float],
            <Task> differentiate_block[double], depthwise.blocks, arrange(depthwise).end,
            depthwise.num_threads
        )
    else:
        tasks = tasks_of(
            plan, convolution.itemsize, <Task> convolve_band[float], <Task> convolve_band[double],
            depthwise.source.n * depthwise.blocks * depthwise.bands, arrange(depthwise).end,
            depthwise.num_threads
        )
    tasks.start = clear
    perform_tasks(name, &tasks)
    return True


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    cdef const Depthwise *depthwise = <const Depthwise *> plan
    needs[0] = Needs(depthwise.num_threads, arrange(depthwise).end, 0)
    return True


cdef Way depthwise_way() noexcept:
    return Way("depthwise", objection, time, settles, NULL, run_way, NULL, measure)
