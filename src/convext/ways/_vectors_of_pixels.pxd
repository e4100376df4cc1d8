# Vectors of pixels: how a tile of a correlation is computed where rows are wide or kernels few.

from convext.ways._correlation_plan cimport Correlation
from convext.base._geometry cimport Array4, real
from convext.ways._tile cimport Tile

# Elements of scratch memory that a thread needs beside the pixels.
cdef Py_ssize_t pixels_scratch_size(const Correlation *correlation) noexcept nogil

# The pixels of a tile, in runs of whole vectors, or rows that slide.
cdef struct Runs:
    Py_ssize_t count, num_pixels
    Py_ssize_t pixel_step, sum_step     # from one run to the next
    Py_ssize_t row_size                 # from the sums of a kernel to the next one's
    bint in_place                       # the sums are made in the output: nothing is left to finish

# All in one run, the sums of kernels `row_size` elements apart in the scratch memory.
cdef Runs one_run(const Tile *tile, Py_ssize_t row_size) noexcept nogil

# In the output, where that can be.
cdef Runs runs_of_tile(
    const Correlation *correlation, const Tile *tile, const real *bias, const Array4 *out
) noexcept nogil

# Add what `channels` channels, from `channel` on in their group, contribute to the sums of a tile
# for some blocks of kernels: `pixels` and `offset` from lay_out; the weights, where they are packed
# here, in the scratch memory. Channel 0 begins the sums.
cdef void sum_vectors_of_pixels(
    const Correlation *correlation, const Runs *runs, Py_ssize_t group, Py_ssize_t first_block,
    Py_ssize_t last_block, Py_ssize_t channel, Py_ssize_t channels, const real *pixels,
    const Py_ssize_t *offset, real *weights, real *sums
) noexcept nogil

# The same for a single kernel, on several rows of the tile at once, where correlation.slide.
cdef void slide_vectors_of_pixels(
    const Correlation *correlation, const Runs *runs, Py_ssize_t group, Py_ssize_t channel,
    Py_ssize_t channels, const real *pixels, const Py_ssize_t *offset, real *weights, real *sums
) noexcept nogil

# Write the sums, plus the bias, to the output.
cdef void finish_vectors_of_pixels(
    const Correlation *correlation, const Tile *tile, Py_ssize_t group, Py_ssize_t first_block,
    Py_ssize_t last_block, real *sums, const real *bias, const Array4 *out, Py_ssize_t out_sample
) noexcept nogil

# Copy `kernels` rows of results, row_size apart, with `pitch` pixels to a row of the tile, to the
# output, from kernel `kernel` of all on.
cdef void store_tile(
    const Correlation *correlation, const Tile *tile, Py_ssize_t pitch, const real *results,
    Py_ssize_t kernel, Py_ssize_t kernels, const real *bias, const Array4 *out,
    Py_ssize_t out_sample
) noexcept nogil
