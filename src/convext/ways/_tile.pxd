# Tiles: how a convolution is cut into pieces that fit the caches, and how the pixels under a piece
# are laid out for the micro-kernels.
#
# A tile is a rectangle of output pixels, numbered through row by row with `pitch` pixels to a row:
# pixel (r, c) is number r * pitch + c. The source pixels are laid out with the same pitch, in
# planes, so that for tap t of channel c they start at offset[c * taps + t] and run on by one for
# each output pixel, across the rows. Between the last column of the tile and the pitch are a few
# pixels that mean nothing; whatever is computed for them is dropped.

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4, Geometry, real
from convext.base._tasks cimport divide_up

# The taps of a kernel along one axis (rows or columns).
cdef struct Axis:
    Py_ssize_t num_taps
    Py_ssize_t stride       # source pixels from one output to the next
    Py_ssize_t origin       # source position of the lowest tap for output 0
    Py_ssize_t spacing      # from one tap to the next, negative where they go up
    Py_ssize_t extent       # from the lowest tap to the highest
    Py_ssize_t num_planes   # which hold the taps' pixels in turn
    Py_ssize_t reach        # the largest shift


# The taps that meet source position `first`, `first` + `spacing`, ... for output 0.
cdef inline Axis axis_of(
    Py_ssize_t num_taps, Py_ssize_t stride, Py_ssize_t first, Py_ssize_t spacing
) noexcept nogil:
    cdef Py_ssize_t last = (num_taps - 1) * spacing
    return Axis(num_taps, stride, first + min(0, last), spacing, max(last, -last), 0, 0)


cdef inline Axis axis_down(Py_ssize_t taps, const Geometry *geometry) noexcept nogil:
    return axis_of(taps, geometry.stride_h, -geometry.padding_top, geometry.dilation_h)


cdef inline Axis axis_across(Py_ssize_t taps, const Geometry *geometry) noexcept nogil:
    return axis_of(taps, geometry.stride_w, -geometry.padding_left, geometry.dilation_w)


# The source position of a tap above the origin.
cdef inline Py_ssize_t distance_of(const Axis *axis, Py_ssize_t tap) noexcept nogil:
    return tap * axis.spacing + (axis.extent if axis.spacing < 0 else 0)


# Where in its plane the pixels of a tap start.
cdef inline Py_ssize_t shift_of(const Axis *axis, Py_ssize_t tap) noexcept nogil:
    return distance_of(axis, tap) // axis.stride if axis.reach > 0 else 0


# The source position of a plane above the origin.
cdef inline Py_ssize_t start_of(const Axis *axis, Py_ssize_t plane) noexcept nogil:
    return distance_of(axis, plane) - shift_of(axis, plane) * axis.stride


cdef struct Tiling:
    const Microkernels *micro
    Axis rows, columns
    Py_ssize_t out_h, out_w             # output pixels in all
    Py_ssize_t tile_h, tile_w           # output pixels of a whole tile
    Py_ssize_t tiles_down, tiles_across
    Py_ssize_t pitch
    Py_ssize_t plane_size               # pixels of one plane
    Py_ssize_t channel_size             # pixels of all planes of a channel
    Py_ssize_t taps                     # taps of a channel
    Py_ssize_t block                    # channels that are laid out together
    bint contiguous                     # the source may be read where it lies
    Py_ssize_t channel_stride           # then: from one channel to the next
    Py_ssize_t *offset_packed           # [block * taps] in a packed tile
    Py_ssize_t *offset_in_place         # [block * taps] in the source itself

# One tile of the output.
cdef struct Tile:
    Py_ssize_t top, left, height, width
    Py_ssize_t num_pixels               # from its first to its last, whole vectors

# Wider rows are cut, so that the rows under a tile stay in the caches.
cdef enum:
    MAX_PACKED_WIDTH = 1024

# Whether the rows of an image, and those of the next, lie one after the other.
cdef inline bint has_no_gaps(const Array4 *images) noexcept nogil:
    return (
        images.w_stride == 1 and images.h_stride == images.w
        and images.c_stride >= 0 and images.n_stride >= 0
    )

