# Winograd's convolution: a correlation with 3x3 taps, one pixel apart, in tiles of 4x4 results, or
# with 5x5 taps in tiles of 2x2. Other kernels are cut into parts of 3x3 taps: each meets the
# channels shifted, as if these were channels of their own. With a stride of two, the even and odd
# rows and columns of the source are four images, or phases, each of which meets its own taps, in
# tiles of 4x4 results: 3x3 taps are 2x2, 2x1, 1x2 and 1x1 ones. For the input gradient, these are
# phases of the output.
#
#   out[n, k, y, x] = bias[k] + sum over c, i, j of
#       taps[k, c, i, j] * source[n, c, stride * (top + y) + i, stride * (left + x) + j]
#
# where the source is zero outside. The taps are the kernels' own or, for the input gradient, turned
# around, with kernels and channels in each other's place.
#
# Kernels are transformed in units of `width` kernels, whose memory does not depend on the images:
# it can be filled once and used many times.


from convext.base._dispatch cimport POINTS, WINOGRAD_CHANNELS, Microkernels
from convext.base._geometry cimport Array4, Convolution, Weights
from convext.base._tasks cimport divide_up
from convext.ways._bands cimport Bands

cdef enum:
    # Taps of a part of a kernel along an axis, and of the largest kernels that are cut into parts.
    PART = 3
    MAX_TAPS = 9

    # Tiles of a block, at least, since kernels are fetched for each.
    MIN_TILES = 14

# The squares of some channels: of all their pixels, of those that meet all taps, and at the pixel
# that has most.
cdef struct Squares:
    double total, inside, most

cdef struct Winograd:
    const Microkernels *micro
    size_t itemsize
    const Convolution *convolution  # whose bias is added, and whose results are written
    Weights weights                 # what is transformed
    Array4 source                   # of a kernel gradient: images, or output gradients
    Py_ssize_t groups
    Py_ssize_t source_channels      # of a group,
    Py_ssize_t channels             # and as many for each part of a kernel
    Py_ssize_t parts_down, parts_across
    Py_ssize_t products             # of the direct way, for one result
    Py_ssize_t kernels              # of a group
    Py_ssize_t out_h, out_w         # of the first phase
    Py_ssize_t source_stride        # of the convolution; 1 for the input gradient,
    Py_ssize_t result_stride        # of which this is the stride, else 1
    Py_ssize_t top, left            # where the first result of the tile grid meets the source
    Py_ssize_t first_row, first_column      # the tap of the first phase that would meet it there
    bint swapped                    # for the input gradient
    Py_ssize_t taps                 # of a kernel, or a part of it, along an axis
    Py_ssize_t result_h, result_w   # the whole output, of all phases
    Bands *bands                    # for "auto", where tiles that are not safe are noted; or NULL
    Squares *squares                # for the kernel gradient, of a block of strips: or NULL
    Py_ssize_t all_blocks           # of channels, of a group
    Py_ssize_t[4] inside            # what meets all taps, in the tile grid: rows and columns
    Py_ssize_t tile                 # results of a tile and phase along an axis
    Py_ssize_t points               # values of a tile along an axis, of all phases
    Py_ssize_t kernel_points        # of a kernel, likewise

    Py_ssize_t tiles_down
    Py_ssize_t strips_across        # of a row of tiles
    Py_ssize_t strip_tiles          # tiles of a strip
    Py_ssize_t short_strips         # the last strips of a sample have tiles of a row less
    Py_ssize_t narrow_tiles         # the last tiles of a strip have a column less
    Py_ssize_t num_strips           # of all samples: by sample, place across, place down
    Py_ssize_t num_blocks           # of strips, which are computed together
    Py_ssize_t block_strips         # strips of a block, at most

    Py_ssize_t channel_blocks       # of WINOGRAD_CHANNELS channels
    Py_ssize_t width                # kernels of a unit
    Py_ssize_t group_units          # units of a group
    Py_ssize_t piece_stride         # elements from a value to the next: of kernels
    Py_ssize_t piece_size           # transformed kernels of a unit for a block of channels
    Py_ssize_t value_stride         # of pixels
    Py_ssize_t value_size           # transformed pixels of a block of channels
    Py_ssize_t sum_stride           # of sums
    Py_ssize_t panel_strips         # laid out together, one below the other
    Py_ssize_t squares_pitch        # elements of a row of squares
    int num_threads

