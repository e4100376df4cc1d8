"""Winograd's convolutions F(4x4, 3x3) and F(2x2, 5x5): 36 products in place of 144 and of 100.

Pixels and kernels are transformed, for each of the 36 values a matrix of tiles by channels meets
one of channels by kernels, and the sums are transformed to results; see docs/winograd.md. Vectors
hold channels, then kernels, never pixels, so that narrow images leave no lane empty.
"""

cimport numpy as cnp
import numpy as np
from cython.parallel cimport parallel, prange, threadid
from libc.string cimport memcpy, memset

from convext._dispatch cimport WINOGRAD_CHANNELS, microkernels
from convext._geometry cimport AUTO, WINOGRAD, Array4, Geometry, real
from convext._interrupt cimport Interrupt, finish_polling, interrupted, start_polling
from convext._scratch cimport aligned_alloc, aligned_free, aligned_size, apart
from convext._tasks cimport divide_up, threads_for
from convext._tile cimport lay_side_by_side

cdef enum:
    POINTS = 6                  # pixels of a tile along an axis
    VALUES = POINTS * POINTS    # of a transformed tile

# The transformed pixels of a block of tiles should stay in a small L2 cache, and transformed
# kernels in the L3 cache.
cdef Py_ssize_t MAX_BLOCK_BYTES = 640 * 1024
cdef Py_ssize_t MAX_KERNEL_BYTES = 8 * 1024 * 1024

# Kernels are fetched for each block, which has at least so many tiles for them.
cdef Py_ssize_t MIN_TILES = 14

# Where all tiles make one block, kernels are transformed where they are used and need not be
# fetched: then it is better that the pixels take the L3 cache.
cdef Py_ssize_t MAX_SINGLE_BLOCK_BYTES = 5 * 1024 * 1024

# The pixels of a single block are transformed by each thread, which must be worth it.
cdef Py_ssize_t MIN_UNITS_PER_THREAD = 4

# Pixels of so many strips are laid out together as stay in the L2 cache.
cdef Py_ssize_t MAX_PANEL_BYTES = 192 * 1024

# With more channels neither pixels nor kernels fit.
cdef Py_ssize_t MAX_CHANNELS = 2048

# Transformed kernels take four times the memory, which is too much of it to keep beyond this.
cdef Py_ssize_t MAX_KEPT_BYTES = 64 * 1024 * 1024

# With fewer than MIN_TILES, larger 3x3 kernels are transformed in less time than it takes to read
# them transformed from memory.
cdef Py_ssize_t MAX_READ_BYTES = 4 * 1024 * 1024

cdef Py_ssize_t CACHE_LINE = 64

NO_MEMORY = "not enough memory for the scratch space of Winograd's convolution"

# With a few tasks for each thread none waits long for the last one.
cdef Py_ssize_t TASKS_PER_THREAD = 3


# ---------------------------------------------------------------- the plan


cdef bint plan_forward(
    Winograd *plan, const Array4 *images, const Array4 *kernels, const Geometry *geometry,
    Py_ssize_t out_h, Py_ssize_t out_w, int algorithm, int num_threads, size_t itemsize
) noexcept nogil:
    plan.kernels = kernels.n // geometry.groups
    plan.channels = kernels.c
    plan.taps = kernels.h
    plan.tile = POINTS + 1 - plan.taps
    if not worthwhile(plan, images.n, kernels, geometry, out_h, out_w, algorithm):
        return False
    plan.swapped = False
    plan.top = -geometry.padding_top
    plan.left = -geometry.padding_left
    finish_plan(plan, images, geometry.groups, out_h, out_w, num_threads, itemsize)
    return True


cdef bint plan_input_gradient(
    Winograd *plan, const Array4 *output_grad, const Array4 *kernels, const Geometry *geometry,
    Py_ssize_t in_h, Py_ssize_t in_w, int algorithm, int num_threads, size_t itemsize
) noexcept nogil:
    plan.kernels = kernels.c
    plan.channels = kernels.n // geometry.groups
    plan.taps = kernels.h
    plan.tile = POINTS + 1 - plan.taps
    if not worthwhile(plan, output_grad.n, kernels, geometry, in_h, in_w, algorithm):
        return False
    plan.swapped = True
    plan.top = geometry.padding_top - overlap(plan)
    plan.left = geometry.padding_left - overlap(plan)
    finish_plan(plan, output_grad, geometry.groups, in_h, in_w, num_threads, itemsize)
    return True


