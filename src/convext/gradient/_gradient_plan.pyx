"""Which vectors a kernel gradient is computed by, and how it is cut."""

from libc.math cimport sqrt
from libc.stdlib cimport malloc

from convext.base._machine cimport (
    L1_BYTES, L2_BYTES, MAX_PARTIAL_SUM_BYTES, MIN_PRODUCTS_PER_THREAD
)
from convext.base._tasks cimport ENOUGH_TASKS, divide_up, threads_for
from convext.ways._tile cimport MAX_PACKED_WIDTH, Axis, Tiling, init_tiling, row_size

# By dots: a few rows of output gradients should stay in L1 beside the pixels.
cdef Py_ssize_t MAX_ROW_BYTES = L1_BYTES // 4

# The rows, or the running sums, of a chunk of kernels should stay in L2. These are 64 kernels of
# 3x3 taps and 64 channels in float64; with a quarter of L2 they take 7 % longer.
cdef Py_ssize_t MAX_CHUNK_BYTES = 9 * L2_BYTES // 32

# By channels: pixels of a tile, or more where these are fewer than TILE_ROWS_BY_CHANNELS rows: the
# rows above and below a tile are laid out with it.
cdef Py_ssize_t TILE_PIXELS_BY_CHANNELS = 256
cdef Py_ssize_t MAX_TILE_PIXELS_BY_CHANNELS = 1024
cdef Py_ssize_t TILE_ROWS_BY_CHANNELS = 4

# By kernels: pixels of a tile.
cdef Py_ssize_t TILE_PIXELS_BY_KERNELS = 1024

# Windows of more taps than this are not unfolded, nor those whose pieces meet fewer products of
# vectors: copying a piece takes as long as some of these.
cdef Py_ssize_t MAX_UNFOLDED_TAPS = 256
cdef Py_ssize_t PRODUCTS_PER_PIECE = 16

# Pixels of a segment, at least, or adding its sums to the others' takes too long.
cdef Py_ssize_t MIN_SEGMENT_PIXELS = 1024


cdef inline Py_ssize_t taps_of(const KernelGradient *gradient) noexcept nogil:
    return gradient.tiling.rows.num_taps * gradient.tiling.columns.num_taps


