# Winograd's kernel gradient, for 3x3 taps, one pixel apart:
#
#   gradient[k, c, i, j] = sum over n, y, x of
#       output_grad[n, k, y, x] * image[n, c, y + i - padding_top, x + j - padding_left]


from convext.base._dispatch cimport VALUES, WINOGRAD_CHANNELS, microkernels
from convext.base._geometry cimport Array4, Convolution, Geometry
from convext.base._machine cimport L2_BYTES, L3_BYTES, MAX_PARTIAL_SUM_BYTES
from convext.base._scratch cimport aligned_size, apart
from convext.base._tasks cimport ENOUGH_TASKS, divide_up, threads_for
from convext.ways._ways cimport time_of_results
from convext.ways._winograd_plan cimport (
    Squares, Winograd, cut_into_blocks, panel_columns, squares_size
)

cdef enum:
    TILE = 4            # output gradients of a tile along an axis
    TAPS = 3
    AREA = TAPS * TAPS
    OVERLAP = TAPS - 1

    # Of a block of tiles, the transformed output gradients of a unit of kernels should stay in the
    # L2 cache; the transformed pixels are read from beyond it for each unit. Large blocks are good,
    # since the sums of each are transformed.
    MAX_UNIT_BYTES = L2_BYTES
    MAX_BLOCK_BYTES = L3_BYTES // 2
    MIN_TILES = 16

    # With more channels the pixels of a few tiles do not fit.
    MAX_CHANNELS = 2048

    # On smaller maps the direct way sums so few products at a time that Winograd's errors are more
    # than three times as large.
    MIN_MAP = 8

cdef struct WinogradGradient:
    Winograd pixels                 # the tiles, under all channels of a group, or some, at once
    Winograd gradients              # the same tiles of output gradients
    Py_ssize_t groups
    Py_ssize_t group_units          # units of WINOGRAD_CHANNELS kernels in a group
    Py_ssize_t segments             # stretches of the blocks of tiles, which are summed apart
    Py_ssize_t kernel_parts         # a segment is shared out to tasks, of some units of kernels
    Py_ssize_t channel_parts        # and some blocks of channels each
    Py_ssize_t first_channel        # of those of a task
    Py_ssize_t channels             # of a group
    Py_ssize_t size                 # entries of the gradient
    Py_ssize_t sum_stride           # elements from one of the 36 values to the next
    bint in_one_go                  # all tiles make one block, whose sums are the result
    int num_threads
    bint is_checked                 # for "auto", whether pixels and output gradients are looked at
    Squares *pixel_squares          # [groups][blocks of channels][blocks of tiles]
    Squares *gradient_squares       # [groups][units][blocks of tiles]


cdef inline const char *objection(const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *kernels = &convolution.kernels
    if (
        kernels.h != TAPS or kernels.w != TAPS
        or geometry.stride_h > 1 or geometry.stride_w > 1
        or geometry.dilation_h > 1 or geometry.dilation_w > 1
    ):
        return "it is for 3x3 kernels with stride 1, not dilated"
    if convolution.asked:
        return NULL
    if kernels.c > MAX_CHANNELS:
        return "the pixels of all channels do not stay in the caches"
    if min(convolution.outputs.h, convolution.outputs.w) < MIN_MAP:
        return "sums over so few pixels would round more than directly"
    return NULL


cdef inline double time_of_tile(double kernels, double channels) noexcept nogil:
    """The time that a tile takes, in multiplications of the direct way: docs/winograd.md."""
    return 38 * channels * kernels + 400 * channels + 320 * kernels


cdef inline double time_of(const WinogradGradient *plan) noexcept nogil:
    """How long the plan takes, in multiplications of the direct way.

    Fitted to some hundred sizes on three instruction sets and both types.
    """
    cdef const Winograd *tiles = &plan.pixels
    # Rounded up to whole vectors of the widest instruction set, on every one: so all go one way.
    cdef double channels = divide_up(plan.channels, 16) * 16
    cdef double kernels = divide_up(plan.gradients.channels, 16) * 16
    return plan.groups * (
        <double> tiles.num_strips * tiles.strip_tiles * time_of_tile(kernels, channels)
        + 340 * tiles.num_blocks * channels * kernels   # transforming the sums
    )


cdef inline void describe_tiles(
    Winograd *tiles, const Array4 *source, Py_ssize_t channels, const Array4 *output_grad,
    size_t itemsize, Py_ssize_t most
) noexcept nogil:
    """Describe the tiles of `source` under those of the output gradients."""
    tiles.micro = microkernels(itemsize)
    tiles.itemsize = itemsize
    tiles.bands = NULL
    tiles.squares = NULL
    tiles.source = source[0]
    tiles.channels = tiles.source_channels = channels
    tiles.parts_down = tiles.parts_across = 1
    tiles.source_stride = tiles.result_stride = 1
    tiles.taps = TAPS
    tiles.tile = TILE
    tiles.points = TILE + OVERLAP
    tiles.channel_blocks = divide_up(channels, WINOGRAD_CHANNELS)
    tiles.out_h = output_grad.h
    tiles.out_w = output_grad.w
    tiles.source.n = output_grad.n
    cut_into_blocks(tiles, most)


cdef inline double time(const Convolution *convolution, void *plan) noexcept nogil:
    """Begin the plan, and return how long it takes; a tenth is added, since it rounds more."""
    cdef WinogradGradient *gradient = <WinogradGradient *> plan
    cdef const Array4 *outputs = &convolution.outputs
    cdef Py_ssize_t itemsize = convolution.itemsize
    cdef Py_ssize_t unit_bytes = VALUES * WINOGRAD_CHANNELS * itemsize
    cdef Py_ssize_t most
    gradient.groups = convolution.geometry.groups
    gradient.channels = convolution.kernels.c
    most = min(MAX_UNIT_BYTES // unit_bytes, max(MIN_TILES, MAX_BLOCK_BYTES // (
        unit_bytes * divide_up(gradient.channels, WINOGRAD_CHANNELS)
    )))
    describe_tiles(
        &gradient.pixels, &convolution.images, gradient.channels, outputs, itemsize, most
    )
    describe_tiles(
        &gradient.gradients, outputs, outputs.c // gradient.groups, outputs, itemsize, most
    )
    return 1.1 * time_of(gradient) + time_of_results(convolution)


