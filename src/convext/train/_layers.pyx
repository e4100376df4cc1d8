"""What happens to the values of a layer between the convolutions: bias, activation, samples."""

cimport numpy as cnp

from convext.base._dispatch cimport Microkernels, microkernels
from convext.base._geometry cimport check_number, real
from convext.base._interrupt cimport Interrupt
from convext.base._machine cimport PRODUCTS_PER_VALUE
from convext.base._tasks cimport Task, Tasks, perform_tasks, tasks_of, threads_for

cnp.import_array()

cdef list names = microkernels(sizeof(float)).activations.decode().lower().split()
cdef int num_activations = len(names)
ACTIVATIONS = dict(zip(names, range(num_activations)))

cdef int check_activation(int activation) except -1:
    return check_number("activation", activation, num_activations - 1)


# What is done to the planes of some samples, all in one piece.
cdef struct Planes:
    const Microkernels *micro
    size_t itemsize
    void *values                # [num_samples][channels][plane], which are changed
    const void *activated       # likewise, for a gradient
    void *bias                  # [channels], for a gradient that of the bias; or NULL
    Py_ssize_t num_samples, channels, plane
    Py_ssize_t count            # of planes
    double products             # that take as long as going through all values
    int activation


cdef Planes planes_of(cnp.ndarray values, cnp.ndarray bias, int activation) except *:
    cdef Planes planes
    check_activation(activation)
    planes.itemsize = cnp.PyArray_ITEMSIZE(values)
    planes.micro = microkernels(planes.itemsize)
    planes.values = cnp.PyArray_DATA(values)
    planes.activated = NULL
    planes.bias = NULL if bias is None else cnp.PyArray_DATA(bias)
    planes.num_samples, planes.channels = values.shape[0], values.shape[1]
    planes.plane = values.shape[2] * values.shape[3]
    planes.count = planes.num_samples * planes.channels
    planes.products = <double> PRODUCTS_PER_VALUE * planes.count * planes.plane
    planes.activation = activation
    return planes


cdef void activate_plane(
    const void *work, Py_ssize_t i, real *scratch, Interrupt *interrupt
) noexcept nogil:
    cdef const Planes *planes = <const Planes *> work
    cdef const real *bias = <const real *> planes.bias
    planes.micro.activate(
        planes.plane, <real *> planes.values + i * planes.plane,
        bias[i % planes.channels] if bias != NULL else 0, planes.activation
    )


cdef void differentiate_channel(
    const void *work, Py_ssize_t k, real *scratch, Interrupt *interrupt
) noexcept nogil:
    cdef const Planes *planes = <const Planes *> work
    cdef Py_ssize_t n, first
    cdef double total = 0
    for n in range(planes.num_samples):
        first = (n * planes.channels + k) * planes.plane
        total += planes.micro.activation_gradient(
            planes.plane, <real *> planes.values + first, <const real *> planes.activated + first,
            planes.activation
        )
    if planes.bias != NULL:
        (<real *> planes.bias)[k] = <real> total


def activate(cnp.ndarray out, cnp.ndarray bias, int activation, int num_threads):
    """out[n, k] = activation(out[n, k] + bias[k]); `bias` may be None.

    `out` is (N, K, OH, OW) and C-contiguous, `bias` of its type.
    """
    cdef Planes planes = planes_of(out, bias, activation)
    cdef Tasks tasks = tasks_of(
        &planes, planes.itemsize, <Task> activate_plane[float], <Task> activate_plane[double],
        planes.count, 0, threads_for(planes.products, planes.count, num_threads)
    )
    perform_tasks("an activation", &tasks)


def differentiate(
    cnp.ndarray gradient, cnp.ndarray activated, cnp.ndarray bias_grad, int activation,
    int num_threads
):
    """Turn the gradient with respect to an activation into that with respect to its argument.

    `gradient` and `activated` are (N, K, OH, OW) and C-contiguous. The sums over each channel are
    written to `bias_grad`, (K,), which may be None.
    """
    cdef Planes planes = planes_of(gradient, bias_grad, activation)
    cdef Tasks tasks = tasks_of(
        &planes, planes.itemsize, <Task> differentiate_channel[float],
        <Task> differentiate_channel[double], planes.channels, 0,
        threads_for(planes.products, planes.channels, num_threads)
    )
    planes.activated = cnp.PyArray_DATA(activated)
    perform_tasks("the gradient of an activation", &tasks)
