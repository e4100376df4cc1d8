"""convext."""

import convext

VERSION = f"{convext.__version__} ({convext.get_config()['isa']})"

_algorithm = "auto"


def start(settings):
    """Set the number of threads and the algorithm of the forward operation."""
    global _algorithm  # noqa: PLW0603
    _algorithm = settings.algorithm
    convext.set_num_threads(settings.threads)


def operations(case, arrays):
    """Return all operations."""
    images, kernels, gradient = arrays
    options = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
    size = (case.size, case.size)
    prepared = convext.prepare_kernels(kernels, case.shape, algorithm=_algorithm, **options)
    return {
        "forward": lambda: convext.conv2d(images, kernels, algorithm=_algorithm, **options),
        "prepared forward": lambda: convext.conv2d(images, prepared),
        "kernel gradient": lambda: convext.conv2d_kernel_grad(images, gradient, size, **options),
        "input gradient": lambda: convext.conv2d_input_grad(
            gradient, kernels, case.shape, **options
        ),
    }
