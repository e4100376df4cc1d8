"""JAX, compiled for the shapes of the case.

Its threads are as many as the process has CPUs: there is no option.
"""

import jax

VERSION = jax.__version__

_TWO_SPATIAL_AXES = 2


def start(settings):
    """Use the CPU, and float64 where it is wanted."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", settings.dtype == "float64")


def operations(case, arrays):
    """Return the forward operation and both gradients, which are its transposes."""
    images, kernels, gradient = map(jax.numpy.asarray, arrays)

    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            window_strides=[case.stride] * _TWO_SPATIAL_AXES,
            padding=[(case.padding, case.padding)] * _TWO_SPATIAL_AXES,
            feature_group_count=case.groups,
        )

    @jax.jit
    def kernel_gradient(x, g):
        return jax.linear_transpose(lambda w: convolve(x, w), kernels)(g)[0]

    @jax.jit
    def input_gradient(w, g):
        return jax.linear_transpose(lambda x: convolve(x, w), images)(g)[0]

    forward = jax.jit(convolve)
    return {
        "forward": lambda: forward(images, kernels).block_until_ready(),
        "kernel gradient": lambda: kernel_gradient(images, gradient).block_until_ready(),
        "input gradient": lambda: input_gradient(kernels, gradient).block_until_ready(),
    }
