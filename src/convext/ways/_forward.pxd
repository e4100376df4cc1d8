from convext.ways._correlation cimport Correlation
from convext.base._geometry cimport Array4, Geometry

# Prepare the convolution of images like `images` with kernels like `kernels`, for `num_samples`
# samples at a time at most. -1 when memory runs out.
cdef int init_forward(
    Correlation *correlation, const Array4 *images, const Array4 *kernels, Py_ssize_t num_samples,
    const Geometry *geometry, Py_ssize_t out_h, Py_ssize_t out_w, int num_threads, size_t itemsize
) noexcept nogil

cdef void free_forward(Correlation *correlation) noexcept nogil