cdef inline Py_ssize_t overlap(const Winograd *plan) noexcept nogil:
    """So many pixels of a tile along an axis are the next tile's, too."""
    return plan.taps - 1


cdef bint worthwhile(
    const Winograd *plan, Py_ssize_t num_samples, const Array4 *kernels, const Geometry *geometry,
    Py_ssize_t out_h, Py_ssize_t out_w, int algorithm
) noexcept nogil:
    if algorithm != AUTO:
        return algorithm == WINOGRAD
    return (
        (kernels.h == 3 or kernels.h == 5) and kernels.w == kernels.h
        and geometry.stride_h == 1 and geometry.stride_w == 1
        and geometry.dilation_h == 1 and geometry.dilation_w == 1
        and is_faster(plan, num_samples, out_h, out_w)
    )


cdef inline double direct_products(
    const Winograd *plan, Py_ssize_t num_samples, Py_ssize_t out_h, Py_ssize_t out_w
) noexcept nogil:
    """Multiplications of the direct way, for one group."""
    return (
        <double> plan.taps * plan.taps * num_samples * out_h * out_w
        * plan.channels * plan.kernels
    )


cdef bint is_faster(
    const Winograd *plan, Py_ssize_t num_samples, Py_ssize_t out_h, Py_ssize_t out_w
) noexcept nogil:
    """Whether the direct way takes longer, by a tenth at least, since it rounds less.

    Times are in multiplications of the direct way, and were fitted to some hundred sizes of both
    types on three instruction sets: docs/winograd.md.
    """
    cdef double tiles = (
        <double> num_samples * divide_up(out_h, plan.tile) * divide_up(out_w, plan.tile)
    )
    # Rounded up to whole vectors of the widest instruction set, on every one: so all go one way.
    cdef double whole_channels = divide_up(plan.channels, 16) * 16
    cdef double whole_kernels = divide_up(plan.kernels, 16) * 16
    # With 25 taps the direct way comes closer to the peak, so that products are worth more of its
    # multiplications.
    cdef double product = 27 if plan.taps == 3 else 38
    cdef double kernel = 160 if plan.taps == 3 else 300
    cdef double winograd = (
        product * tiles * plan.channels * whole_kernels
        + 320 * tiles * whole_channels                  # transforming the pixels,
        + 240 * tiles * whole_kernels                   # the sums,
        + kernel * plan.channels * whole_kernels        # the kernels
    )
    cdef double direct = direct_products(plan, num_samples, out_h, out_w)
    return plan.channels <= MAX_CHANNELS and 1.1 * winograd < direct


cdef void finish_plan(
    Winograd *plan, const Array4 *source, Py_ssize_t groups, Py_ssize_t out_h, Py_ssize_t out_w,
    int num_threads, size_t itemsize
) noexcept nogil:
    plan.micro = microkernels(itemsize)
    plan.itemsize = itemsize
    plan.source = source[0]
    plan.groups = groups
    plan.out_h = out_h
    plan.out_w = out_w
    plan.num_threads = threads_for(
        direct_products(plan, source.n, out_h, out_w) * groups, num_threads, num_threads
    )
    cut_kernels(plan)
    cut_tiles(plan)
    plan.num_threads = <int> min(<Py_ssize_t> plan.num_threads, plan.num_blocks * num_units(plan))


cdef void cut_kernels(Winograd *plan) noexcept nogil:
    plan.channel_blocks = divide_up(plan.channels, WINOGRAD_CHANNELS)
    plan.width = plan.micro.winograd_width
    plan.group_units = divide_up(plan.kernels, plan.width)
    plan.piece_stride = apart(WINOGRAD_CHANNELS * plan.width, plan.itemsize)
    plan.piece_size = VALUES * plan.piece_stride


