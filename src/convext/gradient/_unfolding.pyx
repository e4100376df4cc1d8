"""Unfolding the windows of a tile, for kernels whose channels are too few to fill a vector."""

from libc.stdlib cimport free, malloc

from convext.base._geometry cimport real
from convext.base._tasks cimport divide_up
from convext.ways._tile cimport Axis, Tile, Tiling


cdef bint follows(const Axis *columns, Py_ssize_t tap, Py_ssize_t next_tap) noexcept nogil:
    """Whether the pixels of a tap are the right-hand neighbours of those of another."""
    return (
        columns.plane[next_tap] == columns.plane[tap]
        and columns.shift[next_tap] == columns.shift[tap] + 1
    )


cdef void order_columns(const Axis *columns, Py_ssize_t *order) noexcept nogil:
    """Order the taps of a row so that neighbours follow each other."""
    cdef Py_ssize_t count = 0, first, tap, t
    cdef bint is_first, found
    for first in range(columns.num_taps):
        is_first = True
        for t in range(columns.num_taps):
            is_first = is_first and not follows(columns, t, first)
        if not is_first:
            continue
        tap = first
        found = True
        while found:
            order[count] = tap
            count += 1
            found = False
            for t in range(columns.num_taps):
                if not found and follows(columns, tap, t):
                    tap = t
                    found = True


cdef int init_unfolding(Unfolding *unfolding, const Tiling *tiling, int lanes) noexcept nogil:
    cdef const Axis *columns = &tiling.columns
    cdef Py_ssize_t num_columns = columns.num_taps
    cdef Py_ssize_t size = tiling.block * tiling.taps
    cdef Py_ssize_t row, j, tap, element = 0, length = 0
    cdef Py_ssize_t *order
    unfolding.width = divide_up(size, lanes) * lanes
    unfolding.num_pieces = 0
    # One block of memory for the four arrays and the order of a row's taps.
    unfolding.place = <Py_ssize_t *> malloc((4 * size + 1 + num_columns) * sizeof(Py_ssize_t))
    if unfolding.place == NULL:
        return -1
    unfolding.start = unfolding.place + size
    unfolding.packed = unfolding.start + size + 1
    unfolding.in_place = unfolding.packed + size
    order = unfolding.in_place + size
    order_columns(columns, order)
    for row in range(tiling.block * tiling.rows.num_taps):
        for j in range(num_columns):
            tap = row * num_columns + order[j]
            if j == 0 or length == lanes or not follows(columns, order[j - 1], order[j]):
                unfolding.start[unfolding.num_pieces] = element
                unfolding.packed[unfolding.num_pieces] = tiling.offset_packed[tap]
                unfolding.in_place[unfolding.num_pieces] = tiling.offset_in_place[tap]
                unfolding.num_pieces += 1
                length = 0
            unfolding.place[element] = tap
            element += 1
            length += 1
    unfolding.start[unfolding.num_pieces] = size
    return 0


cdef void free_unfolding(Unfolding *unfolding) noexcept nogil:
    free(unfolding.place)


cdef void unfold(
    const Unfolding *unfolding, const Tiling *tiling, const Tile *tile, const real *pixels,
    const Py_ssize_t *offset, real *to
) noexcept nogil:
    cdef const Py_ssize_t *source = (
        unfolding.packed if offset == tiling.offset_packed else unfolding.in_place
    )
    for _ in range(tile.height):
        tiling.micro.unfold(
            tile.width, unfolding.num_pieces, pixels, source, to, unfolding.start, unfolding.width
        )
        pixels += tiling.pitch
        to += tile.width * unfolding.width
