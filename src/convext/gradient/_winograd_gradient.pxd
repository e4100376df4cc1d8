# Winograd's kernel gradient, for 3x3 taps, one pixel apart:
#
#   gradient[k, c, i, j] = sum over n, y, x of
#       output_grad[n, k, y, x] * image[n, c, y + i - padding_top, x + j - padding_left]

from convext.base._geometry cimport Array4, Geometry
from convext.ways._winograd cimport Squares, Winograd

cdef struct WinogradGradient:
    Winograd pixels                 # the tiles, under all channels of a group, or some, at once
    Winograd gradients              # the same tiles of output gradients
    Py_ssize_t groups
    Py_ssize_t group_units          # units of WINOGRAD_CHANNELS kernels in a group
    Py_ssize_t segments             # the blocks of tiles are summed in so many stretches
    Py_ssize_t kernel_parts         # a segment is shared out to tasks, of some units of kernels
    Py_ssize_t channel_parts        # and some blocks of channels each
    Py_ssize_t first_channel        # of those of a task
    Py_ssize_t channels             # of a group
    Py_ssize_t size                 # entries of the gradient
    Py_ssize_t sum_stride           # elements from one of the 36 values to the next
    bint in_one_go                  # all tiles make one block, whose sums are the result
    int num_threads
    bint is_checked                 # for AUTO, whether pixels and output gradients are looked at
    Squares *pixel_squares          # [groups][blocks of channels][blocks of tiles]
    Squares *gradient_squares       # [groups][units][blocks of tiles]

# Plan the gradient. False, with nothing planned, where the direct way is to be taken: asked for by
# `algorithm`, which applies, or, for AUTO, because that takes less time, by the sizes alone.
cdef bint plan_kernel_gradient(
    WinogradGradient *plan, const Array4 *images, const Array4 *output_grad,
    const Geometry *geometry, Py_ssize_t kernel_h, Py_ssize_t kernel_w, int algorithm,
    int num_threads, size_t itemsize
) noexcept nogil

# Write the gradient to kernel_grad[0 .. size), in the order (K, C/groups, 3, 3). 0 where that is
# not safe for these arrays, so that it must be computed directly.
cdef int differentiate_by_winograd(WinogradGradient *plan, void *kernel_grad) except -1
