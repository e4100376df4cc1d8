"""The kernel gradient by the building block of the forward convolution, which sums over pixels.

By channels: the pixels of a tile are laid out with the channels side by side, so that a vector
holds the same pixel of several channels. For one tap and one block of kernels, the micro-kernel of
the forward convolution then multiplies each pixel's vectors with its output gradients and adds up
all pixels. Where channels are few, the whole windows of the pixels are laid out side by side
instead, so that a vector holds several taps.

By kernels, where channels are few and windows wide: the output gradients of some pixels are laid
out with the kernels side by side. Taps that are neighbours in a row meet them where they lie in the
image: they are the weights for the same micro-kernel.
"""

from convext.base._geometry cimport Array4, real
from convext.base._machine cimport L1_BYTES
from convext.base._scratch cimport aligned_size, apart
from convext.base._tasks cimport divide_up
from convext.gradient._gradient_plan cimport KernelGradient, Part, Unfolding
from convext.ways._tile cimport (
    Axis, Positions, Tile, Tiling, all_inside, copy_rectangle, distance_of, has_no_gaps, lay_out,
    lay_side_by_side, packed_size, pixel_at, positions, positions_under, reach, shift_of, start_of
)

# By kernels: the output gradients of a panel's pixels should stay in L1 while all taps meet them.
cdef Py_ssize_t MAX_PANEL_BYTES = 3 * L1_BYTES // 4
cdef Py_ssize_t MIN_PANEL_PIXELS = 32


# The scratch memory: what windows are unfolded from; the panel of pixels; the offsets of the taps,
# of the pixels and of their output gradients; these; the running sums, and some of them in the
# order of the gradient.
cdef struct Scratch:
    Py_ssize_t width            # channels, taps or kernels side by side, whole vectors
    Py_ssize_t passes           # by channels: taps that are taken one after the other
    Py_ssize_t pass_size        # from the sums of one to those of the next
    Py_ssize_t pixels           # whose output gradients are laid out together
    Py_ssize_t panel, taps, offsets, gradients, sums, ordered, end      # where each begins


