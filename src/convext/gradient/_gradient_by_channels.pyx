"""The kernel gradient of many channels and kernels: the building block, summed over pixels.

The pixels of a tile are laid out with the channels side by side, so that a vector holds the same
pixel of several channels; for one tap and one block of kernels, the micro-kernel of the forward
convolution then multiplies each pixel's vectors with its output gradients and adds up all pixels.

Where channels are few, the whole windows of the pixels are laid out side by side instead, so that a
vector holds several taps.
"""

from convext.base._geometry cimport Array4, real
from convext.gradient._gradient_plan cimport KernelGradient, Part
from convext.base._scratch cimport aligned_size, apart
from convext.base._tasks cimport divide_up
from convext.ways._tile cimport (
    Axis, Positions, Tile, Tiling, distance_of, lay_out, lay_side_by_side, packed_size,
    positions_under, reach
)
from convext.gradient._unfolding cimport unfold

# The scratch memory: the channels one after the other, as lay_out has them, and side by side; the
# offsets of the taps, of the pixels and of their output gradients; these; the running sums.
cdef struct Scratch:
    Py_ssize_t width            # channels, or taps, side by side, whole vectors
    Py_ssize_t passes           # taps that are taken one after the other
    Py_ssize_t pass_size        # from the sums of one to those of the next
    Py_ssize_t tile_pixels      # of a whole tile
    Py_ssize_t panel, taps, offsets, gradients, sums, end   # where each begins


