"""Correlation of images with weights: tasks over tiles, the micro-kernels within."""

from cython.parallel cimport parallel, prange, threadid
from libc.stdlib cimport free

from convext._dispatch cimport Microkernels, microkernels
from convext._geometry cimport Array4, real
from convext._interrupt cimport Interrupt, interrupted
from convext._scratch cimport aligned_alloc, aligned_size
from convext._tasks cimport divide_up, threads_for
from convext._tile cimport (
    Axis, Tile, Tiling, free_tiling, init_tiling, lay_out, packed_size, row_size, tile_at
)

# The sums of a tile for all kernels should stay in a small L2 cache, a block's weights in L1.
cdef Py_ssize_t MAX_SUM_BYTES = 256 * 1024
cdef Py_ssize_t MAX_TILE_PIXELS = 4096
cdef Py_ssize_t MIN_TILE_PIXELS = 256
cdef Py_ssize_t MAX_WEIGHT_BYTES = 16 * 1024

# With a few tasks for each thread none waits long for the last one.
cdef Py_ssize_t TASKS_PER_THREAD = 3


cdef inline Py_ssize_t kernels_of_chunk(const Correlation *correlation) noexcept nogil:
    """At most so many kernels are computed by one task."""
    return (
        divide_up(correlation.num_blocks, correlation.num_chunks)
        * divide_up(correlation.kernels, correlation.num_blocks)
    )


cdef int init_correlation(
    Correlation *correlation, const Array4 *source, Py_ssize_t num_samples,
    Axis rows, Axis columns, Py_ssize_t groups, Py_ssize_t num_kernels,
    Py_ssize_t out_h, Py_ssize_t out_w, int num_threads, size_t itemsize
) noexcept nogil:
    cdef const Microkernels *micro = microkernels(itemsize)
    cdef Py_ssize_t max_pixels, max_block, tasks
    cdef double products
    correlation.micro = micro
    correlation.itemsize = itemsize
    correlation.source = source[0]
    correlation.groups = groups
    correlation.channels = source.c // groups
    correlation.kernels = num_kernels // groups
    correlation.weights = NULL
    correlation.scratch = NULL
    correlation.num_blocks = divide_up(correlation.kernels, micro.max_kernels)
    correlation.num_chunks = min(correlation.num_blocks, divide_up(
        correlation.kernels * MIN_TILE_PIXELS * <Py_ssize_t> itemsize, MAX_SUM_BYTES
    ))

    max_pixels = min(MAX_TILE_PIXELS, MAX_SUM_BYTES // (
        kernels_of_chunk(correlation) * <Py_ssize_t> itemsize
    ))
    max_block = max(1, MAX_WEIGHT_BYTES // (
        min(correlation.kernels, <Py_ssize_t> micro.max_kernels)
        * rows.num_taps * columns.num_taps * <Py_ssize_t> itemsize
    ))
    if init_tiling(
        &correlation.tiling, rows, columns, source, correlation.channels, out_h, out_w,
        max_pixels, max_block, itemsize
    ) == -1:
        return -1

    products = (
        <double> num_kernels * correlation.channels * correlation.tiling.taps * out_h * out_w
    )
    tasks = groups * correlation.tiling.tiles_down * correlation.tiling.tiles_across
    # The pixels are laid out anew for each chunk, so there are no more than the threads need. The
    # results do not depend on it.
    correlation.num_threads = threads_for(
        products * num_samples, tasks * num_samples * correlation.num_blocks, num_threads
    )
    if correlation.num_threads > 1:
        correlation.num_chunks = min(correlation.num_blocks, max(correlation.num_chunks, divide_up(
            TASKS_PER_THREAD * correlation.num_threads, tasks * num_samples
        )))
    correlation.tasks_per_sample = tasks * correlation.num_chunks
    correlation.row_size = row_size(&correlation.tiling, micro.lanes)
    correlation.scratch_size = aligned_size(
        packed_size(&correlation.tiling, micro.lanes)
        + kernels_of_chunk(correlation) * correlation.row_size,
        itemsize
    )
    correlation.weights = aligned_alloc(
        num_kernels * correlation.channels * correlation.tiling.taps, itemsize
    )
    correlation.scratch = aligned_alloc(
        correlation.scratch_size * correlation.num_threads, itemsize
    )
    if correlation.weights == NULL or correlation.scratch == NULL:
        free_correlation(correlation)
        return -1
    return 0


