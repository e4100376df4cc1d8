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

# Pieces of memory, so many bytes each.
cdef struct Rows:
    const char *first
    Py_ssize_t count, size, stride


# Ask for the i-th of `parts` equal parts, to a cache line: the processor waits when it is asked for
# more than some twenty lines at once.
cdef inline void fetch_part(const Rows *rows, Py_ssize_t i, Py_ssize_t parts) noexcept nogil:
    cdef Py_ssize_t row_lines = (rows.size + 63) // 64
    cdef Py_ssize_t begin = i * rows.count * row_lines // parts
    cdef Py_ssize_t end = (i + 1) * rows.count * row_lines // parts
    cdef Py_ssize_t row, first, count
    while begin < end:
        row = begin // row_lines
        first = begin % row_lines
        count = min(end - begin, row_lines - first)
        fetch(rows.first + row * rows.stride + 64 * first, 64 * count)
        begin += count
