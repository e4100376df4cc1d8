# Winograd's kernel gradient, as an entry of the list of ways.

from convext.ways._ways cimport Way

cdef Way winograd_gradient_way() noexcept
