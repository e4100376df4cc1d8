# Unfolding: the windows of all pixels of a tile, side by side.
#
# Each window is copied in pieces, stretches of taps whose pixels lie one after the other. What is
# copied beyond a piece is overwritten by the next one.

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport real
from convext.ways._tile cimport Tile, Tiling

cdef struct Unfolding:
    Py_ssize_t width            # elements from one window to the next, whole vectors
    Py_ssize_t num_pieces
    Py_ssize_t *place           # [block * taps] which tap each element of a window is
    Py_ssize_t *start           # [num_pieces + 1] where in a window each piece begins, and its end
    Py_ssize_t *packed          # [num_pieces] where it comes from in a packed tile,
    Py_ssize_t *in_place        # and in the source itself

# Prepare to unfold all channels of a tiling. -1 when memory runs out.
cdef int init_unfolding(Unfolding *unfolding, const Tiling *tiling, int lanes) noexcept nogil

cdef void free_unfolding(Unfolding *unfolding) noexcept nogil

# Write the window of each pixel of a tile, `pixels` and `offset` from lay_out, to
# to[pixel * width ...]. There must be room for one vector more.
cdef void unfold(
    const Unfolding *unfolding, const Tiling *tiling, const Tile *tile, const real *pixels,
    const Py_ssize_t *offset, real *to
) noexcept nogil
