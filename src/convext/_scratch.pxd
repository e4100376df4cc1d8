# Aligned memory for the compiled loops; free it with free().

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <stdlib.h>

    enum { CONVEXT_ALIGNMENT = 64 };  /* a cache line, and the widest vector */

    /* Room for `count` elements of `itemsize` bytes; NULL when there is none. */
    static inline void *convext_aligned_alloc(size_t count, size_t itemsize)
    {
        void *memory;
        if (count > (SIZE_MAX / 2 - CONVEXT_ALIGNMENT) / itemsize)
            return NULL;
        size_t bytes = count * itemsize;
        if (posix_memalign(&memory, CONVEXT_ALIGNMENT, bytes ? bytes : CONVEXT_ALIGNMENT))
            return NULL;
        return memory;
    }

    /* `count`, rounded up to whole cache lines. */
    static inline Py_ssize_t convext_aligned_size(Py_ssize_t count, size_t itemsize)
    {
        Py_ssize_t line = CONVEXT_ALIGNMENT / (Py_ssize_t)itemsize;
        return (count + line - 1) / line * line;
    }
    """
    void *aligned_alloc "convext_aligned_alloc"(size_t count, size_t itemsize) noexcept nogil
    Py_ssize_t aligned_size "convext_aligned_size"(
        Py_ssize_t count, size_t itemsize) noexcept nogil
