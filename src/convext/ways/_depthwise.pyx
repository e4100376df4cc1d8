"""Depthwise convolutions: as many groups as channels, and little to compute for each pixel.

The pixels under a band of results are laid out with zeros around them, a few channels at a time so
that they stay in the L1 cache, and met by the kernels there. Columns that lie a stride apart are
laid out side by side.
"""

from libc.string cimport memset

from convext.base._dispatch cimport microkernels
from convext.base._geometry cimport (
    INPUT_GRADIENT, KERNEL_GRADIENT, Array4, Convolution, Geometry, extent_of, real, result_of,
    source_of, turned_origin
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
    if plan.plane_size * <Py_ssize_t> plan.itemsize > MAX_PLANE_BYTES:
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
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *kernels = &convolution.kernels
    cdef const Array4 *outputs = &convolution.outputs
    plan.micro = microkernels(convolution.itemsize)
    plan.itemsize = convolution.itemsize
    plan.source = source_of(convolution)[0]
    plan.multiplier = kernels.n // geometry.groups
    plan.taps_h = kernels.h
    plan.taps_w = kernels.w
    plan.turned = convolution.operation == INPUT_GRADIENT
    plan.top = -geometry.padding_top
    plan.left = -geometry.padding_left
    if plan.turned:
        # As many output gradients as groups: each channel has one kernel only.
        plan.top = turned_origin(kernels.h, geometry.dilation_h, geometry.padding_top)
        plan.left = turned_origin(kernels.w, geometry.dilation_w, geometry.padding_left)
        outputs = &convolution.images
    plan.stride_h = geometry.stride_h
    plan.stride_w = geometry.stride_w
    plan.dilation_h = geometry.dilation_h
    plan.dilation_w = geometry.dilation_w
    plan.out_h = outputs.h
    plan.out_w = outputs.w
    cut_into_tasks(plan)
    plan.num_threads = threads_for(
        direct_products(convolution), plan.source.n * plan.blocks * plan.bands,
        convolution.num_threads
    )
    if convolution.operation == KERNEL_GRADIENT:
        plan.num_threads = <int> min(<Py_ssize_t> plan.num_threads, plan.blocks)


cdef inline Py_ssize_t rows_under(const Depthwise *plan, Py_ssize_t rows) noexcept nogil:
    """So many rows of pixels lie under rows of results."""
    return (rows - 1) * plan.stride_h + extent_of(plan.taps_h, plan.dilation_h)


cdef void cut_into_tasks(Depthwise *plan) noexcept nogil:
    cdef Py_ssize_t row_bytes, extent = rows_under(plan, 1)
    plan.phase_w = plan.out_w + (extent_of(plan.taps_w, plan.dilation_w) - 1) // plan.stride_w
    plan.pitch = plan.stride_w * plan.phase_w
    row_bytes = plan.pitch * <Py_ssize_t> plan.itemsize
    plan.band_h = min(plan.out_h, max(
        divide_up(MIN_BAND_EXTENTS * extent, plan.stride_h),
        (MAX_BYTES // row_bytes - extent) // plan.stride_h + 1
    ))
    plan.bands = divide_up(plan.out_h, plan.band_h)
    plan.band_h = divide_up(plan.out_h, plan.bands)
    plan.bands = divide_up(plan.out_h, plan.band_h)
    # The last vector may reach beyond the last row.
    plan.plane_size = aligned_size(
        rows_under(plan, plan.band_h) * plan.pitch + plan.micro.lanes, plan.itemsize
    )
    plan.planes = max(1, min(
        MAX_PLANES, MAX_BYTES // (plan.plane_size * <Py_ssize_t> plan.itemsize)
    ))
    plan.blocks = divide_up(plan.source.c, plan.planes)
    plan.gradient_pitch = divide_up(plan.out_w, plan.micro.lanes) * plan.micro.lanes


# ---------------------------------------------------------------- pixels


cdef void find_columns(const Depthwise *plan, Py_ssize_t *offset) noexcept nogil:
    """Find where the columns of taps lie in a row."""
    cdef Py_ssize_t j, distance
    for j in range(plan.taps_w):
        distance = j * plan.dilation_w
        offset[j] = distance % plan.stride_w * plan.phase_w + distance // plan.stride_w


cdef void fill_planes(
    const Depthwise *plan, Py_ssize_t sample, Py_ssize_t channel, Py_ssize_t channels,
    Py_ssize_t first, Py_ssize_t num_rows, real *planes
) noexcept nogil:
    """Lay out pixels under some rows of results, where zeros are to the left and right."""
    cdef const Array4 *source = &plan.source
    cdef const real *image = <const real *> source.data + (
        sample * source.n_stride + channel * source.c_stride
    )
    cdef Positions rows = positions(
        plan.top + first * plan.stride_h, 1, rows_under(plan, num_rows), source.h
    )
    cdef Positions columns
    cdef Py_ssize_t i, phase
    for i in range(channels):
        for phase in range(plan.stride_w):
            columns = positions(plan.left + phase, plan.stride_w, plan.phase_w, source.w)
            copy_rectangle(
                plan.micro, source, image + i * source.c_stride, &rows, &columns,
                planes + i * plan.plane_size + phase * plan.phase_w, plan.pitch, zero_sides=True
            )


# ---------------------------------------------------------------- the convolution


cdef void copy_taps(
    const Depthwise *plan, const Array4 *kernels, Py_ssize_t kernel, real *weights
) noexcept nogil:
    cdef const real *first = <const real *> kernels.data + kernel * kernels.n_stride
    cdef Py_ssize_t h_stride = kernels.h_stride, w_stride = kernels.w_stride
    cdef Py_ssize_t i, j
    if plan.turned:
        first += (plan.taps_h - 1) * h_stride + (plan.taps_w - 1) * w_stride
        h_stride, w_stride = -h_stride, -w_stride
    for i in range(plan.taps_h):
        for j in range(plan.taps_w):
            weights[i * plan.taps_w + j] = first[i * h_stride + j * w_stride]


# What the tasks of a convolution read, and where they write.
cdef struct Operands:
    const Depthwise *plan
    const Array4 *kernels
    const void *bias
    const Array4 *out


cdef void clear_planes(const void *work, void *planes) noexcept nogil:
    # The zeros to the left and right are the same for all tasks.
    cdef const Depthwise *plan = (<const Operands *> work).plan
    memset(planes, 0, plan.planes * plan.plane_size * plan.itemsize)


cdef void convolve_band(
    const void *work, Py_ssize_t task, real *planes, Interrupt *interrupt
) noexcept nogil:
    """Compute a band of results of some channels of a sample."""
    cdef const Operands *operands = <const Operands *> work
    cdef const Depthwise *plan = operands.plan
    cdef const Array4 *out = operands.out
    cdef const real *bias = <const real *> operands.bias
    cdef Py_ssize_t first = task % plan.bands * plan.band_h
    cdef Py_ssize_t channel = task // plan.bands % plan.blocks * plan.planes
    cdef Py_ssize_t sample = task // plan.bands // plan.blocks
    cdef Py_ssize_t num_rows = min(plan.band_h, plan.out_h - first)
    cdef Py_ssize_t channels = min(plan.planes, plan.source.c - channel)
    cdef Py_ssize_t i, kernel = channel * plan.multiplier
    cdef Py_ssize_t[MAX_TAPS] offset
    cdef real[MAX_TAPS] weights
    cdef real *results = <real *> out.data + (
        sample * out.n_stride + kernel * out.c_stride + first * out.h_stride
    )
    find_columns(plan, offset)
    fill_planes(plan, sample, channel, channels, first, num_rows, planes)
    for i in range(channels * plan.multiplier):
        copy_taps(plan, operands.kernels, kernel + i, weights)
        plan.micro.depthwise(
            plan.taps_h, plan.taps_w, weights, bias[kernel + i] if bias != NULL else 0.,
            planes + i // plan.multiplier * plan.plane_size, plan.stride_h * plan.pitch,
            plan.dilation_h * plan.pitch, offset, num_rows, plan.out_w,
            results + i * out.c_stride, out.h_stride
        )


cdef int convolve_depthwise(
    const Depthwise *plan, const Array4 *kernels, const void *bias, const Array4 *out
) except -1:
    cdef Operands operands = Operands(plan, kernels, bias, out)
    cdef Tasks tasks = tasks_of(
        &operands, plan.itemsize, <Task> convolve_band[float], <Task> convolve_band[double],
        plan.source.n * plan.blocks * plan.bands,
        plan.planes * plan.plane_size * <Py_ssize_t> plan.itemsize, plan.num_threads
    )
    tasks.start = clear_planes
    return perform_tasks("a depthwise convolution", &tasks)


# ---------------------------------------------------------------- the kernel gradient

# The same of a gradient.
cdef struct GradientOperands:
    const Depthwise *plan
    const Array4 *output_grad
    void *kernel_grad

# The scratch memory of a thread, in bytes: the pixels, the output gradients of a band, and the sums
# so far.
cdef struct GradientScratch:
    Py_ssize_t gradient, sums, end      # where each begins


cdef GradientScratch arrange_gradient(const Depthwise *plan) noexcept nogil:
    cdef Py_ssize_t itemsize = plan.itemsize
    cdef GradientScratch layout
    layout.gradient = plan.planes * plan.plane_size * itemsize
    layout.sums = layout.gradient + itemsize * aligned_size(
        plan.band_h * plan.gradient_pitch, itemsize
    )
    layout.end = layout.sums + plan.planes * plan.multiplier * plan.taps_h * plan.taps_w * (
        <Py_ssize_t> sizeof(double)
    )
    return layout


cdef void clear_planes_and_gradient(const void *work, void *scratch) noexcept nogil:
    memset(scratch, 0, arrange_gradient((<const GradientOperands *> work).plan).sums)


cdef void fill_gradient(
    const Depthwise *plan, const Array4 *output_grad, Py_ssize_t sample, Py_ssize_t kernel,
    Py_ssize_t first, Py_ssize_t num_rows, real *gradient
) noexcept nogil:
    plan.micro.pack(
        num_rows, plan.out_w,
        <const real *> output_grad.data + (
            sample * output_grad.n_stride + kernel * output_grad.c_stride
            + first * output_grad.h_stride
        ),
        output_grad.h_stride, output_grad.w_stride, gradient, plan.gradient_pitch
    )


cdef void add_band(
    const Depthwise *plan, const Array4 *output_grad, Py_ssize_t sample, Py_ssize_t channel,
    Py_ssize_t channels, Py_ssize_t first, real *planes, real *gradient, double *sums
) noexcept nogil:
    """Add a band of a sample to the sums of some channels' kernels."""
    cdef Py_ssize_t num_rows = min(plan.band_h, plan.out_h - first)
    cdef Py_ssize_t taps = plan.taps_h * plan.taps_w
    cdef Py_ssize_t[MAX_TAPS] offset
    cdef real[MAX_TAPS] sums_of_band
    cdef Py_ssize_t i, t
    find_columns(plan, offset)
    fill_planes(plan, sample, channel, channels, first, num_rows, planes)
    for i in range(channels * plan.multiplier):
        fill_gradient(
            plan, output_grad, sample, channel * plan.multiplier + i, first, num_rows, gradient
        )
        plan.micro.depthwise_gradient(
            plan.taps_h, plan.taps_w, gradient, plan.gradient_pitch,
            planes + i // plan.multiplier * plan.plane_size, plan.stride_h * plan.pitch,
            plan.dilation_h * plan.pitch, offset, num_rows, plan.out_w, sums_of_band
        )
        for t in range(taps):
            sums[i * taps + t] += sums_of_band[t]


cdef void differentiate_block(
    const void *work, Py_ssize_t block, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Compute the gradient with respect to the kernels of some channels."""
    cdef const GradientOperands *operands = <const GradientOperands *> work
    cdef const Depthwise *plan = operands.plan
    cdef GradientScratch layout = arrange_gradient(plan)
    cdef Py_ssize_t channel = block * plan.planes
    cdef Py_ssize_t channels = min(plan.planes, plan.source.c - channel)
    cdef Py_ssize_t entries = plan.multiplier * plan.taps_h * plan.taps_w
    cdef real *gradient = <real *> (<char *> scratch + layout.gradient)
    cdef double *sums = <double *> (<char *> scratch + layout.sums)
    cdef real *kernel_grad = <real *> operands.kernel_grad + channel * entries
    cdef Py_ssize_t sample, band, i
    memset(sums, 0, channels * entries * sizeof(double))
    for sample in range(plan.source.n):
        if stopped(interrupt):
            return
        for band in range(plan.bands):
            add_band(
                plan, operands.output_grad, sample, channel, channels, band * plan.band_h,
                scratch, gradient, sums
            )
    for i in range(channels * entries):
        kernel_grad[i] = <real> sums[i]


cdef int differentiate_depthwise(
    const Depthwise *plan, const Array4 *output_grad, void *kernel_grad
) except -1:
    cdef GradientOperands operands = GradientOperands(plan, output_grad, kernel_grad)
    cdef Tasks tasks = tasks_of(
        &operands, plan.itemsize, <Task> differentiate_block[float],
        <Task> differentiate_block[double], plan.blocks, arrange_gradient(plan).end,
        plan.num_threads
    )
    tasks.start = clear_planes_and_gradient
    return perform_tasks("the gradient of a depthwise convolution", &tasks)


# ---------------------------------------------------------------- the way


cdef bint run_way(const Convolution *convolution, void *plan, dict kept) except -1:
    if convolution.operation == KERNEL_GRADIENT:
        differentiate_depthwise(
            <Depthwise *> plan, &convolution.outputs, convolution.kernels.data
        )
    else:
        convolve_depthwise(
            <Depthwise *> plan, &convolution.kernels, convolution.bias, result_of(convolution)
        )
    return True


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    cdef Depthwise *depthwise = <Depthwise *> plan
    needs.num_threads = depthwise.num_threads
    needs.shared = 0
    needs.of_thread = depthwise.planes * depthwise.plane_size * convolution.itemsize
    if convolution.operation == KERNEL_GRADIENT:
        needs.of_thread = arrange_gradient(depthwise).end
    return True


cdef Way depthwise_way() noexcept:
    return Way("depthwise", objection, time, settles, NULL, run_way, NULL, measure)