cdef void free_correlation(Correlation *correlation) noexcept nogil:
    free_tiling(&correlation.tiling)
    free(correlation.weights)
    free(correlation.scratch)


cdef inline Py_ssize_t first_kernel(
    const Correlation *correlation, Py_ssize_t block
) noexcept nogil:
    """The first kernel, within its group, of a block; the blocks differ by one kernel at most."""
    return block * correlation.kernels // correlation.num_blocks


cdef Py_ssize_t consecutive_weights(
    const Correlation *correlation, const Array4 *kernels, Py_ssize_t channel_stride,
    const Py_ssize_t *rows, const Py_ssize_t *columns
) noexcept nogil:
    """How many weights of a kernel, in the order (channel, tap), lie one after the other."""
    cdef const Tiling *tiling = &correlation.tiling
    cdef Py_ssize_t i, j, distance
    for i in range(tiling.rows.num_taps):
        for j in range(tiling.columns.num_taps):
            distance = (
                (rows[i] - rows[0]) * kernels.h_stride
                + (columns[j] - columns[0]) * kernels.w_stride
            )
            if distance != i * tiling.columns.num_taps + j:
                return 1
    if channel_stride == tiling.taps:
        return correlation.channels * tiling.taps
    return tiling.taps


cdef void pack_weights(
    Correlation *correlation, const Array4 *kernels, bint swapped,
    const Py_ssize_t *rows, const Py_ssize_t *columns, real *weights
) noexcept nogil:
    # Order: group, block of kernels, channel, tap, kernel within the block.
    cdef Py_ssize_t kernel_stride = kernels.n_stride, channel_stride = kernels.c_stride
    cdef Py_ssize_t group_stride = correlation.kernels * kernels.n_stride
    cdef Py_ssize_t num_columns = correlation.tiling.columns.num_taps
    cdef Py_ssize_t taps = correlation.tiling.taps
    cdef Py_ssize_t g, b, t, tap, begin, count, run
    cdef const real *block
    if swapped:
        kernel_stride, channel_stride = kernels.c_stride, kernels.n_stride
        group_stride = correlation.channels * kernels.n_stride
    run = consecutive_weights(correlation, kernels, channel_stride, rows, columns)
    for g in range(correlation.groups):
        for b in range(correlation.num_blocks):
            begin = first_kernel(correlation, b)
            count = first_kernel(correlation, b + 1) - begin
            block = <const real *> kernels.data + g * group_stride + begin * kernel_stride
            t = 0
            while t < correlation.channels * taps:
                tap = t % taps
                correlation.micro.interleave(
                    run, count,
                    block + t // taps * channel_stride + rows[tap // num_columns] * kernels.h_stride
                    + columns[tap % num_columns] * kernels.w_stride,
                    kernel_stride, 1, weights + t * count, count
                )
                t += run
            weights += correlation.channels * taps * count


cdef void store_tile(
    const Tiling *tiling, const Tile *tile, const real *sums, real bias, real *to,
    Py_ssize_t row_stride, Py_ssize_t column_stride
) noexcept nogil:
    """Copy the pixels of a tile from a row of sums to the output."""
    cdef Py_ssize_t c
    to += tile.top * row_stride + tile.left * column_stride
    for _ in range(tile.height):
        if column_stride == 1:
            for c in range(tile.width):
                to[c] = sums[c] + bias
        else:
            for c in range(tile.width):
                to[c * column_stride] = sums[c] + bias
        to += row_stride
        sums += tiling.pitch


