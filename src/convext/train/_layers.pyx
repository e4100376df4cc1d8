"""What happens to the values of a layer between the convolutions: bias, activation, samples."""

cimport numpy as cnp
import numpy as np
from libc.string cimport memcpy

from convext.base._dispatch cimport Microkernels, microkernels
from convext.base._geometry cimport check_number, real
from convext.base._interrupt cimport Interrupt
from convext.base._machine cimport MIN_VALUES_PER_THREAD
from convext.base._tasks cimport Task, Tasks, perform_tasks, tasks_of

cnp.import_array()

cdef list names = microkernels(sizeof(float)).activations.decode().lower().split()
cdef int num_activations = len(names)
ACTIVATIONS = dict(zip(names, range(num_activations)))

ctypedef fused stored:
    float
    double
    unsigned char


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
    planes.activation = activation
    return planes


cdef inline int threads_for_planes(const Planes *planes, int num_threads) noexcept nogil:
    cdef Py_ssize_t count = planes.num_samples * planes.channels
    return <int> max(1, min(min(<Py_ssize_t> num_threads, count),
                            count * planes.plane // MIN_VALUES_PER_THREAD))


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
        planes.num_samples * planes.channels, 0, threads_for_planes(&planes, num_threads)
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
        threads_for_planes(&planes, num_threads)
    )
    planes.activated = cnp.PyArray_DATA(activated)
    perform_tasks("the gradient of an activation", &tasks)


cdef void convert(
    const char *source, const cnp.npy_intp *shape, const cnp.npy_intp *stride, real *to,
    const stored *kind
) noexcept nogil:
    """Copy a sample of any strides (in bytes). `kind`, of the type of its elements, is not read."""
    cdef Py_ssize_t c, y, x
    cdef const char *row
    for c in range(shape[0]):
        for y in range(shape[1]):
            row = source + c * stride[0] + y * stride[1]
            if stride[2] == sizeof(stored):
                for x in range(shape[2]):
                    to[x] = <real> (<const stored *> row)[x]
            else:
                for x in range(shape[2]):
                    to[x] = <real> (<const stored *> (row + x * stride[2]))[0]
            to += shape[2]


cdef int gather(
    cnp.ndarray source, const Py_ssize_t *order, Py_ssize_t count, cnp.ndarray to
) except -1:
    cdef bint single = cnp.PyArray_ITEMSIZE(to) == sizeof(float)
    cdef int stored_type = cnp.PyArray_TYPE(source)
    cdef const cnp.npy_intp *shape = cnp.PyArray_DIMS(source) + 1
    cdef const cnp.npy_intp *stride = cnp.PyArray_STRIDES(source)
    cdef const char *data = <const char *> cnp.PyArray_DATA(source)
    cdef char *sample = <char *> cnp.PyArray_DATA(to)
    cdef Py_ssize_t size = shape[0] * shape[1] * shape[2]
    cdef Py_ssize_t bytes = size * cnp.PyArray_ITEMSIZE(to)
    cdef const char *begin
    cdef Py_ssize_t i
    if stored_type not in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE, cnp.NPY_UBYTE) or not (
        cnp.PyArray_ISALIGNED(source) and cnp.PyArray_ISNOTSWAPPED(source)
    ):
        with np.errstate(over="ignore"):    # infinite values make an infinite loss
            for i in range(count):
                to[i] = source[order[i]]
        return 0
    with nogil:
        for i in range(count):
            begin = data + order[i] * stride[0]
            if stored_type == cnp.PyArray_TYPE(to) and cnp.PyArray_IS_C_CONTIGUOUS(source):
                memcpy(sample, begin, bytes)
            elif single:
                convert_sample(stored_type, begin, shape, stride + 1, <float *> sample)
            else:
                convert_sample(stored_type, begin, shape, stride + 1, <double *> sample)
            sample += bytes
    return 0


cdef void convert_sample(
    int stored_type, const char *source, const cnp.npy_intp *shape, const cnp.npy_intp *stride,
    real *to
) noexcept nogil:
    if stored_type == cnp.NPY_FLOAT:
        convert(source, shape, stride, to, <const float *> NULL)
    elif stored_type == cnp.NPY_DOUBLE:
        convert(source, shape, stride, to, <const double *> NULL)
    else:
        convert(source, shape, stride, to, <const unsigned char *> NULL)
