# Convolution with separable kernels, u[i] * v[j], of one channel each: down the columns with u,
# then along the rows with v.

from convext.base._dispatch cimport CHAIN, Microkernels
from convext.base._geometry cimport Array4, Convolution, Windows
from convext.ways._ways cimport Way

cdef struct Separable:
    const Convolution *convolution
    const Microkernels *micro
    const Array4 *source
    const Array4 *out
    Windows windows
    Py_ssize_t tile_h, tile_w       # results of a tile
    Py_ssize_t tiles_down, tiles_across
    int num_threads
    const void *factors             # of each kernel: u and v
    Py_ssize_t[CHAIN] column        # where in a row its taps are

cdef Way separable_way() noexcept
