"""Winograd's convolutions F(4x4, 3x3) and F(2x2, 5x5): 36 products in place of 144 and of 100.

Other kernels of up to 9x9 taps are cut into parts of 3x3: a channel meets each of them shifted, as
if there were so many channels.

With a stride of two, 4x4 results take 81 products in place of 144, or 121 in place of 400: the even
and the odd rows and columns of an image are four images, or phases, that meet their own taps.

Pixels and kernels are transformed, for each of the 36 values a matrix of tiles by channels meets
one of channels by kernels, and the sums are transformed to results; see docs/winograd.md. Vectors
hold channels, then kernels, never pixels, so that narrow images leave no lane empty.
"""

cimport numpy as cnp
from libc.string cimport memcpy, memset

from convext.ways._bands cimport (
    Bands, free_bands, has_small_pixels, init_bands, limits_of, mark_all, mark_band,
    most_of_kernels, no_bands
)
from convext.base._dispatch cimport (
    AT_A, AT_INFINITY, EVEN, PHASE_TILE, POINTS, SMALL, VALUES, WINOGRAD_CHANNELS, WINOGRAD_PIXELS,
    WINOGRAD_RESULTS, WINOGRAD_TAPS, Limits, TileOfSquares, microkernels
)
from convext.base._geometry cimport (
    INPUT_GRADIENT, Array4, Convolution, Geometry, real, result_of, source_of
)
from convext.base._interrupt cimport Interrupt, check_memory, perform
from convext.base._machine cimport L2_BYTES, L3_BYTES, LAID_OUT_BYTES, MAX_KEPT_BYTES
from convext.base._scratch cimport aligned_alloc, aligned_array, aligned_free, aligned_size, apart
from convext.base._tasks cimport Task, Tasks, divide_up, run_tasks, tasks_of, threads_for
from convext.ways._direct cimport compute_bands
from convext.ways._tile cimport Positions, lay_side_by_side, pixel_at, positions
from convext.ways._ways cimport Needs, Way, time_of_results

cdef extern from *:
    void __builtin_prefetch(const void *address, int write, int locality) nogil

# The transformed pixels of a block of tiles should stay in a small L2 cache, and transformed
# kernels in the L3 cache.
cdef Py_ssize_t MAX_BLOCK_BYTES = 5 * L2_BYTES // 8
cdef Py_ssize_t MAX_KERNEL_BYTES = L3_BYTES // 2

# Each thread transforms all kernels for itself, unless they take more than its share of the L3
# cache: to transform them takes less time than to read what others have transformed, and much less
# than to write what others have read (docs/measurements.md).
cdef Py_ssize_t MAX_OWN_KERNEL_BYTES = L3_BYTES // 4

# Kernels are fetched for each block, which has at least so many tiles for them.
cdef Py_ssize_t MIN_TILES = 14

# Where all tiles make one block, kernels are transformed where they are used and need not be
# fetched: then it is better that the pixels take the L3 cache.
cdef Py_ssize_t MAX_SINGLE_BLOCK_BYTES = 5 * L3_BYTES // 16

# The pixels of a single block are transformed by each thread, which must be worth it.
cdef Py_ssize_t MIN_UNITS_PER_THREAD = 4

# With more channels neither pixels nor kernels fit.
cdef Py_ssize_t MAX_CHANNELS = 2048

# With fewer than MIN_TILES, 3x3 kernels of more bytes are transformed in less time than it takes to
# read them transformed.
cdef Py_ssize_t MAX_READ_BYTES = L3_BYTES // 4

# For "auto", the squares of the pixels under a tile add up to at most so many times those under
# each window: its errors are in proportion to their root. With parts errors are larger.
cdef double MAX_CONTRAST = 128
cdef double MAX_CONTRAST_OF_PARTS = 32

NAME = "a Winograd convolution"

# Taps of a part of a kernel along an axis, and of the largest kernels that are cut into parts.
cdef Py_ssize_t PART = 3
cdef Py_ssize_t MAX_TAPS = 9

# The direct way sums up fewer products with much smaller errors. More channels, those of all parts,
# do not fit the L2 cache for as many tiles as it takes.
cdef Py_ssize_t MIN_PRODUCTS_OF_PARTS = 81
cdef Py_ssize_t MAX_CHANNELS_OF_PARTS = 576

# In rows of fewer results the vectors of a separable convolution are not full enough.
cdef Py_ssize_t NARROW = 64


# ---------------------------------------------------------------- the plan


