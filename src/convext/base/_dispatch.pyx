"""Which instruction set is in use: chosen at import, the best that was built and the CPU has."""

import os

cdef extern from "dispatch.h" nogil:
    int convext_num_isas()
    const char *convext_isa_name(int isa)
    int convext_isa_supported(int isa)
    const Microkernels *convext_isa_microkernels(int isa, int itemsize)
    const char *convext_compiler()

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define CONVEXT_OPENMP 1
    #define read_openmp_settings() (void)omp_get_max_threads()
    #else
    #define CONVEXT_OPENMP 0
    #define read_openmp_settings() (void)0
    #endif
    """
    const int CONVEXT_OPENMP
    void read_openmp_settings()
    const char *CONVEXT_MODULES

# The other modules in this library.
MODULES = tuple(CONVEXT_MODULES.decode().split())

cdef extern from *:
    """
    #ifdef _WIN32
    /* No limit of a user's is known there. */
    static int start_and_end_threads(int count)
    {
        return count;
    }
    #else
    #include <pthread.h>
    #include <stdlib.h>
    #include <unistd.h>

    static void *wait_for(void *mutex)
    {
        pthread_mutex_lock(mutex);
        pthread_mutex_unlock(mutex);
        return NULL;
    }

    /* All are there at a time: none ends before the last one was started. */
    static int start_and_end_threads(int count)
    {
        pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
        pthread_t *thread = malloc(count * sizeof *thread);
        int started = 0;
        if (!thread)
            return 0;
        pthread_mutex_lock(&mutex);
        while (started < count && !pthread_create(&thread[started], NULL, wait_for, &mutex))
            started++;
        pthread_mutex_unlock(&mutex);
        for (int i = 0; i < started; i++)
            pthread_join(thread[i], NULL);
        free(thread);
        /* A thread that has ended counts for a moment yet. */
        if (started < count)
            usleep(1000);
        return started;
    }
    #endif
    """
    int start_and_end_threads(int count) nogil

cdef int isa_in_use = 0


cdef const Microkernels *microkernels(size_t itemsize) noexcept nogil:
    return convext_isa_microkernels(isa_in_use, <int> itemsize)


def built_isas():
    """Names of the instruction sets in this build, from the least to the most capable."""
    return [convext_isa_name(isa).decode() for isa in range(convext_num_isas())]


def supported_isas():
    """Names of those that this CPU has."""
    return [name for isa, name in enumerate(built_isas()) if convext_isa_supported(isa)]


def current_isa():
    """Name of the one in use."""
    return convext_isa_name(isa_in_use).decode()


def use_isa(str name):
    """Use the instruction set `name` from now on in this process."""
    global isa_in_use
    if name not in built_isas():
        raise ValueError(
            f"CONVEXT_ISA must be one of {', '.join(built_isas())} in this build, got {name!r}"
        )
    if name not in supported_isas():
        raise ValueError(
            f"CONVEXT_ISA is {name!r}, which this CPU does not have "
            f"(it has {', '.join(supported_isas())})"
        )
    isa_in_use = built_isas().index(name)


def start_threads(int count):
    """Try to start `count` threads, which end at once; return how many that were."""
    cdef int started
    with nogil:
        started = start_and_end_threads(count)
    return started


def has_openmp():
    """Whether the build uses threads."""
    return bool(CONVEXT_OPENMP)


def compiler():
    """Name and version of the C compiler of this build."""
    return convext_compiler().decode()


# Now, while they are what convext/_compiled.py makes of them: LLVM's OpenMP reads them when it is
# called first, GCC's when it is loaded.
read_openmp_settings()
use_isa(os.environ.get("CONVEXT_ISA") or supported_isas().pop())
