# How a kernel gradient is computed: by which vectors, and how it is cut into parts.

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4
from convext.ways._tile cimport Tiling

# Pixels that are summed in the arrays' own type before the sums are added in float64.
cdef enum:
    MAX_RUNNING_PIXELS = 2048

# Unfolding: the windows of all pixels of a tile, side by side. Each is copied in pieces, stretches
# of taps whose pixels lie one after the other. What is copied beyond a piece is overwritten by the
# next one.
cdef struct Unfolding:
    Py_ssize_t width            # elements from one window to the next, whole vectors
    Py_ssize_t num_pieces
    Py_ssize_t *place           # [block * taps] which tap each element of a window is
    Py_ssize_t *start           # [num_pieces + 1] where in a window each piece begins, and its end
    Py_ssize_t *packed          # [num_pieces] where it comes from in a packed tile,
    Py_ssize_t *in_place        # and in the source itself

# The gradient with respect to the kernels, prepared for images and output gradients of given sizes.
cdef struct KernelGradient:
    const Microkernels *micro
    size_t itemsize
    Tiling tiling
    Array4 images, output_grad      # sizes and strides; the data may differ from run to run
    Py_ssize_t groups
    Py_ssize_t channels, kernels    # of a group
    Py_ssize_t pixels               # output gradients of a kernel, over all samples
    Py_ssize_t kernel_chunks, channel_chunks    # of a group: a part is one of each
    Py_ssize_t segments             # stretches of the tiles of all samples, summed apart
    Py_ssize_t tasks                # segments of all parts
    Py_ssize_t size                 # entries of the gradient
    Py_ssize_t row_size             # elements of a row of output gradients in the scratch memory
    Py_ssize_t scratch_size         # elements of scratch memory for a thread while it runs
    double *sums                    # [segments][size], NULL where parts need no sums
    int num_threads
    bint by_kernels, by_channels    # else by dots
    bint unfolded                   # by channels, of which each tap counts as one
    Unfolding unfolding
    bint in_one_go                  # each part has a single running sum, which is the result
    bint in_place                   # and lies in the gradient from the beginning

# One part of it: some kernels and some channels of one group.
cdef struct Part:
    Py_ssize_t kernel, kernels      # first (of all) and how many
    Py_ssize_t channel, channels
    Py_ssize_t first                # where in the gradient the first kernel and channel are
    double *sums                    # and in this segment's sums

# Choose the vectors: of channels, of kernels, or dots. Cut the output gradients into tiles, the
# gradient into parts, and each into sums over segments of the tiles. The arrays' sizes and the axes
# of the tiling must be there. -1 when memory runs out.
cdef int plan_kernel_gradient(
    KernelGradient *gradient, Py_ssize_t num_samples, int num_threads
) noexcept nogil
