"""When Winograd's convolutions are worth it, and how their tiles and kernels are cut."""

from convext.base._dispatch cimport (
    PHASE_TILE, POINTS, WINOGRAD_CHANNELS, microkernels
)
from convext.base._geometry cimport (
    INPUT_GRADIENT, Array4, Convolution, Geometry, result_of, source_of, weights_of
)
from convext.base._machine cimport L2_BYTES, L3_BYTES, LAID_OUT_BYTES
from convext.base._scratch cimport aligned_size, apart
from convext.base._tasks cimport divide_up, threads_for
from convext.ways._ways cimport time_of_results
from convext.ways._winograd_plan cimport (
    MAX_TAPS, MIN_TILES, PART, Winograd, kernel_points_of, num_parts, num_phases,
    num_result_phases, num_units, overlap, panel_columns, points_of, squares_columns, stride_of
)

# The transformed pixels of a block of tiles should stay in a small L2 cache.
cdef Py_ssize_t MAX_BLOCK_BYTES = 5 * L2_BYTES // 8

# Where all tiles make one block, kernels are transformed where they are used and need not be
# fetched: then it is better that the pixels take the L3 cache.
cdef Py_ssize_t MAX_SINGLE_BLOCK_BYTES = 5 * L3_BYTES // 16

# The pixels of a single block are transformed by each thread, which must be worth it.
cdef Py_ssize_t MIN_UNITS_PER_THREAD = 4

# With more channels neither pixels nor kernels fit.
cdef Py_ssize_t MAX_CHANNELS = 2048

# The direct way sums up fewer products with much smaller errors. More channels, those of all parts,
# do not fit the L2 cache for as many tiles as it takes.
cdef Py_ssize_t MIN_PRODUCTS_OF_PARTS = 81
cdef Py_ssize_t MAX_CHANNELS_OF_PARTS = 576

# In rows of fewer results the vectors of a separable convolution are not full enough.
cdef Py_ssize_t NARROW = 64


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
        return "the pixels of all channels do not stay in the caches"
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
    winograd.convolution = convolution
    winograd.swapped = convolution.operation == INPUT_GRADIENT
    winograd.source = source_of(convolution)[0]
    winograd.groups = geometry.groups
    winograd.source_channels = winograd.source.c // geometry.groups
    winograd.kernels = result.c // geometry.groups
    winograd.result_h = result.h
    winograd.result_w = result.w
    winograd.weights = weights_of(kernels, winograd.groups, winograd.swapped)
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
    """Say how many parts there are, and how many values a tile and a part have."""
    cdef bint whole = has_points(kernels)
    cdef Py_ssize_t taps = kernels.h if whole else PART, most = divide_up(taps, stride)
    plan.parts_down = 1 if whole else divide_up(kernels.h, PART)
    plan.parts_across = 1 if whole else divide_up(kernels.w, PART)
    plan.channels = plan.source_channels * num_parts(plan)
    plan.products = plan.source_channels * kernels.h * kernels.w
    plan.source_stride = 1 if plan.swapped else stride
    plan.result_stride = stride if plan.swapped else 1
    plan.taps = taps
    if stride == 1:
        plan.tile = POINTS + 1 - taps
        plan.points = plan.kernel_points = POINTS
    else:
        plan.tile = PHASE_TILE
        plan.points = points_of(plan, most) + points_of(plan, taps - most)
        plan.kernel_points = kernel_points_of(plan, most) + kernel_points_of(plan, taps - most)


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
    cdef Py_ssize_t tile_bytes = (
        plan.points * plan.points * plan.channel_blocks * WINOGRAD_CHANNELS
        * <Py_ssize_t> plan.itemsize
    )
    cdef Py_ssize_t most = max(MIN_TILES, MAX_BLOCK_BYTES // tile_bytes)
    cdef Py_ssize_t tiles = (
        plan.source.n * divide_up(plan.out_h, plan.tile) * divide_up(plan.out_w, plan.tile)
    )
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
    plan.sum_stride = apart(
        plan.block_strips * plan.strip_tiles * plan.width, plan.itemsize
    )


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
