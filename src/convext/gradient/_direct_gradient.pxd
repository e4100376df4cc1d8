from convext.ways._ways cimport Way

# The gradient with respect to the kernels as it is defined.
cdef Way direct_gradient_way() noexcept
