"""Unfolding the windows of a tile, for kernels whose channels are too few to fill a vector."""

from libc.stdlib cimport free, malloc

from convext.base._geometry cimport real
from convext.base._tasks cimport divide_up
from convext.ways._tile cimport Axis, Tile, Tiling


cdef int init_unfolding(Unfolding *unfolding, const Tiling *tiling, int lanes) noexcept nogil:
    cdef const Axis *columns = &tiling.columns
    cdef Py_ssize_t num_columns = columns.num_taps
    cdef Py_ssize_t size = tiling.block * tiling.taps
    cdef Py_ssize_t row, plane, i, tap, element = 0, length = 0
    # Whether the taps of a plane meet pixels that are neighbours there.
    cdef bint beside = columns.num_planes * columns.spacing == columns.stride
    unfolding.width = divide_up(size, lanes) * lanes
    unfolding.num_pieces = 0
    # One block of memory for the four arrays.
    unfolding.place = <Py_ssize_t *> malloc((4 * size + 1) * sizeof(Py_ssize_t))
    if unfolding.place == NULL:
        return -1
    unfolding.start = unfolding.place + size
    unfolding.packed = unfolding.start + size + 1
    unfolding.in_place = unfolding.packed + size
    for row in range(tiling.block * tiling.rows.num_taps):
        for plane in range(columns.num_planes):
            for i in range(divide_up(num_columns - plane, columns.num_planes)):
                tap = row * num_columns + plane + i * columns.num_planes
                if i == 0 or length == lanes or not beside:
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
