"""The gradient with respect to the kernels: sums over pixels of output gradients times pixels.

The gradient is computed in parts (some kernels, some channels), each over segments of the tiles of
all samples, by dot products or by the building block of the forward convolution, whichever is
faster for the shape. The sums are added in float64, in an order that depends on the shapes
alone.
"""

from libc.math cimport sqrt
from libc.stdlib cimport free
from libc.string cimport memset

from convext.base._dispatch cimport microkernels
from convext.base._geometry cimport Array4, Geometry, real
from convext.gradient._gradient_by_channels cimport (
    add_tile_by_channels, channels_scratch_size, flush_channels, store_channels
)
from convext.gradient._gradient_by_dots cimport add_tile_by_dots, arrange_dots
from convext.gradient._gradient_by_kernels cimport (
    add_tile_by_kernels, flush_kernels, kernels_scratch_size, store_kernels
)
from convext.base._interrupt cimport Interrupt, stopped
from convext.base._scratch cimport aligned_alloc, aligned_free, aligned_size
from convext.gradient._segments cimport add_segments
from convext.base._tasks cimport (
    ENOUGH_TASKS, MIN_PRODUCTS_PER_THREAD, Task, Tasks, divide_up, run_tasks, tasks_of,
    threads_for
)
from convext.ways._tile cimport (
    MAX_PACKED_WIDTH, Axis, Tile, Tiling, free_tiling, init_axis, init_tiling, row_size, tile_at
)
from convext.gradient._unfolding cimport free_unfolding, init_unfolding

# By dots: a few rows of output gradients should stay in L1 beside the pixels.
cdef Py_ssize_t MAX_ROW_BYTES = 8 * 1024

# The rows, or the running sums, of a chunk of kernels should stay in L2.
cdef Py_ssize_t MAX_CHUNK_BYTES = 288 * 1024

# By channels: pixels of a tile, or more where so few would be less than so many rows: the rows
# above and below a tile are laid out with it.
cdef Py_ssize_t TILE_PIXELS_BY_CHANNELS = 256
cdef Py_ssize_t MAX_TILE_PIXELS_BY_CHANNELS = 1024
cdef Py_ssize_t TILE_ROWS_BY_CHANNELS = 4

# By kernels: pixels of a tile.
cdef Py_ssize_t TILE_PIXELS_BY_KERNELS = 1024

# Windows of more taps than this are not unfolded, nor those whose pieces meet fewer products of
# vectors: copying a piece takes as long as some of these.
cdef Py_ssize_t MAX_UNFOLDED_TAPS = 256
cdef Py_ssize_t PRODUCTS_PER_PIECE = 16

# So many pixels are summed in the arrays' own type before the sums are added in float64.
cdef Py_ssize_t MAX_RUNNING_PIXELS = 2048

# A segment has at least so many pixels, or adding its sums to the others' takes too long.
cdef Py_ssize_t MIN_SEGMENT_PIXELS = 1024

# The partial gradients of all segments together.
cdef Py_ssize_t MAX_SUM_BYTES = 32 * 1024 * 1024


cdef bint worth_going_by_channels(const KernelGradient *gradient) noexcept nogil:
    """Whether vectors of channels are nearly full, and met by enough kernels to pay for them."""
    cdef Py_ssize_t lanes = gradient.micro.lanes
    cdef Py_ssize_t width = divide_up(gradient.channels, lanes) * lanes
    return gradient.kernels >= 4 and 4 * gradient.channels >= 3 * width


