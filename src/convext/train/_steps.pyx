"""A step of training a network: forward and backward through its layers, slice by slice.

A slice is a few samples of a batch, so few that what the layers make of them stays in the caches
until the gradients have read it. Threads take slices, each with a workspace of its own; where there
are fewer slices than threads, the convolutions share out their work instead. Slices are taken
together in segments, and the gradients of these are added in float64: how a batch is cut depends
on the shapes alone, and so do the bits of the result.
"""

cimport numpy as cnp
import numpy as np
from cython.parallel cimport parallel, prange, threadid
from libc.math cimport fabs

from convext.base._dispatch cimport Microkernels, microkernels
from convext.base._geometry cimport check_number, real
from convext.base._machine cimport L2_BYTES, MAX_PARTIAL_SUM_BYTES
from convext.base._tasks cimport ENOUGH_TASKS, divide_up
from convext.gradient._differentiation import conv2d_kernel_grad
from convext.train._layers cimport check_activation
from convext.train._layers import activate, differentiate
from convext.ways._convolution import conv2d, conv2d_input_grad

cnp.import_array()

# What the layers make of a slice should stay in L2 and this thread's part of L3.
MAX_SLICE_BYTES = L2_BYTES

cdef enum:
    MEAN_SQUARED_ERROR = 0
    MEAN_ABSOLUTE_ERROR = 1

LOSSES = {
    "mse": MEAN_SQUARED_ERROR, "mean_squared_error": MEAN_SQUARED_ERROR,
    "mae": MEAN_ABSOLUTE_ERROR, "mean_absolute_error": MEAN_ABSOLUTE_ERROR,
}


cdef class Layer:
    """A layer for inputs of one size.

    `kernels` and `bias` (or None) are views of the network's weights, which begin at `offset` in
    its gradient; `geometry` is what conv2d is told. `input_shape` and `output_shape` are (C, H, W).
    """

    cdef readonly object kernels, bias, geometry
    cdef readonly Py_ssize_t offset
    cdef readonly tuple input_shape, output_shape
    cdef readonly int activation

    def __init__(
        self, kernels, bias, Py_ssize_t offset, tuple input_shape, tuple output_shape,
        geometry, int activation
    ):
        check_activation(activation)
        self.kernels, self.bias, self.offset = kernels, bias, offset
        self.input_shape, self.output_shape, self.geometry = input_shape, output_shape, geometry
        self.activation = activation


cdef class Workspace:
    """The memory of one thread: what the layers make of a slice, and the gradients."""

    cdef list values            # the inputs, then the outputs of each layer
    cdef cnp.ndarray targets, weight_grad
    cdef tuple input_grads      # flat, used in turns
    cdef list kernel_grads, bias_grads      # of each layer, views of weight_grad
    cdef dict views             # of the leading samples, by their number

    def __init__(self, list layers, Py_ssize_t samples, Py_ssize_t num_weights, dtype):
        cdef Layer layer, last = layers[len(layers) - 1]
        shapes = [layers[0].input_shape, *[layer.output_shape for layer in layers]]
        self.values = [np.empty((samples, *shape), dtype) for shape in shapes]
        self.targets = np.empty((samples, *last.output_shape), dtype)
        largest = max([output.size for output in self.values[1:len(layers)]], default=0)
        self.input_grads = (np.empty(largest, dtype), np.empty(largest, dtype))
        self.weight_grad = np.empty(num_weights, dtype)
        self.kernel_grads = []
        self.bias_grads = []
        for layer in layers:
            end = layer.offset + layer.kernels.size
            self.kernel_grads.append(
                self.weight_grad[layer.offset:end].reshape(layer.kernels.shape)
            )
            self.bias_grads.append(
                None if layer.bias is None else self.weight_grad[end:end + layer.bias.size]
            )
        self.views = {}

    cdef tuple of(self, Py_ssize_t samples):
        """Inputs and outputs of each layer, and the gradients of its output, for some samples."""
        if samples not in self.views:
            values = [value[:samples] for value in self.values]
            gradients = [
                self.input_grads[i % 2][:output.size].reshape(output.shape)
                for i, output in enumerate(values[1:len(values) - 1])
            ]
            self.views[samples] = values, [*gradients, self.targets[:samples]]
        return self.views[samples]


