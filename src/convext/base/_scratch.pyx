"""Aligned memory that is used again.

The system hands out large blocks as pages that are zeroed one by one when they are first touched,
which can take longer than the work in them. So the last few blocks are kept for the next call.
"""

import os

cimport numpy as cnp
import numpy as np

from convext.base._machine cimport LINE_BYTES

cdef extern from *:
    """
    #include <limits.h>
    #include <stdint.h>
    #include <stdlib.h>

    enum {
        KEPT_BLOCKS = 4,
    #ifdef __SANITIZE_ADDRESS__
        MIN_KEPT_BYTES = INT_MAX,   /* none: behind each block that is used is memory that is not */
    #else
        MIN_KEPT_BYTES = 1 << 16,   /* the allocator keeps smaller ones itself */
    #endif
    };

    /* Of all kept blocks together; each thread may need some MiB. */
    static size_t max_kept_bytes = 24 << 20;

    static void keep_for_cpus(size_t cpus)
    {
        const size_t bytes = cpus * (8 << 20);
        if (bytes > max_kept_bytes)
            max_kept_bytes = bytes;
    }

    /* Lies before each block. */
    typedef union {
        size_t bytes;
        char line[CONVEXT_LINE_BYTES];
    } header;

    #ifdef _WIN32
    #include <malloc.h>
    #define free_lines _aligned_free

    static void *allocate_lines(size_t bytes)
    {
        return _aligned_malloc(bytes, CONVEXT_LINE_BYTES);
    }
    #else
    #define free_lines free

    static void *allocate_lines(size_t bytes)
    {
        void *memory;
        return posix_memalign(&memory, CONVEXT_LINE_BYTES, bytes) ? NULL : memory;
    }
    #endif

    static header *kept[KEPT_BLOCKS];
    static size_t kept_bytes;

    static header *take(int i)
    {
        header *block = __atomic_exchange_n(&kept[i], NULL, __ATOMIC_ACQ_REL);
        if (block)
            __atomic_sub_fetch(&kept_bytes, block->bytes, __ATOMIC_RELAXED);
        return block;
    }

    /* What was kept in the same place makes room. */
    static void keep(int i, header *block)
    {
        __atomic_add_fetch(&kept_bytes, block->bytes, __ATOMIC_RELAXED);
        block = __atomic_exchange_n(&kept[i], block, __ATOMIC_ACQ_REL);
        if (block)
            __atomic_sub_fetch(&kept_bytes, block->bytes, __ATOMIC_RELAXED);
        free_lines(block);
    }

    static void *allocate(size_t count, size_t itemsize)
    {
        if (count > (SIZE_MAX / 2 - 2 * CONVEXT_LINE_BYTES) / itemsize)
            return NULL;
        const size_t bytes = count * itemsize;
        for (int i = 0; bytes >= MIN_KEPT_BYTES && i < KEPT_BLOCKS; i++) {
            header *block = take(i);
            if (block && block->bytes >= bytes && block->bytes / 4 <= bytes)
                return block + 1;
            if (block)
                keep(i, block);
        }
        header *block = allocate_lines(sizeof(header) + bytes);
        if (block == NULL)
            return NULL;
        block->bytes = bytes;
        return block + 1;
    }

    static void release(void *memory)
    {
        if (memory == NULL)
            return;
        header *block = (header *)memory - 1;
        if (block->bytes < MIN_KEPT_BYTES || block->bytes > max_kept_bytes) {
            free_lines(block);
            return;
        }
        int i = 0;
        while (i < KEPT_BLOCKS - 1 && __atomic_load_n(&kept[i], __ATOMIC_RELAXED))
            i++;
        keep(i, block);
        for (i = 0; i < KEPT_BLOCKS
             && __atomic_load_n(&kept_bytes, __ATOMIC_RELAXED) > max_kept_bytes; i++)
            free_lines(take(i));
    }
    """
    void *allocate(size_t count, size_t itemsize) noexcept nogil
    void release(void *memory) noexcept nogil
    void keep_for_cpus(size_t cpus) noexcept nogil


keep_for_cpus(os.cpu_count() or 1)


cdef void *aligned_alloc(Py_ssize_t count, size_t itemsize) noexcept nogil:
    return allocate(<size_t> count, itemsize)


cdef void aligned_free(void *memory) noexcept nogil:
    release(memory)


cdef object aligned_array(Py_ssize_t bytes):
    cdef cnp.ndarray memory = np.empty(bytes + LINE_BYTES, np.uint8)
    cdef Py_ssize_t first = -<Py_ssize_t> cnp.PyArray_DATA(memory) % LINE_BYTES
    if first < 0:
        first += LINE_BYTES
    return memory[first:first + bytes]


cdef void *data_of(object array) noexcept:
    return cnp.PyArray_DATA(<cnp.ndarray> array)