cdef inline void share_out_segment(
    WinogradGradient *plan, Py_ssize_t units, Py_ssize_t blocks, Py_ssize_t num_threads
) noexcept nogil:
    """Cut a segment into tasks, of some units of kernels and blocks of channels.

    Pixels are transformed anew for each part of the kernels, and output gradients for each part of
    the channels: to share them takes longer (docs/measurements.md).
    """
    cdef Py_ssize_t channel_parts, kernel_parts
    cdef double time, least = -1
    for channel_parts in range(1, min(blocks, num_threads) + 1):
        kernel_parts = min(units, divide_up(num_threads, channel_parts))
        time = divide_up(channel_parts * kernel_parts, num_threads) * time_of_tile(
            divide_up(units, kernel_parts) * WINOGRAD_CHANNELS,
            divide_up(blocks, channel_parts) * WINOGRAD_CHANNELS
        )
        if least < 0 or time < least:
            least = time
            plan.kernel_parts = kernel_parts
            plan.channel_parts = channel_parts


cdef inline void cut_into_tasks(WinogradGradient *plan, int num_threads) noexcept nogil:
    """Cut the work into tasks: segments by the sizes alone, since their sums are added up."""
    cdef const Winograd *tiles = &plan.pixels
    cdef Py_ssize_t units = plan.groups * plan.group_units
    cdef Py_ssize_t blocks = tiles.channel_blocks if plan.groups == 1 else 1
    plan.in_one_go = tiles.num_blocks == 1
    plan.segments = max(1, min(
        min(tiles.num_blocks, divide_up(ENOUGH_TASKS, units)),
        MAX_PARTIAL_SUM_BYTES // (plan.size * <Py_ssize_t> sizeof(double))
    ))
    plan.num_threads = threads_for(
        <double> plan.size * tiles.source.n * tiles.out_h * tiles.out_w,
        units * blocks * plan.segments, num_threads
    )
    share_out_segment(plan, units, blocks, divide_up(plan.num_threads, plan.segments))


cdef inline void finish_plan(WinogradGradient *plan, const Convolution *convolution) noexcept nogil:
    cdef const Geometry *geometry = &convolution.geometry
    cdef const Array4 *images = &convolution.images
    cdef const Array4 *outputs = &convolution.outputs
    plan.pixels.top = -geometry.padding_top
    plan.pixels.left = -geometry.padding_left
    plan.gradients.top = plan.gradients.left = 0
    plan.group_units = divide_up(plan.gradients.channels, WINOGRAD_CHANNELS)
    plan.first_channel = 0
    plan.size = outputs.c * plan.channels * AREA
    plan.sum_stride = apart(WINOGRAD_CHANNELS * WINOGRAD_CHANNELS, convolution.itemsize)
    cut_into_tasks(plan, convolution.num_threads)
    plan.is_checked = not convolution.asked
    plan.pixels.all_blocks = plan.pixels.channel_blocks
    plan.pixels.inside[:] = [OVERLAP, outputs.h, OVERLAP, outputs.w]
    plan.gradients.inside[:] = [
        geometry.padding_top, images.h - OVERLAP + geometry.padding_top,
        geometry.padding_left, images.w - OVERLAP + geometry.padding_left
    ]


# The scratch memory of a thread: the transformed pixels of a block of tiles, the transformed output
# gradients of a unit of kernels, and then panels or, later, the sums and what becomes of them.
cdef struct Scratch:
    Py_ssize_t pixels       # [channel_blocks][VALUES][tiles][WINOGRAD_CHANNELS]
    Py_ssize_t gradients    # [VALUES][tiles][WINOGRAD_CHANNELS]
    Py_ssize_t panel        # [rows][columns][WINOGRAD_CHANNELS]
    Py_ssize_t sums         # [VALUES][kernels][WINOGRAD_CHANNELS], at the panel's place
    Py_ssize_t taps         # [AREA][kernels][WINOGRAD_CHANNELS]
    Py_ssize_t rows         # [kernels][WINOGRAD_CHANNELS][AREA]
    Py_ssize_t squares      # of a panel
    Py_ssize_t size


cdef inline Scratch arrange(const WinogradGradient *plan) noexcept nogil:
    cdef const Winograd *tiles = &plan.pixels
    cdef Py_ssize_t taps = WINOGRAD_CHANNELS * WINOGRAD_CHANNELS * AREA
    cdef Py_ssize_t panel = (
        (tiles.panel_strips * TILE + OVERLAP) * panel_columns(tiles) * WINOGRAD_CHANNELS
    )
    cdef Scratch layout
    layout.pixels = 0
    layout.gradients = tiles.channel_blocks * tiles.value_size
    layout.panel = layout.sums = layout.gradients + tiles.value_size
    layout.taps = layout.sums + VALUES * plan.sum_stride
    layout.rows = layout.taps + taps
    layout.squares = aligned_size(max(layout.rows + taps, layout.panel + panel), tiles.itemsize)
    layout.size = layout.squares + squares_size(tiles)
    return layout