# What a way is asked for, see Way.
cdef const char *objection(const Convolution *convolution) noexcept nogil
cdef bint settles(const Convolution *convolution) noexcept nogil
cdef double time(const Convolution *convolution, void *plan) noexcept nogil

# What `time` has begun.
cdef void finish_plan(Winograd *plan, const Convolution *convolution) noexcept nogil

# Cut the output into strips of a row of tiles, and these into blocks of at most `most` tiles. Of
# a plan, its source, channels, strides, `top`, `left`, `taps`, `tile`, `points` and the output's
# size must be set.
cdef void cut_into_blocks(Winograd *plan, Py_ssize_t most) noexcept nogil


cdef inline Py_ssize_t num_parts(const Winograd *plan) noexcept nogil:
    """How many parts a kernel is cut into."""
    return plan.parts_down * plan.parts_across


cdef inline Py_ssize_t stride_of(const Winograd *plan) noexcept nogil:
    """The stride of the convolution."""
    return plan.source_stride * plan.result_stride


cdef inline Py_ssize_t num_phases(const Winograd *plan) noexcept nogil:
    return stride_of(plan) * stride_of(plan)


cdef inline Py_ssize_t num_result_phases(const Winograd *plan) noexcept nogil:
    return plan.result_stride * plan.result_stride


cdef inline Py_ssize_t points_of(const Winograd *plan, Py_ssize_t taps) noexcept nogil:
    """Values of a tile of a phase along an axis."""
    return taps + plan.tile - 1


cdef inline Py_ssize_t kernel_points_of(const Winograd *plan, Py_ssize_t taps) noexcept nogil:
    """Values of a kernel along an axis of a phase: one tap has the same at all points."""
    return 1 if taps == 1 else points_of(plan, taps)


cdef inline Py_ssize_t overlap(const Winograd *plan) noexcept nogil:
    """So many pixels of a tile along an axis are the next tile's, too."""
    return divide_up(plan.taps, stride_of(plan)) - 1


cdef inline Py_ssize_t num_units(const Winograd *plan) noexcept nogil:
    return plan.groups * plan.group_units


cdef inline Py_ssize_t unit_size(const Winograd *plan) noexcept nogil:
    """Elements of the transformed kernels of a unit."""
    return plan.channel_blocks * plan.piece_size


cdef inline Py_ssize_t kernels_of(const Winograd *plan, Py_ssize_t unit) noexcept nogil:
    return min(plan.width, plan.kernels - unit % plan.group_units * plan.width)


cdef inline Py_ssize_t channels_of(const Winograd *plan, Py_ssize_t channel_block) noexcept nogil:
    return min(WINOGRAD_CHANNELS, plan.channels - channel_block * WINOGRAD_CHANNELS)


cdef inline Py_ssize_t panel_columns(const Winograd *plan) noexcept nogil:
    return (plan.strip_tiles * plan.tile + overlap(plan)) * plan.source_stride


cdef inline Py_ssize_t panel_rows(const Winograd *plan, Py_ssize_t strips) noexcept nogil:
    return (strips * plan.tile + overlap(plan)) * plan.source_stride


cdef inline Py_ssize_t result_rows(const Winograd *plan) noexcept nogil:
    """Rows of the output under a strip."""
    return plan.tile * plan.result_stride


cdef inline Py_ssize_t result_columns(const Winograd *plan) noexcept nogil:
    return plan.strip_tiles * plan.tile * plan.result_stride


cdef inline Py_ssize_t squares_rows(const Winograd *plan) noexcept nogil:
    """Rows of pixels under a panel, those that other parts of the kernels meet included."""
    return panel_rows(plan, plan.panel_strips) + (plan.parts_down - 1) * PART


cdef inline Py_ssize_t squares_columns(const Winograd *plan) noexcept nogil:
    return panel_columns(plan) + (plan.parts_across - 1) * PART


cdef inline Py_ssize_t squares_size(const Winograd *plan) noexcept nogil:
    """Elements of squares, and of scratch memory: windows, and the rows of a phase."""
    return plan.squares_pitch * (squares_rows(plan) + 3 + POINTS)
