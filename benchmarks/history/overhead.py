"""What everyone pays: the import, and a call with next to nothing to compute."""

import convext
from benchmarks.shapes import Case


def timeraw_import():
    """In a new process."""
    return "import convext"


class SmallCall:
    """An image of 3x5x5 and two 2x2 kernels, float64."""

    def setup(self):
        """Make the data."""
        self.case = Case((1, 3, 5, 5), 2, 2)
        self.image, self.kernels, self.gradient = self.case.arrays("float64")

    def time_forward(self):
        """Convolve."""
        convext.conv2d(self.image, self.kernels)

    def time_kernel_gradient(self):
        """Take the gradient with respect to the kernels."""
        convext.conv2d_kernel_grad(self.image, self.gradient, (2, 2))

    def time_input_gradient(self):
        """Take the gradient with respect to the input."""
        convext.conv2d_input_grad(self.gradient, self.kernels, self.case.shape)
