# The pixels under a pair of tiles: from the image where they all lie in it, else copied.

from libc.string cimport memset

from convext.base._dispatch cimport FftPixels
from convext.base._geometry cimport Array4, real
from convext.base._tasks cimport divide_up
from convext.ways._fft_plan cimport Fourier, FourierAxis, Pair, Place
from convext.ways._tile cimport Positions, all_inside, copy_rectangle, positions


cdef inline void spread_pixels(
    const Fourier *plan, const real *channel, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t num_rows, Py_ssize_t num_columns, real *panel
) noexcept nogil:
    """Copy pixels of a channel, zeros between them and outside; `top`, `left` count these, too."""
    cdef Py_ssize_t down = plan.rows.spread, across = plan.columns.spread
    cdef Py_ssize_t first = divide_up(max(<Py_ssize_t> 0, left), across)
    cdef Py_ssize_t last = min(plan.source.w, divide_up(left + num_columns, across))
    cdef Py_ssize_t y, x
    memset(panel, 0, num_rows * plan.columns.size * sizeof(real))
    for y in range(
        divide_up(max(<Py_ssize_t> 0, top), down),
        min(plan.source.h, divide_up(max(<Py_ssize_t> 0, top + num_rows), down))
    ):
        for x in range(first, last):
            panel[(y * down - top) * plan.columns.size + x * across - left] = (
                channel[y * plan.source.h_stride + x * plan.source.w_stride]
            )


cdef inline FftPixels pixels_of(
    const Fourier *plan, const real *channel, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t num_rows, Py_ssize_t num_columns, real *panel
) noexcept nogil:
    """Pixels of a channel, from the image where they all lie in it, else copied to `panel`."""
    cdef const Array4 *source = &plan.source
    cdef Positions rows = positions(top, 1, num_rows, source.h)
    cdef Positions columns = positions(left, 1, num_columns, source.w)
    cdef FftPixels pixels = FftPixels(panel, plan.columns.size, num_rows, num_columns)
    if plan.rows.spread > 1 or plan.columns.spread > 1:
        spread_pixels(plan, channel, top, left, num_rows, num_columns, panel)
    elif source.w_stride == 1 and all_inside(&rows, &columns):
        pixels.data = <void *> (channel + top * source.h_stride + left)
        pixels.pitch = source.h_stride
    else:
        copy_rectangle(plan.micro, source, channel, &rows, &columns, panel, pixels.pitch)
    return pixels


cdef inline Py_ssize_t read_tiles(
    const Fourier *plan, const Pair *pair, Py_ssize_t plane, real *panel, FftPixels *tiles
) noexcept nogil:
    """Find the pixels of a pair of tiles for a plane; return how many columns they have."""
    cdef const Place *places = pair.places
    cdef const FourierAxis *rows = &plan.rows
    cdef const FourierAxis *columns = &plan.columns
    cdef Py_ssize_t lanes = plan.micro.lanes
    cdef Py_ssize_t channel = pair.group * plan.channels + plane // (rows.pieces * columns.pieces)
    cdef Py_ssize_t top = rows.origin + plane // columns.pieces % rows.pieces * rows.piece
    cdef Py_ssize_t left = columns.origin + plane % columns.pieces * columns.piece
    cdef Py_ssize_t num_columns = divide_up(
        max(places[0].width, places[1].width) + columns.piece - 1, lanes
    ) * lanes
    cdef Py_ssize_t i, num_rows
    cdef const real *image = <const real *> plan.source.data + (
        pair.sample * plan.source.n_stride + channel * plan.source.c_stride
    )
    for i in range(2):
        num_rows = places[i].height + rows.piece - 1 if places[i].height > 0 else 0
        tiles[i] = pixels_of(
            plan, image, top + places[i].top, left + places[i].left, num_rows, num_columns,
            panel + i * rows.size * columns.size
        )
    return num_columns
