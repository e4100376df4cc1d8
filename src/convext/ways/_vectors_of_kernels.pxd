# Vectors of kernels: how a tile of a correlation is computed where there are many kernels. Each
# pixel is met by the weights of several kernels.
#
# No pixel between the rows of the tile is computed, and the last vector of a row is not half empty:
# narrow images, which have few pixels but many kernels, keep the registers full.

from libc.string cimport memset

from convext.ways._correlation_plan cimport Chunk, Correlation, blocks_of_chunk
from convext.ways._weights cimport weights_of_block
from convext.base._geometry cimport Array4, real
from convext.base._scratch cimport aligned_size
from convext.base._tasks cimport divide_up
from convext.ways._tile cimport Axis, Tile, distance_of
from convext.ways._vectors_of_pixels cimport store_tile


cdef inline Py_ssize_t sums_stride(const Correlation *correlation) noexcept nogil:
    """Elements from the sums of one pixel to those of the next."""
    return blocks_of_chunk(correlation) * correlation.width


# The scratch memory: the sums, pixel by pixel; some kernels of them row by row; for each row of the
# tile, which taps were selected: how many, their offsets, and those of their weights.
cdef inline Py_ssize_t rows_start(const Correlation *correlation) noexcept nogil:
    return correlation.tiling.tile_h * correlation.tiling.tile_w * sums_stride(correlation)


cdef inline Py_ssize_t offsets_start(const Correlation *correlation) noexcept nogil:
    return aligned_size(
        rows_start(correlation) + correlation.micro.lanes * correlation.row_size,
        correlation.itemsize
    )


cdef inline Py_ssize_t selection_size(const Correlation *correlation) noexcept nogil:
    return 1 + 2 * correlation.tiling.block * correlation.tiling.taps


# Elements that a thread needs beside the pixels.
cdef inline Py_ssize_t kernels_scratch_size(const Correlation *correlation) noexcept nogil:
    return offsets_start(correlation) + (
        correlation.tiling.tile_h * selection_size(correlation)
        * <Py_ssize_t> (sizeof(Py_ssize_t) // correlation.itemsize)
    )


cdef inline void select_taps(
    const Correlation *correlation, Py_ssize_t row, Py_ssize_t num_taps, const Py_ssize_t *offset,
    Py_ssize_t *selected
) noexcept nogil:
    """Select the taps that do not lie above or below the image for an output row.

    Their number, their offsets and those of their weights go to `selected`: these not, if all are.
    """
    cdef const Axis *rows = &correlation.tiling.rows
    cdef Py_ssize_t columns = correlation.tiling.columns.num_taps
    cdef Py_ssize_t top = row * rows.stride + rows.origin
    cdef Py_ssize_t *to = selected + 1
    cdef Py_ssize_t t = 0, i, j, y, count = 0
    selected[0] = num_taps
    if top >= 0 and top + rows.extent < correlation.source.h:
        return
    while t < num_taps:
        for i in range(rows.num_taps):
            y = top + distance_of(rows, i)
            if 0 <= y < correlation.source.h:
                for j in range(t, t + columns):
                    to[count] = offset[j]
                    to[num_taps + count] = correlation.weight_offset[j]
                    count += 1
            t += columns
    selected[0] = count


cdef inline void sum_row(
    const Correlation *correlation, Py_ssize_t num_pixels, Py_ssize_t num_taps,
    const real *weights, const Py_ssize_t *weight_offset, const real *pixels,
    const Py_ssize_t *offset, real *sums, Py_ssize_t stride, bint accumulate
) noexcept nogil:
    """Add the products of a block of kernels to the sums of neighbouring pixels."""
    cdef Py_ssize_t parts = divide_up(num_pixels, correlation.micro.max_kernels)
    cdef Py_ssize_t i, begin, end
    if num_taps == 0 and not accumulate:
        for i in range(num_pixels):
            memset(sums + i * stride, 0, correlation.width * sizeof(real))
        return
    for i in range(parts):
        begin = i * num_pixels // parts
        end = (i + 1) * num_pixels // parts
        # The micro-kernel's weights are our pixels, and the other way round.
        correlation.micro.correlate[end - begin](
            num_taps, correlation.width, pixels + begin, offset, weights, weight_offset,
            sums + begin * stride, stride, accumulate
        )


# Add what `channels` channels, from `channel` on in their group, contribute to the sums of a tile
# for a chunk of kernels: `pixels` and `offset` from lay_out; the weights, where they are packed
# here, and the sums in the scratch memory. Channel 0 begins the sums.
cdef inline void sum_vectors_of_kernels(
    const Correlation *correlation, const Tile *tile, const Chunk *chunk, Py_ssize_t channel,
    Py_ssize_t channels, const real *pixels, const Py_ssize_t *offset, real *weights, real *sums
) noexcept nogil:
    cdef Py_ssize_t pitch = correlation.tiling.pitch
    cdef Py_ssize_t num_taps = channels * correlation.tiling.taps
    cdef Py_ssize_t num_rows = tile.height, width = tile.width, stride = sums_stride(correlation)
    cdef Py_ssize_t *selected = <Py_ssize_t *> (sums + offsets_start(correlation))
    cdef Py_ssize_t *of_row
    cdef const real *weights_of_b
    cdef Py_ssize_t b, r
    cdef bint every
    if num_rows == 1 or width == pitch:     # one row, or rows that are one
        num_rows, width = 1, num_rows * width
        selected[0] = num_taps
    else:
        for r in range(num_rows):
            select_taps(
                correlation, tile.top + r, num_taps, offset,
                selected + r * selection_size(correlation)
            )
    for b in range(chunk.first_block, chunk.last_block):
        weights_of_b = weights_of_block(correlation, chunk.group, b, channel, channels, weights)
        for r in range(num_rows):
            of_row = selected + r * selection_size(correlation)
            every = of_row[0] == num_taps
            sum_row(
                correlation, width, of_row[0], weights_of_b,
                correlation.weight_offset if every else of_row + 1 + num_taps, pixels + r * pitch,
                offset if every else of_row + 1, sums + r * width * stride, stride, channel > 0
            )
        sums += correlation.width


# Write the sums, plus the bias, to the output.
cdef inline void finish_vectors_of_kernels(
    const Correlation *correlation, const Tile *tile, const Chunk *chunk, real *sums,
    const real *bias, const Array4 *out, Py_ssize_t out_sample
) noexcept nogil:
    cdef Py_ssize_t lanes = correlation.micro.lanes
    cdef Py_ssize_t pixels = tile.height * tile.width
    cdef real *rows = sums + rows_start(correlation)
    cdef Py_ssize_t k = 0, count
    # Straight to their place, where the rows follow each other there and fill a vector.
    if bias == NULL and out.w_stride == 1 and out.h_stride == tile.width and pixels >= lanes:
        correlation.micro.interleave(
            chunk.kernels, pixels, sums, sums_stride(correlation), 1,
            <real *> out.data + (
                out_sample * out.n_stride + chunk.kernel * out.c_stride + tile.top * out.h_stride
            ),
            out.c_stride
        )
        return
    while k < chunk.kernels:
        count = min(lanes, chunk.kernels - k)
        correlation.micro.interleave(
            count, pixels, sums + k, sums_stride(correlation), 1, rows, correlation.row_size
        )
        store_tile(
            correlation, tile, tile.width, rows, chunk.kernel + k, count, bias, out, out_sample
        )
        k += count
