"""Few kernels over many channels: all taps of all kernels at once, then their sums shifted.

With so few kernels a vector of pixels, once loaded, meets few weights, and the loads take longer
than the products. So every pixel first meets all taps as if they were kernels of their own: a
matrix product. The sum for a tap, over the channels, then belongs to the result that lies so far
from the pixel as the tap says, and is added to it there.

No zeros of a padding are multiplied, which for an input gradient are most of the direct way's.
"""

from convext.base._dispatch cimport microkernels
from convext.base._geometry cimport Array4, Geometry, real
from convext.base._interrupt cimport Interrupt, perform, stopped
from convext.base._scratch cimport aligned_alloc, aligned_free, aligned_size
from convext.base._tasks cimport (
    ENOUGH_TASKS, Task, Tasks, divide_up, run_tasks, tasks_of, threads_for
)

# With more kernels a vector of pixels meets enough weights.
cdef Py_ssize_t MAX_KERNELS = 4
cdef Py_ssize_t MAX_CHANNELS = 4096

# The sums of a chunk of pixels, and the pixels, should stay in L2.
cdef Py_ssize_t MAX_SUM_BYTES = 128 * 1024
cdef Py_ssize_t MAX_PIXEL_BYTES = 128 * 1024

# In rows so wide most vectors are full.
cdef Py_ssize_t WIDE = 128

# The rows of pixels above a band of results are computed for the band above, too.
cdef Py_ssize_t MIN_BAND_EXTENTS = 6


# ---------------------------------------------------------------- the plan


cdef bint plan_forward_by_shifts(
    ShiftedSums *plan, const Array4 *images, const Array4 *kernels, const Geometry *geometry,
    const Array4 *out, int num_threads, size_t itemsize
) noexcept nogil:
    plan.channels = kernels.c
    plan.kernels = kernels.n // geometry.groups
    plan.swapped = False
    plan.down = geometry.padding_top
    plan.right = geometry.padding_left
    plan.step_h = -geometry.dilation_h
    plan.step_w = -geometry.dilation_w
    return finish_plan(plan, images, kernels, geometry, out, num_threads, itemsize)


cdef bint plan_input_gradient_by_shifts(
    ShiftedSums *plan, const Array4 *output_grad, const Array4 *kernels, const Geometry *geometry,
    const Array4 *input_grad, int num_threads, size_t itemsize
) noexcept nogil:
    plan.channels = kernels.n // geometry.groups
    plan.kernels = kernels.c
    plan.swapped = True
    plan.down = -geometry.padding_top
    plan.right = -geometry.padding_left
    plan.step_h = geometry.dilation_h
    plan.step_w = geometry.dilation_w
    return finish_plan(plan, output_grad, kernels, geometry, input_grad, num_threads, itemsize)