cdef class Step:
    """Losses and gradients of a network for samples of one shape, in batches up to a size.

    From one batch to the next nothing is allocated but what samples are converted from.
    """

    cdef list layers, workspaces
    cdef int loss, num_threads
    cdef tuple crop             # rows and columns of the input that are added to the output
    cdef Py_ssize_t slice_size, max_segments
    cdef cnp.ndarray sums       # [segments][weights]
    cdef cnp.ndarray losses     # of each segment
    cdef cnp.ndarray differences    # of each segment, the sums of their squares and absolute values
    cdef public object measures   # their means, of the last batch, by the numbers of the losses
    cdef readonly cnp.ndarray gradient      # flat, in float64
    cdef object inputs, targets     # arrays, or what gives arrays of some samples
    cdef cnp.ndarray order
    cdef const double *sample_weights       # of all samples, or NULL

    def __init__(
        self, list layers, Py_ssize_t num_weights, Py_ssize_t batch_size, int loss, tuple crop,
        dtype, int num_threads, bint measuring=False
    ):
        cdef Layer layer
        cdef Py_ssize_t elements = 0, itemsize = dtype.itemsize
        cdef Py_ssize_t slice_bytes = MAX_SLICE_BYTES   # a global of Python, which tests replace
        cdef Py_ssize_t sum_bytes = num_weights * <Py_ssize_t> sizeof(double)
        check_number("loss", loss, MEAN_ABSOLUTE_ERROR)
        for layer in layers:
            elements += 2 * layer.output_shape[0] * layer.output_shape[1] * layer.output_shape[2]
        self.layers, self.loss, self.crop = layers, loss, crop
        self.num_threads = num_threads
        self.slice_size = max(1, min(batch_size, slice_bytes // (elements * itemsize)))
        self.max_segments = max(1, min(
            divide_up(batch_size, self.slice_size), min(<Py_ssize_t> ENOUGH_TASKS,
                                                        MAX_PARTIAL_SUM_BYTES // sum_bytes)
        ))
        self.workspaces = [
            Workspace(layers, self.slice_size, num_weights, dtype)
            for _ in range(min(num_threads, self.max_segments))
        ]
        self.sums = np.empty((self.max_segments, num_weights))
        self.losses = np.empty(self.max_segments)
        if measuring:
            self.differences = np.empty((self.max_segments, 2))
        self.gradient = np.empty(num_weights)

    def run(
        self, inputs, targets, cnp.ndarray order, cnp.ndarray sample_weights, bint learning
    ):
        """Return the loss of the samples in `order`; where `learning`, leave its `gradient`.

        `order` is C-contiguous, of type intp, and its values are not checked. The loss of each
        sample is multiplied by its weight, unless there are none; these are C-contiguous, in
        float64, of all samples.
        """
        cdef Py_ssize_t slices = divide_up(order.shape[0], self.slice_size)
        cdef Py_ssize_t segments = min(slices, self.max_segments), segment
        cdef double total = 0, elements
        cdef Layer last = self.layers[len(self.layers) - 1]
        elements = <double> order.shape[0] * last.output_shape[0] * (
            last.output_shape[1] * last.output_shape[2]
        )
        self.inputs, self.targets, self.order = inputs, targets, order
        self.sample_weights = NULL
        if sample_weights is not None:
            self.sample_weights = <const double *> cnp.PyArray_DATA(sample_weights)
        if segments < self.num_threads:
            for segment in range(segments):
                self.run_segment(
                    segment, segments, slices, self.workspaces[0], self.num_threads, learning,
                    elements
                )
        else:
            with nogil, parallel(num_threads=self.num_threads):
                for segment in prange(segments, schedule="dynamic"):
                    with gil:
                        self.run_segment(
                            segment, segments, slices, self.workspaces[threadid()], 1, learning,
                            elements
                        )
        self.inputs = self.targets = self.order = None
        if learning:
            np.add.reduce(self.sums[:segments], axis=0, out=self.gradient)
        for segment in range(segments):
            total += self.losses[segment]
        if self.differences is not None:
            self.measures = self.differences[:segments].sum(axis=0) / elements
        return total / elements

    cdef int run_segment(
        self, Py_ssize_t segment, Py_ssize_t segments, Py_ssize_t slices, Workspace work,
        int num_threads, bint learning, double elements
    ) except -1:
        cdef Py_ssize_t begin = segment * slices // segments
        cdef Py_ssize_t end = (segment + 1) * slices // segments
        cdef Py_ssize_t last = len(self.layers) - 1
        cdef Py_ssize_t i, first, count
        cdef cnp.ndarray sums = self.sums[segment]
        cdef double *loss = <double *> cnp.PyArray_DATA(self.losses) + segment
        cdef double *differences = NULL
        loss[0] = 0
        if self.differences is not None:
            differences = <double *> cnp.PyArray_DATA(self.differences) + 2 * segment
            differences[0] = differences[1] = 0
        for i in range(begin, end):
            first = i * self.slice_size
            count = min(self.slice_size, self.order.shape[0] - first)
            views = work.of(count)
            self.forward(views[0], views[1], first, count, num_threads)
            loss[0] += differentiate_loss(
                views[1][last], views[0][last + 1], self.loss, 1 / elements,
                self.sample_weights, <const Py_ssize_t *> cnp.PyArray_DATA(self.order) + first,
                differences
            )
            if learning:
                self.backward(work, views[0], views[1], num_threads)
                if i == begin:
                    sums[...] = work.weight_grad
                else:
                    sums += work.weight_grad
        return 0

    cdef int forward(
        self, list values, list gradients, Py_ssize_t first, Py_ssize_t count, int num_threads
    ) except -1:
        cdef Layer layer
        cdef Py_ssize_t i
        cdef cnp.ndarray targets = gradients[len(self.layers) - 1]
        gather(self.inputs, self.order[first:first + count], values[0])
        gather(self.targets, self.order[first:first + count], targets)
        if self.crop is not None:
            # What the layers are to add to the input.
            np.subtract(targets, values[0][:, :, self.crop[0], self.crop[1]], out=targets)
        for i in range(len(self.layers)):
            layer = self.layers[i]
            conv2d(
                values[i], layer.kernels, None, values[i + 1], layer.geometry, num_threads
            )
            if layer.bias is not None or layer.activation != 0:
                activate(values[i + 1], layer.bias, layer.activation, num_threads)
        return 0

    cdef int backward(
        self, Workspace work, list values, list gradients, int num_threads
    ) except -1:
        cdef Layer layer
        cdef Py_ssize_t i
        for i in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[i]
            if layer.bias is not None or layer.activation != 0:
                differentiate(
                    gradients[i], values[i + 1], work.bias_grads[i], layer.activation,
                    num_threads
                )
            conv2d_kernel_grad(
                values[i], gradients[i], work.kernel_grads[i], layer.geometry, num_threads
            )
            if i > 0:
                conv2d_input_grad(
                    gradients[i], layer.kernels, gradients[i - 1], layer.geometry, num_threads
                )
        return 0


cdef int gather(source, cnp.ndarray order, cnp.ndarray to) except -1:
    """Copy samples, converted to the type of `to`."""
    if isinstance(source, cnp.ndarray) and is_plain(source, to):
        np.take(source, order, 0, to, "clip")
    else:
        with np.errstate(over="ignore"):    # infinite values make an infinite loss
            to[...] = source[order]
    return 0


cdef inline bint is_plain(cnp.ndarray source, cnp.ndarray to) noexcept:
    return cnp.PyArray_TYPE(source) == cnp.PyArray_TYPE(to) and cnp.PyArray_ISCARRAY_RO(source)


cdef double differentiate_loss(
    cnp.ndarray targets, cnp.ndarray predictions, int loss, double scale,
    const double *sample_weights, const Py_ssize_t *order, double *differences
) except? -1:
    """Turn targets into the gradient with respect to the predictions; return the loss, unscaled."""
    cdef double total
    cdef Py_ssize_t samples = targets.shape[0]
    cdef Py_ssize_t size = cnp.PyArray_SIZE(targets) // samples
    with nogil:
        if cnp.PyArray_ITEMSIZE(targets) == sizeof(float):
            total = differentiate_samples(
                samples, size, <float *> cnp.PyArray_DATA(targets),
                <const float *> cnp.PyArray_DATA(predictions), loss, scale, sample_weights, order,
                differences
            )
        else:
            total = differentiate_samples(
                samples, size, <double *> cnp.PyArray_DATA(targets),
                <const double *> cnp.PyArray_DATA(predictions), loss, scale, sample_weights, order,
                differences
            )
    return total


cdef double differentiate_samples(
    Py_ssize_t samples, Py_ssize_t size, real *targets, const real *predictions, int loss,
    double scale, const double *sample_weights, const Py_ssize_t *order, double *differences
) noexcept nogil:
    cdef Py_ssize_t i
    cdef double total = 0, weight, difference
    if differences != NULL:
        for i in range(samples * size):
            difference = <double> predictions[i] - targets[i]
            differences[MEAN_SQUARED_ERROR] += difference * difference
            differences[MEAN_ABSOLUTE_ERROR] += fabs(difference)
    if sample_weights == NULL:
        return differentiate_elements(targets, predictions, samples * size, loss, scale)
    for i in range(samples):
        weight = sample_weights[order[i]]
        total += weight * differentiate_elements(
            targets + i * size, predictions + i * size, size, loss, scale * weight
        )
    return total


cdef double differentiate_elements(
    real *targets, const real *predictions, Py_ssize_t count, int loss, double scale
) noexcept nogil:
    cdef const Microkernels *micro = microkernels(sizeof(real))
    cdef Py_ssize_t i
    cdef double total = 0, difference
    if loss == MEAN_SQUARED_ERROR:
        return micro.residual(1, count, targets, count, predictions, count, -2 * scale)
    for i in range(count):
        difference = <double> predictions[i] - targets[i]
        total += fabs(difference)
        # NaN stays NaN.
        targets[i] = <real> (
            scale if difference > 0 else -scale if difference < 0 else difference
        )
    return total
