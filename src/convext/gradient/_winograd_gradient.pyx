"""Winograd's kernel gradient: 36 products for a tile of 4x4 output gradients instead of 144.

Pixels and output gradients are transformed; for each of the 36 values a matrix of kernels by tiles
meets one of tiles by channels, and the sums are transformed to the nine taps: docs/winograd.md.
Vectors hold kernels, then channels, never pixels, so that narrow images leave no lane empty.

The sums of a block of tiles are transformed in the arrays' own type, and added in float64 to those
of the other blocks, in an order that depends on the shapes alone.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from convext.base._dispatch cimport WINOGRAD_CHANNELS, Limits
from convext.base._geometry cimport Array4, Convolution, real
from convext.base._interrupt cimport Interrupt, check_memory, perform, stopped
from convext.base._scratch cimport aligned_alloc, aligned_free
from convext.base._tasks cimport Task, Tasks, run_tasks, tasks_of
from convext.gradient._segments cimport add_segments
from convext.gradient._winograd_gradient_plan cimport (
    AREA, TILE, Scratch, WinogradGradient, arrange, finish_plan, objection, time
)
from convext.ways._bands cimport has_small_pixels, limits_of
from convext.ways._ways cimport Needs, Way
from convext.ways._winograd_check cimport add_up_squares
from convext.ways._winograd_pixels cimport fill_panel, transform_block
from convext.ways._winograd_plan cimport Squares, Winograd, channels_of, panel_columns
from convext.ways._winograd_strips cimport Block, block_at, sample_of, strip_column, strip_row

# For "auto": not all taps meet the pixels near the edges, so that the squares of
# these may be MAX_OUTSIDE times those of the others; no pixel may have more than MAX_SHARE of them.
cdef double MAX_OUTSIDE = 16
cdef double MAX_SHARE = 0.25

NAME = "a kernel gradient by Winograd's method"


cdef void transform_gradients(
    const Winograd *tiles, const Block *block, Py_ssize_t kernel, Py_ssize_t count, real *panel,
    real *squares, real *values
) noexcept nogil:
    """Transform the output gradients of a block for `count` kernels."""
    cdef Py_ssize_t strip, top, left
    cdef const real *image
    for strip in range(block.first, block.last):
        image = <const real *> tiles.source.data + (
            sample_of(tiles, strip) * tiles.source.n_stride + kernel * tiles.source.c_stride
        )
        top = strip_row(tiles, strip)
        left = strip_column(tiles, strip)
        if tiles.squares == NULL:
            fill_panel(tiles, image, count, top, left, TILE, panel, False, <real *> NULL)
        else:
            memset(squares, 0, TILE * tiles.squares_pitch * sizeof(real))
            fill_panel(tiles, image, count, top, left, TILE, panel, False, squares)
            add_up_squares(tiles, top, left, TILE, squares, tiles.squares)
        tiles.micro.winograd_gradients(
            tiles.strip_tiles, count, panel, panel_columns(tiles) * WINOGRAD_CHANNELS, values,
            tiles.value_stride
        )
        values += tiles.strip_tiles * WINOGRAD_CHANNELS


cdef inline Py_ssize_t first_block(
    const WinogradGradient *plan, Py_ssize_t segment
) noexcept nogil:
    return segment * plan.pixels.num_blocks // plan.segments


# Where the gradients of some strips go: to `kernel_grad` or, unless that is NULL, to the sums of a
# segment, which the first block of a segment begins.
cdef struct Target:
    void *kernel_grad
    double *sums
    bint begin


cdef void finish(
    const WinogradGradient *plan, Py_ssize_t kernel, Py_ssize_t kernels, Py_ssize_t channel,
    Py_ssize_t channels, const Scratch *layout, real *scratch, const Target *target
) noexcept nogil:
    """Transform sums to taps, and store or add them."""
    cdef const Winograd *tiles = &plan.pixels
    cdef Py_ssize_t first = (kernel * plan.channels + plan.first_channel + channel) * AREA
    cdef Py_ssize_t count = kernels * WINOGRAD_CHANNELS
    cdef real *row = scratch + layout.rows
    cdef Py_ssize_t i
    tiles.micro.winograd_taps(
        kernels, channels, scratch + layout.sums, plan.sum_stride, scratch + layout.taps, count
    )
    tiles.micro.interleave(count, AREA, scratch + layout.taps, count, 1, row, AREA)
    for _ in range(kernels):
        if target.sums == NULL:
            memcpy(
                <real *> target.kernel_grad + first, row, channels * AREA * sizeof(real)
            )
        elif target.begin:
            for i in range(channels * AREA):
                target.sums[first + i] = row[i]
        else:
            for i in range(channels * AREA):
                target.sums[first + i] += row[i]
        first += plan.channels * AREA
        row += WINOGRAD_CHANNELS * AREA


cdef void add_unit(
    const WinogradGradient *plan, const Block *block, Py_ssize_t unit, const Scratch *layout,
    real *scratch, const Target *target
) noexcept nogil:
    """Add up a block of tiles, of transformed pixels, for a unit of kernels."""
    cdef const Winograd *tiles = &plan.pixels
    cdef Py_ssize_t kernels = channels_of(&plan.gradients, unit % plan.group_units)
    cdef Py_ssize_t kernel = (
        unit // plan.group_units * plan.gradients.channels
        + unit % plan.group_units * WINOGRAD_CHANNELS
    )
    cdef Py_ssize_t b
    transform_gradients(
        &plan.gradients, block, kernel, kernels, scratch + layout.panel,
        scratch + layout.squares, scratch + layout.gradients
    )
    for b in range(tiles.channel_blocks):
        tiles.micro.winograd_gradient_products(
            block.all.last, kernels, channels_of(tiles, b),
            scratch + layout.gradients, scratch + layout.pixels + b * tiles.value_size,
            tiles.value_stride, scratch + layout.sums, plan.sum_stride
        )
        finish(
            plan, kernel, kernels, b * WINOGRAD_CHANNELS, channels_of(tiles, b), layout, scratch,
            target
        )


cdef WinogradGradient part_of_channels(
    const WinogradGradient *plan, Py_ssize_t part
) noexcept nogil:
    """The plan for some of the channels; the last part is the largest."""
    cdef WinogradGradient plan_of_part = plan[0]
    cdef Winograd *tiles = &plan_of_part.pixels
    cdef Py_ssize_t first = part * plan.pixels.channel_blocks // plan.channel_parts
    cdef Py_ssize_t last = (part + 1) * plan.pixels.channel_blocks // plan.channel_parts
    plan_of_part.first_channel = first * WINOGRAD_CHANNELS
    tiles.channel_blocks = last - first
    tiles.channels = min(last * WINOGRAD_CHANNELS, plan.channels) - plan_of_part.first_channel
    tiles.source_channels = tiles.channels
    tiles.source.data = <char *> tiles.source.data + (
        plan_of_part.first_channel * tiles.source.c_stride * <Py_ssize_t> tiles.itemsize
    )
    return plan_of_part


# What the tasks read, and where they write.
cdef struct Operands:
    const WinogradGradient *plan
    void *kernel_grad
    double *sums            # [segments][size]; or NULL
    bint safe               # whether they are as exact as those of the direct way


cdef void add_part(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Add up a segment of the tiles for some units of kernels and some channels."""
    cdef const Operands *operands = <const Operands *> work
    cdef WinogradGradient plan = part_of_channels(
        operands.plan, task % operands.plan.channel_parts
    )
    cdef Winograd *tiles = &plan.pixels
    cdef Scratch layout = arrange(&plan)
    cdef Py_ssize_t part = task // plan.channel_parts % plan.kernel_parts
    cdef Py_ssize_t segment = task // plan.channel_parts // plan.kernel_parts
    cdef Py_ssize_t units = plan.groups * plan.group_units, index, unit
    cdef Py_ssize_t first_unit = part * units // plan.kernel_parts
    cdef Target target = Target(operands.kernel_grad, NULL, False)
    cdef Block block
    if operands.sums != NULL:
        target.sums = operands.sums + segment * plan.size
    for index in range(first_block(&plan, segment), first_block(&plan, segment + 1)):
        block = block_at(tiles, index)
        target.begin = index == first_block(&plan, segment)
        for unit in range(first_unit, (part + 1) * units // plan.kernel_parts):
            if stopped(interrupt):
                return
            # Tasks of other kernels meet the same pixels, of other channels the same gradients.
            tiles.squares = plan.gradients.squares = NULL
            if plan.is_checked and unit % plan.group_units == 0:
                tiles.squares = plan.pixel_squares + (
                    plan.first_channel // WINOGRAD_CHANNELS * tiles.num_blocks + index
                )
            if plan.is_checked and plan.first_channel == 0:
                plan.gradients.squares = plan.gradient_squares + unit * tiles.num_blocks + index
            if unit == first_unit or unit % plan.group_units == 0:
                transform_block(
                    tiles, unit // plan.group_units, &block, scratch + layout.panel,
                    <real *> NULL, scratch + layout.squares, scratch + layout.pixels
                )
            add_unit(&plan, &block, unit, &layout, scratch, &target)


cdef Py_ssize_t scratch_size(const WinogradGradient *plan) noexcept nogil:
    """Elements of the scratch memory of a thread."""
    cdef WinogradGradient largest = part_of_channels(plan, plan.channel_parts - 1)
    return arrange(&largest).size


cdef bint are_even(
    const Winograd *tiles, const Squares *squares, Py_ssize_t first_channel, Py_ssize_t channels
) noexcept nogil:
    """Whether each tap meets enough of the squares of some channels, given those of each block."""
    cdef Limits limits = limits_of(tiles.itemsize, MAX_OUTSIDE)
    cdef const Array4 *source = &tiles.source
    cdef Squares all = Squares(0, 0, 0)
    cdef Py_ssize_t i, n, first
    for i in range(tiles.num_blocks):
        all.total += squares[i].total
        all.inside += squares[i].inside
        all.most = max(all.most, squares[i].most)
    if not (
        all.total <= limits.ratio * all.inside and all.total <= limits.most
        and all.most <= MAX_SHARE * all.inside
    ):
        return False
    if all.total >= limits.least:
        return True
    for n in range(source.n):
        first = n * source.n_stride + first_channel * source.c_stride
        if (
            has_small_pixels(
                source, <const float *> source.data + first, channels, 0, source.h, 0, source.w,
                limits.least
            ) if tiles.itemsize == sizeof(float) else has_small_pixels(
                source, <const double *> source.data + first, channels, 0, source.h, 0, source.w,
                limits.least
            )
        ):
            return False
    return True


cdef bint are_all_even(
    const Winograd *tiles, const Squares *squares, Py_ssize_t groups
) noexcept nogil:
    """The same of all channels, block by block: `squares` are those of each block of tiles."""
    cdef Py_ssize_t group, b
    for group in range(groups):
        for b in range(tiles.channel_blocks):
            if not are_even(
                tiles, squares, group * tiles.channels + b * WINOGRAD_CHANNELS,
                channels_of(tiles, b)
            ):
                return False
            squares += tiles.num_blocks
    return True


cdef int differentiate(const void *work, Interrupt *interrupt) noexcept nogil:
    cdef Operands *operands = <Operands *> work
    cdef const WinogradGradient *plan = operands.plan
    cdef size_t itemsize = plan.pixels.itemsize
    cdef Tasks parts = tasks_of(
        operands, itemsize, <Task> add_part[float], <Task> add_part[double],
        plan.segments * plan.kernel_parts * plan.channel_parts,
        scratch_size(plan) * <Py_ssize_t> itemsize, plan.num_threads
    )
    cdef int status
    if not plan.in_one_go:
        operands.sums = <double *> aligned_alloc(plan.segments * plan.size, sizeof(double))
        if operands.sums == NULL:
            return -1
    status = run_tasks(&parts, interrupt)
    if status == 0 and operands.sums != NULL:
        status = add_segments(
            operands.sums, plan.segments, plan.size, operands.kernel_grad, itemsize,
            plan.num_threads, interrupt
        )
    operands.safe = not plan.is_checked or (
        are_all_even(&plan.pixels, plan.pixel_squares, plan.groups)
        and are_all_even(&plan.gradients, plan.gradient_squares, plan.groups)
    )
    aligned_free(operands.sums)
    return status


cdef bint run_way(const Convolution *convolution, void *plan, dict kept) except -1:
    cdef WinogradGradient *gradient = <WinogradGradient *> plan
    cdef Operands operands = Operands(gradient, convolution.kernels.data, NULL, False)
    cdef Py_ssize_t pixels, gradients
    finish_plan(gradient, convolution)
    pixels = gradient.groups * gradient.pixels.channel_blocks * gradient.pixels.num_blocks
    gradients = gradient.groups * gradient.group_units * gradient.pixels.num_blocks
    gradient.pixel_squares = <Squares *> calloc(pixels + gradients, sizeof(Squares))
    check_memory(-1 if gradient.pixel_squares == NULL else 0, NAME)
    gradient.gradient_squares = gradient.pixel_squares + pixels
    try:
        perform(NAME, differentiate, &operands)
    finally:
        free(gradient.pixel_squares)
    return operands.safe


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    cdef WinogradGradient *gradient = <WinogradGradient *> plan
    finish_plan(gradient, convolution)
    needs.num_threads = gradient.num_threads
    needs.of_thread = scratch_size(gradient) * convolution.itemsize
    needs.shared = 0
    if not gradient.in_one_go:
        needs.shared = gradient.segments * gradient.size * <Py_ssize_t> sizeof(double)
    return True


cdef Way winograd_gradient_way() noexcept:
    return Way("winograd", objection, time, NULL, NULL, run_way, NULL, measure)
