# Winograd's kernel gradient, for 3x3 taps, one pixel apart:
#
#   gradient[k, c, i, j] = sum over n, y, x of
#       output_grad[n, k, y, x] * image[n, c, y + i - padding_top, x + j - padding_left]

from convext.ways._ways cimport Way
from convext.ways._winograd_plan cimport Squares, Winograd

cdef struct WinogradGradient:
    Winograd pixels                 # the tiles, under all channels of a group, or some, at once
    Winograd gradients              # the same tiles of output gradients
    Py_ssize_t groups
    Py_ssize_t group_units          # units of WINOGRAD_CHANNELS kernels in a group
    Py_ssize_t segments             # stretches of the blocks of tiles, which are summed apart
    Py_ssize_t kernel_parts         # a segment is shared out to tasks, of some units of kernels
    Py_ssize_t channel_parts        # and some blocks of channels each
    Py_ssize_t first_channel        # of those of a task
    Py_ssize_t channels             # of a group
    Py_ssize_t size                 # entries of the gradient
    Py_ssize_t sum_stride           # elements from one of the 36 values to the next
    bint in_one_go                  # all tiles make one block, whose sums are the result
    int num_threads
    bint is_checked                 # for "auto", whether pixels and output gradients are looked at
    Squares *pixel_squares          # [groups][blocks of channels][blocks of tiles]
    Squares *gradient_squares       # [groups][units][blocks of tiles]

cdef Way winograd_gradient_way() noexcept
