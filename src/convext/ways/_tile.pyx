"""Cutting a convolution into tiles, and laying out the pixels under a tile."""

from libc.stdlib cimport free, malloc
from libc.string cimport memset

from convext.base._dispatch cimport Microkernels, microkernels
from convext.base._geometry cimport Array4, real
from convext.base._machine cimport LAID_OUT_BYTES
from convext.base._tasks cimport divide_up

cdef Py_ssize_t MAX_WIDTH_IN_PLACE = 4096


cdef void assign_planes(Axis *axis, Py_ssize_t tile_length) noexcept nogil:
    """Decide which planes hold the pixels of a tile that is `tile_length` outputs long.

    Taps that lie whole strides apart share a plane, which then reaches beyond the tile. Where the
    taps lie so far apart that this costs more than a plane for each tap, each gets its own.
    """
    axis.num_planes = 1
    while axis.num_planes < axis.num_taps and axis.num_planes * axis.spacing % axis.stride != 0:
        axis.num_planes += 1
    axis.reach = axis.extent // axis.stride
    if axis.num_planes * (tile_length + axis.reach) > axis.num_taps * tile_length:
        axis.num_planes = axis.num_taps
        axis.reach = 0


cdef void cut_tiles(Tiling *tiling, bint whole_rows, Py_ssize_t max_pixels) noexcept nogil:
    tiling.tiles_across = 1 if whole_rows else divide_up(tiling.out_w, MAX_PACKED_WIDTH)
    tiling.tile_w = divide_up(tiling.out_w, tiling.tiles_across)
    assign_planes(&tiling.columns, tiling.tile_w)
    tiling.pitch = tiling.tile_w + tiling.columns.reach
    tiling.tile_h = min(tiling.out_h, max(1, max_pixels // tiling.pitch))
    tiling.tiles_down = divide_up(tiling.out_h, tiling.tile_h)
    tiling.tile_h = divide_up(tiling.out_h, tiling.tiles_down)
    assign_planes(&tiling.rows, tiling.tile_h)
    tiling.plane_size = (tiling.tile_h + tiling.rows.reach) * tiling.pitch
    tiling.channel_size = tiling.rows.num_planes * tiling.columns.num_planes * tiling.plane_size


cdef int init_tiling(
    Tiling *tiling, Axis rows, Axis columns, const Array4 *source, Py_ssize_t channels,
    Py_ssize_t out_h, Py_ssize_t out_w, Py_ssize_t max_pixels, Py_ssize_t max_block,
    bint whole_rows, bint summing, size_t itemsize
) noexcept nogil:
    cdef Py_ssize_t fitting
    tiling.micro = microkernels(itemsize)
    tiling.rows = rows
    tiling.columns = columns
    tiling.out_h = out_h
    tiling.out_w = out_w
    # Rows that follow each other without a gap, under whole strides of one, need not be packed.
    whole_rows = (
        whole_rows and rows.stride == 1 and columns.stride == 1 and columns.origin == 0
        and out_w + columns.extent == source.w and out_w <= MAX_WIDTH_IN_PLACE
        # Where taps lie further apart than the output is wide, packing only what they meet is less.
        and columns.extent <= (columns.num_taps - 1) * out_w
    )
    tiling.contiguous = whole_rows and has_no_gaps(source)
    cut_tiles(tiling, whole_rows, max_pixels)
    tiling.taps = rows.num_taps * columns.num_taps

    fitting = LAID_OUT_BYTES // (tiling.channel_size * <Py_ssize_t> itemsize)
    tiling.block = max(1, min(channels, min(max_block, fitting)))
    tiling.block = divide_up(channels, divide_up(channels, tiling.block))
    if whole_rows and not (tiling.contiguous or summing):
        cut_tiles(tiling, False, max_pixels)

    tiling.channel_stride = source.c_stride
    return init_offsets(tiling)


cdef int init_offsets(Tiling *tiling) noexcept nogil:
    cdef Axis *rows = &tiling.rows
    cdef Axis *columns = &tiling.columns
    cdef Py_ssize_t c, i, j, plane, t = 0
    tiling.offset_packed = <Py_ssize_t *> malloc(
        2 * tiling.block * tiling.taps * sizeof(Py_ssize_t)
    )
    if tiling.offset_packed == NULL:
        return -1
    tiling.offset_in_place = tiling.offset_packed + tiling.block * tiling.taps
    for c in range(tiling.block):
        for i in range(rows.num_taps):
            for j in range(columns.num_taps):
                plane = i % rows.num_planes * columns.num_planes + j % columns.num_planes
                tiling.offset_packed[t] = (
                    c * tiling.channel_size + plane * tiling.plane_size
                    + shift_of(rows, i) * tiling.pitch + shift_of(columns, j)
                )
                tiling.offset_in_place[t] = (
                    c * tiling.channel_stride
                    + distance_of(rows, i) * tiling.pitch + distance_of(columns, j)
                )
                t += 1
    return 0


cdef void free_tiling(Tiling *tiling) noexcept nogil:
    free(tiling.offset_packed)


cdef Tile tile_at(const Tiling *tiling, Py_ssize_t index, int lanes) noexcept nogil:
    cdef Tile tile
    tile.top = (index // tiling.tiles_across) * tiling.tile_h
    tile.left = (index % tiling.tiles_across) * tiling.tile_w
    tile.height = min(tiling.tile_h, tiling.out_h - tile.top)
    tile.width = min(tiling.tile_w, tiling.out_w - tile.left)
    tile.num_pixels = (tile.height - 1) * tiling.pitch + tile.width
    tile.num_pixels = divide_up(tile.num_pixels, lanes) * lanes
    return tile


cdef Py_ssize_t packed_size(const Tiling *tiling) noexcept nogil:
    # The last vector of the last tap may reach beyond the last plane.
    return tiling.block * tiling.channel_size + tiling.micro.lanes


cdef Py_ssize_t row_size(const Tiling *tiling) noexcept nogil:
    cdef Py_ssize_t lanes = tiling.micro.lanes
    return divide_up(tiling.tile_h * tiling.pitch, lanes) * lanes


cdef inline bint readable_in_place(
    const Tiling *tiling, const Tile *tile, const Array4 *source, Py_ssize_t n,
    Py_ssize_t channel, Py_ssize_t channels
) noexcept nogil:
    """Whether every pixel of the tile, and of its last vectors, lies inside the source's memory."""
    cdef Py_ssize_t top = tile.top + tiling.rows.origin
    cdef Py_ssize_t end = (
        n * source.n_stride + (channel + channels - 1) * source.c_stride
        + (top + tiling.rows.extent) * tiling.pitch + tiling.columns.extent + tile.num_pixels
    )
    if not tiling.contiguous or top < 0 or top + tile.height + tiling.rows.extent > source.h:
        return False
    return end <= (
        (source.n - 1) * source.n_stride + (source.c - 1) * source.c_stride
        + (source.h - 1) * source.h_stride + source.w
    )


cdef inline void clear_rows(
    real *to, Py_ssize_t num_rows, Py_ssize_t count, Py_ssize_t pitch
) noexcept nogil:
    if count == pitch:
        memset(to, 0, num_rows * pitch * sizeof(real))
        return
    for _ in range(num_rows):
        memset(to, 0, count * sizeof(real))
        to += pitch


cdef void copy_rectangle(
    const Microkernels *micro, const Array4 *source, const real *image, const Positions *rows,
    const Positions *columns, real *to, Py_ssize_t pitch, bint zero_sides=False
) noexcept nogil:
    cdef Py_ssize_t r, c
    clear_rows(to, rows.begin, columns.count, pitch)
    if rows.end > rows.begin and columns.end > columns.begin:
        micro.pack(
            rows.end - rows.begin, columns.end - columns.begin,
            pixel_at(source, image, rows, columns, rows.begin, columns.begin),
            rows.step * source.h_stride, columns.step * source.w_stride,
            to + rows.begin * pitch + columns.begin, pitch
        )
    for r in range(rows.begin, rows.begin if zero_sides else rows.end):
        for c in range(columns.begin):
            to[r * pitch + c] = 0
        for c in range(columns.end, columns.count):
            to[r * pitch + c] = 0
    clear_rows(to + rows.end * pitch, rows.count - rows.end, columns.count, pitch)


cdef inline void pack_plane(
    const Tiling *tiling, const Tile *tile, const Array4 *source, const real *channel,
    Py_ssize_t row_plane, Py_ssize_t column_plane, real *to
) noexcept nogil:
    cdef const Axis *down = &tiling.rows
    cdef const Axis *across = &tiling.columns
    cdef Positions rows = positions(
        tile.top * down.stride + down.origin + start_of(down, row_plane), down.stride,
        tile.height + down.reach, source.h
    )
    cdef Positions columns = positions(
        tile.left * across.stride + across.origin + start_of(across, column_plane), across.stride,
        tiling.pitch, source.w
    )
    copy_rectangle(tiling.micro, source, channel, &rows, &columns, to, tiling.pitch)


cdef const real *lay_out(
    const Tiling *tiling, const Tile *tile, const Array4 *source, Py_ssize_t n,
    Py_ssize_t channel, Py_ssize_t channels, real *scratch, const Py_ssize_t **offset
) noexcept nogil:
    cdef const real *image = (
        <const real *> source.data + n * source.n_stride + channel * source.c_stride
    )
    cdef Py_ssize_t i, j
    cdef real *to = scratch
    if readable_in_place(tiling, tile, source, n, channel, channels):
        offset[0] = tiling.offset_in_place
        return image + (tile.top + tiling.rows.origin) * tiling.pitch

    offset[0] = tiling.offset_packed
    for _ in range(channels):
        for i in range(tiling.rows.num_planes):
            for j in range(tiling.columns.num_planes):
                pack_plane(tiling, tile, source, image, i, j, to)
                to += tiling.plane_size
        image += source.c_stride
    memset(to, 0, tiling.micro.lanes * sizeof(real))
    return scratch


cdef void lay_side_by_side(
    const Microkernels *micro, const Array4 *source, const real *image, Py_ssize_t channels,
    const Positions *rows, const Positions *columns, real *to, Py_ssize_t width, bint beside,
    real *squares, Py_ssize_t squares_pitch
) noexcept nogil:
    cdef Py_ssize_t begin = columns.begin, end = columns.end, step = columns.step * source.w_stride
    cdef Py_ssize_t y
    cdef const real *row
    for y in range(rows.count):
        if rows.begin <= y < rows.end and begin < end:
            clear_rows(to, begin, channels, width)
            row = pixel_at(source, image, rows, columns, y, begin)
            if squares != NULL:
                micro.interleave_and_square(
                    end - begin, channels, row, source.c_stride, step, to + begin * width, width,
                    squares + y * squares_pitch + begin
                )
            elif beside and channels < micro.lanes:
                # One by one: whole vectors would be written beyond them.
                micro.pack(
                    end - begin, channels, row, step, source.c_stride, to + begin * width, width
                )
            else:
                micro.interleave(
                    end - begin, channels, row, source.c_stride, step, to + begin * width, width
                )
            clear_rows(to + end * width, columns.count - end, channels, width)
        else:
            clear_rows(to, columns.count, channels, width)
        to += columns.count * width
