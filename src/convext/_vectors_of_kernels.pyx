"""A tile computed with vectors of kernels: each pixel is met by the weights of several kernels.

No pixel between the rows of the tile is computed, and the last vector of a row is not half empty:
narrow images, which have few pixels but many kernels, keep the registers full.
"""

from convext._correlation cimport Correlation, blocks_of_chunk, first_kernel, group_weights
from convext._geometry cimport Array4, real
from convext._tasks cimport divide_up
from convext._tile cimport Tile, Tiling
from convext._vectors_of_pixels cimport store_tile


cdef inline Py_ssize_t sums_stride(const Correlation *correlation) noexcept nogil:
    """Elements from the sums of one pixel to those of the next."""
    return blocks_of_chunk(correlation) * correlation.width


cdef Py_ssize_t kernels_scratch_size(const Correlation *correlation) noexcept nogil:
    # The sums, pixel by pixel, and some kernels of them row by row.
    cdef Py_ssize_t pixels = correlation.tiling.tile_h * correlation.tiling.tile_w
    return pixels * sums_stride(correlation) + correlation.micro.lanes * correlation.row_size


cdef void sum_block(
    const Correlation *correlation, const Tile *tile, Py_ssize_t num_taps, const real *weights,
    const real *pixels, const Py_ssize_t *offset, real *sums, bint accumulate
) noexcept nogil:
    """Add the products of a block of kernels to the sums of all pixels of a tile."""
    cdef const Tiling *tiling = &correlation.tiling
    cdef Py_ssize_t rows = tile.height, columns = tile.width
    cdef Py_ssize_t num_parts, r, i, begin, end
    if columns == tiling.pitch:     # the rows follow each other
        rows, columns = 1, rows * columns
    num_parts = divide_up(columns, correlation.micro.max_kernels)
    for r in range(rows):
        for i in range(num_parts):
            begin = i * columns // num_parts
            end = (i + 1) * columns // num_parts
            # The micro-kernel's weights are our pixels, and the other way round.
            correlation.micro.correlate[end - begin](
                num_taps, correlation.width, pixels + begin, offset,
                weights, correlation.weight_offset,
                sums + begin * sums_stride(correlation), sums_stride(correlation), accumulate
            )
        pixels += tiling.pitch
        sums += columns * sums_stride(correlation)


cdef void sum_vectors_of_kernels(
    const Correlation *correlation, const Tile *tile, Py_ssize_t group, Py_ssize_t first_block,
    Py_ssize_t last_block, Py_ssize_t channel, Py_ssize_t channels, const real *pixels,
    const Py_ssize_t *offset, real *sums
) noexcept nogil:
    cdef Py_ssize_t taps = correlation.tiling.taps
    cdef Py_ssize_t b
    cdef const real *weights = (
        <const real *> correlation.weights + group * group_weights(correlation)
    )
    for b in range(first_block, last_block):
        sum_block(
            correlation, tile, channels * taps,
            weights + (b * correlation.channels + channel) * taps * correlation.width,
            pixels, offset, sums + (b - first_block) * correlation.width, channel > 0
        )


cdef void finish_vectors_of_kernels(
    const Correlation *correlation, const Tile *tile, Py_ssize_t group, Py_ssize_t first_block,
    Py_ssize_t last_block, real *sums, const real *bias, const Array4 *out, Py_ssize_t out_sample
) noexcept nogil:
    cdef Py_ssize_t lanes = correlation.micro.lanes
    cdef Py_ssize_t first = first_kernel(correlation, first_block)
    cdef Py_ssize_t kernels = first_kernel(correlation, last_block) - first
    cdef Py_ssize_t pixels = tile.height * tile.width
    cdef real *rows = sums + (
        correlation.tiling.tile_h * correlation.tiling.tile_w * sums_stride(correlation)
    )
    cdef Py_ssize_t i, k, count
    for i in range(divide_up(kernels, lanes)):
        k = i * lanes
        count = min(lanes, kernels - k)
        correlation.micro.interleave(
            count, pixels, sums + k, sums_stride(correlation), 1, rows, correlation.row_size
        )
        store_tile(
            correlation, tile, tile.width, rows, group * correlation.kernels + first + k, count,
            bias, out, out_sample
        )
