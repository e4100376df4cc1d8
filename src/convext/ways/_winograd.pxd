# Winograd's convolution, as an entry of the list of ways.

from convext.ways._ways cimport Way

cdef Way winograd_way() noexcept
