# Vectors of neighbouring pixels: how a tile of a correlation is computed where rows are wide or
# kernels few. The pixels between its rows are computed, too.

from convext.ways._correlation_plan cimport Chunk, Correlation, blocks_of_chunk, first_kernel
from convext.ways._weights cimport weights_of_block
from convext.base._geometry cimport Array4, real
from convext.ways._tile cimport Tile

cdef enum:
    # Rows are taken one by one, without the pixels between them, unless they are shorter: the
    # micro-kernel takes two vectors at a time, and the last one alone.
    MIN_VECTORS_OF_RUN = 4

# The pixels of a tile, in runs of whole vectors, or rows that slide.
cdef struct Runs:
    Py_ssize_t count, num_pixels
    Py_ssize_t pixel_step, sum_step     # from one run to the next
    Py_ssize_t row_size                 # from the sums of a kernel to the next one's
    bint in_place                       # the sums are made in the output: nothing is left to finish


# Elements of scratch memory that a thread needs beside the pixels: a row of sums for each kernel.
cdef inline Py_ssize_t pixels_scratch_size(const Correlation *correlation) noexcept nogil:
    return blocks_of_chunk(correlation) * correlation.width * correlation.row_size


# All in one run, the sums of kernels `row_size` elements apart in the scratch memory.
cdef inline Runs one_run(const Tile *tile, Py_ssize_t row_size) noexcept nogil:
    return Runs(1, tile.num_pixels, 0, 0, row_size, False)


# In the output, where that can be.
cdef inline Runs runs_of_tile(
    const Correlation *correlation, const Tile *tile, const real *bias, const Array4 *out
) noexcept nogil:
    cdef Py_ssize_t lanes = correlation.micro.lanes
    cdef Runs runs = one_run(tile, correlation.row_size)
    if correlation.slide != 0:
        runs.count, runs.num_pixels = tile.height, correlation.results_pitch
        runs.sum_step = correlation.results_pitch
        # The last vector of a row overlaps the one before, so it must not be added to.
        if (
            correlation.channels == 1 and bias == NULL and out.w_stride == 1
            and tile.width >= lanes
        ):
            runs.in_place = True
            runs.num_pixels, runs.sum_step = tile.width, out.h_stride
        return runs
    if correlation.by_kernels or bias != NULL or out.w_stride != 1:
        return runs
    # Rows that follow each other in the output, too.
    runs.in_place = tile.num_pixels == tile.height * tile.width and (
        tile.height == 1 or out.h_stride == tile.width == correlation.tiling.pitch
    )
    if not runs.in_place and (
        tile.width % lanes == 0 and tile.width >= MIN_VECTORS_OF_RUN * lanes
    ):
        runs = Runs(tile.height, tile.width, correlation.tiling.pitch, out.h_stride, 0, True)
    if runs.in_place:
        runs.row_size = out.c_stride
    return runs


# Add what `channels` channels, from `channel` on in their group, contribute to the sums of a tile
# for a chunk of kernels: `pixels` and `offset` from lay_out; the weights, where they are packed
# here, in the scratch memory. Channel 0 begins the sums.
cdef inline void sum_vectors_of_pixels(
    const Correlation *correlation, const Runs *runs, const Chunk *chunk, Py_ssize_t channel,
    Py_ssize_t channels, const real *pixels, const Py_ssize_t *offset, real *weights, real *sums
) noexcept nogil:
    cdef Py_ssize_t b, r, count
    cdef const real *weights_of_b
    for b in range(chunk.first_block, chunk.last_block):
        count = first_kernel(correlation, b + 1) - first_kernel(correlation, b)
        weights_of_b = weights_of_block(correlation, chunk.group, b, channel, channels, weights)
        for r in range(runs.count):
            correlation.micro.correlate[count](
                channels * correlation.tiling.taps, runs.num_pixels, weights_of_b,
                correlation.weight_offset, pixels + r * runs.pixel_step, offset,
                sums + r * runs.sum_step, runs.row_size, channel > 0
            )
        sums += count * runs.row_size


# The same for a single kernel, on several rows of the tile at once, where correlation.slide.
cdef inline void slide_vectors_of_pixels(
    const Correlation *correlation, const Runs *runs, const Chunk *chunk, Py_ssize_t channel,
    Py_ssize_t channels, const real *pixels, const Py_ssize_t *offset, real *weights, real *sums
) noexcept nogil:
    cdef Py_ssize_t num_rows = correlation.tiling.rows.num_taps
    cdef Py_ssize_t num_columns = correlation.tiling.columns.num_taps
    cdef Py_ssize_t most = min(<Py_ssize_t> correlation.micro.max_slide_rows, num_rows)
    # Where the taps go up, so do the rows.
    cdef Py_ssize_t pitch = correlation.slide * correlation.tiling.pitch
    cdef Py_ssize_t stride = correlation.slide * runs.sum_step
    cdef Py_ssize_t c, r, first, count
    cdef const real *kernel = weights_of_block(
        correlation, chunk.group, 0, channel, channels, weights
    )
    for c in range(channels):
        r = 0
        while r < runs.count:
            count = min(most, runs.count - r)
            first = r if correlation.slide > 0 else r + count - 1
            correlation.micro.slide[count](
                num_rows, num_columns, runs.num_pixels, kernel,
                pixels + first * correlation.tiling.pitch, pitch, offset,
                sums + first * runs.sum_step, stride, channel + c > 0
            )
            r += count
        kernel += num_rows * num_columns
        offset += num_rows * num_columns


# Copy `kernels` rows of results, row_size apart, with `pitch` pixels to a row of the tile, to the
# output, from kernel `kernel` of all on.
cdef inline void store_tile(
    const Correlation *correlation, const Tile *tile, Py_ssize_t pitch, const real *results,
    Py_ssize_t kernel, Py_ssize_t kernels, const real *bias, const Array4 *out,
    Py_ssize_t out_sample
) noexcept nogil:
    cdef Py_ssize_t k, c
    cdef const real *row
    cdef real *to
    cdef real offset
    for k in range(kernels):
        offset = bias[kernel + k] if bias != NULL else <real> 0
        row = results + k * correlation.row_size
        to = <real *> out.data + (
            out_sample * out.n_stride + (kernel + k) * out.c_stride
            + tile.top * out.h_stride + tile.left * out.w_stride
        )
        if bias == NULL and out.w_stride == 1:
            correlation.micro.pack(tile.height, tile.width, row, pitch, 1, to, out.h_stride)
            continue
        for _ in range(tile.height):
            if out.w_stride == 1:
                for c in range(tile.width):
                    to[c] = row[c] + offset
            else:
                for c in range(tile.width):
                    to[c * out.w_stride] = row[c] + offset
            to += out.h_stride
            row += pitch
