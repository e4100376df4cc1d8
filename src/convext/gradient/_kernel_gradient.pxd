from convext.base._geometry cimport Array4, Geometry
from convext.base._interrupt cimport Interrupt
from convext.gradient._gradient_plan cimport KernelGradient
from convext.ways._ways cimport Way

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

# The way of the list that computes gradients so, all samples at a time.
cdef Way direct_gradient_way() noexcept
