from convext.base._geometry cimport Array4, real
from convext.gradient._gradient_plan cimport KernelGradient, Part
from convext.ways._tile cimport Tile

# The scratch memory of a thread: the pixels of a tile, as lay_out has them; a row of output
# gradients, gradient.row_size elements, for each kernel; a spare one.
cdef struct DotsScratch:
    Py_ssize_t rows, spare, end     # where each begins

# For `kernels` kernels. Whoever adds dots gets the size and the places from here.
cdef DotsScratch arrange_dots(const KernelGradient *gradient, Py_ssize_t kernels) noexcept nogil

# Add a tile of images[image] to a part of the gradient. `output_grad` is where the output gradients
# of the part's first kernel start under the tile.
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
