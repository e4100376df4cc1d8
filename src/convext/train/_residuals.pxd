from convext.base._dispatch cimport Microkernels
from convext.base._geometry cimport Array4
from convext.base._interrupt cimport Interrupt


# What turns predictions into the gradient of their loss, times scale / 2 of it.
cdef struct Residuals:
    const Microkernels *micro
    const Array4 *targets
    const Py_ssize_t *order         # the samples
    void *predictions               # [sample][K][OH][OW]
    double scale
    double *squares                 # of each plane, by sample and kernel


# Turn the predictions of `samples` samples into the gradient; return the sum of squared residuals.
cdef double subtract_targets(
    Residuals *residuals, Py_ssize_t samples, int num_threads, size_t itemsize,
    Interrupt *interrupt
) noexcept nogil
