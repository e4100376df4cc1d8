# How a kernel gradient is computed: by which vectors, and how it is cut into parts.

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4, Geometry
from convext.gradient._unfolding cimport Unfolding
from convext.ways._tile cimport Axis, Tiling

# Pixels that are summed in the arrays' own type before the sums are added in float64.
cdef enum:
    MAX_RUNNING_PIXELS = 2048

# The gradient with respect to the kernels, prepared for images and output gradients of given sizes.
cdef struct KernelGradient:
    const Microkernels *micro
    size_t itemsize
    Tiling tiling
    Array4 images, output_grad      # sizes and strides; the data may differ from run to run
    Py_ssize_t groups
    Py_ssize_t channels, kernels    # of a group
    Py_ssize_t kernel_chunks, channel_chunks    # of a group: a part is one of each
    Py_ssize_t segments             # stretches of the tiles of all samples, summed apart
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

# Choose the vectors: of channels, of kernels, or dots.
cdef void choose_strategy(
    KernelGradient *gradient, Py_ssize_t kernel_h, Py_ssize_t kernel_w, Py_ssize_t pixels,
    const Geometry *geometry
) noexcept nogil

# Cut the output gradients into tiles, and the channels into blocks. -1 when memory runs out.
cdef int cut_into_tiles(
    KernelGradient *gradient, const Axis *rows, const Axis *columns, Py_ssize_t pixels
) noexcept nogil

# Cut the gradient into parts, and each into sums over segments of the tiles.
cdef void cut_into_parts(KernelGradient *gradient, Py_ssize_t num_samples) noexcept nogil

# Multiply-adds of a gradient.
cdef double products_of(const KernelGradient *gradient, Py_ssize_t num_samples) noexcept nogil
