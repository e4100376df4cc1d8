"""The operations on the shapes of `benchmarks.shapes`."""

import convext
from benchmarks.shapes import CASES


class Operations:
    """float32, on one thread."""

    params = tuple(case.name for case in CASES)
    param_names = ("shape",)

    def setup(self, name):
        """Make the data of the shape."""
        case = next(case for case in CASES if case.name == name)
        self.images, self.kernels, self.gradient = case.arrays("float32")
        self.shape, self.size = case.shape, (case.size, case.size)
        self.options = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
        convext.set_num_threads(1)

    def time_forward(self, name):
        """Convolve with kernels given at each call."""
        convext.conv2d(self.images, self.kernels, **self.options)

    def time_kernel_gradient(self, name):
        """Take the gradient with respect to the kernels."""
        convext.conv2d_kernel_grad(self.images, self.gradient, self.size, **self.options)

    def time_input_gradient(self, name):
        """Take the gradient with respect to the input."""
        convext.conv2d_input_grad(self.gradient, self.kernels, self.shape, **self.options)


class PreparedKernels(Operations):
    """Kernels prepared once."""

    def setup(self, name):
        """Make the data of the shape, and prepare the kernels."""
        super().setup(name)
        if not hasattr(convext, "prepare_kernels"):
            raise NotImplementedError  # which asv takes as: not in this commit
        self.prepared = convext.prepare_kernels(self.kernels, self.shape, **self.options)

    def time_forward(self, name):
        """Convolve with them."""
        convext.conv2d(self.images, self.prepared)

    def time_prepare(self, name):
        """Do what a call saves by them."""
        convext.prepare_kernels(self.kernels, self.shape, **self.options)

    time_kernel_gradient = time_input_gradient = None
