# Vectors of kernels: how a tile of a correlation is computed where there are many kernels.

from convext.ways._correlation_plan cimport Correlation
from convext.base._geometry cimport Array4, real
from convext.ways._tile cimport Tile

# Elements of scratch memory that a thread needs beside the pixels.
cdef Py_ssize_t kernels_scratch_size(const Correlation *correlation) noexcept nogil

# Add what `channels` channels, from `channel` on in their group, contribute to the sums of a tile
# for some blocks of kernels: `pixels` and `offset` from lay_out; the weights, where they are packed
# here, and the sums in the scratch memory.
# Channel 0 begins the sums.
cdef void sum_vectors_of_kernels(
    const Correlation *correlation, const Tile *tile, Py_ssize_t group, Py_ssize_t first_block,
    Py_ssize_t last_block, Py_ssize_t channel, Py_ssize_t channels, const real *pixels,
    const Py_ssize_t *offset, real *weights, real *sums
) noexcept nogil

# Write the sums, plus the bias, to the output.
cdef void finish_vectors_of_kernels(
    const Correlation *correlation, const Tile *tile, Py_ssize_t group, Py_ssize_t first_block,
    Py_ssize_t last_block, real *sums, const real *bias, const Array4 *out, Py_ssize_t out_sample
) noexcept nogil
