"""Correlation of images with weights: tasks over tiles.

A tile is computed with vectors of pixels or with vectors of kernels, whichever leaves fewer of
their elements unused.
"""

from libc.stdlib cimport free, malloc

from convext.base._dispatch cimport CHAIN, Microkernels, microkernels
from convext.base._geometry cimport Array4, Weights, real
from convext.base._interrupt cimport Interrupt, stopped
from convext.base._machine cimport L1_BYTES, L2_BYTES
from convext.base._scratch cimport aligned_alloc, aligned_free, aligned_size
from convext.base._tasks cimport (
    MIN_PRODUCTS_TO_SHARE, Task, Tasks, divide_up, run_tasks, tasks_of, threads_for
)
from convext.ways._correlation_plan cimport (
    Chunk, Correlation, all_weights, blocks_of_chunk, chunk_of
)
from convext.ways._tile cimport (
    Axis, Tile, Tiling, free_tiling, init_tiling, lay_out, packed_size, row_size, tile_at
)
from convext.ways._weights cimport pack_weights
from convext.ways._vectors_of_kernels cimport (
    finish_vectors_of_kernels, kernels_scratch_size, sum_vectors_of_kernels
)
from convext.ways._vectors_of_pixels cimport (
    Runs, pixels_scratch_size, runs_of_tile, slide_vectors_of_pixels, store_tile,
    sum_vectors_of_pixels
)
from convext.ways._ways cimport Needs

# The sums of a tile for all kernels should stay in a small L2 cache, a block's weights in L1.
cdef Py_ssize_t MAX_SUM_BYTES = L2_BYTES // 4
cdef Py_ssize_t MAX_TILE_PIXELS = 4096
cdef Py_ssize_t MIN_TILE_PIXELS = 256
cdef Py_ssize_t MAX_WEIGHT_BYTES = L1_BYTES // 2

# With a few tasks for each thread none waits long for the last one: tiles, unless they get so small
# that the weights are read too often, or else chunks of the kernels.
cdef Py_ssize_t TASKS_PER_THREAD = 2
cdef Py_ssize_t TILES_TO_SHARE = 4
cdef Py_ssize_t MIN_PIXELS_TO_SHARE = 196

# Results computed with vectors of kernels must be brought into rows: what that takes, in products
# of each.
cdef Py_ssize_t PRODUCTS_PER_RESULT = 24


cdef Py_ssize_t pitch_of(const Axis *columns, Py_ssize_t out_w) noexcept nogil:
    """From one row of a tile to the next, gaps included."""
    return out_w + columns.extent // columns.stride


cdef bint worth_going_by_kernels(
    const Correlation *correlation, const Axis *rows, const Axis *columns, Py_ssize_t out_h,
    Py_ssize_t out_w
) noexcept nogil:
    """Whether vectors hold kernels, or else pixels, the gaps between rows included.

    What counts is which vectors are fullest. Both are given in products.
    """
    cdef Py_ssize_t lanes = correlation.micro.lanes
    cdef Py_ssize_t width = divide_up(correlation.kernels, lanes) * lanes
    cdef double products = <double> correlation.channels * rows.num_taps * columns.num_taps
    cdef double by_pixels = correlation.kernels * products * (
        divide_up((out_h - 1) * pitch_of(columns, out_w) + out_w, lanes) * lanes
    )
    return width * <double> out_h * out_w * (products + PRODUCTS_PER_RESULT) < by_pixels


cdef int worth_sliding(
    const Correlation *correlation, const Axis *rows, const Axis *columns, Py_ssize_t out_w
) noexcept nogil:
    """Whether to slide a single kernel over several rows at once, and which way its taps go."""
    cdef Py_ssize_t lanes = correlation.micro.lanes
    if (
        correlation.kernels > 1 or correlation.by_kernels or rows.stride > 1 or rows.num_taps == 1
        or rows.num_taps * columns.num_taps > CHAIN or max(rows.spacing, -rows.spacing) != 1
        # Half-empty vectors at the end of each row can cost more than is won.
        or 10 * divide_up(out_w, lanes) * lanes > 17 * pitch_of(columns, out_w)
    ):
        return 0
    return <int> rows.spacing


