"""The kernel gradient of few channels and many kernels, whose windows are wide.

The output gradients of some pixels are laid out with the kernels side by side, so that a vector
holds those of several kernels. Taps that are neighbours in a row meet them where they lie in the
image: they are the weights of the forward convolution's micro-kernel, which adds up all pixels.
"""

from convext.base._geometry cimport Array4, real
from convext.gradient._gradient_plan cimport KernelGradient, Part
from convext.base._machine cimport L1_BYTES
from convext.base._scratch cimport aligned_size
from convext.base._tasks cimport divide_up
from convext.ways._tile cimport (
    Axis, Positions, Tile, copy_rectangle, distance_of, positions_under, reach
)

# The output gradients of a panel's pixels should stay in L1 while all taps meet them.
cdef Py_ssize_t MAX_PANEL_BYTES = 3 * L1_BYTES // 4
cdef Py_ssize_t MIN_PANEL_PIXELS = 32


# The scratch memory: the pixels under a tile; the output gradients of a panel; the offsets of its
# pixels and of their output gradients; the running sums, and these in the order of the gradient.
cdef struct Scratch:
    Py_ssize_t width            # kernels side by side, whole vectors
    Py_ssize_t panel_pixels
    Py_ssize_t panel, offsets, sums, ordered, end   # where each begins