# Cut the output into tiles of at most about `max_pixels`. Where shapes allow it, tiles may be of
# `whole_rows`, which are read where they lie if there are no gaps. Of other layouts they are cut,
# too, if they are wide, unless pixels are summed up: sums depend on where tiles end, and no result
# on the layout. -1 when memory runs out.
cdef int init_tiling(
    Tiling *tiling, Axis rows, Axis columns, const Array4 *source, Py_ssize_t channels,
    Py_ssize_t out_h, Py_ssize_t out_w, Py_ssize_t max_pixels, Py_ssize_t max_block,
    bint whole_rows, bint summing, size_t itemsize
) noexcept nogil

cdef void free_tiling(Tiling *tiling) noexcept nogil

cdef Tile tile_at(const Tiling *tiling, Py_ssize_t index, int lanes) noexcept nogil

# Elements that a packed block of channels, and one row of results, need.
cdef Py_ssize_t packed_size(const Tiling *tiling) noexcept nogil
cdef Py_ssize_t row_size(const Tiling *tiling) noexcept nogil

# Make `channels` channels from `channel` on of sample `n` readable for a tile: returns where, and
# sets `offset` to the offsets to use there. Packs them into `scratch`, with the padding, unless
# they can be read where they lie.
cdef const real *lay_out(
    const Tiling *tiling, const Tile *tile, const Array4 *source, Py_ssize_t n,
    Py_ssize_t channel, Py_ssize_t channels, real *scratch, const Py_ssize_t **offset
) noexcept nogil

# Positions first, first + step, ... along an axis of an image, of which `count` are wanted.
cdef struct Positions:
    Py_ssize_t first, step, count
    Py_ssize_t begin, end       # those with begin <= index < end lie inside the image


cdef inline Positions positions(
    Py_ssize_t first, Py_ssize_t step, Py_ssize_t count, Py_ssize_t size
) noexcept nogil:
    cdef Py_ssize_t begin = divide_up(-first, step) if first < 0 else 0
    cdef Py_ssize_t end = divide_up(size - first, step) if first < size else 0
    cdef Positions along
    along.first, along.step, along.count = first, step, count
    along.begin = min(begin, count)
    along.end = max(along.begin, min(end, count))
    return along


cdef inline bint all_inside(const Positions *rows, const Positions *columns) noexcept nogil:
    return (
        rows.end - rows.begin == rows.count and columns.end - columns.begin == columns.count
    )


cdef inline const real *pixel_at(
    const Array4 *source, const real *image, const Positions *rows, const Positions *columns,
    Py_ssize_t row, Py_ssize_t column
) noexcept nogil:
    return (
        image + (rows.first + row * rows.step) * source.h_stride
        + (columns.first + column * columns.step) * source.w_stride
    )


# Copy the rectangle of the pixels in these rows and columns, row by row, `pitch` elements apart;
# outside of the image are zeros. Those to the left and right may be there already.
cdef void copy_rectangle(
    const Microkernels *micro, const Array4 *source, const real *image, const Positions *rows,
    const Positions *columns, real *to, Py_ssize_t pitch, bint zero_sides=*
) noexcept nogil

# Pixels of a row, or rows, under `length` outputs.
cdef inline Py_ssize_t reach(const Axis *axis, Py_ssize_t length) noexcept nogil:
    return (length - 1) * axis.stride + axis.extent + 1


# All of them, along an axis of `size` pixels, from the `first` output on.
cdef inline Positions positions_under(
    const Axis *axis, Py_ssize_t first, Py_ssize_t length, Py_ssize_t size
) noexcept nogil:
    return positions(first * axis.stride + axis.origin, 1, reach(axis, length), size)

# The same of `channels` channels from `image` on, side by side in `width` elements. Only where
# `beside`, what lies beside them is left as it is. Unless `squares` is NULL, add to it those of the
# pixels, summed over the channels; its rows lie `squares_pitch` elements apart.
cdef void lay_side_by_side(
    const Microkernels *micro, const Array4 *source, const real *image, Py_ssize_t channels,
    const Positions *rows, const Positions *columns, real *to, Py_ssize_t width, bint beside,
    real *squares, Py_ssize_t squares_pitch
) noexcept nogil
