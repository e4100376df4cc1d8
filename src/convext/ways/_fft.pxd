# Convolution by the fast Fourier transform: a correlation in tiles of rows x columns pixels, of
# which the kernel's extent, less one, is lost along each axis (overlap-save),
#
#   out[n, k, y, x] = bias[k] + sum over c, i, j of
#       taps[k, c, i, j] * spread[n, c, top + y * step + i * dilation, left + ...]
#
# where `spread` is the source, its pixels some distance apart, and zero everywhere else. For the
# input gradient kernels and channels change places, and the taps are turned around.
#
# Kernels that are too large for a tile are cut into pieces. A piece of a channel, with the pixels
# that it meets, is one of the `planes` that are summed up.

from convext.ways._bands cimport Bands
from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4
from convext.ways._ways cimport Way

# One axis of a convolution, and how it is cut.
cdef struct FourierAxis:
    Py_ssize_t taps, dilation
    Py_ssize_t extent           # pixels under the taps
    Py_ssize_t pieces           # of the kernel,
    Py_ssize_t piece            # pixels under each
    Py_ssize_t origin           # where the first tap of the first result meets the source
    Py_ssize_t spread           # from one pixel of the source to the next
    Py_ssize_t cell             # half of the pixels of the source under a window
    Py_ssize_t step             # from one result that is wanted to the next
    Py_ssize_t out              # results, also those between
    Py_ssize_t size             # pixels of a tile,
    Py_ssize_t results          # results of a tile
    Py_ssize_t tiles

cdef struct Fourier:
    const Microkernels *micro
    const void *twiddles
    size_t itemsize
    Array4 source                   # sizes and strides; the data may differ from run to run
    FourierAxis rows, columns
    Py_ssize_t groups
    Py_ssize_t channels             # of a group
    Py_ssize_t kernels              # of a group
    bint swapped                    # for the input gradient
    Py_ssize_t planes               # to be summed up for a result,
    Py_ssize_t block                # planes at a time
    Py_ssize_t pairs                # of tiles,
    Py_ssize_t batch                # which meet a kernel together: 1, 2 or 4
    Py_ssize_t value_size           # elements of a transformed plane
    Py_ssize_t squares_size         # and of the squares of a tile, a row for each row of cells
    double time                     # in multiplications of the direct way
    int num_threads
    Bands *bands                    # for "auto", where tiles that are not safe are noted; or NULL
    char *unfit                     # set where kernels are not finite, or too large

cdef Way fft_way() noexcept
