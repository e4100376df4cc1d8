"""The list of the ways of convolving, and of the gradient with respect to the input."""

cimport numpy as cnp

from convext.base._arrays cimport describe
from convext.base._geometry cimport (
    FORWARD, INPUT_GRADIENT, Convolution, contiguous, convolution_of
)
from convext.ways._depthwise cimport Depthwise, depthwise_way
from convext.ways._direct cimport direct_way
from convext.ways._fft cimport fft_way
from convext.ways._fft_plan cimport Fourier
from convext.ways._separable cimport Separable, separable_way
from convext.ways._shifted_sums cimport ShiftedSums, shifted_sums_way
from convext.ways._ways cimport Way, Ways, compute, explain_ways, names_of
from convext.ways._winograd cimport winograd_way
from convext.ways._winograd_plan cimport Winograd

cdef enum:
    NUM_WAYS = 6

# The order matters where a way settles the choice, and where predictions are equal.
cdef Way[NUM_WAYS] WAYS
WAYS[:] = [
    winograd_way(),
    separable_way(),
    depthwise_way(),
    fft_way(),
    shifted_sums_way(),
    direct_way(),
]

cdef union Plan:
    Winograd winograd
    Separable separable
    Depthwise depthwise
    Fourier fourier
    ShiftedSums shifted_sums

NAMES = names_of(WAYS, NUM_WAYS)


cdef int take(
    Convolution *convolution, int algorithm, dict kept=None, bint only_keep=False
) except -1:
    cdef Plan[2] plans
    cdef Ways ways = Ways(&WAYS[0], NUM_WAYS, <char *> plans, sizeof(Plan))
    return compute(&ways, convolution, algorithm, kept, only_keep)


def conv2d(
    cnp.ndarray input_data, cnp.ndarray kernels, cnp.ndarray bias, cnp.ndarray out,
    geometry, int num_threads, dict kept=None, int algorithm=0
):
    """Write the convolution of `input_data` with `kernels`, plus `bias` (or None), to `out`.

    All arrays are three- or four-dimensional (bias is flat), of one type, aligned; the sizes fit.
    Prepared kernels are looked up in `kept`, and left there for the next call.
    """
    cdef Convolution convolution = convolution_of(
        FORWARD, geometry, cnp.PyArray_ITEMSIZE(out), num_threads
    )
    convolution.images = describe(input_data)
    convolution.kernels = describe(kernels)
    convolution.outputs = describe(out)
    if bias is not None:
        convolution.bias = cnp.PyArray_DATA(bias)
    take(&convolution, algorithm, kept)


def conv2d_input_grad(
    cnp.ndarray output_grad, cnp.ndarray kernels, cnp.ndarray input_grad,
    geometry, int num_threads, int algorithm=0
):
    """Write the gradient with respect to the input to `input_grad`; arrays as for `conv2d`."""
    cdef Convolution convolution = convolution_of(
        INPUT_GRADIENT, geometry, cnp.PyArray_ITEMSIZE(input_grad), num_threads
    )
    convolution.images = describe(input_grad)
    convolution.kernels = describe(kernels)
    convolution.outputs = describe(output_grad)
    take(&convolution, algorithm)


def keep_kernels(
    cnp.ndarray kernels, tuple input_shape, tuple output_shape, geometry, dict kept,
    int algorithm=0
):
    """Leave in `kept` what `conv2d` will read for an input and an output of such shapes."""
    cdef Convolution convolution = convolution_of(
        FORWARD, geometry, cnp.PyArray_ITEMSIZE(kernels), 1
    )
    convolution.images = contiguous(input_shape)
    convolution.kernels = describe(kernels)
    convolution.outputs = contiguous(output_shape)
    take(&convolution, algorithm, kept, True)


def explain(
    int operation, tuple input_shape, tuple kernel_shape, tuple output_shape,
    geometry, int num_threads, size_t itemsize, cnp.ndarray kernels=None
):
    """Return what `explain_ways` does, for a forward convolution or an input gradient."""
    cdef Convolution convolution = convolution_of(operation, geometry, itemsize, num_threads)
    cdef Plan[2] plans
    cdef Ways ways = Ways(&WAYS[0], NUM_WAYS, <char *> plans, sizeof(Plan))
    convolution.images = contiguous(input_shape)
    convolution.kernels = contiguous(kernel_shape) if kernels is None else describe(kernels)
    convolution.outputs = contiguous(output_shape)
    return explain_ways(&ways, &convolution)
