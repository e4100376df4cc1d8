# How a correlation is computed: what it is of, how it is cut, and where its weights are.

from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4, Weights
from convext.ways._tile cimport Tiling

cdef struct Correlation:
    const Microkernels *micro
    size_t itemsize
    Tiling tiling
    Array4 source               # sizes and strides; the data may differ from run to run
    Py_ssize_t groups
    Py_ssize_t channels         # of a group
    Py_ssize_t kernels          # of a group
    bint by_kernels             # vectors hold kernels, else pixels
    int slide                   # one kernel on several rows: its taps go down (1) or up (-1); or 0
    Py_ssize_t num_blocks       # of the kernels of a group, which are computed together
    Py_ssize_t width            # packed weights of a tap of a block
    Py_ssize_t num_chunks       # of these blocks: a task computes one chunk
    Py_ssize_t tasks_per_sample
    Py_ssize_t results_pitch    # vectors of pixels: from one row of a tile's results to the next
    Py_ssize_t row_size         # elements of a kernel's results in the scratch memory
    Py_ssize_t scratch_size     # elements of scratch memory for a thread while it runs
    Weights weights             # as they were given, and
    void *packed                # packed, see pack_weights; NULL: each block is when it is needed
    Py_ssize_t *weight_offset   # [tiling.block * taps] in a block of packed weights
    int num_threads

# Kernels of a group that one task computes: some blocks of them.
cdef struct Chunk:
    Py_ssize_t group, first_block, last_block
    Py_ssize_t kernel, kernels  # the first, counted through all groups, and how many


# The first kernel, within its group, of a block.
cdef inline Py_ssize_t first_kernel(
    const Correlation *correlation, Py_ssize_t block
) noexcept nogil:
    return min(block * correlation.width, correlation.kernels)


# The most blocks of kernels that one task computes.
cdef inline Py_ssize_t blocks_of_chunk(const Correlation *correlation) noexcept nogil:
    return (correlation.num_blocks + correlation.num_chunks - 1) // correlation.num_chunks


cdef inline Chunk chunk_of(
    const Correlation *correlation, Py_ssize_t group, Py_ssize_t first_block, Py_ssize_t last_block
) noexcept nogil:
    cdef Py_ssize_t first = first_kernel(correlation, first_block)
    return Chunk(
        group, first_block, last_block, group * correlation.kernels + first,
        first_kernel(correlation, last_block) - first
    )


# Elements of all packed weights. Their order depends on the kernels and `width` alone.
cdef inline Py_ssize_t all_weights(const Correlation *correlation) noexcept nogil:
    return (
        correlation.groups * correlation.num_blocks * correlation.channels
        * correlation.tiling.taps * correlation.width
    )
