from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4, Geometry, real
from convext.base._interrupt cimport Interrupt
from convext.ways._tile cimport Tiling
from convext.gradient._unfolding cimport Unfolding

# The gradient with respect to the kernels, prepared for images and output gradients of given sizes.
cdef struct KernelGradient:
    const Microkernels *micro
    size_t itemsize
    Tiling tiling
    Array4 images, output_grad      # sizes and strides; the data may differ from run to run
    Py_ssize_t groups
    Py_ssize_t channels, kernels    # of a group
    Py_ssize_t kernel_chunks, channel_chunks    # the gradient is computed in so many parts
    Py_ssize_t segments             # each over so many stretches of the tiles of all samples
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

# Prepare gradients over `num_samples` samples at a time at most. -1 when memory runs out.
cdef int init_kernel_gradient(
    KernelGradient *gradient, const Array4 *images, const Array4 *output_grad,
    Py_ssize_t num_samples, Py_ssize_t kernel_h, Py_ssize_t kernel_w, const Geometry *geometry,
    int num_threads, size_t itemsize
) noexcept nogil

cdef void free_kernel_gradient(KernelGradient *gradient) noexcept nogil

# Write the gradient over the samples images[order[0]] with output_grad[0], and so on (`order` NULL:
# 0, 1, ...), to kernel_grad[0 .. size), in the order (K, C/groups, kh, kw). -1: no memory.
cdef int run_kernel_gradient(
    const KernelGradient *gradient, const void *images, const Py_ssize_t *order,
    Py_ssize_t num_samples, const void *output_grad, void *kernel_grad, Interrupt *interrupt
) noexcept nogil
