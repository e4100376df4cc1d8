"""PyTorch, by the functions that its own layers and their gradients call."""

import torch

VERSION = torch.__version__


def start(settings):
    """Set the number of threads."""
    torch.set_num_threads(settings.threads)
    torch.set_grad_enabled(False)


def operations(case, arrays):
    """Return the forward operation and both gradients."""
    images, kernels, gradient = map(torch.from_numpy, arrays)
    stride, padding, dilation = ([number] * 2 for number in (case.stride, case.padding, 1))
    transposed, output_padding, bias = False, [0, 0], None

    def backward(index):
        wanted = [index == position for position in range(3)]
        return torch.ops.aten.convolution_backward(
            gradient,
            images,
            kernels,
            bias,
            stride,
            padding,
            dilation,
            transposed,
            output_padding,
            case.groups,
            wanted,
        )[index]

    return {
        "forward": lambda: torch.conv2d(images, kernels, bias, stride, padding, 1, case.groups),
        "kernel gradient": lambda: backward(1),
        "input gradient": lambda: backward(0),
    }
