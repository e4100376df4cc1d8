# The direct way: sums as they are defined.

from convext.base._geometry cimport Convolution
from convext.ways._bands cimport Bands
from convext.ways._ways cimport Way

cdef Way direct_way() noexcept

# Compute the rows that a transform is not safe for.
cdef int compute_bands(const Convolution *convolution, const Bands *bands) except -1
