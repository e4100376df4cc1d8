"""A tile computed with vectors of neighbouring pixels, the pixels between its rows included."""

from convext.ways._correlation_plan cimport Correlation, blocks_of_chunk, first_kernel
from convext.ways._weights cimport weights_of_block
from convext.base._geometry cimport Array4, real
from convext.ways._tile cimport Tile

# Rows are taken one by one, without the pixels between them, unless they are shorter: the
# micro-kernel takes two vectors at a time, and the last one alone.
cdef Py_ssize_t MIN_VECTORS_OF_RUN = 4


cdef Py_ssize_t pixels_scratch_size(const Correlation *correlation) noexcept nogil:
    # A row of sums for each kernel.
    return blocks_of_chunk(correlation) * correlation.width * correlation.row_size


cdef Runs one_run(const Tile *tile, Py_ssize_t row_size) noexcept nogil:
    cdef Runs runs
    runs.count = 1
    runs.num_pixels = tile.num_pixels
    runs.pixel_step = runs.sum_step = 0
    runs.row_size = row_size
    runs.in_place = False
    return runs


cdef Runs runs_of_tile(
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
        runs.in_place = True
        runs.count = tile.height
        runs.num_pixels = tile.width
        runs.pixel_step = correlation.tiling.pitch
        runs.sum_step = out.h_stride
    if runs.in_place:
        runs.row_size = out.c_stride
    return runs


cdef void sum_vectors_of_pixels(
    const Correlation *correlation, const Runs *runs, Py_ssize_t group, Py_ssize_t first_block,
    Py_ssize_t last_block, Py_ssize_t channel, Py_ssize_t channels, const real *pixels,
    const Py_ssize_t *offset, real *weights, real *sums
) noexcept nogil:
    cdef Py_ssize_t taps = correlation.tiling.taps
    cdef Py_ssize_t first = first_kernel(correlation, first_block)
    cdef Py_ssize_t b, r, begin, count
    cdef const real *weights_of_b
    for b in range(first_block, last_block):
        begin = first_kernel(correlation, b)
        count = first_kernel(correlation, b + 1) - begin
        weights_of_b = weights_of_block(correlation, group, b, channel, channels, weights)
        for r in range(runs.count):
            correlation.micro.correlate[count](
                channels * taps, runs.num_pixels, weights_of_b, correlation.weight_offset,
                pixels + r * runs.pixel_step, offset,
                sums + (begin - first) * runs.row_size + r * runs.sum_step, runs.row_size,
                channel > 0
            )


cdef void slide_vectors_of_pixels(
    const Correlation *correlation, const Runs *runs, Py_ssize_t group, Py_ssize_t channel,
    Py_ssize_t channels, const real *pixels, const Py_ssize_t *offset, real *weights, real *sums
) noexcept nogil:
    cdef Py_ssize_t num_rows = correlation.tiling.rows.num_taps
    cdef Py_ssize_t num_columns = correlation.tiling.columns.num_taps
    cdef Py_ssize_t most = min(<Py_ssize_t> correlation.micro.max_slide_rows, num_rows)
    # Where the taps go up, so do the rows.
    cdef Py_ssize_t pitch = correlation.slide * correlation.tiling.pitch
    cdef Py_ssize_t stride = correlation.slide * runs.sum_step
    cdef Py_ssize_t c, r, first, count
    cdef const real *kernel = weights_of_block(correlation, group, 0, channel, channels, weights)
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


cdef void store_tile(
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


cdef void finish_vectors_of_pixels(
    const Correlation *correlation, const Tile *tile, Py_ssize_t group, Py_ssize_t first_block,
    Py_ssize_t last_block, real *sums, const real *bias, const Array4 *out, Py_ssize_t out_sample
) noexcept nogil:
    cdef Py_ssize_t first = first_kernel(correlation, first_block)
    store_tile(
        correlation, tile, correlation.results_pitch, sums, group * correlation.kernels + first,
        first_kernel(correlation, last_block) - first, bias, out, out_sample
    )
