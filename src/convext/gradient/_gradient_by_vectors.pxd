from convext.base._geometry cimport Array4, real
from convext.gradient._gradient_plan cimport KernelGradient, Part
from convext.ways._tile cimport Tile

# Elements of scratch memory that a thread needs for parts of `kernels` kernels.
cdef Py_ssize_t vectors_scratch_size(
    const KernelGradient *gradient, Py_ssize_t kernels
) noexcept nogil

# Add a tile of images[image] to the running sums of a part, beginning them anew where `first`.
# `output_grad` is where the output gradients of the part's first kernel start under the tile. The
# sums are made in the gradient itself, where that can be.
cdef void add_tile_by_vectors(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, const real *output_grad, bint first, real *scratch, real *kernel_grad
) noexcept nogil

# Add the running sums of a part to part.sums, which begin anew where `fresh`, or round them to the
# gradient itself, unless they are there.
cdef void flush_sums(
    const KernelGradient *gradient, const Part *part, bint fresh, real *scratch
) noexcept nogil
cdef void store_sums(
    const KernelGradient *gradient, const Part *part, const real *scratch, real *kernel_grad
) noexcept nogil
