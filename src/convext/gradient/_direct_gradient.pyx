"""The direct way of computing the gradient with respect to the kernels."""

from convext.base._geometry cimport Convolution
from convext.base._interrupt cimport Interrupt, check_memory, perform
from convext.gradient._gradient_plan cimport KernelGradient
from convext.gradient._kernel_gradient cimport (
    free_kernel_gradient, init_kernel_gradient, run_kernel_gradient
)
from convext.ways._ways cimport Needs, Way, direct_products, time_of_results


cdef const char *objection(const Convolution *convolution) noexcept nogil:
    return NULL


cdef double time(const Convolution *convolution, void *plan) noexcept nogil:
    return direct_products(convolution) + time_of_results(convolution)


cdef int init_whole(KernelGradient *gradient, const Convolution *convolution) noexcept nogil:
    """Prepare for all samples at a time."""
    return init_kernel_gradient(
        gradient, &convolution.images, &convolution.outputs, convolution.images.n,
        convolution.kernels.h, convolution.kernels.w, &convolution.geometry,
        convolution.num_threads, convolution.itemsize
    )


cdef int differentiate_directly(const void *described, Interrupt *interrupt) noexcept nogil:
    """Compute the gradient of a Convolution."""
    cdef const Convolution *convolution = <const Convolution *> described
    cdef KernelGradient gradient
    cdef int status
    if init_whole(&gradient, convolution) == -1:
        return -1
    status = run_kernel_gradient(
        &gradient, convolution.images.data, NULL, convolution.images.n, convolution.outputs.data,
        convolution.kernels.data, interrupt
    )
    free_kernel_gradient(&gradient)
    return status


cdef bint run(const Convolution *convolution, void *plan, dict kept) except -1:
    perform("a kernel gradient", differentiate_directly, convolution)
    return True


cdef bint measure(const Convolution *convolution, void *plan, Needs *needs) except -1:
    cdef KernelGradient gradient
    check_memory(init_whole(&gradient, convolution), "a kernel gradient")
    needs.num_threads = gradient.num_threads
    needs.of_thread = gradient.scratch_size * <Py_ssize_t> convolution.itemsize
    needs.shared = 0
    if gradient.sums != NULL:
        needs.shared = gradient.segments * gradient.size * <Py_ssize_t> sizeof(double)
    free_kernel_gradient(&gradient)
    return True


cdef Way direct_gradient_way() noexcept:
    return Way("direct", objection, time, NULL, NULL, run, NULL, measure)
