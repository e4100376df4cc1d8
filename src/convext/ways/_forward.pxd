from convext.ways._correlation_plan cimport Correlation
from convext.base._geometry cimport Array4, Convolution, Geometry
from convext.base._interrupt cimport Interrupt
from convext.ways._ways cimport Needs

# Prepare the convolution of images like `images` with kernels like `kernels`, for `num_samples`
# samples at a time at most. -1 when memory runs out.
cdef int init_forward(
    Correlation *correlation, const Array4 *images, const Array4 *kernels, Py_ssize_t num_samples,
    const Geometry *geometry, Py_ssize_t out_h, Py_ssize_t out_w, int num_threads, size_t itemsize
) noexcept nogil

cdef void free_forward(Correlation *correlation) noexcept nogil

# Compute a Convolution, its kernels used once; or with packed ones from `kept`, or left there.
cdef int convolve_directly(const void *described, Interrupt *interrupt) noexcept nogil
cdef int convolve_with_kept(const Convolution *convolution, dict kept) except -1

# Leave in `kept` what that reads; say what it needs.
cdef int keep_directly(const Convolution *convolution, dict kept) except -1
cdef int measure_directly(const Convolution *convolution, Needs *needs) except -1