cdef bint nearly_fill_vectors(const KernelGradient *gradient, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t lanes = gradient.micro.lanes
    return 4 * count >= 3 * divide_up(count, lanes) * lanes


cdef bint worth_going_by_channels(const KernelGradient *gradient) noexcept nogil:
    """Whether vectors of channels are nearly full, and met by enough kernels to pay for them.

    All pixels between the taps of a row are laid out, too, so that these must not lie far apart.
    """
    cdef const Axis *columns = &gradient.tiling.columns
    return (
        gradient.kernels >= 4 and nearly_fill_vectors(gradient, gradient.channels)
        and columns.extent <= columns.num_taps * gradient.images.w
    )


cdef bint worth_going_by_kernels(const KernelGradient *gradient) noexcept nogil:
    """Whether vectors of kernels are nearly full, and met by enough neighbouring taps."""
    cdef const Axis *rows = &gradient.tiling.rows
    cdef const Axis *columns = &gradient.tiling.columns
    cdef Py_ssize_t most = gradient.micro.max_kernels
    return (
        nearly_fill_vectors(gradient, gradient.kernels) and columns.spacing == 1
        and 3 * (columns.num_taps // divide_up(columns.num_taps, most)) >= most
        and rows.stride <= rows.num_taps and columns.stride <= columns.num_taps
    )


cdef bint worth_unfolding(const KernelGradient *gradient) noexcept nogil:
    """Whether vectors of taps are nearly full, and met by enough kernels to pay for unfolding."""
    cdef const Axis *columns = &gradient.tiling.columns
    cdef Py_ssize_t lanes = gradient.micro.lanes
    cdef Py_ssize_t rows = gradient.channels * gradient.tiling.rows.num_taps
    cdef Py_ssize_t size = rows * columns.num_taps
    cdef Py_ssize_t pieces = rows * max(
        divide_up(columns.num_taps, lanes), min(columns.num_taps, columns.stride)
    )
    return (
        size <= MAX_UNFOLDED_TAPS and nearly_fill_vectors(gradient, size)
        and gradient.kernels * divide_up(size, lanes) >= PRODUCTS_PER_PIECE * pieces
    )


cdef Py_ssize_t channels_of_part(const KernelGradient *gradient) noexcept nogil:
    """As many channels as kernels: then the least is laid out, over all parts."""
    cdef Py_ssize_t lanes = gradient.micro.lanes
    cdef Py_ssize_t channels = <Py_ssize_t> sqrt(
        <double> MAX_CHUNK_BYTES / (taps_of(gradient) * gradient.itemsize)
    )
    return max(1, channels // lanes) * lanes


cdef Py_ssize_t whole_vectors(
    Py_ssize_t channels, Py_ssize_t block, Py_ssize_t lanes
) noexcept nogil:
    """At most `block` channels, in pairs of vectors where it can be, so that blocks are even."""
    cdef Py_ssize_t vectors = divide_up(channels, lanes)
    cdef Py_ssize_t most = block // lanes
    cdef Py_ssize_t even
    if most == 0 or vectors <= most:
        return block
    even = divide_up(vectors, divide_up(vectors, most))
    even += even % 2
    return (even if even <= most else even - 2 if even > 2 else 1) * lanes


cdef Py_ssize_t channels_in_place(const KernelGradient *gradient) noexcept nogil:
    """Channels of a part whose windows stay in L2; no more than leave a part for each thread."""
    cdef Py_ssize_t lanes = gradient.micro.lanes
    cdef Py_ssize_t fitting = MAX_CHUNK_BYTES // (
        min(gradient.pixels, TILE_PIXELS_BY_CHANNELS) * taps_of(gradient)
        * <Py_ssize_t> gradient.itemsize
    )
    cdef Py_ssize_t shared = divide_up(gradient.channels, ENOUGH_TASKS)
    return min(gradient.channels, max(2 * lanes, min(fitting, shared)))


cdef Py_ssize_t kernel_chunks_in_place(
    const KernelGradient *gradient, Py_ssize_t block
) noexcept nogil:
    cdef Py_ssize_t parts = gradient.groups * divide_up(gradient.channels, block)
    cdef Py_ssize_t most = gradient.kernels // (2 * gradient.micro.max_kernels)
    return max(1, min(divide_up(ENOUGH_TASKS, parts), most))


cdef bint worth_summing_in_place(const KernelGradient *gradient) noexcept nogil:
    """Whether to add up in the gradient itself, by channels, with the windows in its order.

    Bringing a window into the order of the gradient takes as long as two kernels' sums.
    """
    cdef const Axis *columns = &gradient.tiling.columns
    if (
        gradient.channels % gradient.micro.lanes != 0 or gradient.pixels > MAX_RUNNING_PIXELS
    ):
        return False
    return taps_of(gradient) == 1 or (
        columns.num_taps > 1 and columns.stride == 1 and columns.spacing == 1
        and gradient.kernels >= 2 * gradient.pixels * (
            kernel_chunks_in_place(gradient, channels_in_place(gradient))
        )
    )


cdef void choose_strategy(KernelGradient *gradient) noexcept nogil:
    """Choose the vectors: of channels, of kernels, or dots."""
    gradient.by_channels = worth_going_by_channels(gradient)
    gradient.in_place = gradient.by_channels and worth_summing_in_place(gradient)
    gradient.by_kernels = not gradient.by_channels and worth_going_by_kernels(gradient)
    gradient.unfolded = gradient.in_place and taps_of(gradient) > 1
    if not (gradient.by_channels or gradient.by_kernels):
        gradient.unfolded = gradient.by_channels = worth_unfolding(gradient)


cdef int init_unfolding(KernelGradient *gradient) noexcept nogil:
    """Find the pieces of the windows of a block of channels. -1 when memory runs out."""
    cdef const Tiling *tiling = &gradient.tiling
    cdef const Axis *columns = &tiling.columns
    cdef Unfolding *unfolding = &gradient.unfolding
    cdef Py_ssize_t num_columns = columns.num_taps, lanes = gradient.micro.lanes
    cdef Py_ssize_t size = tiling.block * tiling.taps
    cdef Py_ssize_t row, plane, i, tap, element = 0, length = 0
    # Whether the taps of a plane meet pixels that are neighbours there.
    cdef bint beside = columns.num_planes * columns.spacing == columns.stride
    unfolding.width = divide_up(size, lanes) * lanes
    unfolding.num_pieces = 0
    # One block of memory for the four arrays.
    unfolding.place = <Py_ssize_t *> malloc((4 * size + 1) * sizeof(Py_ssize_t))
    if unfolding.place == NULL:
        return -1
    unfolding.start = unfolding.place + size
    unfolding.packed = unfolding.start + size + 1
    unfolding.in_place = unfolding.packed + size
    for row in range(tiling.block * tiling.rows.num_taps):
        for plane in range(columns.num_planes):
            for i in range(divide_up(num_columns - plane, columns.num_planes)):
                tap = row * num_columns + plane + i * columns.num_planes
                if i == 0 or length == lanes or not beside:
                    unfolding.start[unfolding.num_pieces] = element
                    unfolding.packed[unfolding.num_pieces] = tiling.offset_packed[tap]
                    unfolding.in_place[unfolding.num_pieces] = tiling.offset_in_place[tap]
                    unfolding.num_pieces += 1
                    length = 0
                unfolding.place[element] = tap
                element += 1
                length += 1
    unfolding.start[unfolding.num_pieces] = size
    return 0


cdef int cut_into_tiles(KernelGradient *gradient) noexcept nogil:
    """Cut the output gradients into tiles, and the channels into blocks."""
    cdef Py_ssize_t itemsize = gradient.itemsize
    cdef Py_ssize_t max_pixels = MAX_ROW_BYTES // itemsize
    cdef Py_ssize_t max_block = gradient.channels
    cdef Tiling *tiling = &gradient.tiling
    if gradient.by_kernels:
        max_pixels = TILE_PIXELS_BY_KERNELS
    elif gradient.unfolded:
        max_pixels = TILE_PIXELS_BY_CHANNELS
    elif gradient.by_channels:
        max_pixels = max(TILE_PIXELS_BY_CHANNELS, min(
            MAX_TILE_PIXELS_BY_CHANNELS, TILE_ROWS_BY_CHANNELS * gradient.output_grad.w
        ))
        max_block = channels_of_part(gradient)
    if gradient.in_place:
        max_block = channels_in_place(gradient)
    if init_tiling(
        tiling, tiling.rows, tiling.columns, &gradient.images, gradient.channels,
        gradient.output_grad.h, gradient.output_grad.w, max_pixels, max_block,
        # By channels, the pixels of all channels are laid out under a tile.
        not gradient.by_channels or gradient.output_grad.w <= MAX_PACKED_WIDTH, True, itemsize
    ) == -1:
        return -1
    if gradient.in_place or gradient.by_channels and not gradient.unfolded:
        tiling.block = whole_vectors(gradient.channels, tiling.block, gradient.micro.lanes)
    # A block of channels that is too large to be packed may have become less than a vector.
    gradient.in_place = gradient.in_place and tiling.block % gradient.micro.lanes == 0
    gradient.unfolded = gradient.unfolded and (
        gradient.in_place or tiling.block == gradient.channels
    )
    gradient.row_size = row_size(tiling)
    return init_unfolding(gradient) if gradient.unfolded else 0


cdef void cut_into_parts(
    KernelGradient *gradient, Py_ssize_t num_samples, int num_threads
) noexcept nogil:
    """Cut the gradient into parts, and each into sums over segments of the tiles."""
    cdef const Tiling *tiling = &gradient.tiling
    cdef double products = <double> gradient.size * gradient.pixels
    cdef Py_ssize_t tiles = num_samples * tiling.tiles_down * tiling.tiles_across
    cdef Py_ssize_t row_bytes = <Py_ssize_t> gradient.itemsize * (
        tiling.taps * tiling.block if gradient.by_channels or gradient.by_kernels
        else gradient.row_size
    )
    cdef Py_ssize_t parts
    gradient.channel_chunks = divide_up(gradient.channels, tiling.block)
    gradient.kernel_chunks = (
        kernel_chunks_in_place(gradient, tiling.block) if gradient.in_place
        else divide_up(gradient.kernels, max(1, MAX_CHUNK_BYTES // row_bytes))
    )
    parts = gradient.groups * gradient.kernel_chunks * gradient.channel_chunks
    gradient.segments = 1
    if not gradient.in_place and products > MIN_PRODUCTS_PER_THREAD:
        gradient.segments = max(1, min(
            min(tiles, divide_up(gradient.pixels, MIN_SEGMENT_PIXELS)),
            min(
                divide_up(ENOUGH_TASKS, parts),
                MAX_PARTIAL_SUM_BYTES // (gradient.size * <Py_ssize_t> sizeof(double))
            )
        ))
        if gradient.segments > 1:   # as many for each of two threads
            gradient.segments -= gradient.segments % 2
    gradient.in_one_go = (
        (gradient.by_channels or gradient.by_kernels and gradient.channel_chunks == 1)
        and gradient.segments == 1 and gradient.pixels <= MAX_RUNNING_PIXELS
    )
    gradient.tasks = parts * gradient.segments
    gradient.num_threads = threads_for(products, gradient.tasks, num_threads)


cdef int plan_kernel_gradient(
    KernelGradient *gradient, Py_ssize_t num_samples, int num_threads
) noexcept nogil:
    gradient.pixels = num_samples * gradient.output_grad.h * gradient.output_grad.w
    choose_strategy(gradient)
    if cut_into_tiles(gradient) == -1:
        return -1
    cut_into_parts(gradient, num_samples, num_threads)
    return 0