cdef Scratch arrange(const KernelGradient *gradient, Py_ssize_t kernels) noexcept nogil:
    cdef size_t itemsize = gradient.itemsize
    cdef int lanes = gradient.micro.lanes
    cdef Py_ssize_t taps = gradient.tiling.block * gradient.tiling.taps
    cdef Scratch scratch
    scratch.width = divide_up(kernels, lanes) * lanes
    scratch.panel_pixels = max(
        MIN_PANEL_PIXELS, MAX_PANEL_BYTES // (scratch.width * <Py_ssize_t> itemsize)
    )
    scratch.panel = aligned_size(
        gradient.tiling.block * reach(&gradient.tiling.rows, gradient.tiling.tile_h)
        * reach(&gradient.tiling.columns, gradient.tiling.tile_w),
        itemsize
    )
    scratch.offsets = scratch.panel + scratch.panel_pixels * scratch.width
    scratch.sums = scratch.offsets + aligned_size(
        2 * scratch.panel_pixels * <Py_ssize_t> (sizeof(Py_ssize_t) // itemsize), itemsize
    )
    scratch.ordered = scratch.sums + taps * scratch.width
    scratch.end = scratch.ordered + aligned_size(taps * kernels, itemsize)
    return scratch


cdef Py_ssize_t kernels_scratch_size(
    const KernelGradient *gradient, Py_ssize_t kernels
) noexcept nogil:
    return arrange(gradient, kernels).end


cdef Py_ssize_t lay_out_pixels(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, real *panel
) noexcept nogil:
    """Pack the pixels under a tile with the padding around them; return how long a row is."""
    cdef Positions rows = positions_under(&gradient.tiling.rows, tile.top, tile.height, images.h)
    cdef Positions columns = positions_under(
        &gradient.tiling.columns, tile.left, tile.width, images.w
    )
    cdef Py_ssize_t c
    cdef const real *first = (
        <const real *> images.data + image * images.n_stride + part.channel * images.c_stride
    )
    for c in range(part.channels):
        copy_rectangle(
            gradient.micro, images, first + c * images.c_stride, &rows, &columns,
            panel + c * rows.count * columns.count, columns.count
        )
    return columns.count


cdef void lay_out_gradients(
    const KernelGradient *gradient, const Part *part, const Tile *tile, Py_ssize_t begin,
    Py_ssize_t end, const real *output_grad, real *to, Py_ssize_t width
) noexcept nogil:
    """Lay the kernels' output gradients of some pixels, numbered through the tile, side by side."""
    cdef const Array4 *layout = &gradient.output_grad
    cdef bint rows_follow = tile.width * layout.w_stride == layout.h_stride
    cdef Py_ssize_t row, column, count
    while begin < end:
        row = tile.top + begin // tile.width
        column = begin % tile.width
        count = end - begin
        if not rows_follow:
            count = min(count, tile.width - column)
        gradient.micro.interleave(
            count, part.kernels,
            output_grad + row * layout.h_stride + (tile.left + column) * layout.w_stride,
            layout.c_stride, layout.w_stride, to, width
        )
        begin += count
        to += count * width


cdef void note_offsets(
    const KernelGradient *gradient, const Tile *tile, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t pitch, Py_ssize_t *pixel_offset
) noexcept nogil:
    """Note where the pixels under these output gradients begin."""
    cdef Py_ssize_t width = tile.width, column = begin % width
    cdef Py_ssize_t down = gradient.tiling.rows.stride * pitch
    cdef Py_ssize_t across = gradient.tiling.columns.stride
    cdef Py_ssize_t offset = begin // width * down + column * across
    cdef Py_ssize_t i
    for i in range(end - begin):
        pixel_offset[i] = offset
        offset += across
        column += 1
        if column == width:
            offset += down - width * across
            column = 0


cdef void add_panel(
    const KernelGradient *gradient, const Part *part, const Tile *tile, Py_ssize_t num_pixels,
    Py_ssize_t pitch, const Scratch *layout, bint first, real *scratch
) noexcept nogil:
    """Add the products of some output gradients with the pixels that each tap meets there."""
    cdef const Axis *rows = &gradient.tiling.rows
    cdef Py_ssize_t num_columns = gradient.tiling.columns.num_taps
    cdef const Py_ssize_t *pixel_offset = <const Py_ssize_t *> (scratch + layout.offsets)
    cdef Py_ssize_t runs = divide_up(num_columns, gradient.micro.max_kernels)
    cdef Py_ssize_t c, i, run, begin, end
    cdef real *sums = scratch + layout.sums
    cdef const real *taps
    for c in range(part.channels):
        for i in range(rows.num_taps):
            taps = scratch + (c * reach(rows, tile.height) + distance_of(rows, i)) * pitch
            for run in range(runs):
                begin = run * num_columns // runs
                end = (run + 1) * num_columns // runs
                gradient.micro.correlate[end - begin](
                    num_pixels, layout.width, taps + begin, pixel_offset,
                    scratch + layout.panel, pixel_offset + layout.panel_pixels,
                    sums + begin * layout.width, layout.width, not first
                )
            sums += num_columns * layout.width


cdef void add_tile_by_kernels(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, const real *output_grad, bint first, real *scratch
) noexcept nogil:
    cdef Scratch layout = arrange(gradient, part.kernels)
    cdef Py_ssize_t pitch = lay_out_pixels(gradient, part, tile, images, image, scratch)
    cdef Py_ssize_t *pixel_offset = <Py_ssize_t *> (scratch + layout.offsets)
    cdef Py_ssize_t *gradient_offset = pixel_offset + layout.panel_pixels
    cdef Py_ssize_t end, begin = 0, count = tile.height * tile.width
    for end in range(min(layout.panel_pixels, count)):
        gradient_offset[end] = end * layout.width
    while begin < count:
        end = min(begin + layout.panel_pixels, count)
        lay_out_gradients(
            gradient, part, tile, begin, end, output_grad, scratch + layout.panel, layout.width
        )
        note_offsets(gradient, tile, begin, end, pitch, pixel_offset)
        add_panel(gradient, part, tile, end - begin, pitch, &layout, first, scratch)
        first = False
        begin = end


cdef void order_sums(
    const KernelGradient *gradient, const Part *part, const Scratch *layout, const real *scratch,
    real *to
) noexcept nogil:
    """Bring the running sums into the order of the gradient."""
    cdef Py_ssize_t taps = part.channels * gradient.tiling.taps
    gradient.micro.interleave(
        part.kernels, taps, scratch + layout.sums, layout.width, 1, to, taps
    )


cdef void flush_kernels(
    const KernelGradient *gradient, const Part *part, bint fresh, real *scratch
) noexcept nogil:
    cdef Scratch layout = arrange(gradient, part.kernels)
    cdef Py_ssize_t taps = part.channels * gradient.tiling.taps
    cdef const real *sums = scratch + layout.ordered
    cdef double *to = part.sums
    cdef Py_ssize_t i
    order_sums(gradient, part, &layout, scratch, scratch + layout.ordered)
    for _ in range(part.kernels):
        for i in range(taps):
            to[i] = sums[i] if fresh else to[i] + sums[i]
        sums += taps
        to += gradient.channels * gradient.tiling.taps


cdef void store_kernels(
    const KernelGradient *gradient, const Part *part, const real *scratch, real *kernel_grad
) noexcept nogil:
    cdef Scratch layout = arrange(gradient, part.kernels)
    order_sums(gradient, part, &layout, scratch, kernel_grad)
