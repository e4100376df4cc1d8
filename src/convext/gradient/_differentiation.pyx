"""The list of the ways of computing the gradient with respect to the kernels."""

cimport numpy as cnp
from libc.string cimport memset

from convext.base._arrays cimport describe
from convext.base._geometry cimport KERNEL_GRADIENT, Convolution, contiguous, convolution_of
from convext.gradient._kernel_gradient cimport direct_gradient_way
from convext.gradient._winograd_gradient cimport winograd_gradient_way
from convext.gradient._winograd_gradient_plan cimport WinogradGradient
from convext.ways._depthwise cimport Depthwise, depthwise_way
from convext.ways._ways cimport Way, Ways, compute, explain_ways, names_of

cdef enum:
    NUM_WAYS = 3

cdef Way[NUM_WAYS] WAYS
WAYS[:] = [winograd_gradient_way(), depthwise_way(), direct_gradient_way()]

cdef union Plan:
    WinogradGradient winograd
    Depthwise depthwise

NAMES = names_of(WAYS, NUM_WAYS)


def conv2d_kernel_grad(
    cnp.ndarray input_data, cnp.ndarray output_grad, cnp.ndarray kernel_grad,
    geometry, int num_threads, int algorithm=0
):
    """Write the gradient with respect to the kernels to `kernel_grad`, which is C-contiguous.

    All arrays are four-dimensional, of one type, aligned; the sizes fit.
    """
    cdef Convolution convolution = convolution_of(
        KERNEL_GRADIENT, geometry, cnp.PyArray_ITEMSIZE(kernel_grad), num_threads
    )
    cdef Plan[2] plans
    cdef Ways ways = Ways(&WAYS[0], NUM_WAYS, <char *> plans, sizeof(Plan))
    convolution.images = describe(input_data)
    convolution.kernels = describe(kernel_grad)
    convolution.outputs = describe(output_grad)
    if convolution.images.n == 0:
        memset(convolution.kernels.data, 0, cnp.PyArray_NBYTES(kernel_grad))
    compute(&ways, &convolution, algorithm, None, False)


def explain(
    tuple input_shape, tuple kernel_shape, tuple output_shape,
    geometry, int num_threads, size_t itemsize
):
    """Return what `explain_ways` does."""
    cdef Convolution convolution = convolution_of(KERNEL_GRADIENT, geometry, itemsize, num_threads)
    cdef Plan[2] plans
    cdef Ways ways = Ways(&WAYS[0], NUM_WAYS, <char *> plans, sizeof(Plan))
    convolution.images = contiguous(input_shape)
    convolution.kernels = contiguous(kernel_shape)
    convolution.outputs = contiguous(output_shape)
    return explain_ways(&ways, &convolution)