cdef void cut_into_blocks(Correlation *correlation, Py_ssize_t run) noexcept nogil:
    """Cut the kernels into blocks that the micro-kernels compute at once, of `run` pixels."""
    cdef const Microkernels *micro = correlation.micro
    cdef Py_ssize_t most = micro.max_kernels, lanes = 1
    if correlation.by_kernels:
        lanes = micro.lanes
        most = micro.correlate_vectors[min(<Py_ssize_t> micro.max_kernels, run)] * lanes
    correlation.num_blocks = divide_up(correlation.kernels, most)
    correlation.width = divide_up(divide_up(correlation.kernels, correlation.num_blocks), lanes)
    correlation.width *= lanes
    correlation.num_blocks = divide_up(correlation.kernels, correlation.width)


cdef Py_ssize_t most_pixels(
    const Correlation *correlation, const Axis *columns, double products, Py_ssize_t out_h,
    Py_ssize_t out_w
) noexcept nogil:
    """The pixels of a tile, at most: so that sums stay in the cache, and threads have tiles."""
    cdef Py_ssize_t most = min(MAX_TILE_PIXELS, MAX_SUM_BYTES // (
        blocks_of_chunk(correlation) * correlation.width * <Py_ssize_t> correlation.itemsize
    ))
    if products < MIN_PRODUCTS_TO_SHARE:
        return most
    return min(most, pitch_of(columns, out_w) * max(
        divide_up(out_h, TILES_TO_SHARE), divide_up(MIN_PIXELS_TO_SHARE, out_w)
    ))


