"""TensorFlow, by single operations: faster than compiled into a graph of one.

On a CPU it has gradients, and float64, for channels last only; so that is how it gets the data,
transposed in advance. Its results are given back as views with the channels first.
"""

import tensorflow as tf

VERSION = tf.__version__


def start(settings):
    """Set the number of threads."""
    tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def operations(case, arrays):
    """Return the forward operation and both gradients, of plain and of depthwise layers."""
    images = tf.constant(arrays.images.transpose(0, 2, 3, 1))
    gradient = tf.constant(arrays.gradient.transpose(0, 2, 3, 1))
    rows_and_columns = (case.padding, case.padding)
    options = {
        "strides": [1, case.stride, case.stride, 1],
        "padding": "EXPLICIT",
        "explicit_paddings": [0, 0, *rows_and_columns, *rows_and_columns, 0, 0],
    }
    if case.groups == 1:
        order, back = (2, 3, 1, 0), (3, 2, 0, 1)
        forward = tf.raw_ops.Conv2D
        kernel_gradient = tf.raw_ops.Conv2DBackpropFilter
        input_gradient = tf.raw_ops.Conv2DBackpropInput
    else:
        order, back = (2, 3, 0, 1), (2, 3, 0, 1)
        forward = tf.raw_ops.DepthwiseConv2dNative
        kernel_gradient = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter
        input_gradient = tf.raw_ops.DepthwiseConv2dNativeBackpropInput
    kernels = tf.constant(arrays.kernels.transpose(order))
    return {
        "forward": lambda: _channels_first(forward(input=images, filter=kernels, **options)),
        "kernel gradient": lambda: (
            kernel_gradient(
                input=images, filter_sizes=kernels.shape, out_backprop=gradient, **options
            )
            .numpy()
            .transpose(back)
        ),
        "input gradient": lambda: _channels_first(
            input_gradient(
                input_sizes=images.shape, filter=kernels, out_backprop=gradient, **options
            )
        ),
    }


def _channels_first(tensor):
    return tensor.numpy().transpose(0, 3, 1, 2)
