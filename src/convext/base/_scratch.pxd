# Aligned memory for the compiled loops.

from convext.base._machine cimport LINE_BYTES

# Room for `count` elements of `itemsize` bytes, on a cache line; NULL when there is none. Any
# thread may ask for it, and any may give it back.
cdef void *aligned_alloc(Py_ssize_t count, size_t itemsize) noexcept nogil
cdef void aligned_free(void *memory) noexcept nogil

# `bytes` bytes from a cache line on, as an array of uint8: who reads them holds the array.
cdef object aligned_array(Py_ssize_t bytes)

# Where its bytes are.
cdef void *data_of(object array) noexcept


# `count`, rounded up to whole cache lines.
cdef inline Py_ssize_t aligned_size(Py_ssize_t count, size_t itemsize) noexcept nogil:
    cdef Py_ssize_t line = LINE_BYTES // <Py_ssize_t> itemsize
    return (count + line - 1) // line * line


# The same, and an odd number of cache lines: what lies that far apart does not share a few sets of
# the caches.
cdef inline Py_ssize_t apart(Py_ssize_t count, size_t itemsize) noexcept nogil:
    cdef Py_ssize_t line = LINE_BYTES // <Py_ssize_t> itemsize
    return ((count + line - 1) // line | 1) * line