cdef inline Py_ssize_t integers(const KernelGradient *gradient, Py_ssize_t count) noexcept nogil:
    """Elements that take the room of `count` offsets."""
    return aligned_size(
        count * <Py_ssize_t> (sizeof(Py_ssize_t) // gradient.itemsize), gradient.itemsize
    )


cdef inline Py_ssize_t rows_in_planes(const Axis *rows, Py_ssize_t height) noexcept nogil:
    """Rows, at most, that taps meet; where these lie close, that is more than there are."""
    return rows.num_planes * (height + rows.reach)


cdef Scratch arrange_channels(const KernelGradient *gradient, Py_ssize_t kernels) noexcept nogil:
    cdef const Tiling *tiling = &gradient.tiling
    cdef size_t itemsize = gradient.itemsize
    cdef int lanes = gradient.micro.lanes
    cdef Py_ssize_t span
    cdef Scratch scratch
    scratch.pixels = tiling.tile_h * tiling.tile_w
    if gradient.unfolded:
        scratch.width = gradient.unfolding.width
        scratch.passes = 1
        scratch.panel = aligned_size(packed_size(tiling), itemsize)
        span = scratch.pixels
    else:
        scratch.width = divide_up(tiling.block, lanes) * lanes
        scratch.passes = tiling.taps
        scratch.panel = 0
        span = reach(&tiling.columns, tiling.tile_w) * min(
            reach(&tiling.rows, tiling.tile_h), rows_in_planes(&tiling.rows, tiling.tile_h)
        )
    scratch.taps = scratch.panel + span * scratch.width + lanes
    scratch.offsets = scratch.taps + integers(gradient, tiling.taps)
    scratch.gradients = scratch.offsets + integers(gradient, 2 * scratch.pixels)
    scratch.sums = scratch.gradients + aligned_size(
        scratch.pixels * gradient.micro.max_kernels, itemsize
    )
    scratch.pass_size = 0 if gradient.in_place else apart(kernels * scratch.width, itemsize)
    scratch.ordered = scratch.panel     # a kernel's, when the pixels are not needed any more
    scratch.end = scratch.sums + scratch.passes * scratch.pass_size
    return scratch


cdef Scratch arrange_kernels(const KernelGradient *gradient, Py_ssize_t kernels) noexcept nogil:
    cdef const Tiling *tiling = &gradient.tiling
    cdef Py_ssize_t itemsize = gradient.itemsize
    cdef Py_ssize_t taps = tiling.block * tiling.taps
    cdef Scratch scratch
    scratch.width = divide_up(kernels, gradient.micro.lanes) * gradient.micro.lanes
    scratch.pixels = max(MIN_PANEL_PIXELS, MAX_PANEL_BYTES // (scratch.width * itemsize))
    scratch.panel = 0
    scratch.gradients = aligned_size(
        tiling.block * reach(&tiling.rows, tiling.tile_h) * reach(&tiling.columns, tiling.tile_w),
        itemsize
    )
    scratch.offsets = scratch.gradients + scratch.pixels * scratch.width
    scratch.sums = scratch.offsets + integers(gradient, 2 * scratch.pixels)
    scratch.ordered = scratch.sums + taps * scratch.width
    scratch.end = scratch.ordered + aligned_size(taps * kernels, itemsize)
    return scratch


cdef inline Scratch arrange(const KernelGradient *gradient, Py_ssize_t kernels) noexcept nogil:
    if gradient.by_kernels:
        return arrange_kernels(gradient, kernels)
    return arrange_channels(gradient, kernels)


cdef Py_ssize_t vectors_scratch_size(
    const KernelGradient *gradient, Py_ssize_t kernels
) noexcept nogil:
    return arrange(gradient, kernels).end


cdef void note_offsets(
    const Tile *tile, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t down, Py_ssize_t across,
    Py_ssize_t *offset
) noexcept nogil:
    """Note where the pixels of a tile, numbered row by row, lie, `down` and `across` apart."""
    cdef Py_ssize_t column = begin % tile.width
    cdef Py_ssize_t place = begin // tile.width * down + column * across
    cdef Py_ssize_t i
    for i in range(end - begin):
        offset[i] = place
        place += across
        column += 1
        if column == tile.width:
            place += down - tile.width * across
            column = 0


cdef void lay_out_gradients(
    const KernelGradient *gradient, const Tile *tile, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t kernels, const real *output_grad, real *to, Py_ssize_t width
) noexcept nogil:
    """Lay the kernels' output gradients of some pixels, numbered as above, side by side."""
    cdef const Array4 *layout = &gradient.output_grad
    cdef bint rows_follow = tile.width * layout.w_stride == layout.h_stride
    cdef Py_ssize_t column, count
    while begin < end:
        column = begin % tile.width
        count = end - begin
        if not rows_follow:
            count = min(count, tile.width - column)
        gradient.micro.interleave(
            count, kernels,
            output_grad + begin // tile.width * layout.h_stride + column * layout.w_stride,
            layout.c_stride, layout.w_stride, to, width
        )
        begin += count
        to += count * width


# Pixels with their channels, or windows, side by side: how far apart, in pixels, those are that
# follow each other down, and across; and where those of each tap begin.
cdef struct Panel:
    Py_ssize_t down, across
    const Py_ssize_t *tap


cdef Panel lay_out_channels(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, const Scratch *layout, real *scratch
) noexcept nogil:
    """Lay the channels side by side, all pixels of all rows, or of those alone that taps meet."""
    cdef const Axis *rows = &gradient.tiling.rows
    cdef const Axis *columns = &gradient.tiling.columns
    cdef bint every_row = reach(rows, tile.height) <= rows_in_planes(rows, tile.height)
    cdef Py_ssize_t height = reach(rows, tile.height) if every_row else tile.height + rows.reach
    cdef Py_ssize_t step = 1 if every_row else rows.stride
    cdef Positions down, along, across = positions_under(columns, tile.left, tile.width, images.w)
    cdef Py_ssize_t pitch = across.count, i, t
    cdef Py_ssize_t *tap = <Py_ssize_t *> (scratch + layout.taps)
    for t in range(gradient.tiling.taps):
        i = t // columns.num_taps
        tap[t] = distance_of(columns, t % columns.num_taps) + pitch * (
            distance_of(rows, i) if every_row
            else i % rows.num_planes * height + shift_of(rows, i)
        )
    for i in range(1 if every_row else rows.num_planes):
        # The first plane starts with the first row.
        down = positions(
            tile.top * rows.stride + rows.origin + start_of(rows, i), step, height, images.h
        )
        along = across
        if step == 1 and pitch == images.w and has_no_gaps(images) and all_inside(&down, &across):
            # Rows that follow each other are one.
            along = positions(0, 1, height * pitch, height * pitch)
            down.count = down.end = 1
        lay_side_by_side(
            gradient.micro, images,
            <const real *> images.data + image * images.n_stride + part.channel * images.c_stride,
            part.channels, &down, &along,
            scratch + layout.panel + i * height * pitch * layout.width, layout.width, False,
            <real *> NULL, 0
        )
    return Panel(rows.stride // step * pitch, columns.stride, tap)


cdef Panel lay_out_windows(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, const Scratch *layout, real *scratch
) noexcept nogil:
    """Lay the windows side by side. All taps are one, then."""
    cdef const Tiling *tiling = &gradient.tiling
    cdef const Unfolding *unfolding = &gradient.unfolding
    cdef Py_ssize_t *tap = <Py_ssize_t *> (scratch + layout.taps)
    cdef real *to = scratch + layout.panel
    cdef const Py_ssize_t *offset
    cdef const real *pixels = lay_out(
        tiling, tile, images, image, part.channel, part.channels, scratch, &offset
    )
    for _ in range(tile.height):
        gradient.micro.unfold(
            tile.width, unfolding.num_pieces, pixels,
            unfolding.packed if offset == tiling.offset_packed else unfolding.in_place, to,
            unfolding.start, unfolding.width
        )
        pixels += tiling.pitch
        to += tile.width * unfolding.width
    tap[0] = 0
    return Panel(tile.width, 1, tap)


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
    cdef Scratch layout = arrange_channels(gradient, part.kernels)
    cdef real *gradients = scratch + layout.gradients
    cdef real *sums = scratch + layout.sums
    cdef Py_ssize_t lanes = gradient.micro.lanes
    cdef Py_ssize_t sums_width = divide_up(part.channels, lanes) * lanes
    cdef Py_ssize_t sums_stride = layout.width
    cdef Py_ssize_t *pixel_offset = <Py_ssize_t *> (scratch + layout.offsets)
    cdef Py_ssize_t *gradient_offset = pixel_offset + layout.pixels
    cdef Py_ssize_t most = gradient.micro.max_kernels
    cdef Py_ssize_t width = min(part.kernels, most)
    cdef Py_ssize_t row_stride = gradient.output_grad.c_stride
    cdef Py_ssize_t num_pixels = tile.height * tile.width
    cdef bint in_rows = lie_in_rows(gradient, tile)
    cdef Py_ssize_t t, begin = 0, count
    cdef const real *pixels
    cdef Panel panel
    if gradient.unfolded:
        panel = lay_out_windows(gradient, part, tile, images, image, &layout, scratch)
        sums_width = layout.width
    else:
        panel = lay_out_channels(gradient, part, tile, images, image, &layout, scratch)
    if gradient.in_place:
        sums = kernel_grad + part.first
        sums_width = part.channels * gradient.tiling.taps
        sums_stride = gradient.channels * gradient.tiling.taps
    note_offsets(
        tile, 0, num_pixels, panel.down * layout.width, panel.across * layout.width, pixel_offset
    )
    note_offsets(tile, 0, num_pixels, tile.width * width, width, gradient_offset)
    while begin < part.kernels:
        count = min(width, part.kernels - begin)
        if count < most or not in_rows:
            lay_out_gradients(gradient, tile, 0, num_pixels, count, output_grad, gradients, width)
        for t in range(layout.passes):
            pixels = scratch + layout.panel + panel.tap[t] * layout.width
            if count == most and in_rows:
                gradient.micro.correlate_rows(
                    num_pixels, sums_width, output_grad, row_stride, pixels, pixel_offset,
                    sums + t * layout.pass_size, sums_stride, not first
                )
            else:
                gradient.micro.correlate[count](
                    num_pixels, sums_width, gradients, gradient_offset, pixels, pixel_offset,
                    sums + t * layout.pass_size, sums_stride, not first
                )
        begin += count
        output_grad += count * row_stride
        sums += count * sums_stride


# The pixels under a tile: those of a row follow each other.
cdef struct Rows:
    const void *pixels
    Py_ssize_t channel_stride, pitch


cdef Rows lay_out_rows(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, real *panel
) noexcept nogil:
    """The pixels under a tile where they lie, or packed with the padding around them."""
    cdef Positions down = positions_under(&gradient.tiling.rows, tile.top, tile.height, images.h)
    cdef Positions across = positions_under(
        &gradient.tiling.columns, tile.left, tile.width, images.w
    )
    cdef Rows rows
    cdef Py_ssize_t c
    cdef const real *first = (
        <const real *> images.data + image * images.n_stride + part.channel * images.c_stride
    )
    if images.w_stride == 1 and all_inside(&down, &across):
        rows.pixels = pixel_at(images, first, &down, &across, 0, 0)
        rows.channel_stride, rows.pitch = images.c_stride, images.h_stride
        return rows
    rows.pixels = panel
    rows.channel_stride, rows.pitch = down.count * across.count, across.count
    for c in range(part.channels):
        copy_rectangle(
            gradient.micro, images, first + c * images.c_stride, &down, &across,
            panel + c * rows.channel_stride, rows.pitch
        )
    return rows


cdef void add_panel(
    const KernelGradient *gradient, const Part *part, const Rows *pixels, Py_ssize_t num_pixels,
    const Scratch *layout, bint first, real *scratch
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
            taps = (
                <const real *> pixels.pixels + c * pixels.channel_stride
                + distance_of(rows, i) * pixels.pitch
            )
            for run in range(runs):
                begin = run * num_columns // runs
                end = (run + 1) * num_columns // runs
                gradient.micro.correlate[end - begin](
                    num_pixels, layout.width, taps + begin, pixel_offset,
                    scratch + layout.gradients, pixel_offset + layout.pixels,
                    sums + begin * layout.width, layout.width, not first
                )
            sums += num_columns * layout.width


cdef void add_tile_by_kernels(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, const real *output_grad, bint first, real *scratch
) noexcept nogil:
    cdef Scratch layout = arrange_kernels(gradient, part.kernels)
    cdef Rows rows = lay_out_rows(gradient, part, tile, images, image, scratch)
    cdef Py_ssize_t down = gradient.tiling.rows.stride * rows.pitch
    cdef Py_ssize_t across = gradient.tiling.columns.stride
    cdef Py_ssize_t *pixel_offset = <Py_ssize_t *> (scratch + layout.offsets)
    cdef Py_ssize_t begin = 0, end, count = tile.height * tile.width
    note_offsets(
        tile, 0, min(layout.pixels, count), tile.width * layout.width, layout.width,
        pixel_offset + layout.pixels
    )
    while begin < count:
        end = min(begin + layout.pixels, count)
        lay_out_gradients(
            gradient, tile, begin, end, part.kernels, output_grad, scratch + layout.gradients,
            layout.width
        )
        note_offsets(tile, begin, end, down, across, pixel_offset)
        add_panel(gradient, part, &rows, end - begin, &layout, first, scratch)
        first = False
        begin = end


cdef void add_tile_by_vectors(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, const real *output_grad, bint first, real *scratch, real *kernel_grad
) noexcept nogil:
    if gradient.by_kernels:
        add_tile_by_kernels(gradient, part, tile, images, image, output_grad, first, scratch)
    else:
        add_tile_by_channels(
            gradient, part, tile, images, image, output_grad, first, scratch, kernel_grad
        )


cdef void order_sums(
    const KernelGradient *gradient, const Part *part, const Scratch *layout, Py_ssize_t kernel,
    Py_ssize_t kernels, const real *scratch, real *to, Py_ssize_t stride
) noexcept nogil:
    """Bring the running sums of some kernels into the order of the gradient, `stride` apart."""
    cdef Py_ssize_t taps = gradient.tiling.taps, k, i
    cdef const real *sums = scratch + layout.sums
    if gradient.by_kernels:
        gradient.micro.interleave(
            kernels, part.channels * taps, sums + kernel, layout.width, 1, to, stride
        )
        return
    for k in range(kernel, kernel + kernels):
        if gradient.unfolded:
            for i in range(part.channels * taps):
                to[gradient.unfolding.place[i]] = sums[k * layout.width + i]
        else:
            gradient.micro.interleave(
                part.channels, taps, sums + k * layout.width, layout.pass_size, 1, to, taps
            )
        to += stride


cdef void flush_sums(
    const KernelGradient *gradient, const Part *part, bint fresh, real *scratch
) noexcept nogil:
    cdef Scratch layout = arrange(gradient, part.kernels)
    cdef Py_ssize_t taps = part.channels * gradient.tiling.taps
    cdef Py_ssize_t together = part.kernels if gradient.by_kernels else 1
    cdef real *sums = scratch + layout.ordered
    cdef double *to = part.sums
    cdef Py_ssize_t k, i
    for k in range(part.kernels):
        if k % together == 0:
            sums = scratch + layout.ordered
            order_sums(gradient, part, &layout, k, together, scratch, sums, taps)
        for i in range(taps):
            to[i] = sums[i] if fresh else to[i] + sums[i]
        sums += taps
        to += gradient.channels * gradient.tiling.taps


cdef void store_sums(
    const KernelGradient *gradient, const Part *part, const real *scratch, real *kernel_grad
) noexcept nogil:
    cdef Scratch layout = arrange(gradient, part.kernels)
    if not gradient.in_place:
        order_sums(
            gradient, part, &layout, 0, part.kernels, scratch, kernel_grad + part.first,
            gradient.channels * gradient.tiling.taps
        )
