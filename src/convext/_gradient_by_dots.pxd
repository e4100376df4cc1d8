from convext._geometry cimport Array4, real
from convext._kernel_gradient cimport KernelGradient, Part
from convext._tile cimport Tile

# Elements of scratch memory that a thread needs for parts of `kernels` kernels.
cdef Py_ssize_t dots_scratch_size(
    const KernelGradient *gradient, Py_ssize_t kernels
) noexcept nogil

# Add a tile of images[image] to a part of the gradient. `output_grad` is where the output gradients
# of the part's first kernel start.
cdef void add_tile_by_dots(
    const KernelGradient *gradient, const Part *part, const Tile *tile, const Array4 *images,
    Py_ssize_t image, const real *output_grad, real *scratch
) noexcept nogil

# Add what lies in the layout of a tile to `sums`, the gradient of `kernels` kernels with `taps`
# taps in all (channels included), gradient.channels * gradient.tiling.taps entries apart.
#
# `rows` holds the kernels' output gradients, gradient.row_size elements apart, with zeros from the
# end of each row of the tile to the next; `pixels` and `offset` are from lay_out; `spare` is room
# for one more row.
cdef void add_dots(
    const KernelGradient *gradient, const Tile *tile, Py_ssize_t kernels, Py_ssize_t taps,
    const real *rows, const real *pixels, const Py_ssize_t *offset, real *spare, double *sums
) noexcept nogil
