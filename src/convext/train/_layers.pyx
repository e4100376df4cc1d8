"""What happens to the values of a layer between the convolutions: bias, activation, samples."""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.string cimport memcpy

from convext.base._dispatch cimport Microkernels, microkernels
from convext.base._geometry cimport check_number, real

cnp.import_array()

cdef list names = microkernels(sizeof(float)).activations.decode().lower().split()
cdef int num_activations = len(names)
ACTIVATIONS = dict(zip(names, range(num_activations)))

# With fewer elements a second thread costs more than it brings.
cdef Py_ssize_t MIN_VALUES_PER_THREAD = 50000

ctypedef fused stored:
    float
    double
    unsigned char


cdef int check_activation(int activation) except -1:
    return check_number("activation", activation, num_activations - 1)


cdef inline int threads_for_planes(
    Py_ssize_t planes, Py_ssize_t plane, int num_threads
) noexcept nogil:
    return <int> max(1, min(min(<Py_ssize_t> num_threads, planes),
                            planes * plane // MIN_VALUES_PER_THREAD))


cdef void activate_planes(
    real *out, const real *bias, Py_ssize_t num_samples, Py_ssize_t channels, Py_ssize_t plane,
    int activation, int num_threads
) noexcept nogil:
    cdef const Microkernels *micro = microkernels(sizeof(real))
    cdef int threads = threads_for_planes(num_samples * channels, plane, num_threads)
    cdef Py_ssize_t i
    for i in prange(num_samples * channels, num_threads=threads, use_threads_if=threads > 1):
        micro.activate(
            plane, out + i * plane, bias[i % channels] if bias != NULL else 0, activation
        )


cdef void differentiate_planes(
    real *gradient, const real *activated, real *bias_grad, Py_ssize_t num_samples,
    Py_ssize_t channels, Py_ssize_t plane, int activation, int num_threads
) noexcept nogil:
    cdef int threads = threads_for_planes(num_samples * channels, plane, num_threads)
    cdef Py_ssize_t k
    for k in prange(channels, num_threads=threads, use_threads_if=threads > 1):
        differentiate_channel(
            gradient + k * plane, activated + k * plane,
            NULL if bias_grad == NULL else bias_grad + k, num_samples, channels * plane, plane,
            activation
        )


cdef void differentiate_channel(
    real *gradient, const real *activated, real *bias_grad, Py_ssize_t num_samples,
    Py_ssize_t stride, Py_ssize_t plane, int activation
) noexcept nogil:
    cdef const Microkernels *micro = microkernels(sizeof(real))
    cdef double total = 0
    cdef Py_ssize_t n
    for n in range(num_samples):
        total += micro.activation_gradient(
            plane, gradient + n * stride, activated + n * stride, activation
        )
    if bias_grad != NULL:
        bias_grad[0] = <real> total


def activate(cnp.ndarray out, cnp.ndarray bias, int activation, int num_threads):
    """out[n, k] = activation(out[n, k] + bias[k]); `bias` may be None.

    `out` is (N, K, OH, OW) and C-contiguous, `bias` of its type.
    """
    cdef Py_ssize_t plane = out.shape[2] * out.shape[3]
    cdef void *offsets = NULL if bias is None else cnp.PyArray_DATA(bias)
    check_activation(activation)
    with nogil:
        if cnp.PyArray_ITEMSIZE(out) == sizeof(float):
            activate_planes(
                <float *> cnp.PyArray_DATA(out), <float *> offsets, out.shape[0], out.shape[1],
                plane, activation, num_threads
            )
        else:
            activate_planes(
                <double *> cnp.PyArray_DATA(out), <double *> offsets, out.shape[0], out.shape[1],
                plane, activation, num_threads
            )


def differentiate(
    cnp.ndarray gradient, cnp.ndarray activated, cnp.ndarray bias_grad, int activation,
    int num_threads
):
    """Turn the gradient with respect to an activation into that with respect to its argument.

    `gradient` and `activated` are (N, K, OH, OW) and C-contiguous. The sums over each channel are
    written to `bias_grad`, (K,), which may be None.
    """
    cdef Py_ssize_t plane = gradient.shape[2] * gradient.shape[3]
    cdef void *sums = NULL if bias_grad is None else cnp.PyArray_DATA(bias_grad)
    check_activation(activation)
    with nogil:
        if cnp.PyArray_ITEMSIZE(gradient) == sizeof(float):
            differentiate_planes(
                <float *> cnp.PyArray_DATA(gradient), <float *> cnp.PyArray_DATA(activated),
                <float *> sums, gradient.shape[0], gradient.shape[1], plane, activation,
                num_threads
            )
        else:
            differentiate_planes(
                <double *> cnp.PyArray_DATA(gradient), <double *> cnp.PyArray_DATA(activated),
                <double *> sums, gradient.shape[0], gradient.shape[1], plane, activation,
                num_threads
            )


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
