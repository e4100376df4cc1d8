# Convolution with separable kernels, u[i] * v[j], of one channel each: down the columns with u,
# then along the rows with v.

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4
from convext.ways._ways cimport Way

cdef struct Separable:
    const Microkernels *micro
    size_t itemsize
    Array4 source                   # sizes and strides; the data may differ from run to run
    Py_ssize_t kernels              # in all
    Py_ssize_t group_kernels        # of a group, which is a channel
    Py_ssize_t taps_h, taps_w
    Py_ssize_t top, left            # where the first tap of the first result meets the source
    Py_ssize_t out_h, out_w
    Py_ssize_t tile_h, tile_w     # results of a tile
    Py_ssize_t tiles_down, tiles_across
    int num_threads

cdef Way separable_way() noexcept