cdef const char *objection(const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *kernels = &convolution.kernels
    cdef Py_ssize_t channels, parts = 1
    if (
        geometry.dilation_h > 1 or geometry.dilation_w > 1
        or min(kernels.h, kernels.w) < PART or max(kernels.h, kernels.w) > MAX_TAPS
        or geometry.stride_h != geometry.stride_w
        or geometry.stride_h > (2 if has_points(kernels) else 1)
    ):
        return (
            "it is for kernels of 3x3 to 9x9 with stride 1, and of 3x3 and 5x5 with stride 2, "
            "not dilated"
        )
    if convolution.asked:
        return NULL
    channels = source_of(convolution).c // geometry.groups
    if not has_points(kernels):
        parts = divide_up(kernels.h, PART) * divide_up(kernels.w, PART)
        if channels * kernels.h * kernels.w < MIN_PRODUCTS_OF_PARTS:
            return "sums of so few products would round more than directly"
    if channels * parts > (MAX_CHANNELS if parts == 1 else MAX_CHANNELS_OF_PARTS):
        return "the pixels of so many channels do not stay in the caches"
    return NULL


cdef bint settles(const Convolution *convolution) noexcept nogil:
    """Whether kernels are transformed as they are, or one channel has narrow rows.

    At 5x5 Fourier transforms take longer than predicted, and separable kernels of more taps in rows
    that are few vectors long: docs/measurements.md.
    """
    return has_points(&convolution.kernels) or (
        convolution.kernels.c == 1 and result_of(convolution).w < NARROW
    )


cdef double time(const Convolution *convolution, void *plan) noexcept nogil:
    """Begin the plan, and return how long it takes; a tenth is added, since it rounds more."""
    cdef Winograd *winograd = <Winograd *> plan
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *kernels = &convolution.kernels
    cdef const Array4 *result = result_of(convolution)
    winograd.swapped = convolution.operation == INPUT_GRADIENT
    winograd.source = source_of(convolution)[0]
    winograd.groups = geometry.groups
    winograd.source_channels = winograd.source.c // geometry.groups
    winograd.kernels = result.c // geometry.groups
    winograd.result_h = result.h
    winograd.result_w = result.w
    cut_into_parts(winograd, kernels, geometry.stride_h)
    winograd.out_h = divide_up(result.h, winograd.result_stride)
    winograd.out_w = divide_up(result.w, winograd.result_stride)
    return geometry.groups * (
        1.1 * time_of(winograd) - saved_by_stride(winograd)
    ) + time_of_results(convolution)


cdef void finish_plan(Winograd *plan, const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    if plan.swapped:
        plan.top = lowest_gradient(plan, convolution.kernels.h, geometry.padding_top)
        plan.left = lowest_gradient(plan, convolution.kernels.w, geometry.padding_left)
        plan.first_row = geometry.padding_top - plan.result_stride * plan.top
        plan.first_column = geometry.padding_left - plan.result_stride * plan.left
    else:
        plan.top = -divide_up(geometry.padding_top, plan.source_stride)
        plan.left = -divide_up(geometry.padding_left, plan.source_stride)
        plan.first_row = geometry.padding_top + plan.source_stride * plan.top
        plan.first_column = geometry.padding_left + plan.source_stride * plan.left
    plan.micro = microkernels(convolution.itemsize)
    plan.itemsize = convolution.itemsize
    plan.bands = NULL
    plan.squares = NULL
    plan.num_threads = threads_for(
        direct_products(plan) * plan.groups, convolution.num_threads, convolution.num_threads
    )
    cut_kernels(plan)
    cut_tiles(plan)
    plan.num_threads = <int> min(<Py_ssize_t> plan.num_threads, plan.num_blocks * num_units(plan))


cdef inline Py_ssize_t lowest_gradient(
    const Winograd *plan, Py_ssize_t taps, Py_ssize_t padding
) noexcept nogil:
    """The first output gradient, along an axis, that reaches the first pixels of the input."""
    cdef Py_ssize_t before = taps - 1 - padding
    if before < 0:
        return divide_up(-before, plan.result_stride)
    return -(before // plan.result_stride)


cdef inline bint has_points(const Array4 *kernels) noexcept nogil:
    """Whether kernels are transformed as they are, not in parts."""
    return kernels.h == kernels.w and (kernels.h == 3 or kernels.h == 5)


cdef void cut_into_parts(Winograd *plan, const Array4 *kernels, Py_ssize_t stride) noexcept nogil:
    plan.parts_down = plan.parts_across = 1
    if has_points(kernels):
        count_values(plan, kernels.h, stride)
    else:
        plan.parts_down = divide_up(kernels.h, PART)
        plan.parts_across = divide_up(kernels.w, PART)
        count_values(plan, PART, stride)
    plan.channels = plan.source_channels * plan.parts_down * plan.parts_across
    plan.products = plan.source_channels * kernels.h * kernels.w
    plan.window_h = kernels.h
    plan.window_w = kernels.w


cdef inline Py_ssize_t num_parts(const Winograd *plan) noexcept nogil:
    """A kernel is cut into so many parts."""
    return plan.parts_down * plan.parts_across


cdef inline Py_ssize_t stride_of(const Winograd *plan) noexcept nogil:
    """The stride of the convolution."""
    return plan.source_stride * plan.result_stride


cdef inline Py_ssize_t num_phases(const Winograd *plan) noexcept nogil:
    return stride_of(plan) * stride_of(plan)


cdef inline Py_ssize_t num_result_phases(const Winograd *plan) noexcept nogil:
    return plan.result_stride * plan.result_stride


cdef inline Py_ssize_t points_of(Py_ssize_t taps) noexcept nogil:
    """Values of a tile of a phase along an axis."""
    return taps + PHASE_TILE - 1


cdef inline Py_ssize_t kernel_points_of(Py_ssize_t taps) noexcept nogil:
    """Values of a kernel along an axis of a phase: one tap has the same at all points."""
    return 1 if taps == 1 else points_of(taps)


cdef void count_values(Winograd *plan, Py_ssize_t taps, Py_ssize_t stride) noexcept nogil:
    cdef Py_ssize_t most = divide_up(taps, stride)
    plan.source_stride = 1 if plan.swapped else stride
    plan.result_stride = stride if plan.swapped else 1
    plan.taps = taps
    if stride == 1:
        plan.tile = POINTS + 1 - taps
        plan.points = plan.kernel_points = POINTS
    else:
        plan.tile = PHASE_TILE
        plan.points = points_of(most) + points_of(taps - most)
        plan.kernel_points = kernel_points_of(most) + kernel_points_of(taps - most)


cdef inline Py_ssize_t overlap(const Winograd *plan) noexcept nogil:
    """So many pixels of a tile along an axis are the next tile's, too."""
    return divide_up(plan.taps, stride_of(plan)) - 1


cdef inline double direct_products(const Winograd *plan) noexcept nogil:
    """Multiplications of the direct way, for one group."""
    return <double> plan.products * plan.source.n * plan.out_h * plan.out_w * plan.kernels


cdef double time_of(const Winograd *plan) noexcept nogil:
    """How long the plan takes, in multiplications of the direct way, for one group.

    Fitted to some hundred sizes of both types: docs/winograd.md.
    """
    cdef double tiles = (
        <double> plan.source.n * divide_up(plan.out_h, plan.tile) * divide_up(plan.out_w, plan.tile)
    )
    # Rounded up to whole vectors of the widest instruction set, on every one: so all go one way.
    cdef double channels = divide_up(plan.channels, 16) * 16
    cdef double kernels = divide_up(plan.kernels, 16) * 16
    if stride_of(plan) > 1:
        return plan.points * plan.points * tiles * (
            1.2 * plan.channels * kernels + 14 * channels + 12.5 * kernels
        ) + 11 * plan.kernel_points * plan.kernel_points * plan.channels * kernels
    if num_parts(plan) > 1:
        return (
            39 * tiles * plan.channels * kernels
            + 430 * tiles * channels + 430 * tiles * kernels + 300 * plan.channels * kernels
        )
    # Transforming the pixels, the sums and the kernels. With 25 taps the direct way comes closer to
    # the peak, so that products are worth more of its multiplications.
    return (
        (27 if plan.taps == 3 else 38) * tiles * plan.channels * kernels
        + 320 * tiles * channels + 240 * tiles * kernels
        + (160 if plan.taps == 3 else 300) * plan.channels * kernels
    )


cdef double saved_by_stride(const Winograd *plan) noexcept nogil:
    """What the direct way takes beside its products, with a stride, for one group.

    There is so little to gain with it that all counts.
    """
    cdef const Array4 *source = &plan.source
    if stride_of(plan) == 1:
        return 0
    return (
        16. * source.n * source.h * source.w * plan.channels
        + 17. * source.n * plan.out_h * plan.out_w * num_result_phases(plan) * plan.kernels
        + 43. * plan.products * plan.kernels
    )


cdef void cut_kernels(Winograd *plan) noexcept nogil:
    plan.channel_blocks = divide_up(plan.channels, WINOGRAD_CHANNELS)
    plan.width = plan.micro.winograd_width
    plan.group_units = divide_up(plan.kernels, plan.width)
    plan.piece_stride = apart(WINOGRAD_CHANNELS * plan.width, plan.itemsize)
    plan.piece_size = plan.kernel_points * plan.kernel_points * plan.piece_stride


cdef void cut_tiles(Winograd *plan) noexcept nogil:
    """Cut the output into strips of a row of tiles, and these into blocks."""
    cdef Py_ssize_t tiles_across = divide_up(plan.out_w, plan.tile)
    cdef Py_ssize_t tile_bytes = (
        plan.points * plan.points * plan.channel_blocks * WINOGRAD_CHANNELS
        * <Py_ssize_t> plan.itemsize
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
    share_out_blocks(plan)
    if num_phases(plan) == 1:
        plan.short_strips = smaller_tiles(plan, plan.out_h)
        plan.narrow_tiles = smaller_tiles(plan, plan.out_w)
    tiles = plan.block_strips * plan.strip_tiles
    plan.sum_stride = apart(tiles * plan.width, plan.itemsize)


cdef void cut_into_blocks(Winograd *plan, Py_ssize_t most) noexcept nogil:
    cdef Py_ssize_t tiles_across = divide_up(plan.out_w, plan.tile)
    plan.tiles_down = divide_up(plan.out_h, plan.tile)
    plan.strips_across = divide_up(tiles_across, most)
    plan.strip_tiles = divide_up(tiles_across, plan.strips_across)
    plan.num_strips = plan.source.n * plan.strips_across * plan.tiles_down
    set_blocks(plan, divide_up(plan.num_strips, most // plan.strip_tiles))
    plan.short_strips = plan.narrow_tiles = 0


cdef void set_blocks(Winograd *plan, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t row_bytes = (
        panel_columns(plan) * WINOGRAD_CHANNELS * <Py_ssize_t> plan.itemsize
    )
    plan.num_blocks = count
    plan.block_strips = divide_up(plan.num_strips, count)
    plan.value_stride = apart(
        plan.block_strips * plan.strip_tiles * WINOGRAD_CHANNELS, plan.itemsize
    )
    plan.value_size = plan.points * plan.points * plan.value_stride
    plan.panel_strips = max(<Py_ssize_t> 1, min(
        min(plan.block_strips, plan.tiles_down),
        (LAID_OUT_BYTES // row_bytes // plan.source_stride - overlap(plan)) // plan.tile
    ))
    # Two vectors and the width of a tile more.
    plan.squares_pitch = aligned_size(
        squares_columns(plan) + 2 * plan.micro.lanes + MAX_TAPS + PART, plan.itemsize
    )


cdef void share_out_blocks(Winograd *plan) noexcept nogil:
    """Cut a few more blocks, so that all threads get as many of them."""
    cdef Py_ssize_t count = divide_up(plan.num_blocks, plan.num_threads) * plan.num_threads
    if plan.num_blocks > 1 and plan.num_strips // count * plan.strip_tiles >= MIN_TILES:
        set_blocks(plan, count)


cdef Py_ssize_t smaller_tiles(const Winograd *plan, Py_ssize_t size) noexcept nogil:
    """How many tiles along an axis have a result less, where they do not divide its size.

    These need not be computed at infinity. Among many tiles, which may be cut into strips, that is
    little gain.
    """
    cdef Py_ssize_t tiles = divide_up(size, plan.tile)
    return 0 if tiles > MIN_TILES else min(tiles, tiles * plan.tile - size)


cdef inline bint is_short(const Winograd *plan, Py_ssize_t strip) noexcept nogil:
    """Whether the tiles of a strip have a row less."""
    return strip % plan.tiles_down >= plan.tiles_down - plan.short_strips


cdef inline Py_ssize_t strip_row(const Winograd *plan, Py_ssize_t strip) noexcept nogil:
    """The first row of results of a strip."""
    cdef Py_ssize_t down = strip % plan.tiles_down
    return down * plan.tile - max(
        <Py_ssize_t> 0, down - (plan.tiles_down - plan.short_strips)
    )


cdef inline Py_ssize_t wide_tiles(const Winograd *plan) noexcept nogil:
    """The tiles of a strip that are not narrow."""
    return plan.strip_tiles - plan.narrow_tiles


cdef inline Py_ssize_t tall_strips(const Winograd *plan, Py_ssize_t strip) noexcept nogil:
    """The strips before this one that are not short."""
    cdef Py_ssize_t tall = plan.tiles_down - plan.short_strips
    return strip // plan.tiles_down * tall + min(strip % plan.tiles_down, tall)


# In a block come first the narrow tiles of its tall strips, then the wide ones of these, the wide
# ones of its short strips, and the narrow ones of these: so each value has its tiles side by side.
cdef struct Range:
    Py_ssize_t first, last

cdef struct Block:
    Py_ssize_t first, last      # strips
    Range all, tall, wide       # its tiles, those of tall strips, and those that are not narrow


cdef Block describe_block(
    const Winograd *plan, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t tall = tall_strips(plan, last) - tall_strips(plan, first)
    cdef Block block
    block.first = first
    block.last = last
    block.all.first = block.tall.first = 0
    block.all.last = (last - first) * plan.strip_tiles
    block.tall.last = tall * plan.strip_tiles
    block.wide.first = tall * plan.narrow_tiles
    block.wide.last = block.wide.first + (last - first) * wide_tiles(plan)
    return block


cdef inline Range tiles_of_value(
    const Block *block, Py_ssize_t row, Py_ssize_t column
) noexcept nogil:
    """The tiles of a block that have the value at these points."""
    cdef Range tiles = block.all
    if row == AT_INFINITY:
        tiles.last = block.tall.last
    if column == AT_INFINITY:
        tiles.first = block.wide.first
        tiles.last = min(tiles.last, block.wide.last)
    return tiles


# Where the tiles of a strip begin in a block.
cdef struct Place:
    Py_ssize_t wide, narrow


cdef Place place_strip(
    const Winograd *plan, const Block *block, Py_ssize_t strip
) noexcept nogil:
    cdef Py_ssize_t tall = tall_strips(plan, strip) - tall_strips(plan, block.first)
    cdef Py_ssize_t others = strip - block.first - tall
    cdef Place place
    if is_short(plan, strip):
        place.wide = block.tall.last + others * wide_tiles(plan)
        place.narrow = block.wide.last + others * plan.narrow_tiles
    else:
        place.wide = block.wide.first + tall * wide_tiles(plan)
        place.narrow = tall * plan.narrow_tiles
    return place


cdef inline Py_ssize_t num_units(const Winograd *plan) noexcept nogil:
    return plan.groups * plan.group_units


cdef inline Py_ssize_t unit_size(const Winograd *plan) noexcept nogil:
    """Elements of the transformed kernels of a unit."""
    return plan.channel_blocks * plan.piece_size


# ---------------------------------------------------------------- phases

# What a phase has along an axis: so many taps, a stride apart, from the first one on, which meets
# the pixel `shift` of a tile.
cdef struct AxisPhase:
    Py_ssize_t taps, first, shift

cdef struct Phase:
    AxisPhase rows, columns
    Py_ssize_t first_value, first_kernel_value      # of those of all phases


cdef AxisPhase describe_axis(
    const Winograd *plan, Py_ssize_t first, Py_ssize_t phase
) noexcept nogil:
    """Describe a phase along an axis, given the tap of the first phase that meets pixel 0."""
    cdef Py_ssize_t step = -stride_of(plan) if plan.swapped else stride_of(plan)
    cdef AxisPhase axis
    axis.first = first + phase
    axis.shift = 0
    while not 0 <= axis.first < plan.taps:
        axis.first += step
        axis.shift += 1
    axis.taps = 0
    while 0 <= axis.first + axis.taps * step < plan.taps:
        axis.taps += 1
    return axis


cdef Phase describe_phase(const Winograd *plan, Py_ssize_t index) noexcept nogil:
    cdef Py_ssize_t row = index // stride_of(plan), column = index % stride_of(plan)
    cdef Py_ssize_t rest
    cdef Phase phase
    phase.rows = describe_axis(plan, plan.first_row, row)
    phase.columns = describe_axis(plan, plan.first_column, column)
    phase.first_value = phase.first_kernel_value = 0
    if row == 1:
        rest = plan.taps - phase.rows.taps
        phase.first_value += points_of(rest) * plan.points
        phase.first_kernel_value += kernel_points_of(rest) * plan.kernel_points
    if column == 1:
        rest = plan.taps - phase.columns.taps
        phase.first_value += points_of(phase.rows.taps) * points_of(rest)
        phase.first_kernel_value += kernel_points_of(phase.rows.taps) * kernel_points_of(rest)
    return phase


# ---------------------------------------------------------------- kernels


cdef inline Py_ssize_t kernels_of(const Winograd *plan, Py_ssize_t unit) noexcept nogil:
    return min(plan.width, plan.kernels - unit % plan.group_units * plan.width)


cdef inline Py_ssize_t channels_of(const Winograd *plan, Py_ssize_t channel_block) noexcept nogil:
    return min(WINOGRAD_CHANNELS, plan.channels - channel_block * WINOGRAD_CHANNELS)


cdef Py_ssize_t first_tap(
    const Winograd *plan, const Array4 *kernels, Py_ssize_t unit, Py_ssize_t channel
) noexcept nogil:
    """Where the first kernel of a unit begins, for a channel of the source."""
    cdef Py_ssize_t group = unit // plan.group_units
    cdef Py_ssize_t kernel = unit % plan.group_units * plan.width
    if plan.swapped:
        channel += group * plan.source_channels
        return channel * kernels.n_stride + kernel * kernels.c_stride
    kernel += group * plan.kernels
    return kernel * kernels.n_stride + channel * kernels.c_stride


cdef void lay_out_taps(
    const Winograd *plan, const Array4 *kernels, Py_ssize_t unit, Py_ssize_t channel_block,
    real *taps
) noexcept nogil:
    """Lay out the kernels of a unit for a block of channels: [channels][taps][taps][width].

    In lanes beyond the last kernel are left-overs, whose sums are dropped.
    """
    cdef Py_ssize_t channel = channel_block * WINOGRAD_CHANNELS
    cdef Py_ssize_t channels = channels_of(plan, channel_block)
    cdef Py_ssize_t area = plan.taps * plan.taps
    cdef Py_ssize_t kernel_stride = kernels.c_stride if plan.swapped else kernels.n_stride
    cdef Py_ssize_t channel_stride = kernels.n_stride if plan.swapped else kernels.c_stride
    cdef Py_ssize_t c, i, j, run = 1
    cdef const real *first
    if num_parts(plan) > 1:
        for c in range(channels):
            lay_out_part(plan, kernels, unit, channel + c, taps + c * area * plan.width)
        return
    first = <const real *> kernels.data + first_tap(plan, kernels, unit, channel)
    if kernels.w_stride == 1 and kernels.h_stride == plan.taps:
        run = channels * area if channel_stride == area else area
    c = 0
    while c < channels:
        for i in range(plan.taps if run == 1 else 1):
            for j in range(plan.taps if run == 1 else 1):
                plan.micro.interleave(
                    run, kernels_of(plan, unit),
                    first + c * channel_stride + i * kernels.h_stride + j * kernels.w_stride,
                    kernel_stride, 1, taps + (c * area + i * plan.taps + j) * plan.width, plan.width
                )
        c += max(<Py_ssize_t> 1, run // area)


cdef void lay_out_part(
    const Winograd *plan, const Array4 *kernels, Py_ssize_t unit, Py_ssize_t channel, real *taps
) noexcept nogil:
    """Lay out the taps of a part, zeros where it reaches beyond the kernel."""
    cdef Py_ssize_t part = channel // plan.source_channels
    cdef Py_ssize_t top = part // plan.parts_across * PART
    cdef Py_ssize_t left = part % plan.parts_across * PART
    cdef Py_ssize_t kernel_stride = kernels.c_stride if plan.swapped else kernels.n_stride
    cdef Py_ssize_t i, j
    cdef const real *first = <const real *> kernels.data + first_tap(
        plan, kernels, unit, channel % plan.source_channels
    )
    if plan.swapped:        # the kernel is turned around, and so are its parts
        top, left = kernels.h - PART - top, kernels.w - PART - left
    for i in range(top, top + PART):
        for j in range(left, left + PART):
            if 0 <= i < kernels.h and 0 <= j < kernels.w:
                plan.micro.interleave(
                    1, kernels_of(plan, unit), first + i * kernels.h_stride + j * kernels.w_stride,
                    kernel_stride, 1, taps, plan.width
                )
            else:
                memset(taps, 0, plan.width * sizeof(real))
            taps += plan.width


cdef inline Py_ssize_t taps_size(const Winograd *plan) noexcept nogil:
    """Elements of what lay_out_taps writes."""
    return aligned_size(WINOGRAD_CHANNELS * plan.taps * plan.taps * plan.width, plan.itemsize)


cdef inline Py_ssize_t taps_scratch(const Winograd *plan) noexcept nogil:
    """Elements of the scratch memory of transform_piece."""
    cdef Py_ssize_t lines = WINOGRAD_CHANNELS * POINTS * divide_up(plan.taps, 2) * plan.width
    return taps_size(plan) + (aligned_size(lines, plan.itemsize) if num_phases(plan) > 1 else 0)


cdef void transform_taps_of_phase(
    const Winograd *plan, const Phase *phase, const real *taps, Py_ssize_t channels,
    Py_ssize_t kernels, real *lines, real *to
) noexcept nogil:
    """Transform the taps of a phase, the columns and then the rows; `lines` is scratch memory."""
    cdef Py_ssize_t step = -plan.width if plan.swapped else plan.width
    cdef Py_ssize_t area = plan.taps * plan.taps * plan.width
    cdef Py_ssize_t across = phase.columns.taps * plan.width
    cdef Py_ssize_t points = kernel_points_of(phase.rows.taps)
    cdef Py_ssize_t i
    step *= stride_of(plan)
    taps += (phase.rows.first * plan.taps + phase.columns.first) * plan.width
    for i in range(phase.columns.taps):
        plan.micro.winograd_lines(
            WINOGRAD_TAPS, <int> phase.rows.taps, channels, kernels,
            taps + i * step, area, plan.taps * step, lines + i * plan.width, points * across,
            across, False
        )
    to += phase.first_kernel_value * plan.piece_stride
    for i in range(points):
        plan.micro.winograd_lines(
            WINOGRAD_TAPS, <int> phase.columns.taps, channels, kernels,
            lines + i * across, points * across, plan.width,
            to + i * kernel_points_of(phase.columns.taps) * plan.piece_stride, plan.width,
            plan.piece_stride, False
        )


cdef void transform_taps(
    const Winograd *plan, const real *taps, Py_ssize_t unit, Py_ssize_t channel_block, real *lines,
    real *to
) noexcept nogil:
    """Transform what lay_out_taps has laid out; with phases, `lines` is scratch memory."""
    cdef Py_ssize_t channels = channels_of(plan, channel_block)
    cdef Py_ssize_t count = kernels_of(plan, unit)
    cdef Py_ssize_t i
    cdef Phase phase
    if num_phases(plan) == 1:
        # Turned around, the taps are read from the last one on.
        plan.micro.winograd_kernels(
            <int> plan.taps, channels, count,
            taps + (plan.taps * plan.taps - 1) * plan.width if plan.swapped else taps,
            -plan.width if plan.swapped else plan.width,
            to, plan.piece_stride
        )
        return
    for i in range(num_phases(plan)):
        phase = describe_phase(plan, i)
        transform_taps_of_phase(plan, &phase, taps, channels, count, lines, to)


cdef void transform_piece(
    const Winograd *plan, const Array4 *kernels, Py_ssize_t unit, Py_ssize_t channel_block,
    real *taps, real *to
) noexcept nogil:
    """Transform the kernels of a unit for a block of channels; `taps` is scratch memory."""
    lay_out_taps(plan, kernels, unit, channel_block, taps)
    transform_taps(plan, taps, unit, channel_block, taps + taps_size(plan), to)


# What is read, and where it is written: the results of some units. Tasks follow each other by block
# and unit: so a thread meets few blocks, whose pixels it transforms.
cdef struct Part:
    const Winograd *plan
    const Array4 *kernels
    void *ready         # the units' kernels, see make_ready; or NULL
    const void *bias
    const Array4 *out
    Py_ssize_t first_unit, last_unit
    bint own            # each thread transforms the kernels for itself


cdef void make_piece_ready(
    const void *work, Py_ssize_t i, real *taps, Interrupt *interrupt
) noexcept nogil:
    cdef const Part *part = <const Part *> work
    cdef const Winograd *plan = part.plan
    cdef Py_ssize_t unit = part.first_unit + i // plan.channel_blocks
    cdef Py_ssize_t channel_block = i % plan.channel_blocks
    cdef real *to = <real *> part.ready
    if keeps_taps(plan):
        lay_out_taps(plan, part.kernels, unit, channel_block, to + i * taps_size(plan))
    else:
        transform_piece(plan, part.kernels, unit, channel_block, taps, to + i * plan.piece_size)


cdef int make_ready(const void *work, Interrupt *interrupt) noexcept nogil:
    """Transform kernels, or lay them out, all that can be done before any pixel is seen."""
    cdef const Part *part = <const Part *> work
    cdef const Winograd *plan = part.plan
    cdef Tasks pieces = tasks_of(
        work, plan.itemsize, <Task> make_piece_ready[float], <Task> make_piece_ready[double],
        (part.last_unit - part.first_unit) * plan.channel_blocks,
        taps_scratch(plan) * <Py_ssize_t> plan.itemsize, plan.num_threads
    )
    return run_tasks(&pieces, interrupt)


# ---------------------------------------------------------------- tasks

# The scratch memory of a thread: the transformed pixels of a block of tiles, and then those of a
# panel, later the sums of a unit of kernels with their results.
cdef struct Scratch:
    Py_ssize_t values       # [channel_blocks][points * points][tiles][WINOGRAD_CHANNELS]
    Py_ssize_t panel        # [rows][columns][WINOGRAD_CHANNELS]
    Py_ssize_t sums         # [VALUES][tiles][width], at the panel's place
    Py_ssize_t errors       # of these sums, likewise
    Py_ssize_t results      # [rows of a strip][columns][width]; with phases, of all strips
    Py_ssize_t rows         # [width][rows of a strip][columns]
    Py_ssize_t bias         # [width]
    Py_ssize_t lines        # with phases, what is transformed along one axis
    Py_ssize_t squares      # for the check of the pixels
    Py_ssize_t taps         # for transform_piece
    Py_ssize_t piece        # transformed kernels, for a block of channels; with phases, for all
    Py_ssize_t size


cdef Py_ssize_t panel_columns(const Winograd *plan) noexcept nogil:
    return (plan.strip_tiles * plan.tile + overlap(plan)) * plan.source_stride


cdef inline Py_ssize_t panel_rows(const Winograd *plan, Py_ssize_t strips) noexcept nogil:
    return (strips * plan.tile + overlap(plan)) * plan.source_stride


cdef inline Py_ssize_t result_rows(const Winograd *plan) noexcept nogil:
    """Rows of the output under a strip."""
    return plan.tile * plan.result_stride


cdef inline Py_ssize_t result_columns(const Winograd *plan) noexcept nogil:
    return plan.strip_tiles * plan.tile * plan.result_stride


cdef inline Py_ssize_t squares_rows(const Winograd *plan) noexcept nogil:
    """Rows of pixels under a panel, those that other parts of the kernels meet included."""
    return panel_rows(plan, plan.panel_strips) + (plan.parts_down - 1) * PART


cdef inline Py_ssize_t squares_columns(const Winograd *plan) noexcept nogil:
    return panel_columns(plan) + (plan.parts_across - 1) * PART


cdef Py_ssize_t squares_size(const Winograd *plan) noexcept nogil:
    """Elements of squares, and of scratch memory: windows, and the rows of a phase."""
    return plan.squares_pitch * (squares_rows(plan) + 3 + POINTS)


cdef Scratch arrange(const Winograd *plan) noexcept nogil:
    cdef Scratch layout
    cdef bint phases = num_phases(plan) > 1
    cdef Py_ssize_t strip = result_rows(plan) * result_columns(plan) * plan.width
    cdef Py_ssize_t panel = (
        panel_rows(plan, plan.panel_strips) * panel_columns(plan) * WINOGRAD_CHANNELS
    )
    # A strip of six rows of pixels, or of four of sums.
    cdef Py_ssize_t lines = (
        POINTS * plan.strip_tiles * POINTS * max(plan.width, WINOGRAD_CHANNELS) if phases else 0
    )
    layout.values = 0
    layout.panel = layout.sums = aligned_size(
        plan.channel_blocks * plan.value_size, plan.itemsize
    )
    layout.errors = layout.sums + aligned_size(VALUES * plan.sum_stride, plan.itemsize)
    layout.results = layout.errors + aligned_size(VALUES * plan.sum_stride, plan.itemsize)
    layout.rows = layout.results + aligned_size(
        strip * (plan.block_strips if phases else 1), plan.itemsize
    )
    layout.bias = max(
        layout.rows + aligned_size(strip, plan.itemsize),
        layout.panel + aligned_size(panel, plan.itemsize)
    )
    layout.lines = layout.bias + aligned_size(plan.width, plan.itemsize)
    layout.squares = layout.lines + aligned_size(lines, plan.itemsize)
    layout.taps = layout.squares + (squares_size(plan) if plan.bands != NULL else 0)
    layout.piece = layout.taps + taps_scratch(plan)
    layout.size = layout.piece + (unit_size(plan) if phases else plan.piece_size)
    return layout


cdef void fill_panel(
    const Winograd *plan, const real *image, Py_ssize_t channels, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t num_rows, real *panel, bint beside, real *squares
) noexcept nogil:
    cdef Positions rows = positions(top, 1, num_rows, plan.source.h)
    cdef Positions columns = positions(left, 1, panel_columns(plan), plan.source.w)
    lay_side_by_side(
        plan.micro, &plan.source, image, channels, &rows, &columns, panel, WINOGRAD_CHANNELS,
        beside, squares, plan.squares_pitch
    )


cdef void fill_panel_of_block(
    const Winograd *plan, const real *image, Py_ssize_t channel_block, Py_ssize_t top,
    Py_ssize_t left, Py_ssize_t num_rows, real *panel, real *squares
) noexcept nogil:
    """Lay out a block of channels: for each part of the kernels, those that it meets, shifted."""
    cdef Py_ssize_t first = channel_block * WINOGRAD_CHANNELS
    cdef Py_ssize_t last = first + channels_of(plan, channel_block)
    cdef Py_ssize_t part, channel, count
    if num_parts(plan) == 1:
        fill_panel(
            plan, image + first * plan.source.c_stride, last - first, top, left, num_rows, panel,
            False, squares
        )
        return
    while first < last:
        part = first // plan.source_channels
        channel = first % plan.source_channels
        count = min(plan.source_channels - channel, last - first)
        fill_panel(
            plan, image + channel * plan.source.c_stride, count,
            top + part // plan.parts_across * PART, left + part % plan.parts_across * PART,
            num_rows, panel, True, <real *> NULL
        )
        first += count
        panel += count


cdef void transform_pixels_of_phase(
    const Winograd *plan, Py_ssize_t index, const real *panel, Py_ssize_t channels, real *lines,
    real *values
) noexcept nogil:
    """Transform a strip of pixels of a phase, the columns and then the rows."""
    cdef Phase phase = describe_phase(plan, index)
    cdef Py_ssize_t stride = plan.source_stride
    cdef Py_ssize_t row_size = panel_columns(plan) * WINOGRAD_CHANNELS
    cdef Py_ssize_t pixel_size = stride * WINOGRAD_CHANNELS
    cdef Py_ssize_t points = points_of(phase.columns.taps)
    cdef Py_ssize_t columns = plan.strip_tiles * plan.tile + phase.columns.taps - 1
    cdef Py_ssize_t i
    # With a stride in the source, index is a place in it.
    panel += (phase.rows.shift * stride + index // stride % stride) * row_size
    panel += (phase.columns.shift * stride + index % stride) * WINOGRAD_CHANNELS
    row_size *= stride
    if phase.rows.taps > 1:
        plan.micro.winograd_lines(
            WINOGRAD_PIXELS, <int> phase.rows.taps, columns, channels, panel, pixel_size, row_size,
            lines, WINOGRAD_CHANNELS, columns * WINOGRAD_CHANNELS, False
        )
        panel = lines
        row_size = columns * WINOGRAD_CHANNELS
        pixel_size = WINOGRAD_CHANNELS
    values += phase.first_value * plan.value_stride
    for i in range(points_of(phase.rows.taps)):
        plan.micro.winograd_lines(
            WINOGRAD_PIXELS, <int> phase.columns.taps, plan.strip_tiles, channels,
            panel + i * row_size, plan.tile * pixel_size, pixel_size,
            values + i * points * plan.value_stride, WINOGRAD_CHANNELS, plan.value_stride, False
        )


cdef void transform_strip(
    const Winograd *plan, const real *panel, Py_ssize_t channels, const Place *place, real *lines,
    real *values
) noexcept nogil:
    cdef Py_ssize_t row_size = panel_columns(plan) * WINOGRAD_CHANNELS
    cdef Py_ssize_t i
    if num_phases(plan) > 1:
        for i in range(num_phases(plan)):
            transform_pixels_of_phase(
                plan, i, panel, channels, lines, values + place.wide * WINOGRAD_CHANNELS
            )
        return
    if wide_tiles(plan) > 0:
        plan.micro.winograd_pixels(
            <int> plan.tile, wide_tiles(plan), channels, panel, row_size,
            values + place.wide * WINOGRAD_CHANNELS, plan.value_stride
        )
    panel += wide_tiles(plan) * plan.tile * WINOGRAD_CHANNELS
    for i in range(plan.narrow_tiles):
        plan.micro.winograd_pixels(
            <int> plan.tile, 1, channels, panel + i * (plan.tile - 1) * WINOGRAD_CHANNELS,
            row_size, values + (place.narrow + i) * WINOGRAD_CHANNELS, plan.value_stride
        )


cdef void add_squares(
    const Winograd *plan, const real *image, Py_ssize_t channels, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t num_rows, real *squares
) noexcept nogil:
    """Add the squares of some channels; nothing for pixels outside."""
    cdef const Array4 *source = &plan.source
    cdef Positions rows = positions(top, 1, num_rows, source.h)
    cdef Positions columns = positions(left, 1, squares_columns(plan), source.w)
    if rows.begin == rows.end or columns.begin == columns.end:
        return
    plan.micro.add_squares(
        rows.end - rows.begin, columns.end - columns.begin, channels,
        pixel_at(source, image, &rows, &columns, rows.begin, columns.begin), source.h_stride,
        source.c_stride, source.w_stride,
        squares + rows.begin * plan.squares_pitch + columns.begin, plan.squares_pitch
    )


cdef void add_up_squares(
    const Winograd *plan, Py_ssize_t top, Py_ssize_t left, Py_ssize_t num_rows,
    const real *rows, Squares *squares
) noexcept nogil:
    """Add up the squares of a panel that begins at these rows and columns of the tile grid."""
    cdef Py_ssize_t[4] inside
    inside[:] = [
        plan.inside_top - top, plan.inside_bottom - top,
        plan.inside_left - left, plan.inside_right - left
    ]
    plan.micro.add_up(
        num_rows, panel_columns(plan), rows, plan.squares_pitch, inside, <double *> squares
    )


cdef int judge_phase(
    const Winograd *plan, Py_ssize_t index, Py_ssize_t num_rows, Py_ssize_t num_columns,
    const real *squares, real *scratch
) noexcept nogil:
    """Judge a strip of tiles of a phase; along an axis of one tap, each result."""
    cdef Phase phase = describe_phase(plan, index)
    cdef Limits limits = limits_of(plan.itemsize, MAX_CONTRAST)
    cdef Py_ssize_t stride = plan.source_stride, pitch = plan.squares_pitch
    cdef Py_ssize_t columns = plan.strip_tiles * plan.tile + phase.columns.taps - 1
    cdef Py_ssize_t count = 1, y
    cdef int worst = EVEN
    cdef TileOfSquares tile
    if phase.rows.taps == 1 and phase.columns.taps == 1:
        return EVEN
    tile.window_height = tile.height = phase.rows.taps
    tile.window_width = tile.width = phase.columns.taps
    tile.windows = 1
    if phase.rows.taps > 1:
        tile.height = points_of(phase.rows.taps)
        count = num_rows
    if phase.columns.taps > 1:
        tile.width = points_of(phase.columns.taps)
        tile.windows = PHASE_TILE
    squares += (phase.rows.shift * stride + index // stride % stride) * pitch
    squares += phase.columns.shift * stride + index % stride
    for y in range(num_rows // count):
        plan.micro.pack(
            tile.height, columns, squares + y * stride * pitch, stride * pitch, stride, scratch,
            pitch
        )
        worst = max(worst, plan.micro.uneven(
            &tile, &limits, count, num_columns, columns - tile.width + 1, scratch, pitch,
            scratch + POINTS * pitch
        ))
    return worst


cdef int judge_tiles(
    const Winograd *plan, Py_ssize_t num_rows, Py_ssize_t num_columns, const real *squares,
    real *scratch
) noexcept nogil:
    """Judge a strip of tiles without phases."""
    cdef Limits limits = limits_of(
        plan.itemsize, MAX_CONTRAST if num_parts(plan) == 1 else MAX_CONTRAST_OF_PARTS
    )
    cdef TileOfSquares tile
    tile.height = POINTS + (plan.parts_down - 1) * PART
    tile.width = POINTS + (plan.parts_across - 1) * PART
    tile.window_height = plan.window_h
    tile.window_width = plan.window_w
    tile.windows = plan.tile
    return plan.micro.uneven(
        &tile, &limits, num_rows, num_columns, squares_columns(plan) - tile.width + 1, squares,
        plan.squares_pitch, scratch
    )


cdef bint is_uneven(
    const Winograd *plan, Py_ssize_t strip, const real *image, Py_ssize_t top, Py_ssize_t left,
    const real *squares, real *scratch
) noexcept nogil:
    """Whether the tiles of a strip must not be transformed; `squares` are those of their pixels."""
    cdef Py_ssize_t row = strip_row(plan, strip), stride = plan.result_stride
    cdef Py_ssize_t column = (
        strip // plan.tiles_down % plan.strips_across * plan.strip_tiles * plan.tile
    )
    cdef Py_ssize_t tile = plan.tile - 1 if is_short(plan, strip) else plan.tile
    cdef Py_ssize_t i, num_rows, num_columns
    cdef int worst = EVEN
    for i in range(num_phases(plan)):
        num_rows = min(tile, divide_up(plan.result_h - i // stride % stride, stride) - row)
        num_columns = min(
            plan.strip_tiles * plan.tile, divide_up(plan.result_w - i % stride, stride) - column
        )
        if num_rows <= 0 or num_columns <= 0:
            continue
        worst = max(worst, (
            judge_tiles(plan, num_rows, num_columns, squares, scratch) if num_phases(plan) == 1
            else judge_phase(plan, i, num_rows, num_columns, squares, scratch)
        ))
    if worst == SMALL:
        return has_small_pixels(
            &plan.source, image, plan.source_channels, top,
            top + plan.source_stride * (plan.tile + overlap(plan)) + (plan.parts_down - 1) * PART,
            left, left + squares_columns(plan), limits_of(plan.itemsize, MAX_CONTRAST).least
        )
    return worst != EVEN


cdef void judge_strips(
    const Winograd *plan, Py_ssize_t first, Py_ssize_t last, const real *image, Py_ssize_t top,
    Py_ssize_t left, real *squares
) noexcept nogil:
    """Note which of the strips first <= strip < last must be computed directly."""
    cdef Py_ssize_t strip, down, pitch = plan.squares_pitch
    cdef real *scratch = squares + squares_rows(plan) * pitch
    for strip in range(first, last):
        down = plan.source_stride * (strip_row(plan, strip) - strip_row(plan, first))
        if is_uneven(
            plan, strip, image, top + down, left, squares + down * pitch, scratch
        ):
            mark_band(
                plan.bands, strip // (plan.tiles_down * plan.strips_across),
                strip % plan.tiles_down
            )


cdef void transform_strips(
    const Winograd *plan, Py_ssize_t group, const Block *block, Py_ssize_t first, Py_ssize_t last,
    real *panel, real *lines, real *squares, real *values
) noexcept nogil:
    """Transform the strips first <= strip < last, which lie below each other."""
    cdef Py_ssize_t top = plan.source_stride * (plan.top + strip_row(plan, first))
    cdef Py_ssize_t left = plan.source_stride * (
        plan.left + first // plan.tiles_down % plan.strips_across * plan.strip_tiles * plan.tile
    )
    cdef Py_ssize_t num_rows = plan.source_stride * (
        strip_row(plan, last - 1) - strip_row(plan, first) + plan.tile + overlap(plan)
    )
    cdef Py_ssize_t row_size = plan.source_stride * panel_columns(plan) * WINOGRAD_CHANNELS
    cdef Py_ssize_t b, strip
    cdef Place place
    cdef const real *image = (
        <const real *> plan.source.data
        + first // (plan.tiles_down * plan.strips_across) * plan.source.n_stride
        + group * plan.source_channels * plan.source.c_stride
    )
    if plan.bands != NULL:
        memset(squares, 0, squares_rows(plan) * plan.squares_pitch * sizeof(real))
        if num_parts(plan) > 1:
            add_squares(
                plan, image, plan.source_channels, top, left,
                num_rows + (plan.parts_down - 1) * PART, squares
            )
    for b in range(plan.channel_blocks):
        if plan.squares != NULL:
            memset(squares, 0, squares_rows(plan) * plan.squares_pitch * sizeof(real))
        fill_panel_of_block(
            plan, image, b, top, left, num_rows, panel,
            NULL if plan.bands == NULL and plan.squares == NULL else squares
        )
        if plan.squares != NULL:
            add_up_squares(
                plan, top - plan.top, left - plan.left, num_rows, squares,
                plan.squares + (group * plan.all_blocks + b) * plan.squares_stride
            )
        for strip in range(first, last):
            place = place_strip(plan, block, strip)
            transform_strip(
                plan, panel + (strip_row(plan, strip) - strip_row(plan, first)) * row_size,
                channels_of(plan, b), &place, lines, values + b * plan.value_size
            )
    if plan.bands != NULL:
        judge_strips(plan, first, last, image, top, left, squares)


cdef void transform_block(
    const Winograd *plan, Py_ssize_t group, Py_ssize_t first, Py_ssize_t last, real *panel,
    real *lines, real *squares, real *values
) noexcept nogil:
    """Transform the pixels of the strips first <= strip < last."""
    cdef Block block = describe_block(plan, first, last)
    cdef Py_ssize_t strip = first, count
    while strip < last:
        count = min(
            min(last - strip, plan.panel_strips), plan.tiles_down - strip % plan.tiles_down
        )
        transform_strips(plan, group, &block, strip, strip + count, panel, lines, squares, values)
        strip += count


cdef void store_results(
    const Winograd *plan, Py_ssize_t num_rows, Py_ssize_t num_columns, Py_ssize_t pitch,
    Py_ssize_t count, const real *results, real *rows, const Array4 *out, real *to
) noexcept nogil:
    """Bring the results of a strip, pixel by pixel, to the rows of `count` kernels.

    Rows of results are `pitch` pixels long, of which the first `num_columns` count.
    """
    cdef Py_ssize_t pixels = num_rows * pitch
    cdef Py_ssize_t k, y, x
    # Straight to their place, where that fills a vector.
    if (
        out.w_stride == 1 and out.h_stride == num_columns and pitch == num_columns
        and pixels >= plan.micro.lanes
    ):
        plan.micro.interleave(count, pixels, results, plan.width, 1, to, out.c_stride)
        return
    if out.w_stride == 1 and num_columns >= plan.micro.lanes:
        for y in range(num_rows):
            plan.micro.interleave(
                count, num_columns, results + y * pitch * plan.width, plan.width, 1,
                to + y * out.h_stride, out.c_stride
            )
        return
    plan.micro.interleave(count, pixels, results, plan.width, 1, rows, pixels)
    for k in range(count):
        for y in range(num_rows):
            for x in range(num_columns):
                to[k * out.c_stride + y * out.h_stride + x * out.w_stride] = rows[x]
            rows += pitch


cdef void begin_unit(
    const Winograd *plan, Py_ssize_t num_strips, Py_ssize_t kernel, Py_ssize_t count,
    const real *bias, const Scratch *layout, real *scratch
) noexcept nogil:
    """Fetch the bias; the results of phases are added to it."""
    cdef real *offset = scratch + layout.bias
    cdef Py_ssize_t i
    memset(offset, 0, plan.width * sizeof(real))
    if bias != NULL:
        memcpy(offset, bias + kernel, count * sizeof(real))
    if num_phases(plan) > 1:
        for i in range(num_strips * result_rows(plan) * result_columns(plan)):
            memcpy(
                scratch + layout.results + i * plan.width, offset, plan.width * sizeof(real)
            )


cdef void add_phase(
    const Winograd *plan, Py_ssize_t index, Py_ssize_t num_strips, Py_ssize_t count,
    const Scratch *layout, real *scratch
) noexcept nogil:
    """Turn the sums of a phase into results, the columns and then the rows, and add these."""
    cdef Phase phase = describe_phase(plan, index)
    cdef Py_ssize_t stride = plan.result_stride
    cdef Py_ssize_t pitch = result_columns(plan) * plan.width
    cdef Py_ssize_t points = points_of(phase.columns.taps)
    cdef Py_ssize_t tiles = plan.strip_tiles * plan.width
    cdef real *lines = scratch + layout.lines
    cdef real *results = scratch + layout.results
    cdef Py_ssize_t strip, i
    results += index // stride % stride * pitch + index % stride * plan.width
    for strip in range(num_strips):
        for i in range(points):
            plan.micro.winograd_lines(
                WINOGRAD_RESULTS, <int> phase.rows.taps, plan.strip_tiles, count,
                scratch + layout.sums + strip * tiles + i * plan.sum_stride, plan.width,
                points * plan.sum_stride, lines + i * tiles, plan.width, points * tiles, False
            )
        for i in range(plan.tile):
            plan.micro.winograd_lines(
                WINOGRAD_RESULTS, <int> phase.columns.taps, plan.strip_tiles, count,
                lines + i * points * tiles, plan.width, tiles,
                results + i * stride * pitch, plan.tile * stride * plan.width,
                stride * plan.width, True
            )
        results += result_rows(plan) * pitch


cdef void transform_sums(
    const Winograd *plan, const Block *block, Py_ssize_t strip, Py_ssize_t num_rows,
    Py_ssize_t num_columns, Py_ssize_t count, const Scratch *layout, real *scratch
) noexcept nogil:
    """Transform the sums of a strip to results."""
    cdef Place place = place_strip(plan, block, strip)
    cdef real *sums = scratch + layout.sums
    cdef real *bias = scratch + layout.bias
    cdef real *results = scratch + layout.results
    cdef Py_ssize_t row_size = num_columns * plan.width
    cdef Py_ssize_t left = min(num_columns, wide_tiles(plan) * plan.tile)
    plan.micro.winograd_results(
        <int> plan.tile, count, sums + place.wide * plan.width, plan.sum_stride, bias, num_rows,
        left, results, row_size
    )
    while left < num_columns:
        plan.micro.winograd_results(
            <int> plan.tile, count, sums + place.narrow * plan.width, plan.sum_stride, bias,
            num_rows, min(plan.tile - 1, num_columns - left), results + left * plan.width, row_size
        )
        place.narrow += 1
        left += plan.tile - 1


cdef void finish_unit(
    const Winograd *plan, const Block *block, Py_ssize_t kernel, Py_ssize_t count,
    const Array4 *out, const Scratch *layout, real *scratch
) noexcept nogil:
    """Store the results of a block of strips, of `count` kernels."""
    cdef real *results = scratch + layout.results
    cdef Py_ssize_t pitch
    cdef Py_ssize_t strip, sample, top, left, num_rows, num_columns
    for strip in range(block.first, block.last):
        sample = strip // (plan.tiles_down * plan.strips_across)
        top = strip_row(plan, strip) * plan.result_stride
        left = strip // plan.tiles_down % plan.strips_across * result_columns(plan)
        num_rows = min(result_rows(plan), out.h - top)
        num_columns = min(result_columns(plan), out.w - left)
        if is_short(plan, strip):
            num_rows = min(num_rows, plan.tile - 1)
        if num_phases(plan) == 1:
            pitch = num_columns
            transform_sums(
                plan, block, strip, num_rows, num_columns, count, layout, scratch
            )
        else:
            pitch = result_columns(plan)
        store_results(
            plan, num_rows, num_columns, pitch, count, results, scratch + layout.rows, out,
            <real *> out.data + (
                sample * out.n_stride + kernel * out.c_stride
                + top * out.h_stride + left * out.w_stride
            )
        )
        if num_phases(plan) > 1:
            results += result_rows(plan) * pitch * plan.width


cdef inline Py_ssize_t value_at_a(Py_ssize_t taps) noexcept nogil:
    """Which value of so many taps along an axis is that at the point a."""
    return 0 if taps == 1 else AT_A - 1 if taps == 2 else AT_A


cdef void check_values(
    const Winograd *plan, const real *values, Py_ssize_t channels, Py_ssize_t kernels
) noexcept nogil:
    """Note where taps are not finite, or too large, by a value in which all of them count."""
    cdef real[64] squares       # twice the lanes of the widest vector of float, and more
    cdef double most = most_of_kernels(plan.itemsize)
    cdef Py_ssize_t k
    if plan.bands == NULL:
        return
    memset(squares, 0, kernels * sizeof(real))
    plan.micro.add_squares(1, kernels, channels, values, 0, plan.width, 1, squares, 0)
    for k in range(kernels):
        if not squares[k] <= most:
            mark_all(plan.bands)
            return


cdef inline void fetch(const char *source, Py_ssize_t count) noexcept nogil:
    """Ask for `count` bytes, to be in the L2 cache when they are needed."""
    cdef Py_ssize_t i
    for i in range(0, count, 64):
        __builtin_prefetch(source + i, 0, 2)


cdef void multiply_block(
    const Winograd *plan, const Block *block, Py_ssize_t channel_block, Py_ssize_t kernels,
    const real *piece, const real *ahead, Py_ssize_t ahead_size, const Scratch *layout,
    real *scratch
) noexcept nogil:
    """Sum the products of a block of strips and of channels; meanwhile fetch what is ahead."""
    cdef const real *values = scratch + layout.values + channel_block * plan.value_size
    cdef real *sums = scratch + layout.sums
    cdef real *errors = scratch + layout.errors
    cdef Py_ssize_t channels = channels_of(plan, channel_block)
    cdef Py_ssize_t share = divide_up(ahead_size, VALUES)
    cdef bint first = channel_block == 0
    cdef bint last = channel_block + 1 == plan.channel_blocks
    cdef Py_ssize_t i
    cdef Range tiles
    for i in range(VALUES):
        fetch(<const char *> (ahead + i * share), share * <Py_ssize_t> sizeof(real))
        tiles = tiles_of_value(block, i // POINTS, i % POINTS)
        plan.micro.winograd_products(
            tiles.last - tiles.first, channels, kernels,
            values + tiles.first * WINOGRAD_CHANNELS, piece, sums + tiles.first * plan.width,
            errors + tiles.first * plan.width, first, last
        )
        values += plan.value_stride
        piece += plan.piece_stride
        sums += plan.sum_stride
        errors += plan.sum_stride


cdef void sum_products(
    const Winograd *plan, const Array4 *kernels, const real *ready, Py_ssize_t unit,
    const Block *block, const Scratch *layout, real *scratch
) noexcept nogil:
    """Sum the products of a block of strips with a unit of kernels.

    `ready` are these kernels, or NULL. If they are not transformed, they are here, a piece at a
    time; meanwhile the next one is fetched.
    """
    cdef const real *piece
    cdef const real *ahead = NULL
    cdef Py_ssize_t b, ahead_size = 0
    for b in range(plan.channel_blocks):
        if ready != NULL and not keeps_taps(plan):
            piece = ready + b * plan.piece_size
        elif ready != NULL:
            piece = scratch + layout.piece
            transform_taps(
                plan, ready + b * taps_size(plan), unit, b, <real *> NULL, scratch + layout.piece
            )
            ahead = ready + (b + 1) * taps_size(plan)
            ahead_size = taps_size(plan)
        else:
            piece = scratch + layout.piece
            transform_piece(plan, kernels, unit, b, scratch + layout.taps, scratch + layout.piece)
        check_values(
            plan, piece + (AT_A * POINTS + AT_A) * plan.piece_stride, channels_of(plan, b),
            kernels_of(plan, unit)
        )
        multiply_block(
            plan, block, b, kernels_of(plan, unit), piece, ahead, ahead_size, layout, scratch
        )


cdef void sum_products_of_phase(
    const Winograd *plan, Py_ssize_t index, const real *transformed, Py_ssize_t unit,
    Py_ssize_t num_tiles, const Scratch *layout, real *scratch
) noexcept nogil:
    """Sum the products of a block of tiles with the taps of a phase."""
    cdef Phase phase = describe_phase(plan, index)
    cdef Py_ssize_t points = points_of(phase.columns.taps)
    cdef Py_ssize_t num_values = points_of(phase.rows.taps) * points
    cdef Py_ssize_t kernel_stride = 0 if phase.columns.taps == 1 else plan.piece_stride
    cdef Py_ssize_t row_stride = (
        0 if phase.rows.taps == 1 else kernel_points_of(phase.columns.taps) * plan.piece_stride
    )
    cdef const real *values
    cdef const real *piece
    cdef Py_ssize_t b, i
    for b in range(plan.channel_blocks):
        values = (
            scratch + layout.values + b * plan.value_size + phase.first_value * plan.value_stride
        )
        piece = transformed + b * plan.piece_size + phase.first_kernel_value * plan.piece_stride
        check_values(
            plan, piece + plan.piece_stride * (
                value_at_a(phase.rows.taps) * kernel_points_of(phase.columns.taps)
                + value_at_a(phase.columns.taps)
            ), channels_of(plan, b), kernels_of(plan, unit)
        )
        for i in range(num_values):
            plan.micro.winograd_products(
                num_tiles, channels_of(plan, b), kernels_of(plan, unit),
                values + i * plan.value_stride,
                piece + i // points * row_stride + i % points * kernel_stride,
                scratch + layout.sums + i * plan.sum_stride,
                scratch + layout.errors + i * plan.sum_stride,
                b == 0, b + 1 == plan.channel_blocks
            )


cdef void sum_phases(
    const Winograd *plan, const Array4 *kernels, const real *ready, Py_ssize_t unit,
    Py_ssize_t num_strips, const Scratch *layout, real *scratch
) noexcept nogil:
    """Add to the results of a block of strips, phase by phase.

    `ready` are the kernels of the unit, or NULL: then they are transformed here.
    """
    cdef const real *transformed = ready
    cdef Py_ssize_t b, i
    if ready == NULL:
        for b in range(plan.channel_blocks):
            transform_piece(
                plan, kernels, unit, b, scratch + layout.taps,
                scratch + layout.piece + b * plan.piece_size
            )
        transformed = scratch + layout.piece
    for i in range(num_phases(plan)):
        sum_products_of_phase(
            plan, i, transformed, unit, num_strips * plan.strip_tiles, layout, scratch
        )
        add_phase(plan, i, num_strips, kernels_of(plan, unit), layout, scratch)


cdef void compute_unit(
    const Winograd *plan, const Array4 *kernels, const real *ready, Py_ssize_t unit,
    const Block *block, const real *bias, const Array4 *out, real *scratch
) noexcept nogil:
    """Compute a block of tiles, whose pixels are transformed, for a unit of kernels.

    `ready` are these kernels, or NULL.
    """
    cdef Scratch layout = arrange(plan)
    cdef Py_ssize_t num_strips = block.last - block.first
    cdef Py_ssize_t first = unit % plan.group_units * plan.width
    cdef Py_ssize_t count = min(plan.width, plan.kernels - first)
    cdef Py_ssize_t kernel = unit // plan.group_units * plan.kernels + first
    begin_unit(plan, num_strips, kernel, count, bias, &layout, scratch)
    if num_phases(plan) == 1:
        sum_products(plan, kernels, ready, unit, block, &layout, scratch)
    else:
        sum_phases(plan, kernels, ready, unit, num_strips, &layout, scratch)
    finish_unit(plan, block, kernel, count, out, &layout, scratch)


# ---------------------------------------------------------------- runs


# Behind the scratch memory of a task lies what a thread has transformed: the number of the block
# and group of the pixels; for each unit whether its kernels are, and these, where they are its own.
cdef inline Py_ssize_t *transformed_of(const Part *part, void *scratch) noexcept nogil:
    return <Py_ssize_t *> (
        <char *> scratch + arrange(part.plan).size * <Py_ssize_t> part.plan.itemsize
    )


cdef inline Py_ssize_t marks_size(const Part *part) noexcept nogil:
    """Bytes that say what is transformed."""
    cdef Py_ssize_t units = part.last_unit - part.first_unit if part.own else 0
    return aligned_size(<Py_ssize_t> sizeof(Py_ssize_t) + units, 1)


cdef inline Py_ssize_t own_size(const Part *part) noexcept nogil:
    """Bytes of a thread's own kernels."""
    cdef Py_ssize_t units = part.last_unit - part.first_unit if part.own else 0
    return units * unit_size(part.plan) * <Py_ssize_t> part.plan.itemsize


cdef void begin_thread(const void *work, void *scratch) noexcept nogil:
    cdef const Part *part = <const Part *> work
    cdef Py_ssize_t *transformed = transformed_of(part, scratch)
    memset(transformed, 0, marks_size(part))
    transformed[0] = -1


cdef const real *own_kernels(
    const Part *part, Py_ssize_t unit, Py_ssize_t *transformed, real *taps
) noexcept nogil:
    """Return the transformed kernels of a unit, the thread's own; `taps` is scratch memory."""
    cdef const Winograd *plan = part.plan
    cdef Py_ssize_t i = unit - part.first_unit, b
    cdef char *is_transformed = <char *> (transformed + 1)
    cdef real *own = <real *> (<char *> transformed + marks_size(part)) + i * unit_size(plan)
    if not is_transformed[i]:
        for b in range(plan.channel_blocks):
            transform_piece(plan, part.kernels, unit, b, taps, own + b * plan.piece_size)
        is_transformed[i] = True
    return own


cdef void convolve_block(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Compute a block of tiles for a unit of kernels."""
    cdef const Part *part = <const Part *> work
    cdef const Winograd *plan = part.plan
    cdef Scratch layout = arrange(plan)
    cdef Py_ssize_t *transformed = transformed_of(part, scratch)
    cdef Py_ssize_t units = part.last_unit - part.first_unit
    cdef Py_ssize_t unit = part.first_unit + task % units
    cdef Py_ssize_t group = unit // plan.group_units
    cdef Py_ssize_t pixels = task // units * plan.groups + group
    cdef Block block = describe_block(
        plan, first_strip(plan, task // units), first_strip(plan, task // units + 1)
    )
    cdef const real *ready = NULL
    if pixels != transformed[0]:
        transform_block(
            plan, group, block.first, block.last, scratch + layout.panel, scratch + layout.lines,
            scratch + layout.squares, scratch + layout.values
        )
        transformed[0] = pixels
    if part.own:
        ready = own_kernels(part, unit, transformed, scratch + layout.taps)
    elif part.ready != NULL:
        ready = <const real *> part.ready + (unit - part.first_unit) * ready_size(plan)
    compute_unit(
        plan, part.kernels, ready, unit, &block, <const real *> part.bias, part.out, scratch
    )


cdef int run_units(const Part *part, Interrupt *interrupt) noexcept nogil:
    """Compute all tiles for some units."""
    cdef const Winograd *plan = part.plan
    cdef Tasks blocks = tasks_of(
        part, plan.itemsize, <Task> convolve_block[float], <Task> convolve_block[double],
        plan.num_blocks * (part.last_unit - part.first_unit),
        arrange(plan).size * <Py_ssize_t> plan.itemsize + marks_size(part) + own_size(part),
        plan.num_threads
    )
    blocks.start = begin_thread
    return run_tasks(&blocks, interrupt)


cdef inline bint have_own_kernels(const Winograd *plan) noexcept nogil:
    """Whether each thread transforms all kernels for itself."""
    return num_units(plan) * unit_size(plan) * <Py_ssize_t> plan.itemsize <= MAX_OWN_KERNEL_BYTES


cdef inline Py_ssize_t shared_units(const Winograd *plan) noexcept nogil:
    """Units that are transformed at a time, for all threads."""
    cdef Py_ssize_t bytes = unit_size(plan) * <Py_ssize_t> plan.itemsize
    return min(num_units(plan), max(<Py_ssize_t> 1, MAX_KERNEL_BYTES // bytes))


cdef int convolve(const void *work, Interrupt *interrupt) noexcept nogil:
    """Compute a part that is all there is, with all kernels ready, or none."""
    cdef Part part = (<const Part *> work)[0]
    cdef const Winograd *plan = part.plan
    cdef Py_ssize_t units = num_units(plan), chunk = shared_units(plan)
    cdef int status = 0
    # Used once, a piece is best transformed where it is used, in the L2 cache.
    if part.ready != NULL or plan.num_blocks == 1:
        return run_units(&part, interrupt)
    if have_own_kernels(plan):
        part.own = True
        return run_units(&part, interrupt)
    part.ready = aligned_alloc(chunk * unit_size(plan), plan.itemsize)
    if part.ready == NULL:
        return -1
    while part.first_unit < units and status == 0:
        part.last_unit = min(units, part.first_unit + chunk)
        status = make_ready(&part, interrupt)
        if status == 0:
            status = run_units(&part, interrupt)
        part.first_unit = part.last_unit
    aligned_free(part.ready)
    return status


cdef int note_bands(Winograd *plan, Bands *bands) except -1:
    """Let tiles that are not safe be noted in `bands`, unless that is NULL."""
    cdef Py_ssize_t i
    plan.bands = bands
    if bands == NULL:
        return 0
    check_memory(init_bands(bands, plan.source.n, plan.tiles_down), NAME)
    for i in range(plan.tiles_down + 1):
        bands.row[i] = min(strip_row(plan, i) * plan.result_stride, plan.result_h)
    # The end is not the first row of a strip.
    bands.row[plan.tiles_down] = plan.result_h
    return 0


cdef int convolve_by_winograd(
    Winograd *plan, const Array4 *kernels, const void *bias, const Array4 *out, dict kept,
    Bands *bands
) except -1:
    # Must live as long as it is read.
    cdef cnp.ndarray memory = None
    cdef Part whole = Part(plan, kernels, NULL, bias, out, 0, num_units(plan), False)
    note_bands(plan, bands)
    if kept is not None:
        memory = kept_kernels(plan, kernels, kept)
    if memory is not None:
        whole.ready = cnp.PyArray_DATA(memory)
    return perform(NAME, convolve, &whole)


# ---------------------------------------------------------------- kept kernels


cdef bint keeps_taps(const Winograd *plan) noexcept nogil:
    """Whether kernels are kept laid out, but not transformed.

    3x3 kernels become four times as large, and with few tiles there is too little work to hide that
    they come from far away. 5x5 kernels become little larger.
    """
    cdef Py_ssize_t tiles = plan.num_strips * plan.strip_tiles
    cdef Py_ssize_t bytes = num_units(plan) * unit_size(plan) * <Py_ssize_t> plan.itemsize
    return (
        plan.num_blocks == 1 and num_phases(plan) == 1 and plan.taps == 3
        and bytes > (MAX_READ_BYTES if tiles < MIN_TILES else MAX_KEPT_BYTES)
    )


cdef inline Py_ssize_t ready_size(const Winograd *plan) noexcept nogil:
    """Elements of the kernels of a unit that were made ready."""
    return plan.channel_blocks * taps_size(plan) if keeps_taps(plan) else unit_size(plan)


cdef object kept_kernels(const Winograd *plan, const Array4 *kernels, dict kept):
    cdef Py_ssize_t units = num_units(plan)
    cdef Py_ssize_t size = units * ready_size(plan) * <Py_ssize_t> plan.itemsize
    # With a stride, which taps make a phase depends on the padding, and "same" on the image.
    cdef tuple key = (
        "winograd", plan.itemsize, plan.width, keeps_taps(plan), plan.first_row, plan.first_column
    )
    cdef cnp.ndarray memory = kept.get(key)
    cdef Part whole = Part(plan, kernels, NULL, NULL, NULL, 0, units, False)
    if size > MAX_KEPT_BYTES:
        return None
    if memory is not None:
        return memory
    memory = aligned_array(size)
    whole.ready = cnp.PyArray_DATA(memory)
    perform("prepared kernels", make_ready, &whole)
    # Another thread may have transformed them meanwhile.
    return kept.setdefault(key, memory)


# ---------------------------------------------------------------- the way


cdef bint run_way(const Convolution *convolution, void *plan, dict kept) except -1:
    cdef Bands bands = no_bands()
    finish_plan(<Winograd *> plan, convolution)
    try:
        convolve_by_winograd(
            <Winograd *> plan, &convolution.kernels, convolution.bias, result_of(convolution), kept,
            NULL if convolution.asked else &bands
        )
        compute_bands(convolution, &bands)
    finally:
        free_bands(&bands)
    return True


cdef bint keep(const Convolution *convolution, void *plan, dict kept) except -1:
    finish_plan(<Winograd *> plan, convolution)
    kept_kernels(<Winograd *> plan, &convolution.kernels, kept)
    return True


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    cdef Winograd *winograd = <Winograd *> plan
    cdef Bands bands
    cdef Py_ssize_t units, itemsize = convolution.itemsize
    finish_plan(winograd, convolution)
    winograd.bands = NULL if convolution.asked else &bands
    units = num_units(winograd)
    needs.num_threads = winograd.num_threads
    needs.of_thread = arrange(winograd).size * itemsize
    needs.shared = 0
    if winograd.num_blocks > 1:
        if have_own_kernels(winograd):
            needs.of_thread += units * unit_size(winograd) * itemsize
        else:
            needs.shared = shared_units(winograd) * unit_size(winograd) * itemsize
    return True


cdef Way winograd_way() noexcept:
    return Way("winograd", objection, time, settles, NULL, run_way, keep, measure)
