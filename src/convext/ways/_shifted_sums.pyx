"""Few kernels over many channels: all taps of all kernels at once, then their sums shifted.

With so few kernels a vector of pixels, once loaded, meets few weights, and the loads take longer
than the products. So every pixel first meets all taps as if they were kernels of their own: a
matrix product. The sum for a tap, over the channels, then belongs to the result that lies so far
from the pixel as the tap says, and is added to it there.

No zeros of a padding are multiplied, which for an input gradient are most of the direct way's. By a
weight that is not finite they are not zero, so that unless it is asked for, it computes no such.
"""

from convext.base._dispatch cimport microkernels
from convext.base._geometry cimport (
    INPUT_GRADIENT, Array4, Convolution, Geometry, extent_of, real, result_of, source_of, weights_of
)
from convext.base._interrupt cimport Interrupt, perform, stopped
from convext.base._machine cimport L2_BYTES
from convext.base._scratch cimport aligned_alloc, aligned_free, aligned_size
from convext.base._tasks cimport (
    ENOUGH_TASKS, Task, Tasks, divide_up, run_tasks, tasks_of, threads_for
)
from convext.ways._ways cimport Needs, Way, direct_products, time_of_results

# With more kernels a vector of pixels meets enough weights.
cdef Py_ssize_t MAX_KERNELS = 4
cdef Py_ssize_t MAX_CHANNELS = 4096

# The sums of a strip of pixels, and the pixels, should stay in L2.
cdef Py_ssize_t MAX_SUM_BYTES = L2_BYTES // 8
cdef Py_ssize_t MAX_PIXEL_BYTES = L2_BYTES // 8

# In rows so wide most vectors are full.
cdef Py_ssize_t WIDE = 128

# The rows of pixels above a band of results are computed for the band above, too.
cdef Py_ssize_t MIN_BAND_EXTENTS = 6


# ---------------------------------------------------------------- the plan


