"""The kernel gradient of images with few channels or few kernels: a dot product for each entry.

The output gradients of a tile are laid out like its pixels, with zeros where the tile's rows end.
Then each entry of the gradient is one dot product of a row of output gradients with the pixels
from its tap's offset on, and the micro-kernel computes a few rows times a few taps at once.
"""

from libc.string cimport memcpy, memset

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4, real
from convext.gradient._gradient_plan cimport KernelGradient, Part
from convext.base._tasks cimport divide_up
from convext.ways._tile cimport Tile, lay_out, packed_size


cdef DotsScratch arrange_dots(const KernelGradient *gradient, Py_ssize_t kernels) noexcept nogil:
    cdef DotsScratch scratch
    scratch.rows = packed_size(&gradient.tiling)
    scratch.spare = scratch.rows + kernels * gradient.row_size
    scratch.end = scratch.spare + gradient.row_size
    return scratch


cdef void lay_out_gradients(
    const KernelGradient *gradient, const Tile *tile, const real *source, real *to
) noexcept nogil:
    """Copy the output gradients of one kernel under a tile, with zeros between its rows."""
    cdef const Array4 *layout = &gradient.output_grad
    cdef Py_ssize_t c
    cdef Py_ssize_t pitch = gradient.tiling.pitch
    cdef real *end = to + gradient.row_size
    for _ in range(tile.height):
        for c in range(tile.width):
            to[c] = source[c * layout.w_stride]
        memset(to + tile.width, 0, (pitch - tile.width) * sizeof(real))
        source += layout.h_stride
        to += pitch
    memset(to, 0, (end - to) * sizeof(real))


cdef real dot_without_gaps(
    const KernelGradient *gradient, const Tile *tile, const real *row, const real *pixels,
    real *spare
) noexcept nogil:
    """Multiply only what belongs together.

    Between the rows of a tile the micro-kernel multiplies zeros with pixels that do not belong
    there, which changes nothing unless such a pixel is infinite or NaN. Here they are zeros too, so
    the sum has the same bits as if they had been finite.
    """
    cdef Py_ssize_t pitch = gradient.tiling.pitch
    cdef Py_ssize_t r, nowhere = 0
    cdef real total
    memset(spare, 0, gradient.row_size * sizeof(real))
    for r in range(tile.height):
        memcpy(spare + r * pitch, pixels + r * pitch, tile.width * sizeof(real))
    gradient.micro.dot[1][1](tile.num_pixels, row, 0, spare, &nowhere, &total)
    return total


cdef void add_dots(
    const KernelGradient *gradient, const Tile *tile, Py_ssize_t kernels, Py_ssize_t taps,
    const real *rows, const real *pixels, const Py_ssize_t *offset, real *spare, double *sums
) noexcept nogil:
    cdef const Microkernels *micro = gradient.micro
    cdef Py_ssize_t kernel_size = gradient.channels * gradient.tiling.taps
    cdef Py_ssize_t k, t, i, j, row_count, tap_count, tap_blocks, b
    cdef real[32] block
    cdef real value
    k = 0
    while k < kernels:
        row_count = min(<Py_ssize_t> micro.max_rows, kernels - k)
        tap_blocks = divide_up(taps, micro.max_dot_taps[row_count])
        for b in range(tap_blocks):
            t = b * taps // tap_blocks
            tap_count = (b + 1) * taps // tap_blocks - t
            micro.dot[row_count][tap_count](
                tile.num_pixels, rows + k * gradient.row_size, gradient.row_size, pixels,
                offset + t, block
            )
            for i in range(row_count):
                for j in range(tap_count):
                    value = block[i * tap_count + j]
                    if value - value != 0:
                        value = dot_without_gaps(
                            gradient, tile, rows + (k + i) * gradient.row_size,
                            pixels + offset[t + j], spare
                        )
                    sums[(k + i) * kernel_size + t + j] += value
        k += row_count


cdef void add_tile_by_dots(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, const real *output_grad, real *scratch
) noexcept nogil:
    cdef DotsScratch layout = arrange_dots(gradient, part.kernels)
    cdef const Py_ssize_t *offset
    cdef real *rows = scratch + layout.rows
    cdef Py_ssize_t k
    cdef const real *pixels = lay_out(
        &gradient.tiling, tile, images, image, part.channel, part.channels, scratch, &offset
    )
    for k in range(part.kernels):
        lay_out_gradients(
            gradient, tile, output_grad + k * gradient.output_grad.c_stride,
            rows + k * gradient.row_size
        )
    add_dots(
        gradient, tile, part.kernels, part.channels * gradient.tiling.taps, rows, pixels, offset,
        scratch + layout.spare, part.sums
    )