cdef int init_correlation(
    Correlation *correlation, const Array4 *source, Py_ssize_t num_samples,
    Axis rows, Axis columns, Py_ssize_t groups, const Weights *weights,
    Py_ssize_t out_h, Py_ssize_t out_w, int num_threads, size_t itemsize
) noexcept nogil:
    cdef const Microkernels *micro = microkernels(itemsize)
    cdef Py_ssize_t max_block, tasks
    cdef double products
    correlation.micro = micro
    correlation.itemsize = itemsize
    correlation.source = source[0]
    correlation.groups = groups
    correlation.channels = source.c // groups
    correlation.kernels = weights.of_group.n
    correlation.weights = weights[0]
    correlation.packed = NULL
    correlation.weight_offset = NULL
    correlation.by_kernels = worth_going_by_kernels(correlation, &rows, &columns, out_h, out_w)
    correlation.slide = worth_sliding(correlation, &rows, &columns, out_w)
    # Rows that follow each other are one.
    cut_into_blocks(correlation, out_w if columns.extent > 0 else out_h * out_w)
    correlation.num_chunks = min(correlation.num_blocks, divide_up(
        correlation.kernels * MIN_TILE_PIXELS * <Py_ssize_t> itemsize, MAX_SUM_BYTES
    ))

    products = (
        <double> groups * correlation.kernels * correlation.channels
        * rows.num_taps * columns.num_taps * out_h * out_w
    )
    max_block = max(1, MAX_WEIGHT_BYTES // (
        correlation.width * rows.num_taps * columns.num_taps * <Py_ssize_t> itemsize
    ))
    if correlation.by_kernels:      # whose weights are not read more often than from L2
        max_block = max(max_block, CHAIN // (rows.num_taps * columns.num_taps))
    if init_tiling(
        &correlation.tiling, rows, columns, source, correlation.channels, out_h, out_w,
        most_pixels(correlation, &columns, products, out_h, out_w), max_block, True, False, itemsize
    ) == -1:
        return -1

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
    return measure(correlation)


# The scratch memory: the pixels of a block of channels; their weights for a block of kernels; the
# sums.
cdef inline Py_ssize_t weights_start(const Correlation *correlation) noexcept nogil:
    return aligned_size(packed_size(&correlation.tiling), correlation.itemsize)


cdef inline Py_ssize_t sums_start(const Correlation *correlation) noexcept nogil:
    return weights_start(correlation) + aligned_size(
        correlation.tiling.block * correlation.tiling.taps * correlation.width,
        correlation.itemsize
    )


cdef int measure(Correlation *correlation) noexcept nogil:
    """Note how large results and scratch memory are, and where weights lie. -1: no memory."""
    cdef const Tiling *tiling = &correlation.tiling
    cdef Py_ssize_t lanes = correlation.micro.lanes
    cdef Py_ssize_t taps = tiling.block * tiling.taps
    cdef Py_ssize_t t
    correlation.row_size = row_size(tiling)
    correlation.results_pitch = tiling.pitch
    if correlation.slide != 0:
        correlation.results_pitch = divide_up(tiling.tile_w, lanes) * lanes
        correlation.row_size = tiling.tile_h * correlation.results_pitch
    correlation.scratch_size = aligned_size(
        sums_start(correlation) + (
            kernels_scratch_size(correlation) if correlation.by_kernels
            else pixels_scratch_size(correlation)
        ),
        correlation.itemsize
    )
    correlation.weight_offset = <Py_ssize_t *> malloc(taps * sizeof(Py_ssize_t))
    if correlation.weight_offset == NULL:
        free_correlation(correlation)
        return -1
    for t in range(taps):
        correlation.weight_offset[t] = t * correlation.width
    return 0


cdef void free_correlation(Correlation *correlation) noexcept nogil:
    free_tiling(&correlation.tiling)
    free(correlation.weight_offset)


cdef bint worth_packing(const Correlation *correlation, Py_ssize_t num_samples) noexcept nogil:
    return num_samples * correlation.tasks_per_sample > (
        correlation.num_chunks * correlation.groups
    )


cdef void measure_correlation(
    const Correlation *correlation, Py_ssize_t num_samples, Needs *needs
) noexcept nogil:
    cdef Py_ssize_t itemsize = correlation.itemsize
    needs.num_threads = correlation.num_threads
    needs.of_thread = correlation.scratch_size * itemsize
    needs.shared = 0
    if worth_packing(correlation, num_samples):
        needs.shared = all_weights(correlation) * itemsize


# What the tasks of a correlation read, and where they write.
cdef struct Operands:
    const Correlation *correlation
    const void *source
    const Py_ssize_t *order
    const void *bias
    const Array4 *out


cdef Tile tile_of(const Correlation *correlation, Py_ssize_t index) noexcept nogil:
    cdef const Tiling *tiling = &correlation.tiling
    cdef Py_ssize_t lanes = correlation.micro.lanes
    # Pixels that are broadcast are read one by one, else in whole vectors.
    cdef Tile tile = tile_at(tiling, index, 1 if correlation.by_kernels else lanes)
    if correlation.slide != 0:
        tile.num_pixels = (tile.height - 1) * tiling.pitch + divide_up(tile.width, lanes) * lanes
    return tile


cdef inline void sum_block(
    const Correlation *correlation, const Tile *tile, const Runs *runs, const Chunk *chunk,
    Py_ssize_t channel, Py_ssize_t channels, const real *pixels, const Py_ssize_t *offset,
    real *weights, real *sums
) noexcept nogil:
    """Go on with the sums of a tile, by a block of channels."""
    if correlation.by_kernels:
        sum_vectors_of_kernels(
            correlation, tile, chunk, channel, channels, pixels, offset, weights, sums
        )
    elif correlation.slide != 0:
        slide_vectors_of_pixels(
            correlation, runs, chunk, channel, channels, pixels, offset, weights, sums
        )
    else:
        sum_vectors_of_pixels(
            correlation, runs, chunk, channel, channels, pixels, offset, weights, sums
        )


cdef void correlate_tile(
    const void *work, Py_ssize_t task, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Compute one tile of a sample for one chunk of kernels.

    For each block of channels the pixels are laid out once (L2); for each block of kernels the
    weights (L1) meet all of them, and their sums (L2) go on from the channels before.
    """
    cdef const Operands *operands = <const Operands *> work
    cdef const Correlation *correlation = operands.correlation
    cdef const Tiling *tiling = &correlation.tiling
    cdef const real *bias = <const real *> operands.bias
    cdef const Array4 *out = operands.out
    cdef Py_ssize_t out_sample = task // correlation.tasks_per_sample
    cdef Py_ssize_t sample = (
        operands.order[out_sample] if operands.order != NULL else out_sample
    )
    cdef Py_ssize_t index = task % correlation.tasks_per_sample
    cdef Py_ssize_t nth = index % correlation.num_chunks
    cdef Py_ssize_t num_tiles = tiling.tiles_down * tiling.tiles_across
    cdef Chunk chunk = chunk_of(
        correlation, index // correlation.num_chunks // num_tiles,
        nth * correlation.num_blocks // correlation.num_chunks,
        (nth + 1) * correlation.num_blocks // correlation.num_chunks
    )
    cdef Tile tile = tile_of(correlation, index // correlation.num_chunks % num_tiles)
    cdef real *sums = scratch + sums_start(correlation)
    cdef Runs runs = runs_of_tile(correlation, &tile, bias, out)
    cdef Array4 images = correlation.source
    cdef const real *pixels
    cdef const Py_ssize_t *offset
    cdef Py_ssize_t c, channels
    if runs.in_place:
        sums = <real *> out.data + (
            out_sample * out.n_stride + chunk.kernel * out.c_stride + tile.top * out.h_stride
            + tile.left
        )
    images.data = <void *> operands.source
    c = 0
    while c < correlation.channels:
        if c > 0 and stopped(interrupt):
            return
        channels = min(tiling.block, correlation.channels - c)
        pixels = lay_out(
            tiling, &tile, &images, sample, chunk.group * correlation.channels + c, channels,
            scratch, &offset
        )
        sum_block(
            correlation, &tile, &runs, &chunk, c, channels, pixels, offset,
            scratch + weights_start(correlation), sums
        )
        c += channels

    if correlation.by_kernels:
        finish_vectors_of_kernels(correlation, &tile, &chunk, sums, bias, out, out_sample)
    elif not runs.in_place:
        store_tile(
            correlation, &tile, correlation.results_pitch, sums, chunk.kernel, chunk.kernels, bias,
            out, out_sample
        )


cdef int run_correlation(
    const Correlation *correlation, const void *source, const Py_ssize_t *order,
    Py_ssize_t num_samples, const void *bias, const Array4 *out, Interrupt *interrupt
) noexcept nogil:
    cdef Operands operands = Operands(correlation, source, order, bias, out)
    cdef Tasks tiles = tasks_of(
        &operands, correlation.itemsize, <Task> correlate_tile[float],
        <Task> correlate_tile[double], num_samples * correlation.tasks_per_sample,
        correlation.scratch_size * <Py_ssize_t> correlation.itemsize, correlation.num_threads
    )
    return run_tasks(&tiles, interrupt)


cdef int pack_and_run(
    Correlation *correlation, const void *source, Py_ssize_t num_samples, const void *bias,
    const Array4 *out, Interrupt *interrupt
) noexcept nogil:
    cdef void *packed = NULL
    cdef int status = 0
    if correlation.packed == NULL and worth_packing(correlation, num_samples):
        packed = aligned_alloc(all_weights(correlation), correlation.itemsize)
        if packed == NULL:
            return -1
        correlation.packed = packed
        status = pack_weights(correlation, interrupt)
    if status == 0:
        status = run_correlation(correlation, source, NULL, num_samples, bias, out, interrupt)
    aligned_free(packed)
    return status