cdef void cut_tiles(Winograd *plan) noexcept nogil:
    """Cut the output into strips of a row of tiles, and these into blocks."""
    cdef Py_ssize_t tiles_across = divide_up(plan.out_w, plan.tile)
    cdef Py_ssize_t tile_bytes = (
        VALUES * plan.channel_blocks * WINOGRAD_CHANNELS * <Py_ssize_t> plan.itemsize
    )
    cdef Py_ssize_t most = max(MIN_TILES, MAX_BLOCK_BYTES // tile_bytes)
    cdef Py_ssize_t tiles
    plan.tiles_down = divide_up(plan.out_h, plan.tile)
    tiles = plan.source.n * plan.tiles_down * tiles_across
    if (
        tiles <= MAX_SINGLE_BLOCK_BYTES // tile_bytes
        and num_units(plan) >= MIN_UNITS_PER_THREAD * plan.num_threads
    ):
        most = max(most, tiles)
    cut_into_blocks(plan, most)
    tiles = plan.block_strips * plan.strip_tiles
    plan.sum_stride = apart(tiles * plan.width, plan.itemsize)


cdef void cut_into_blocks(Winograd *plan, Py_ssize_t most) noexcept nogil:
    cdef Py_ssize_t tiles_across = divide_up(plan.out_w, plan.tile)
    plan.tiles_down = divide_up(plan.out_h, plan.tile)
    plan.strips_across = divide_up(tiles_across, most)
    plan.strip_tiles = divide_up(tiles_across, plan.strips_across)
    plan.num_strips = plan.source.n * plan.strips_across * plan.tiles_down
    plan.num_blocks = divide_up(plan.num_strips, most // plan.strip_tiles)
    plan.block_strips = divide_up(plan.num_strips, plan.num_blocks)
    plan.num_blocks = divide_up(plan.num_strips, plan.block_strips)
    plan.value_stride = apart(
        plan.block_strips * plan.strip_tiles * WINOGRAD_CHANNELS, plan.itemsize
    )
    plan.value_size = VALUES * plan.value_stride


cdef inline Py_ssize_t num_units(const Winograd *plan) noexcept nogil:
    return plan.groups * plan.group_units


cdef inline Py_ssize_t unit_size(const Winograd *plan) noexcept nogil:
    """Elements of the transformed kernels of a unit."""
    return plan.channel_blocks * plan.piece_size


# ---------------------------------------------------------------- kernels


cdef void transform_piece(
    const Winograd *plan, const Array4 *kernels, Py_ssize_t unit, Py_ssize_t channel_block,
    real *taps, real *to
) noexcept nogil:
    """Transform the kernels of a unit for a block of channels; `taps` is scratch memory.

    In lanes beyond the last kernel are left-overs, whose sums are dropped.
    """
    cdef Py_ssize_t group = unit // plan.group_units
    cdef Py_ssize_t kernel = unit % plan.group_units * plan.width
    cdef Py_ssize_t count = min(plan.width, plan.kernels - kernel)
    cdef Py_ssize_t channel = channel_block * WINOGRAD_CHANNELS
    cdef Py_ssize_t channels = min(WINOGRAD_CHANNELS, plan.channels - channel)
    cdef Py_ssize_t area = plan.taps * plan.taps
    cdef Py_ssize_t kernel_stride = kernels.n_stride, channel_stride = kernels.c_stride
    cdef Py_ssize_t c, i, j, run = 1
    cdef const real *first
    if plan.swapped:
        kernel_stride, channel_stride = kernels.c_stride, kernels.n_stride
        first = <const real *> kernels.data + group * plan.channels * kernels.n_stride
    else:
        first = <const real *> kernels.data + group * plan.kernels * kernels.n_stride
    first += kernel * kernel_stride + channel * channel_stride

    if kernels.w_stride == 1 and kernels.h_stride == plan.taps:
        run = channels * area if channel_stride == area else area
    c = 0
    while c < channels:
        for i in range(plan.taps if run == 1 else 1):
            for j in range(plan.taps if run == 1 else 1):
                plan.micro.interleave(
                    run, count,
                    first + c * channel_stride + i * kernels.h_stride + j * kernels.w_stride,
                    kernel_stride, 1, taps + (c * area + i * plan.taps + j) * plan.width, plan.width
                )
        c += max(<Py_ssize_t> 1, run // area)

    # Turned around, the taps are read from the last one on.
    plan.micro.winograd_kernels(
        <int> plan.taps, channels, count,
        taps + (area - 1) * plan.width if plan.swapped else taps,
        -plan.width if plan.swapped else plan.width,
        to, plan.piece_stride
    )


cdef inline Py_ssize_t taps_size(const Winograd *plan) noexcept nogil:
    """Elements of the scratch memory of transform_piece."""
    return aligned_size(WINOGRAD_CHANNELS * plan.taps * plan.taps * plan.width, plan.itemsize)


cdef int transform_units(
    const Winograd *plan, const Array4 *kernels, Py_ssize_t first_unit, Py_ssize_t last_unit,
    real *to, Interrupt *interrupt
) noexcept nogil:
    cdef Py_ssize_t pieces = (last_unit - first_unit) * plan.channel_blocks
    cdef Py_ssize_t i
    cdef real *taps = <real *> aligned_alloc(plan.num_threads * taps_size(plan), plan.itemsize)
    if taps == NULL:
        return -1
    with parallel(num_threads=plan.num_threads, use_threads_if=plan.num_threads > 1):
        for i in prange(pieces, schedule="static"):
            if not interrupted(interrupt, threadid() == 0):
                transform_piece(
                    plan, kernels, first_unit + i // plan.channel_blocks, i % plan.channel_blocks,
                    taps + threadid() * taps_size(plan), to + i * plan.piece_size
                )
    aligned_free(taps)
    return 0


# ---------------------------------------------------------------- tasks

# The scratch memory of a thread: the transformed pixels of a block of tiles, and then those of a
# panel, later the sums of a unit of kernels with their results.
cdef struct Scratch:
    Py_ssize_t values       # [channel_blocks][VALUES][tiles][WINOGRAD_CHANNELS]
    Py_ssize_t panel        # [rows][columns][WINOGRAD_CHANNELS]
    Py_ssize_t sums         # [VALUES][tiles][width], at the panel's place
    Py_ssize_t errors       # of these sums, likewise
    Py_ssize_t results      # [tile rows of a strip][columns][width]
    Py_ssize_t rows         # [width][tile rows of a strip][columns]
    Py_ssize_t bias         # [width]
    Py_ssize_t taps         # for transform_piece
    Py_ssize_t piece        # transformed kernels
    Py_ssize_t size


cdef Py_ssize_t panel_columns(const Winograd *plan) noexcept nogil:
    return plan.strip_tiles * plan.tile + overlap(plan)


cdef Py_ssize_t panel_strips(const Winograd *plan) noexcept nogil:
    """So many strips, one below the other, are laid out together."""
    cdef Py_ssize_t row_bytes = (
        panel_columns(plan) * WINOGRAD_CHANNELS * <Py_ssize_t> plan.itemsize
    )
    return max(<Py_ssize_t> 1, min(
        min(plan.block_strips, plan.tiles_down),
        (MAX_PANEL_BYTES // row_bytes - overlap(plan)) // plan.tile
    ))


cdef Scratch arrange(const Winograd *plan) noexcept nogil:
    cdef Scratch layout
    cdef Py_ssize_t strip = plan.strip_tiles * plan.tile * plan.tile * plan.width
    cdef Py_ssize_t panel = (
        (panel_strips(plan) * plan.tile + overlap(plan)) * panel_columns(plan) * WINOGRAD_CHANNELS
    )
    layout.values = 0
    layout.panel = layout.sums = aligned_size(
        plan.channel_blocks * plan.value_size, plan.itemsize
    )
    layout.errors = layout.sums + aligned_size(VALUES * plan.sum_stride, plan.itemsize)
    layout.results = layout.errors + aligned_size(VALUES * plan.sum_stride, plan.itemsize)
    layout.rows = layout.results + aligned_size(strip, plan.itemsize)
    layout.bias = max(
        layout.rows + aligned_size(strip, plan.itemsize),
        layout.panel + aligned_size(panel, plan.itemsize)
    )
    layout.taps = layout.bias + aligned_size(plan.width, plan.itemsize)
    layout.piece = layout.taps + taps_size(plan)
    layout.size = layout.piece + plan.piece_size
    return layout


cdef void fill_panel(
    const Winograd *plan, const real *image, Py_ssize_t channels, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t num_rows, real *panel
) noexcept nogil:
    lay_side_by_side(
        plan.micro, &plan.source, image, channels, top, left, num_rows, panel_columns(plan), panel,
        WINOGRAD_CHANNELS
    )


cdef void transform_strips(
    const Winograd *plan, Py_ssize_t group, Py_ssize_t strip, Py_ssize_t count, real *panel,
    real *values
) noexcept nogil:
    """Transform `count` strips that lie below each other."""
    cdef Py_ssize_t top = plan.top + strip % plan.tiles_down * plan.tile
    cdef Py_ssize_t left = (
        plan.left + strip // plan.tiles_down % plan.strips_across * plan.strip_tiles * plan.tile
    )
    cdef Py_ssize_t row_size = panel_columns(plan) * WINOGRAD_CHANNELS
    cdef Py_ssize_t b, i, channel, channels
    cdef const real *image = (
        <const real *> plan.source.data
        + strip // (plan.tiles_down * plan.strips_across) * plan.source.n_stride
        + group * plan.channels * plan.source.c_stride
    )
    for b in range(plan.channel_blocks):
        channel = b * WINOGRAD_CHANNELS
        channels = min(WINOGRAD_CHANNELS, plan.channels - channel)
        fill_panel(
            plan, image + channel * plan.source.c_stride, channels, top, left,
            count * plan.tile + overlap(plan), panel
        )
        for i in range(count):
            plan.micro.winograd_pixels(
                <int> plan.tile, plan.strip_tiles, channels,
                panel + i * plan.tile * row_size, row_size,
                values + b * plan.value_size + i * plan.strip_tiles * WINOGRAD_CHANNELS,
                plan.value_stride
            )


cdef void transform_block(
    const Winograd *plan, Py_ssize_t group, Py_ssize_t first, Py_ssize_t last, real *panel,
    real *values
) noexcept nogil:
    """Transform the pixels of the strips first <= strip < last."""
    cdef Py_ssize_t strip = first, count
    while strip < last:
        count = min(
            min(last - strip, panel_strips(plan)), plan.tiles_down - strip % plan.tiles_down
        )
        transform_strips(
            plan, group, strip, count, panel,
            values + (strip - first) * plan.strip_tiles * WINOGRAD_CHANNELS
        )
        strip += count


cdef void store_results(
    const Winograd *plan, Py_ssize_t num_rows, Py_ssize_t num_columns, Py_ssize_t count,
    const real *results, real *rows, const Array4 *out, real *to
) noexcept nogil:
    """Bring the results of a strip, pixel by pixel, to the rows of `count` kernels."""
    cdef Py_ssize_t pixels = num_rows * num_columns
    cdef Py_ssize_t k, y, x
    # Straight to their place, where that fills a vector.
    if out.w_stride == 1 and out.h_stride == num_columns and pixels >= plan.micro.lanes:
        plan.micro.interleave(count, pixels, results, plan.width, 1, to, out.c_stride)
        return
    if out.w_stride == 1 and num_columns >= plan.micro.lanes:
        for y in range(num_rows):
            plan.micro.interleave(
                count, num_columns, results + y * num_columns * plan.width, plan.width, 1,
                to + y * out.h_stride, out.c_stride
            )
        return
    plan.micro.interleave(count, pixels, results, plan.width, 1, rows, pixels)
    for k in range(count):
        for y in range(num_rows):
            for x in range(num_columns):
                to[k * out.c_stride + y * out.h_stride + x * out.w_stride] = rows[x]
            rows += num_columns


cdef void finish_unit(
    const Winograd *plan, Py_ssize_t first, Py_ssize_t last, Py_ssize_t kernel, Py_ssize_t count,
    const real *bias, const Array4 *out, const Scratch *layout, real *scratch
) noexcept nogil:
    """Turn the sums of a block of strips into results of `count` kernels."""
    cdef real *offset = scratch + layout.bias
    cdef real *results = scratch + layout.results
    cdef Py_ssize_t strip, sample, top, left, num_rows, num_columns
    if bias != NULL:
        memcpy(offset, bias + kernel, count * sizeof(real))
    else:
        memset(offset, 0, count * sizeof(real))
    for strip in range(first, last):
        sample = strip // (plan.tiles_down * plan.strips_across)
        top = strip % plan.tiles_down * plan.tile
        left = strip // plan.tiles_down % plan.strips_across * plan.strip_tiles * plan.tile
        num_rows = min(plan.tile, plan.out_h - top)
        num_columns = min(plan.strip_tiles * plan.tile, plan.out_w - left)
        plan.micro.winograd_results(
            <int> plan.tile, count,
            scratch + layout.sums + (strip - first) * plan.strip_tiles * plan.width,
            plan.sum_stride, offset, num_rows, num_columns, results
        )
        store_results(
            plan, num_rows, num_columns, count, results, scratch + layout.rows, out,
            <real *> out.data + (
                sample * out.n_stride + kernel * out.c_stride
                + top * out.h_stride + left * out.w_stride
            )
        )


cdef void run_task(
    const Winograd *plan, const Array4 *kernels, const real *transformed, Py_ssize_t block,
    Py_ssize_t first_unit, Py_ssize_t last_unit, const real *bias, const Array4 *out,
    real *scratch, Interrupt *interrupt, bint may_poll
) noexcept nogil:
    """Compute a block of tiles for some units of kernels.

    `transformed` are these units, or NULL: then each is transformed here, a piece at a time.
    """
    cdef Scratch layout = arrange(plan)
    cdef Py_ssize_t first = block * plan.block_strips
    cdef Py_ssize_t last = min(plan.num_strips, first + plan.block_strips)
    cdef Py_ssize_t unit, group, kernel, count, b
    cdef const real *piece
    for unit in range(first_unit, last_unit):
        if interrupted(interrupt, may_poll):
            return
        group = unit // plan.group_units
        kernel = unit % plan.group_units * plan.width
        count = min(plan.width, plan.kernels - kernel)
        if unit == first_unit or kernel == 0:
            transform_block(
                plan, group, first, last, scratch + layout.panel, scratch + layout.values
            )
        for b in range(plan.channel_blocks):
            if transformed != NULL:
                piece = transformed
                transformed += plan.piece_size
            else:
                piece = scratch + layout.piece
                transform_piece(
                    plan, kernels, unit, b, scratch + layout.taps, scratch + layout.piece
                )
            plan.micro.winograd_products(
                (last - first) * plan.strip_tiles,
                min(WINOGRAD_CHANNELS, plan.channels - b * WINOGRAD_CHANNELS), count,
                scratch + layout.values + b * plan.value_size, plan.value_stride,
                piece, plan.piece_stride,
                scratch + layout.sums, scratch + layout.errors, plan.sum_stride,
                b == 0, b + 1 == plan.channel_blocks
            )
        finish_unit(
            plan, first, last, group * plan.kernels + kernel, count, bias, out, &layout, scratch
        )


# ---------------------------------------------------------------- runs


cdef inline const real *transformed_from(
    const Winograd *plan, const real *transformed, Py_ssize_t unit
) noexcept nogil:
    if transformed == NULL:
        return NULL
    return transformed + unit * unit_size(plan)


cdef int run_units(
    const Winograd *plan, const Array4 *kernels, const real *transformed, Py_ssize_t first_unit,
    Py_ssize_t last_unit, const real *bias, const Array4 *out, Interrupt *interrupt
) noexcept nogil:
    """Compute all tiles for some units, shared out to as many tasks as the threads need.

    The pixels are transformed anew for each part of the units.
    """
    cdef Py_ssize_t units = last_unit - first_unit
    cdef Py_ssize_t parts = 1
    cdef Py_ssize_t task, part, begin, size = arrange(plan).size
    cdef real *scratch
    if plan.num_threads > 1:
        parts = plan.num_threads * (1 if plan.num_blocks == 1 else TASKS_PER_THREAD)
        parts = min(units, divide_up(parts, plan.num_blocks))
    scratch = <real *> aligned_alloc(plan.num_threads * size, plan.itemsize)
    if scratch == NULL:
        return -1
    with parallel(num_threads=plan.num_threads, use_threads_if=plan.num_threads > 1):
        for task in prange(plan.num_blocks * parts, schedule="dynamic"):
            part = task % parts
            begin = part * units // parts
            run_task(
                plan, kernels, transformed_from(plan, transformed, begin), task // parts,
                first_unit + begin, first_unit + (part + 1) * units // parts,
                bias, out, scratch + threadid() * size, interrupt, threadid() == 0
            )
    aligned_free(scratch)
    return 0


cdef int run(
    const Winograd *plan, const Array4 *kernels, const real *transformed, const real *bias,
    const Array4 *out, Interrupt *interrupt
) noexcept nogil:
    """Compute `out`; `transformed` are all kernels, or NULL. -1 when memory runs out."""
    cdef Py_ssize_t units = num_units(plan)
    cdef Py_ssize_t unit_bytes = unit_size(plan) * <Py_ssize_t> plan.itemsize
    cdef Py_ssize_t chunk = min(units, max(<Py_ssize_t> 1, MAX_KERNEL_BYTES // unit_bytes))
    cdef Py_ssize_t first = 0, last
    cdef int status = 0
    cdef real *chunk_of_kernels
    # Used once, a piece is best transformed where it is used, in the L2 cache.
    if transformed != NULL or plan.num_blocks == 1:
        return run_units(plan, kernels, transformed, 0, units, bias, out, interrupt)
    chunk_of_kernels = <real *> aligned_alloc(chunk * unit_size(plan), plan.itemsize)
    if chunk_of_kernels == NULL:
        return -1
    while first < units and status == 0:
        last = min(units, first + chunk)
        status = transform_units(plan, kernels, first, last, chunk_of_kernels, interrupt)
        if status == 0:
            status = run_units(
                plan, kernels, chunk_of_kernels, first, last, bias, out, interrupt
            )
        first = last
    aligned_free(chunk_of_kernels)
    return status


cdef int convolve_by_winograd(
    const Winograd *plan, const Array4 *kernels, const void *bias, const Array4 *out, dict kept
) except -1:
    cdef object memory = None if kept is None else kept_kernels(plan, kernels, kept)
    cdef void *transformed = NULL if memory is None else first_line(memory)
    cdef Interrupt interrupt
    cdef int status
    with nogil:
        start_polling(&interrupt)
        if plan.itemsize == sizeof(float):
            status = run[float](
                plan, kernels, <float *> transformed, <const float *> bias, out, &interrupt
            )
        else:
            status = run[double](
                plan, kernels, <double *> transformed, <const double *> bias, out, &interrupt
            )
    finish_polling(&interrupt)
    if status == -1:
        raise MemoryError(NO_MEMORY)
    return 0


# ---------------------------------------------------------------- kept kernels


cdef inline void *first_line(cnp.ndarray memory) noexcept:
    """The first cache line of memory that NumPy aligned to less."""
    return <void *> (
        (<size_t> cnp.PyArray_DATA(memory) + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
    )


cdef bint worth_keeping(const Winograd *plan, Py_ssize_t bytes) noexcept nogil:
    """Whether transformed kernels are read faster than made anew at each call.

    5x5 kernels become little larger.
    """
    return bytes <= MAX_KEPT_BYTES and (
        bytes <= MAX_READ_BYTES or plan.taps == 5
        or plan.num_strips * plan.strip_tiles >= MIN_TILES
    )


cdef object kept_kernels(const Winograd *plan, const Array4 *kernels, dict kept):
    cdef Py_ssize_t units = num_units(plan)
    cdef Py_ssize_t size = units * unit_size(plan) * <Py_ssize_t> plan.itemsize
    cdef tuple key = ("winograd", plan.itemsize, plan.width)
    cdef cnp.ndarray memory = kept.get(key)
    cdef Interrupt interrupt
    cdef int status
    if not worth_keeping(plan, size):
        return None
    if memory is not None:
        return memory
    memory = np.empty(size + CACHE_LINE, np.uint8)
    cdef void *to = first_line(memory)
    with nogil:
        start_polling(&interrupt)
        if plan.itemsize == sizeof(float):
            status = transform_units(plan, kernels, 0, units, <float *> to, &interrupt)
        else:
            status = transform_units(plan, kernels, 0, units, <double *> to, &interrupt)
    finish_polling(&interrupt)
    if status == -1:
        raise MemoryError(NO_MEMORY)
    kept[key] = memory
    return memory
