"""The squared residuals of predictions, which become the gradient of their loss in place."""

from convext.base._geometry cimport Array4, real
from convext.base._interrupt cimport Interrupt
from convext.base._machine cimport PRODUCTS_PER_VALUE
from convext.base._tasks cimport Task, Tasks, run_tasks, tasks_of, threads_for


cdef void subtract_target(
    const void *work, Py_ssize_t i, real *scratch, Interrupt *interrupt
) noexcept nogil:
    """Turn a plane of predictions into the gradient."""
    cdef const Residuals *residuals = <const Residuals *> work
    cdef const Array4 *targets = residuals.targets
    cdef Py_ssize_t plane = targets.h * targets.w, sample = residuals.order[i // targets.c]
    residuals.squares[i] = residuals.micro.residual(
        1, plane, <real *> residuals.predictions + i * plane, plane,
        <const real *> targets.data + sample * targets.n_stride + i % targets.c * targets.c_stride,
        plane, residuals.scale
    )


cdef double subtract_targets(
    Residuals *residuals, Py_ssize_t samples, int num_threads, size_t itemsize,
    Interrupt *interrupt
) noexcept nogil:
    cdef Py_ssize_t planes = samples * residuals.targets.c, i
    cdef double products = <double> PRODUCTS_PER_VALUE * planes * (
        residuals.targets.h * residuals.targets.w
    )
    cdef Tasks tasks = tasks_of(
        residuals, itemsize, <Task> subtract_target[float], <Task> subtract_target[double],
        planes, 0, threads_for(products, planes, num_threads)
    )
    cdef double squares = 0
    run_tasks(&tasks, interrupt)
    for i in range(planes):
        squares += residuals.squares[i]
    return squares
