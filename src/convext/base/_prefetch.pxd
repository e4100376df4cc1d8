# Asking for memory before it is needed.

cdef extern from *:
    """
    /* Ask for `count` bytes, to be in the L2 cache when they are needed. */
    static inline void convext_fetch(const char *from, Py_ssize_t count)
    {
        for (Py_ssize_t i = 0; i < count; i += 64)
            __builtin_prefetch(from + i, 0, 2);
    }

    /* The same, in the L1 cache, for what is needed next. */
    static inline void convext_fetch_soon(const char *from, Py_ssize_t count)
    {
        for (Py_ssize_t i = 0; i < count; i += 64)
            __builtin_prefetch(from + i, 0, 3);
    }

    /* And for memory that will be written. */
    static inline void convext_fetch_to_write(const char *to, Py_ssize_t count)
    {
        for (Py_ssize_t i = 0; i < count; i += 64)
            __builtin_prefetch(to + i, 1, 2);
    }
    """
    void fetch "convext_fetch"(const char *source, Py_ssize_t count) noexcept nogil
    void fetch_soon "convext_fetch_soon"(const char *source, Py_ssize_t count) noexcept nogil
    void fetch_to_write "convext_fetch_to_write"(const char *to, Py_ssize_t count) noexcept nogil