cdef bint worth_going_by_kernels(
    const KernelGradient *gradient, Py_ssize_t kernel_h, Py_ssize_t kernel_w,
    const Geometry *geometry
) noexcept nogil:
    """Whether vectors of kernels are nearly full, and met by enough neighbouring taps."""
    cdef Py_ssize_t lanes = gradient.micro.lanes
    cdef Py_ssize_t most = gradient.micro.max_kernels
    cdef Py_ssize_t width = divide_up(gradient.kernels, lanes) * lanes
    return (
        4 * gradient.kernels >= 3 * width and geometry.dilation_w == 1
        and 3 * (kernel_w // divide_up(kernel_w, most)) >= most
        and geometry.stride_h <= kernel_h and geometry.stride_w <= kernel_w
    )


cdef bint worth_unfolding(
    const KernelGradient *gradient, Py_ssize_t kernel_h, Py_ssize_t kernel_w, Py_ssize_t stride_w
) noexcept nogil:
    """Whether vectors of taps are nearly full, and met by enough kernels to pay for unfolding."""
    cdef Py_ssize_t lanes = gradient.micro.lanes
    cdef Py_ssize_t size = gradient.channels * kernel_h * kernel_w
    cdef Py_ssize_t width = divide_up(size, lanes) * lanes
    cdef Py_ssize_t pieces = gradient.channels * kernel_h * max(
        divide_up(kernel_w, lanes), min(kernel_w, stride_w)
    )
    return (
        size <= MAX_UNFOLDED_TAPS and 4 * size >= 3 * width
        and gradient.kernels * (width // lanes) >= PRODUCTS_PER_PIECE * pieces
    )


cdef Py_ssize_t channels_of_part(
    Py_ssize_t taps, Py_ssize_t lanes, size_t itemsize
) noexcept nogil:
    """As many channels as kernels: then the least is laid out, over all parts."""
    cdef Py_ssize_t channels = <Py_ssize_t> sqrt(<double> MAX_CHUNK_BYTES / (taps * itemsize))
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


cdef Py_ssize_t channels_in_place(
    const KernelGradient *gradient, Py_ssize_t taps, Py_ssize_t pixels
) noexcept nogil:
    """Channels of a part whose windows stay in L2; no more than leave a part for each thread."""
    cdef Py_ssize_t lanes = gradient.micro.lanes
    cdef Py_ssize_t fitting = MAX_CHUNK_BYTES // (
        min(pixels, TILE_PIXELS_BY_CHANNELS) * taps * <Py_ssize_t> gradient.itemsize
    )
    cdef Py_ssize_t shared = divide_up(gradient.channels, ENOUGH_TASKS)
    return min(gradient.channels, max(2 * lanes, min(fitting, shared)))


cdef Py_ssize_t kernel_chunks_in_place(
    const KernelGradient *gradient, Py_ssize_t block
) noexcept nogil:
    cdef Py_ssize_t parts = gradient.groups * divide_up(gradient.channels, block)
    cdef Py_ssize_t most = gradient.kernels // (2 * gradient.micro.max_kernels)
    return max(1, min(divide_up(ENOUGH_TASKS, parts), most))


cdef bint worth_summing_in_place(
    const KernelGradient *gradient, Py_ssize_t kernel_h, Py_ssize_t kernel_w, Py_ssize_t pixels,
    const Geometry *geometry
) noexcept nogil:
    """Whether to add up in the gradient itself, by channels, with the windows in its order.

    Bringing a window into the order of the gradient takes as long as two kernels' sums.
    """
    cdef Py_ssize_t taps = kernel_h * kernel_w
    cdef Py_ssize_t chunks
    if gradient.channels % gradient.micro.lanes != 0 or pixels > MAX_RUNNING_PIXELS:
        return False
    chunks = kernel_chunks_in_place(gradient, channels_in_place(gradient, taps, pixels))
    return taps == 1 or (
        kernel_w > 1 and geometry.stride_w == 1 and geometry.dilation_w == 1
        and gradient.kernels >= 2 * pixels * chunks
    )


cdef void choose_strategy(
    KernelGradient *gradient, Py_ssize_t kernel_h, Py_ssize_t kernel_w, Py_ssize_t pixels,
    const Geometry *geometry
) noexcept nogil:
    gradient.by_channels = worth_going_by_channels(gradient)
    gradient.in_place = gradient.by_channels and worth_summing_in_place(
        gradient, kernel_h, kernel_w, pixels, geometry
    )
    gradient.by_kernels = not gradient.by_channels and worth_going_by_kernels(
        gradient, kernel_h, kernel_w, geometry
    )
    gradient.unfolded = gradient.in_place and kernel_h * kernel_w > 1
    if not (gradient.by_channels or gradient.by_kernels):
        gradient.unfolded = worth_unfolding(gradient, kernel_h, kernel_w, geometry.stride_w)
        gradient.by_channels = gradient.unfolded


cdef int cut_into_tiles(
    KernelGradient *gradient, const Axis *rows, const Axis *columns, Py_ssize_t pixels
) noexcept nogil:
    """Cut the output gradients into tiles, and the channels into blocks."""
    cdef Py_ssize_t itemsize = gradient.itemsize
    cdef Py_ssize_t taps = rows.num_taps * columns.num_taps
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
        max_block = channels_of_part(taps, gradient.micro.lanes, itemsize)
    if gradient.in_place:
        max_block = channels_in_place(gradient, taps, pixels)
    if init_tiling(
        tiling, rows[0], columns[0], &gradient.images, gradient.channels, gradient.output_grad.h,
        gradient.output_grad.w, max_pixels, max_block,
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
    if gradient.unfolded and init_unfolding(
        &gradient.unfolding, tiling, gradient.micro.lanes
    ) == -1:
        free_tiling(tiling)
        return -1
    return 0


cdef void cut_into_parts(KernelGradient *gradient, Py_ssize_t num_samples) noexcept nogil:
    cdef const Tiling *tiling = &gradient.tiling
    cdef Py_ssize_t pixels = num_samples * gradient.output_grad.h * gradient.output_grad.w
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
    if not gradient.in_place and products_of(gradient, num_samples) > MIN_PRODUCTS_PER_THREAD:
        gradient.segments = max(1, min(
            min(tiles, divide_up(pixels, MIN_SEGMENT_PIXELS)),
            min(
                divide_up(ENOUGH_TASKS, parts),
                MAX_SUM_BYTES // (gradient.size * <Py_ssize_t> sizeof(double))
            )
        ))
        if gradient.segments > 1:   # as many for each of two threads
            gradient.segments -= gradient.segments % 2
    gradient.in_one_go = (
        (gradient.by_channels or gradient.by_kernels and gradient.channel_chunks == 1)
        and gradient.segments == 1 and pixels <= MAX_RUNNING_PIXELS
    )


cdef double products_of(const KernelGradient *gradient, Py_ssize_t num_samples) noexcept nogil:
    return (
        <double> num_samples * gradient.size * gradient.output_grad.h * gradient.output_grad.w
    )


cdef int allocate(KernelGradient *gradient) noexcept nogil:
    cdef Py_ssize_t kernels = divide_up(gradient.kernels, gradient.kernel_chunks)
    gradient.scratch_size = aligned_size(
        kernels_scratch_size(gradient, kernels) if gradient.by_kernels
        else channels_scratch_size(gradient, kernels) if gradient.by_channels
        else arrange_dots(gradient, kernels).end,
        gradient.itemsize
    )
    gradient.sums = NULL
    if not gradient.in_one_go:
        gradient.sums = <double *> aligned_alloc(
            gradient.segments * gradient.size, sizeof(double)
        )
        if gradient.sums == NULL:
            free_kernel_gradient(gradient)
            return -1
    return 0


cdef int init_kernel_gradient(
    KernelGradient *gradient, const Array4 *images, const Array4 *output_grad,
    Py_ssize_t num_samples, Py_ssize_t kernel_h, Py_ssize_t kernel_w, const Geometry *geometry,
    int num_threads, size_t itemsize
) noexcept nogil:
    cdef Py_ssize_t pixels = num_samples * output_grad.h * output_grad.w
    cdef Axis rows, columns
    if init_axis(&rows, kernel_h, geometry.stride_h, geometry.padding_top,
                 geometry.dilation_h) == -1:
        return -1
    if init_axis(&columns, kernel_w, geometry.stride_w, geometry.padding_left,
                 geometry.dilation_w) == -1:
        free(rows.distance)
        return -1
    gradient.micro = microkernels(itemsize)
    gradient.itemsize = itemsize
    gradient.images = images[0]
    gradient.output_grad = output_grad[0]
    gradient.groups = geometry.groups
    gradient.channels = images.c // geometry.groups
    gradient.kernels = output_grad.c // geometry.groups
    gradient.size = output_grad.c * gradient.channels * kernel_h * kernel_w
    gradient.unfolding.place = NULL
    choose_strategy(gradient, kernel_h, kernel_w, pixels, geometry)
    if cut_into_tiles(gradient, &rows, &columns, pixels) == -1:
        return -1
    gradient.row_size = row_size(&gradient.tiling, gradient.micro.lanes)
    cut_into_parts(gradient, num_samples)
    gradient.num_threads = threads_for(
        products_of(gradient, num_samples),
        gradient.groups * gradient.kernel_chunks * gradient.channel_chunks * gradient.segments,
        num_threads
    )
    return allocate(gradient)


cdef void free_kernel_gradient(KernelGradient *gradient) noexcept nogil:
    free_tiling(&gradient.tiling)
    free_unfolding(&gradient.unfolding)
    aligned_free(gradient.sums)


cdef Part part_of(
    const KernelGradient *gradient, Py_ssize_t index, Py_ssize_t segment
) noexcept nogil:
    """The kernels and channels of a part, and where its sums are."""
    cdef Part part
    cdef Py_ssize_t channel_chunk = index % gradient.channel_chunks
    cdef Py_ssize_t kernel_chunk = index // gradient.channel_chunks % gradient.kernel_chunks
    cdef Py_ssize_t group = index // gradient.channel_chunks // gradient.kernel_chunks
    cdef Py_ssize_t first = kernel_chunk * gradient.kernels // gradient.kernel_chunks
    cdef Py_ssize_t end = (kernel_chunk + 1) * gradient.kernels // gradient.kernel_chunks
    cdef Py_ssize_t channel = channel_chunk * gradient.tiling.block
    part.kernel = group * gradient.kernels + first
    part.kernels = end - first
    part.channel = group * gradient.channels + channel
    part.channels = min(gradient.tiling.block, gradient.channels - channel)
    part.first = (part.kernel * gradient.channels + channel) * gradient.tiling.taps
    part.sums = gradient.sums + segment * gradient.size + part.first
    return part


cdef inline Py_ssize_t first_tile(
    const KernelGradient *gradient, Py_ssize_t segment, Py_ssize_t tiles
) noexcept nogil:
    return segment * tiles // gradient.segments


# What the tasks read, and where they write.
cdef struct Operands:
    const KernelGradient *gradient
    const void *images
    const Py_ssize_t *order
    Py_ssize_t num_samples
    const void *output_grad
    void *kernel_grad


cdef void sum_part(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Sum one part of the gradient over one segment of the tiles."""
    cdef const Operands *operands = <const Operands *> work
    cdef const KernelGradient *gradient = operands.gradient
    cdef const Tiling *tiling = &gradient.tiling
    cdef real *kernel_grad = <real *> operands.kernel_grad
    cdef Py_ssize_t segment = task % gradient.segments
    cdef Part part = part_of(gradient, task // gradient.segments, segment)
    cdef Py_ssize_t tiles = tiling.tiles_down * tiling.tiles_across
    cdef Py_ssize_t begin = first_tile(gradient, segment, operands.num_samples * tiles)
    cdef Py_ssize_t end = first_tile(gradient, segment + 1, operands.num_samples * tiles)
    cdef Array4 source = gradient.images
    cdef Tile tile
    cdef Py_ssize_t i, n, k, image, running = 0
    cdef bint fresh = True
    cdef const real *first_grad
    source.data = <void *> operands.images
    # Fewer samples than were prepared for may have fewer tiles than segments.
    if begin == end or not (gradient.by_kernels or gradient.by_channels):
        for k in range(part.kernels):
            memset(
                part.sums + k * gradient.channels * tiling.taps, 0,
                part.channels * tiling.taps * sizeof(double)
            )

    for i in range(begin, end):
        if i > begin and stopped(interrupt):
            return
        n = i // tiles
        image = operands.order[n] if operands.order != NULL else n
        tile = tile_at(tiling, i % tiles, gradient.micro.lanes)
        if gradient.unfolded:
            # Each window is read in whole vectors.
            tile.num_pixels += gradient.micro.lanes
        first_grad = <const real *> operands.output_grad + (
            n * gradient.output_grad.n_stride + part.kernel * gradient.output_grad.c_stride
        )
        if gradient.by_kernels:
            add_tile_by_kernels(
                gradient, &part, &tile, &source, image, first_grad, running == 0, scratch
            )
        elif gradient.by_channels:
            add_tile_by_channels(
                gradient, &part, &tile, &source, image, first_grad, running == 0, scratch,
                kernel_grad
            )
        else:
            add_tile_by_dots(gradient, &part, &tile, &source, image, first_grad, scratch)
            continue
        running += tile.height * tile.width
        if gradient.in_one_go and i == end - 1:
            store_running_sums(gradient, &part, scratch, kernel_grad)
        elif running >= MAX_RUNNING_PIXELS or i == end - 1:
            flush_running_sums(gradient, &part, fresh, scratch)
            fresh = False
            running = 0


cdef void store_running_sums(
    const KernelGradient *gradient, const Part *part, const real *scratch, real *kernel_grad
) noexcept nogil:
    if gradient.by_kernels:
        store_kernels(gradient, part, scratch, kernel_grad + part.first)
    else:
        store_channels(gradient, part, scratch, kernel_grad)


cdef void flush_running_sums(
    const KernelGradient *gradient, const Part *part, bint fresh, real *scratch
) noexcept nogil:
    if gradient.by_kernels:
        flush_kernels(gradient, part, fresh, scratch)
    else:
        flush_channels(gradient, part, fresh, scratch)


cdef int run_kernel_gradient(
    const KernelGradient *gradient, const void *images, const Py_ssize_t *order,
    Py_ssize_t num_samples, const void *output_grad, void *kernel_grad, Interrupt *interrupt
) noexcept nogil:
    cdef Operands operands = Operands(
        gradient, images, order, num_samples, output_grad, kernel_grad
    )
    cdef Tasks parts = tasks_of(
        &operands, gradient.itemsize, <Task> sum_part[float], <Task> sum_part[double],
        gradient.groups * gradient.kernel_chunks * gradient.channel_chunks * gradient.segments,
        gradient.scratch_size * <Py_ssize_t> gradient.itemsize, gradient.num_threads
    )
    if num_samples == 0:
        memset(kernel_grad, 0, gradient.size * gradient.itemsize)
        return 0
    if run_tasks(&parts, interrupt) == -1:
        return -1
    if gradient.in_one_go:
        return 0
    return add_segments(
        gradient.sums, gradient.segments, gradient.size, kernel_grad, gradient.itemsize,
        gradient.num_threads, interrupt
    )
