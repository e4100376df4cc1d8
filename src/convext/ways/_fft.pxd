# Convolution by Fourier transforms, as an entry of the list of ways.

from convext.ways._ways cimport Way

cdef Way fft_way() noexcept
