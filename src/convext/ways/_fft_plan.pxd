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


from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4, Convolution, Weights
from convext.ways._bands cimport Bands

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

# The scratch memory of a thread.
cdef struct Scratch:
    Py_ssize_t strip        # a strip of a tile
    Py_ssize_t panel        # pixels of two tiles, where they cannot be read from the image; results
    Py_ssize_t values       # [batch][block] transformed pixels
    Py_ssize_t sums         # [batch] of products
    Py_ssize_t squares      # [2][rows of cells][columns]
    Py_ssize_t size

cdef struct Fourier:
    const Microkernels *micro
    const void *twiddles
    size_t itemsize
    const Convolution *convolution
    Array4 source
    Weights weights
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
    Scratch layout
    double time                     # in multiplications of the direct way
    int num_threads
    Bands *bands                    # for "auto", where tiles that are not safe are noted; or NULL
    char *unfit                     # set where kernels are not finite, or too large

# What a way is asked for, see Way.
cdef const char *objection(const Convolution *convolution) noexcept nogil
cdef bint settles(const Convolution *convolution) noexcept nogil
cdef double time(const Convolution *convolution, void *plan) noexcept nogil

# What `time` has begun.
cdef void finish_plan(Fourier *plan, const Convolution *convolution) noexcept nogil


cdef inline Py_ssize_t num_units(const Fourier *plan) noexcept nogil:
    """A unit is a kernel: of all groups."""
    return plan.groups * plan.kernels


cdef inline bint in_pieces(const Fourier *plan) noexcept nogil:
    """Whether planes are pieces of kernels: each is judged for itself."""
    return plan.rows.pieces * plan.columns.pieces > 1


cdef inline Py_ssize_t num_batches(const Fourier *plan) noexcept nogil:
    """Whole batches of pairs, and each pair of the rest."""
    return plan.pairs // plan.batch + plan.pairs % plan.batch


# Where the results of a tile lie.
cdef struct Place:
    Py_ssize_t top, left, height, width

cdef struct Pair:
    Py_ssize_t sample, group, index
    Place[2] places


cdef inline Pair pair_of(
    const Fourier *plan, Py_ssize_t sample, Py_ssize_t group, Py_ssize_t index
) noexcept nogil:
    """A pair of tiles; the missing one of the last pair has no height."""
    cdef Pair pair = Pair(sample, group, index)
    cdef Place *place
    cdef Py_ssize_t i, tile
    for i in range(2):
        tile = 2 * index + i
        place = &pair.places[i]
        place.top = tile // plan.columns.tiles * plan.rows.results
        place.left = tile % plan.columns.tiles * plan.columns.results
        place.height = max(<Py_ssize_t> 0, min(plan.rows.results, plan.rows.out - place.top))
        place.width = min(plan.columns.results, plan.columns.out - place.left)
        if place.height == 0:
            place.width = 0
    return pair