cdef void sum_channels(
    const Correlation *correlation, const Tile *tile, Py_ssize_t group, Py_ssize_t first_block,
    Py_ssize_t last_block, Py_ssize_t channel, Py_ssize_t channels, const real *pixels,
    const Py_ssize_t *offset, real *sums
) noexcept nogil:
    cdef Py_ssize_t taps = correlation.tiling.taps
    cdef Py_ssize_t kernel_taps = correlation.channels * taps
    cdef Py_ssize_t first = first_kernel(correlation, first_block)
    cdef Py_ssize_t b, begin, count
    cdef const real *weights = <const real *> correlation.weights + (
        group * correlation.kernels * kernel_taps
    )
    for b in range(first_block, last_block):
        begin = first_kernel(correlation, b)
        count = first_kernel(correlation, b + 1) - begin
        correlation.micro.correlate[count](
            channels * taps, tile.num_pixels,
            weights + begin * kernel_taps + channel * taps * count,
            pixels, offset, sums + (begin - first) * correlation.row_size,
            correlation.row_size, channel > 0
        )


cdef void run_task(
    const Correlation *correlation, const real *source, Py_ssize_t sample, Py_ssize_t index,
    const real *bias, const Array4 *out, Py_ssize_t out_sample, real *scratch,
    Interrupt *interrupt, bint may_poll
) noexcept nogil:
    """Compute one tile of a sample for one chunk of kernels.

    For each block of channels the pixels are laid out once (L2); for each block of kernels the
    weights (L1) meet all of them, and their sums (L2) go on from the channels before.
    """
    cdef const Tiling *tiling = &correlation.tiling
    cdef const Microkernels *micro = correlation.micro
    cdef Py_ssize_t chunk = index % correlation.num_chunks
    cdef Py_ssize_t num_tiles = tiling.tiles_down * tiling.tiles_across
    cdef Py_ssize_t group = index // correlation.num_chunks // num_tiles
    cdef Tile tile = tile_at(tiling, index // correlation.num_chunks % num_tiles, micro.lanes)
    cdef Py_ssize_t first_block = chunk * correlation.num_blocks // correlation.num_chunks
    cdef Py_ssize_t last_block = (chunk + 1) * correlation.num_blocks // correlation.num_chunks
    cdef Py_ssize_t first = first_kernel(correlation, first_block)
    cdef real *sums = scratch + packed_size(tiling, micro.lanes)
    cdef Array4 images = correlation.source
    cdef const real *pixels
    cdef const Py_ssize_t *offset
    cdef Py_ssize_t c, k, channels, kernel
    images.data = <void *> source

    c = 0
    while c < correlation.channels:
        if interrupted(interrupt, may_poll):
            return
        channels = min(tiling.block, correlation.channels - c)
        pixels = lay_out(
            tiling, &tile, &images, sample, group * correlation.channels + c, channels, scratch,
            micro.lanes, &offset
        )
        sum_channels(
            correlation, &tile, group, first_block, last_block, c, channels, pixels, offset, sums
        )
        c += channels

    for k in range(first, first_kernel(correlation, last_block)):
        kernel = group * correlation.kernels + k
        store_tile(
            tiling, &tile, sums + (k - first) * correlation.row_size,
            bias[kernel] if bias != NULL else <real> 0,
            <real *> out.data + out_sample * out.n_stride + kernel * out.c_stride,
            out.h_stride, out.w_stride
        )


cdef void run_correlation(
    const Correlation *correlation, const real *source, const Py_ssize_t *order,
    Py_ssize_t num_samples, const real *bias, const Array4 *out, Interrupt *interrupt
) noexcept nogil:
    cdef Py_ssize_t task, n
    cdef Py_ssize_t tasks = correlation.tasks_per_sample
    with parallel(
        num_threads=correlation.num_threads, use_threads_if=correlation.num_threads > 1
    ):
        for task in prange(num_samples * tasks, schedule="dynamic"):
            n = task // tasks
            run_task(
                correlation, source, order[n] if order != NULL else n, task % tasks,
                bias, out, n,
                <real *> correlation.scratch + threadid() * correlation.scratch_size,
                interrupt, threadid() == 0
            )
