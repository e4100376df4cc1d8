# The weights of a correlation, in the order in which the micro-kernels read them.

from convext.base._geometry cimport real
from convext.base._interrupt cimport Interrupt
from convext.ways._correlation_plan cimport Correlation

# Pack all weights of a correlation for the micro-kernels, to `packed` there, in the order group,
# block of kernels, channel, tap, kernel within the block.
cdef int pack_weights(const void *correlation, Interrupt *interrupt) noexcept nogil

# The packed weights of some channels of a block of a group, which may be packed into `scratch`.
cdef const real *weights_of_block(
    const Correlation *correlation, Py_ssize_t group, Py_ssize_t block, Py_ssize_t channel,
    Py_ssize_t channels, real *scratch
) noexcept nogil