cdef const char *objection(const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *source = source_of(convolution)
    cdef const Array4 *result = result_of(convolution)
    cdef Py_ssize_t lanes, kernels = result.c // geometry.groups
    # What most convolutions are turned away by comes first.
    if not convolution.asked and kernels > MAX_KERNELS:
        return "enough kernels meet each vector of pixels anyway"
    if geometry.stride_h > 1 or geometry.stride_w > 1:
        return "it is for stride 1"
    lanes = microkernels(convolution.itemsize).lanes
    if source.w < lanes:
        return "its rows are shorter than a vector"
    if convolution.asked:
        return NULL
    if convolution.kernels.h * convolution.kernels.w == 1:
        return "there is nothing to shift"
    if source.c // geometry.groups > MAX_CHANNELS or pixels_of_strip(convolution) < 2 * lanes:
        return "the sums of all taps, or of all channels, do not stay in the caches"
    return NULL


cdef Py_ssize_t pixels_of_strip(const Convolution *convolution) noexcept nogil:
    """Pixels whose sums stay in the caches."""
    cdef Py_ssize_t groups = convolution.geometry.groups, itemsize = convolution.itemsize
    cdef Py_ssize_t kernels = result_of(convolution).c // groups
    return min(
        MAX_SUM_BYTES // (kernels * convolution.kernels.h * convolution.kernels.w * itemsize),
        MAX_PIXEL_BYTES // (source_of(convolution).c // groups * itemsize)
    )


cdef double time(const Convolution *convolution, void *plan) noexcept nogil:
    """How long it takes; a tenth is added.

    Measured on some dozen sizes: the sums take a tenth longer than the products alone would, and
    shifting them as long as the products of a few channels; the direct way has the more of the
    processor's usual speed, the more kernels there are and the wider the rows.
    """
    cdef const Array4 *source = source_of(convolution)
    cdef const Array4 *result = result_of(convolution)
    cdef Py_ssize_t groups = convolution.geometry.groups, kernels = result.c // groups
    cdef double shifted = 1.11 + 7. / (source.c // groups)
    cdef double speed
    if kernels == 1:
        speed = 0.45 if result.w < WIDE else 0.7
    else:
        speed = 0.7 + 0.04 * kernels if result.w < WIDE else 0.9
    return direct_products(convolution) * 1.1 * shifted * speed * (
        <double> source.h * source.w / (result.h * result.w)
    ) + time_of_results(convolution)


cdef void finish_plan(ShiftedSums *plan, const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *source = source_of(convolution)
    cdef const Array4 *kernels = &convolution.kernels
    cdef bint swapped = convolution.operation == INPUT_GRADIENT
    cdef Py_ssize_t extent = extent_of(kernels.h, geometry.dilation_h)
    cdef Py_ssize_t pixels
    plan.convolution = convolution
    plan.micro = microkernels(convolution.itemsize)
    plan.source, plan.out = source, result_of(convolution)
    plan.weights = weights_of(kernels, geometry.groups, swapped)
    plan.channels, plan.kernels = plan.weights.of_group.c, plan.weights.of_group.n
    plan.down, plan.right = geometry.padding_top, geometry.padding_left
    plan.step_h, plan.step_w = -geometry.dilation_h, -geometry.dilation_w
    if swapped:
        plan.down, plan.right = -plan.down, -plan.right
        plan.step_h, plan.step_w = geometry.dilation_h, geometry.dilation_w
    plan.sums = plan.kernels * kernels.h * kernels.w
    plan.num_blocks = divide_up(plan.sums, plan.micro.max_kernels)
    plan.width = divide_up(plan.sums, plan.num_blocks)
    plan.num_blocks = divide_up(plan.sums, plan.width)
    pixels = max(2 * plan.micro.lanes, pixels_of_strip(convolution))
    plan.columns = divide_up(source.w, pixels)
    plan.strip_h = max(1, min(source.h, pixels // divide_up(source.w, plan.columns)))
    plan.bands = max(1, min(
        divide_up(ENOUGH_TASKS, source.n * geometry.groups),
        plan.out.h // (MIN_BAND_EXTENTS * extent)
    ))
    plan.num_threads = threads_for(
        <double> source.n * source.c * source.h * source.w * plan.sums,
        source.n * geometry.groups * plan.bands, convolution.num_threads
    )


# ---------------------------------------------------------------- the weights


cdef void pack_sum(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Pack the weights of a sum; in all: group, block of sums, channel, sum within the block."""
    cdef ShiftedSums *plan = <ShiftedSums *> work
    cdef const Array4 *weights = &plan.weights.of_group
    cdef Py_ssize_t g = task // plan.sums, s = task % plan.sums
    cdef Py_ssize_t c, taps = weights.h * weights.w
    cdef const real *source = <const real *> weights.data + (
        g * plan.weights.group_stride + s // taps * weights.n_stride
        + s % taps // weights.w * weights.h_stride + s % weights.w * weights.w_stride
    )
    cdef real *to = <real *> plan.packed + (
        (g * plan.num_blocks + s // plan.width) * plan.channels * plan.width + s % plan.width
    )
    cdef real value
    cdef bint finite = True
    for c in range(plan.channels):
        value = source[c * weights.c_stride]
        to[c * plan.width] = value
        finite &= value - value == 0
    if not finite:
        plan.unfit = True


# ---------------------------------------------------------------- the products and their sums

# A part of the source rows.
cdef struct Chunk:
    Py_ssize_t top, left, height, width


cdef void sum_vectors(
    const ShiftedSums *plan, const real *packed, Py_ssize_t num_pixels, const real *pixels,
    real *sums, Py_ssize_t stride
) noexcept nogil:
    """Make the sums of whole vectors of neighbouring pixels."""
    cdef Py_ssize_t b, count
    for b in range(plan.num_blocks):
        count = min(plan.width, plan.sums - b * plan.width)
        plan.micro.correlate[count](
            plan.channels, num_pixels, packed, plan.weight_offset, pixels, plan.channel_offset,
            sums, stride, False
        )
        packed += plan.channels * plan.width
        sums += plan.width * stride


cdef void sum_channels(
    const ShiftedSums *plan, Py_ssize_t group, Py_ssize_t num_pixels, const real *pixels,
    real *sums, Py_ssize_t stride
) noexcept nogil:
    """Make the sums of neighbouring pixels, in whole vectors: the last one may overlap."""
    cdef Py_ssize_t lanes = plan.micro.lanes
    cdef Py_ssize_t whole = num_pixels // lanes * lanes
    cdef const real *packed = <const real *> plan.packed + (
        group * plan.num_blocks * plan.channels * plan.width
    )
    sum_vectors(plan, packed, whole, pixels, sums, stride)
    if whole < num_pixels:
        pixels += num_pixels - lanes
        sums += num_pixels - lanes
        sum_vectors(plan, packed, lanes, pixels, sums, stride)


cdef void sum_strip(
    const ShiftedSums *plan, Py_ssize_t group, const Chunk *strip, const real *source, real *sums
) noexcept nogil:
    cdef Py_ssize_t r, c, size = strip.height * strip.width, pitch = plan.source.h_stride
    cdef real *copy = sums + plan.sums * pixels_of_scratch(plan)
    source += strip.top * pitch + strip.left * plan.source.w_stride
    if plan.source.w_stride != 1:
        for c in range(plan.channels):
            plan.micro.pack(
                strip.height, strip.width, source + c * plan.source.c_stride, pitch,
                plan.source.w_stride, copy + plan.channel_offset[c], strip.width
            )
        source, pitch = copy, strip.width
    if strip.width == pitch:        # the rows follow each other
        sum_channels(plan, group, size, source, sums, size)
        return
    for r in range(strip.height):
        sum_channels(plan, group, strip.width, source + r * pitch, sums + r * strip.width, size)


cdef void add_strip(
    const ShiftedSums *plan, const Chunk *strip, const real *sums, Py_ssize_t first_row,
    Py_ssize_t last_row, real *out
) noexcept nogil:
    """Add the sums to the results that they belong to, in the rows from first_row on.

    Column by column of the kernels: what was stored last is then read again as it was stored, which
    the processor can do before it has reached the cache.
    """
    cdef const Array4 *weights = &plan.weights.of_group
    cdef Py_ssize_t size = strip.height * strip.width
    cdef Py_ssize_t k, i, j, top, bottom, left, right, down, aside
    cdef const real *first
    for j in range(weights.w):
        aside = plan.right + j * plan.step_w
        left = max(strip.left, -aside)
        right = min(strip.left + strip.width, plan.out.w - aside)
        for k in range(plan.kernels):
            for i in range(weights.h):
                down = plan.down + i * plan.step_h
                top = max(strip.top, first_row - down)
                bottom = min(strip.top + strip.height, last_row - down)
                if top >= bottom or left >= right:
                    continue
                first = sums + ((k * weights.h + i) * weights.w + j) * size
                plan.micro.add_rows(
                    bottom - top, right - left,
                    first + (top - strip.top) * strip.width + left - strip.left, strip.width,
                    out + k * plan.out.c_stride + (top + down) * plan.out.h_stride + left + aside,
                    plan.out.h_stride
                )


cdef void begin_band(
    const ShiftedSums *plan, Py_ssize_t first_row, Py_ssize_t last_row, const real *bias, real *out
) noexcept nogil:
    cdef Py_ssize_t k, y, x
    cdef real offset
    cdef real *row
    for k in range(plan.kernels):
        offset = bias[k] if bias != NULL else <real> 0
        for y in range(first_row, last_row):
            row = out + k * plan.out.c_stride + y * plan.out.h_stride
            for x in range(plan.out.w):
                row[x] = offset


cdef void convolve_band(
    const void *work, Py_ssize_t task, real *sums, Interrupt *interrupt
) noexcept nogil:
    """Compute a band of results of a sample and group."""
    cdef const ShiftedSums *plan = <const ShiftedSums *> work
    cdef const Array4 *source = plan.source
    cdef const Array4 *out = plan.out
    cdef Py_ssize_t groups = plan.convolution.geometry.groups
    cdef Py_ssize_t band = task % plan.bands
    cdef Py_ssize_t group = task // plan.bands % groups
    cdef Py_ssize_t sample = task // plan.bands // groups
    cdef Py_ssize_t first_row = band * out.h // plan.bands
    cdef Py_ssize_t last_row = (band + 1) * out.h // plan.bands
    # The source rows that meet a tap in these.
    cdef Py_ssize_t furthest = plan.down + (plan.weights.of_group.h - 1) * plan.step_h
    cdef Py_ssize_t begin = max(<Py_ssize_t> 0, first_row - max(plan.down, furthest))
    cdef Py_ssize_t end = min(source.h, last_row - min(plan.down, furthest))
    cdef Py_ssize_t kernel = group * plan.kernels
    cdef const real *bias = <const real *> plan.convolution.bias
    cdef const real *pixels = <const real *> source.data + (
        sample * source.n_stride + group * plan.channels * source.c_stride
    )
    cdef real *results = <real *> out.data + sample * out.n_stride + kernel * out.c_stride
    cdef Chunk strip
    cdef Py_ssize_t column
    begin_band(plan, first_row, last_row, bias + kernel if bias != NULL else NULL, results)
    while begin < end and not stopped(interrupt):
        strip.top = begin
        strip.height = min(plan.strip_h, end - begin)
        for column in range(plan.columns):
            strip.left = column * source.w // plan.columns
            strip.width = (column + 1) * source.w // plan.columns - strip.left
            sum_strip(plan, group, &strip, pixels, sums)
            add_strip(plan, &strip, sums, first_row, last_row, results)
        begin += strip.height


cdef inline Py_ssize_t packed_bytes(const ShiftedSums *plan) noexcept nogil:
    return aligned_size(
        plan.convolution.geometry.groups * plan.num_blocks * plan.channels * plan.width
        * <Py_ssize_t> plan.convolution.itemsize, 1
    )


cdef inline Py_ssize_t pixels_of_scratch(const ShiftedSums *plan) noexcept nogil:
    """Pixels of a strip."""
    return plan.strip_h * divide_up(plan.source.w, plan.columns)


cdef inline Py_ssize_t scratch_bytes(const ShiftedSums *plan) noexcept nogil:
    """The sums of a strip, and its pixels where these do not lie side by side."""
    cdef Py_ssize_t planes = plan.sums + (plan.channels if plan.source.w_stride != 1 else 0)
    return planes * pixels_of_scratch(plan) * <Py_ssize_t> plan.convolution.itemsize


# The packed weights, and the offsets.
cdef inline Py_ssize_t shared_bytes(const ShiftedSums *plan) noexcept nogil:
    return packed_bytes(plan) + 2 * plan.channels * <Py_ssize_t> sizeof(Py_ssize_t)


cdef int convolve(const void *work, Interrupt *interrupt) noexcept nogil:
    cdef ShiftedSums *plan = <ShiftedSums *> work
    cdef size_t itemsize = plan.convolution.itemsize
    cdef Py_ssize_t groups = plan.convolution.geometry.groups
    cdef Py_ssize_t channel_stride = plan.source.c_stride, c
    cdef Tasks packing = tasks_of(
        plan, itemsize, <Task> pack_sum[float], <Task> pack_sum[double], groups * plan.sums, 0, 1
    )
    cdef Tasks bands = tasks_of(
        plan, itemsize, <Task> convolve_band[float], <Task> convolve_band[double],
        plan.source.n * groups * plan.bands, scratch_bytes(plan), plan.num_threads
    )
    cdef int status
    if plan.source.w_stride != 1:
        channel_stride = pixels_of_scratch(plan)
    plan.packed = aligned_alloc(shared_bytes(plan), 1)
    if plan.packed == NULL:
        return -1
    plan.weight_offset = <Py_ssize_t *> (<char *> plan.packed + packed_bytes(plan))
    plan.channel_offset = plan.weight_offset + plan.channels
    for c in range(plan.channels):
        plan.weight_offset[c] = c * plan.width
        plan.channel_offset[c] = c * channel_stride
    plan.unfit = False
    status = run_tasks(&packing, interrupt)
    if plan.convolution.asked or not plan.unfit:
        status = run_tasks(&bands, interrupt)
    aligned_free(plan.packed)
    return status


# ---------------------------------------------------------------- the way


cdef bint run_way(const Convolution *convolution, void *plan, dict kept) except -1:
    finish_plan(<ShiftedSums *> plan, convolution)
    perform("a convolution by shifted sums", convolve, plan)
    return convolution.asked or not (<ShiftedSums *> plan).unfit


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    cdef ShiftedSums *sums = <ShiftedSums *> plan
    finish_plan(sums, convolution)
    needs[0] = Needs(sums.num_threads, scratch_bytes(sums), shared_bytes(sums))
    return True


cdef Way shifted_sums_way() noexcept:
    return Way("shifted_sums", objection, time, NULL, NULL, run_way, NULL, measure)