cdef bint finish_plan(
    ShiftedSums *plan, const Array4 *source, const Array4 *weights, const Geometry *geometry,
    const Array4 *out, int num_threads, size_t itemsize
) noexcept nogil:
    cdef Py_ssize_t extent = (weights.h - 1) * geometry.dilation_h + 1
    cdef Py_ssize_t pixels, lanes
    # What most convolutions are turned away by comes first.
    if (
        plan.kernels > MAX_KERNELS or geometry.stride_h > 1 or geometry.stride_w > 1
        or plan.channels > MAX_CHANNELS
    ):
        return False
    plan.micro = microkernels(itemsize)
    plan.itemsize = itemsize
    plan.source = source[0]
    plan.weights = weights[0]
    plan.groups = geometry.groups
    plan.out_h = out.h
    plan.out_w = out.w
    plan.sums = plan.kernels * weights.h * weights.w
    lanes = plan.micro.lanes
    pixels = min(
        MAX_SUM_BYTES // (plan.sums * <Py_ssize_t> itemsize),
        MAX_PIXEL_BYTES // (plan.channels * <Py_ssize_t> itemsize)
    )
    if source.w < lanes or pixels < 2 * lanes or not is_faster(plan):
        return False
    plan.num_blocks = divide_up(plan.sums, plan.micro.max_kernels)
    plan.width = divide_up(plan.sums, plan.num_blocks)
    plan.num_blocks = divide_up(plan.sums, plan.width)
    plan.columns = divide_up(source.w, pixels)
    plan.chunk_h = max(1, min(source.h, pixels // divide_up(source.w, plan.columns)))
    plan.bands = max(1, min(
        divide_up(ENOUGH_TASKS, source.n * plan.groups), out.h // (MIN_BAND_EXTENTS * extent)
    ))
    plan.num_threads = threads_for(
        <double> source.n * source.c * source.h * source.w * plan.sums,
        source.n * plan.groups * plan.bands, num_threads
    )
    return True


cdef bint is_faster(const ShiftedSums *plan) noexcept nogil:
    """Whether the direct way takes longer, by a tenth at least.

    Measured on some dozen sizes: the sums take a tenth longer than the products alone would, and
    shifting them as long as the products of a few channels; the direct way has the more of the
    processor's speed, the more kernels there are and the wider the rows.
    """
    cdef double shifted = 1.11 + 7. / plan.channels
    cdef double direct
    if plan.kernels == 1:
        direct = 1 / 0.45 if plan.out_w < WIDE else 1 / 0.7
    else:
        direct = 1 / (0.7 + 0.04 * plan.kernels) if plan.out_w < WIDE else 1 / 0.9
    return (
        plan.weights.h * plan.weights.w > 1
        and 1.1 * shifted * plan.source.h * plan.source.w < direct * plan.out_h * plan.out_w
    )


# ---------------------------------------------------------------- the weights


# What all tasks read, and where they write.
cdef struct Operands:
    const ShiftedSums *plan
    const void *bias
    const Array4 *out
    void *packed                    # the weights,
    Py_ssize_t *weight_offset       # [channels] where in a block those of each channel begin,
    Py_ssize_t *channel_offset      # [channels] and where its pixels, in the source or the copy
    Py_ssize_t copy                 # where in the scratch memory neighbours lie side by side


cdef void pack_sum(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Pack the weights of a sum; in all: group, block of sums, channel, sum within the block."""
    cdef const Operands *operands = <const Operands *> work
    cdef const ShiftedSums *plan = operands.plan
    cdef const Array4 *weights = &plan.weights
    cdef Py_ssize_t kernel_stride = weights.n_stride, channel_stride = weights.c_stride
    cdef Py_ssize_t group_stride = plan.kernels * weights.n_stride
    cdef Py_ssize_t g = task // plan.sums, s = task % plan.sums
    cdef Py_ssize_t c, taps = weights.h * weights.w
    cdef const real *source
    cdef real *to = <real *> operands.packed + (
        (g * plan.num_blocks + s // plan.width) * plan.channels * plan.width + s % plan.width
    )
    if plan.swapped:
        kernel_stride, channel_stride = weights.c_stride, weights.n_stride
        group_stride = plan.channels * weights.n_stride
    source = (
        <const real *> weights.data + g * group_stride + s // taps * kernel_stride
        + s % taps // weights.w * weights.h_stride + s % weights.w * weights.w_stride
    )
    for c in range(plan.channels):
        to[c * plan.width] = source[c * channel_stride]


# ---------------------------------------------------------------- the products and their sums

# A part of the source rows.
cdef struct Chunk:
    Py_ssize_t top, left, height, width


cdef void sum_vectors(
    const ShiftedSums *plan, const Operands *operands, const real *packed, Py_ssize_t num_pixels,
    const real *pixels, real *sums, Py_ssize_t stride
) noexcept nogil:
    """Make the sums of whole vectors of neighbouring pixels."""
    cdef Py_ssize_t b, count
    for b in range(plan.num_blocks):
        count = min(plan.width, plan.sums - b * plan.width)
        plan.micro.correlate[count](
            plan.channels, num_pixels, packed, operands.weight_offset, pixels,
            operands.channel_offset, sums, stride, False
        )
        packed += plan.channels * plan.width
        sums += plan.width * stride


cdef void sum_channels(
    const ShiftedSums *plan, const Operands *operands, Py_ssize_t group, Py_ssize_t num_pixels,
    const real *pixels, real *sums, Py_ssize_t stride
) noexcept nogil:
    """Make the sums of neighbouring pixels, in whole vectors: the last one may overlap."""
    cdef Py_ssize_t lanes = plan.micro.lanes
    cdef Py_ssize_t whole = num_pixels // lanes * lanes
    cdef const real *packed = <const real *> operands.packed + (
        group * plan.num_blocks * plan.channels * plan.width
    )
    sum_vectors(plan, operands, packed, whole, pixels, sums, stride)
    if whole < num_pixels:
        pixels += num_pixels - lanes
        sums += num_pixels - lanes
        sum_vectors(plan, operands, packed, lanes, pixels, sums, stride)


cdef void sum_chunk(
    const ShiftedSums *plan, const Operands *operands, Py_ssize_t group, const Chunk *chunk,
    const real *source, real *sums
) noexcept nogil:
    cdef Py_ssize_t r, c, size = chunk.height * chunk.width, pitch = plan.source.h_stride
    cdef real *copy = sums + operands.copy
    source += chunk.top * pitch + chunk.left * plan.source.w_stride
    if plan.source.w_stride != 1:
        for c in range(plan.channels):
            plan.micro.pack(
                chunk.height, chunk.width, source + c * plan.source.c_stride, pitch,
                plan.source.w_stride, copy + operands.channel_offset[c], chunk.width
            )
        source, pitch = copy, chunk.width
    if chunk.width == pitch:        # the rows follow each other
        sum_channels(plan, operands, group, size, source, sums, size)
        return
    for r in range(chunk.height):
        sum_channels(
            plan, operands, group, chunk.width, source + r * pitch, sums + r * chunk.width, size
        )


cdef void add_chunk(
    const ShiftedSums *plan, const Chunk *chunk, const real *sums, Py_ssize_t kernel,
    Py_ssize_t first_row, Py_ssize_t last_row, real *out, const Array4 *layout
) noexcept nogil:
    """Add the sums to the results that they belong to, in the rows from first_row on.

    Column by column of the kernels: what was stored last is then read again as it was stored, which
    the processor can do before it has reached the cache.
    """
    cdef const Array4 *weights = &plan.weights
    cdef Py_ssize_t size = chunk.height * chunk.width
    cdef Py_ssize_t k, i, j, top, bottom, left, right, down, aside
    cdef const real *first
    for j in range(weights.w):
        aside = plan.right + j * plan.step_w
        left = max(chunk.left, -aside)
        right = min(chunk.left + chunk.width, plan.out_w - aside)
        for k in range(plan.kernels):
            for i in range(weights.h):
                down = plan.down + i * plan.step_h
                top = max(chunk.top, first_row - down)
                bottom = min(chunk.top + chunk.height, last_row - down)
                if top >= bottom or left >= right:
                    continue
                first = sums + ((k * weights.h + i) * weights.w + j) * size
                plan.micro.add_rows(
                    bottom - top, right - left,
                    first + (top - chunk.top) * chunk.width + left - chunk.left, chunk.width,
                    out + (
                        (kernel + k) * layout.c_stride + (top + down) * layout.h_stride
                        + left + aside
                    ),
                    layout.h_stride
                )


cdef void begin_band(
    const ShiftedSums *plan, Py_ssize_t kernel, Py_ssize_t first_row, Py_ssize_t last_row,
    const real *bias, real *out, const Array4 *layout
) noexcept nogil:
    cdef Py_ssize_t k, y, x
    cdef real offset
    cdef real *row
    for k in range(kernel, kernel + plan.kernels):
        offset = bias[k] if bias != NULL else <real> 0
        for y in range(first_row, last_row):
            row = out + k * layout.c_stride + y * layout.h_stride
            for x in range(plan.out_w):
                row[x] = offset


cdef void convolve_band(
    const void *work, Py_ssize_t task, real *sums, Interrupt *interrupt
) noexcept nogil:
    """Compute a band of results of a sample and group."""
    cdef const Operands *operands = <const Operands *> work
    cdef const ShiftedSums *plan = operands.plan
    cdef const Array4 *out = operands.out
    cdef Py_ssize_t band = task % plan.bands
    cdef Py_ssize_t group = task // plan.bands % plan.groups
    cdef Py_ssize_t sample = task // plan.bands // plan.groups
    cdef Py_ssize_t first_row = band * plan.out_h // plan.bands
    cdef Py_ssize_t last_row = (band + 1) * plan.out_h // plan.bands
    # The source rows that meet a tap in these.
    cdef Py_ssize_t furthest = plan.down + (plan.weights.h - 1) * plan.step_h
    cdef Py_ssize_t begin = max(<Py_ssize_t> 0, first_row - max(plan.down, furthest))
    cdef Py_ssize_t end = min(plan.source.h, last_row - min(plan.down, furthest))
    cdef Py_ssize_t kernel = group * plan.kernels
    cdef const real *source = <const real *> plan.source.data + (
        sample * plan.source.n_stride + group * plan.channels * plan.source.c_stride
    )
    cdef real *results = <real *> out.data + sample * out.n_stride
    cdef Chunk chunk
    cdef Py_ssize_t column
    begin_band(
        plan, kernel, first_row, last_row, <const real *> operands.bias, results, out
    )
    while begin < end and not stopped(interrupt):
        chunk.top = begin
        chunk.height = min(plan.chunk_h, end - begin)
        for column in range(plan.columns):
            chunk.left = column * plan.source.w // plan.columns
            chunk.width = (column + 1) * plan.source.w // plan.columns - chunk.left
            sum_chunk(plan, operands, group, &chunk, source, sums)
            add_chunk(plan, &chunk, sums, kernel, first_row, last_row, results, out)
        begin += chunk.height


cdef int convolve(const void *work, Interrupt *interrupt) noexcept nogil:
    cdef Operands operands = (<const Operands *> work)[0]
    cdef const ShiftedSums *plan = operands.plan
    cdef Py_ssize_t itemsize = plan.itemsize, c
    cdef Py_ssize_t chunk_size = plan.chunk_h * divide_up(plan.source.w, plan.columns)
    cdef Py_ssize_t channel_stride = plan.source.c_stride
    cdef Py_ssize_t packed_bytes = aligned_size(
        plan.groups * plan.num_blocks * plan.channels * plan.width * itemsize, 1
    )
    cdef Tasks packing = tasks_of(
        &operands, itemsize, <Task> pack_sum[float], <Task> pack_sum[double],
        plan.groups * plan.sums, 0, 1
    )
    cdef Tasks bands = tasks_of(
        &operands, itemsize, <Task> convolve_band[float], <Task> convolve_band[double],
        plan.source.n * plan.groups * plan.bands, plan.sums * chunk_size * itemsize,
        plan.num_threads
    )
    cdef int status
    operands.copy = plan.sums * chunk_size
    if plan.source.w_stride != 1:
        channel_stride = chunk_size
        bands.scratch += plan.channels * chunk_size * itemsize
    operands.packed = aligned_alloc(
        packed_bytes + 2 * plan.channels * <Py_ssize_t> sizeof(Py_ssize_t), 1
    )
    if operands.packed == NULL:
        return -1
    operands.weight_offset = <Py_ssize_t *> (<char *> operands.packed + packed_bytes)
    operands.channel_offset = operands.weight_offset + plan.channels
    for c in range(plan.channels):
        operands.weight_offset[c] = c * plan.width
        operands.channel_offset[c] = c * channel_stride
    run_tasks(&packing, interrupt)
    status = run_tasks(&bands, interrupt)
    aligned_free(operands.packed)
    return status


cdef int convolve_by_shifts(
    const ShiftedSums *plan, const void *bias, const Array4 *out
) except -1:
    cdef Operands operands = Operands(plan, bias, out, NULL, NULL, NULL, 0)
    return perform("a convolution by shifted sums", convolve, &operands)