cdef Scratch arrange(const KernelGradient *gradient, Py_ssize_t kernels) noexcept nogil:
    cdef const Tiling *tiling = &gradient.tiling
    cdef size_t itemsize = gradient.itemsize
    cdef int lanes = gradient.micro.lanes
    cdef Scratch scratch
    scratch.width = divide_up(tiling.block, lanes) * lanes
    scratch.passes = tiling.taps
    if gradient.unfolded:
        scratch.width = gradient.unfolding.width
        scratch.passes = 1
    scratch.tile_pixels = tiling.tile_h * tiling.tile_w
    scratch.panel = aligned_size(packed_size(tiling, lanes), itemsize)
    scratch.taps = scratch.panel + span(gradient) * scratch.width + lanes
    scratch.offsets = scratch.taps + aligned_size(
        tiling.taps * <Py_ssize_t> (sizeof(Py_ssize_t) // itemsize), itemsize
    )
    scratch.gradients = scratch.offsets + aligned_size(
        2 * scratch.tile_pixels * <Py_ssize_t> (sizeof(Py_ssize_t) // itemsize), itemsize
    )
    scratch.sums = scratch.gradients + aligned_size(
        scratch.tile_pixels * gradient.micro.max_kernels, itemsize
    )
    scratch.pass_size = 0 if gradient.in_place else apart(kernels * scratch.width, itemsize)
    scratch.end = scratch.sums + scratch.passes * scratch.pass_size
    return scratch


cdef inline Py_ssize_t pixels_under(const Tiling *tiling) noexcept nogil:
    """Pixels of a channel under a whole tile, those that no tap meets included."""
    return reach(&tiling.rows, tiling.tile_h) * reach(&tiling.columns, tiling.tile_w)


cdef inline bint goes_by_rows(const KernelGradient *gradient) noexcept nogil:
    """Whether the channels are laid side by side in one step, row by row with the padding.

    Where taps meet less than half of the pixels, these are better packed first.
    """
    cdef const Tiling *tiling = &gradient.tiling
    return (
        not (gradient.unfolded or tiling.contiguous)
        and pixels_under(tiling) <= 2 * tiling.channel_size
    )


cdef inline Py_ssize_t span(const KernelGradient *gradient) noexcept nogil:
    """Positions in the panel: those of a channel, packed or in place, that a tile reaches."""
    cdef const Tiling *tiling = &gradient.tiling
    if gradient.unfolded:
        return tiling.tile_h * tiling.tile_w
    if goes_by_rows(gradient):
        return pixels_under(tiling)
    if not tiling.contiguous:
        return tiling.channel_size
    # A tile that reaches beyond the image is packed, however far apart its taps are.
    return max(
        tiling.channel_size,
        min(tiling.tile_h + tiling.rows.extent, gradient.images.h) * tiling.pitch
    )


cdef Py_ssize_t channels_scratch_size(
    const KernelGradient *gradient, Py_ssize_t kernels
) noexcept nogil:
    return arrange(gradient, kernels).end


# Pixels with their channels, or windows, side by side: how far apart, in pixels, those are that
# follow each other down, and across; and where those of each tap begin.
cdef struct Panel:
    Py_ssize_t down, across
    const Py_ssize_t *tap


cdef Panel lay_out_rows(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, Py_ssize_t width, real *to, Py_ssize_t *taps
) noexcept nogil:
    """Lay the channels side by side in one step, with all pixels of a row, whatever the stride."""
    cdef const Axis *rows = &gradient.tiling.rows
    cdef const Axis *columns = &gradient.tiling.columns
    cdef Positions down = positions_under(rows, tile.top, tile.height, images.h)
    cdef Positions across = positions_under(columns, tile.left, tile.width, images.w)
    cdef Py_ssize_t pitch = across.count, t
    cdef Panel panel
    lay_side_by_side(
        gradient.micro, images,
        <const real *> images.data + image * images.n_stride + part.channel * images.c_stride,
        part.channels, &down, &across, to, width, False, <real *> NULL, 0
    )
    for t in range(gradient.tiling.taps):
        taps[t] = (
            distance_of(rows, t // columns.num_taps) * pitch
            + distance_of(columns, t % columns.num_taps)
        )
    panel.down = rows.stride * pitch
    panel.across = columns.stride
    panel.tap = taps
    return panel


cdef void lay_out_channels(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const real *pixels,
    bint packed, const Scratch *layout, real *scratch
) noexcept nogil:
    """The same from pixels that lie as lay_out has them, whole strides apart."""
    cdef const Tiling *tiling = &gradient.tiling
    cdef Py_ssize_t count = tiling.channel_size, stride = tiling.channel_size
    if not packed:
        stride = tiling.channel_stride
        count = (
            (tile.height - 1 + tiling.rows.extent) * tiling.pitch
            + tile.width + tiling.columns.extent
        )
    gradient.micro.interleave(
        count, part.channels, pixels, stride, 1, scratch + layout.panel, layout.width
    )


cdef Panel lay_out_panel(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, const Scratch *layout, real *scratch
) noexcept nogil:
    cdef const Tiling *tiling = &gradient.tiling
    cdef Py_ssize_t *taps = <Py_ssize_t *> (scratch + layout.taps)
    cdef Panel panel
    cdef const real *pixels
    if goes_by_rows(gradient):
        return lay_out_rows(
            gradient, part, tile, images, image, layout.width, scratch + layout.panel, taps
        )
    pixels = lay_out(
        tiling, tile, images, image, part.channel, part.channels, scratch, gradient.micro.lanes,
        &panel.tap
    )
    panel.down, panel.across = tiling.pitch, 1
    if gradient.unfolded:
        unfold(&gradient.unfolding, tiling, tile, pixels, panel.tap, scratch + layout.panel)
        panel.down = tile.width
        taps[0] = 0
        panel.tap = taps
    else:
        lay_out_channels(
            gradient, part, tile, pixels, panel.tap == tiling.offset_packed, layout, scratch
        )
    return panel


cdef void note_offsets(
    const Tile *tile, const Panel *panel, Py_ssize_t channels_width, Py_ssize_t kernels_width,
    Py_ssize_t *pixel_offset, Py_ssize_t *gradient_offset
) noexcept nogil:
    """Note where each pixel of the tile and its output gradients are then."""
    cdef Py_ssize_t r, c, pixel
    for r in range(tile.height):
        for c in range(tile.width):
            pixel = r * tile.width + c
            pixel_offset[pixel] = (r * panel.down + c * panel.across) * channels_width
            gradient_offset[pixel] = pixel * kernels_width


cdef void lay_out_gradients(
    const KernelGradient *gradient, const Tile *tile, Py_ssize_t kernels, const real *output_grad,
    real *to, Py_ssize_t width
) noexcept nogil:
    """Pack the output gradients of a block of kernels as the weights of the tile's pixels."""
    cdef const Array4 *layout = &gradient.output_grad
    if tile.width * layout.w_stride == layout.h_stride:     # the rows follow each other
        gradient.micro.interleave(
            tile.height * tile.width, kernels, output_grad, layout.c_stride, layout.w_stride, to,
            width
        )
        return
    for _ in range(tile.height):
        gradient.micro.interleave(
            tile.width, kernels, output_grad, layout.c_stride, layout.w_stride, to, width
        )
        output_grad += layout.h_stride
        to += tile.width * width


cdef inline bint lie_in_rows(const KernelGradient *gradient, const Tile *tile) noexcept nogil:
    """Whether to read the output gradients where they lie, those of each kernel in one row."""
    cdef const Array4 *layout = &gradient.output_grad
    # A distance of zero, as in broadcast gradients, says to the micro-kernel that it has offsets.
    return layout.w_stride == 1 and layout.c_stride != 0 and (
        tile.height == 1 or layout.h_stride == tile.width
    )


cdef void add_tile_by_channels(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, const real *output_grad, bint first, real *scratch, real *kernel_grad
) noexcept nogil:
    cdef Scratch layout = arrange(gradient, part.kernels)
    cdef real *gradients = scratch + layout.gradients
    cdef real *sums = scratch + layout.sums
    cdef Py_ssize_t lanes = gradient.micro.lanes
    cdef Py_ssize_t sums_width = divide_up(part.channels, lanes) * lanes
    cdef Py_ssize_t sums_stride = layout.width
    cdef Py_ssize_t *pixel_offset = <Py_ssize_t *> (scratch + layout.offsets)
    cdef Py_ssize_t *gradient_offset = pixel_offset + layout.tile_pixels
    cdef Py_ssize_t width = min(part.kernels, <Py_ssize_t> gradient.micro.max_kernels)
    cdef Py_ssize_t row_stride = gradient.output_grad.c_stride
    cdef bint in_rows = lie_in_rows(gradient, tile)
    cdef Py_ssize_t t, begin = 0, count
    cdef const real *pixels
    cdef Panel panel = lay_out_panel(gradient, part, tile, images, image, &layout, scratch)
    if gradient.in_place:
        sums = kernel_grad + part.first
        sums_width = part.channels * gradient.tiling.taps
        sums_stride = gradient.channels * gradient.tiling.taps
    elif gradient.unfolded:
        sums_width = layout.width
    note_offsets(tile, &panel, layout.width, width, pixel_offset, gradient_offset)
    output_grad += (
        tile.top * gradient.output_grad.h_stride + tile.left * gradient.output_grad.w_stride
    )
    while begin < part.kernels:
        count = min(width, part.kernels - begin)
        if count < gradient.micro.max_kernels or not in_rows:
            lay_out_gradients(gradient, tile, count, output_grad, gradients, width)
        for t in range(layout.passes):
            pixels = scratch + layout.panel + panel.tap[t] * layout.width
            if count == gradient.micro.max_kernels and in_rows:
                gradient.micro.correlate_rows(
                    tile.height * tile.width, sums_width, output_grad, row_stride, pixels,
                    pixel_offset, sums + t * layout.pass_size, sums_stride, not first
                )
            else:
                gradient.micro.correlate[count](
                    tile.height * tile.width, sums_width, gradients, gradient_offset, pixels,
                    pixel_offset, sums + t * layout.pass_size, sums_stride, not first
                )
        begin += count
        output_grad += count * row_stride
        sums += count * sums_stride


cdef void gather_kernel(
    const KernelGradient *gradient, const Part *part, const Scratch *layout, Py_ssize_t k,
    const real *scratch, real *to
) noexcept nogil:
    """Bring the running sums of a kernel into the order of the gradient."""
    cdef const real *sums = scratch + layout.sums + k * layout.width
    cdef Py_ssize_t i
    if gradient.unfolded:
        for i in range(part.channels * gradient.tiling.taps):
            to[gradient.unfolding.place[i]] = sums[i]
        return
    gradient.micro.interleave(
        part.channels, gradient.tiling.taps, sums, layout.pass_size, 1, to,
        gradient.tiling.taps
    )


cdef void flush_channels(
    const KernelGradient *gradient, const Part *part, bint fresh, real *scratch
) noexcept nogil:
    cdef Py_ssize_t taps = gradient.tiling.taps
    cdef Scratch layout = arrange(gradient, part.kernels)
    # The pixels are not needed any more.
    cdef real *sums = scratch + layout.panel
    cdef double *to
    cdef Py_ssize_t k, i
    for k in range(part.kernels):
        gather_kernel(gradient, part, &layout, k, scratch, sums)
        to = part.sums + k * gradient.channels * taps
        for i in range(part.channels * taps):
            to[i] = sums[i] if fresh else to[i] + sums[i]


cdef void store_channels(
    const KernelGradient *gradient, const Part *part, const real *scratch, real *kernel_grad
) noexcept nogil:
    cdef Scratch layout = arrange(gradient, part.kernels)
    cdef Py_ssize_t k
    if gradient.in_place:
        return
    kernel_grad += part.first
    for k in range(part.kernels):
        gather_kernel(gradient, part, &layout, k, scratch, kernel_grad)
        kernel_grad += gradient.channels * gradient.tiling.taps
