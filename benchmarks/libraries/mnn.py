"""MNN: a module of one layer, read from a file since that is when it prepares the kernels."""

import tempfile
from pathlib import Path

import MNN
import numpy as np
from MNN import expr, nn

VERSION = MNN.version()

_config = {"backend": "CPU", "precision": "high"}


def start(settings):
    """Set the number of threads."""
    _config["numThread"] = settings.threads


def operations(case, arrays):
    """Return the forward operation with constant kernels."""
    module = _module(case, arrays.kernels)
    images = expr.placeholder(list(case.shape), expr.NCHW)

    def forward():
        images.write(arrays.images)
        return module.forward([images])[0].read()

    return {"prepared forward": forward}


def _module(case, kernels):
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "layer.mnn"))
        expr.save([_layer(case, kernels)], file)
        runtime = nn.create_runtime_manager((_config,))
        return nn.load_module_from_file(
            file, ["images"], ["result"], runtime_manager=runtime, shape_mutable=False
        )


def _layer(case, kernels):
    images = expr.placeholder(list(case.shape), expr.NCHW)
    images.name = "images"
    bias = np.zeros(case.num_kernels, kernels.dtype)
    result = expr.conv2d(
        expr.convert(images, expr.NC4HW4),
        expr.const(kernels, kernels.shape, expr.NCHW),
        expr.const(bias, bias.shape),
        (case.stride, case.stride),
        (case.padding, case.padding),
        (1, 1),
        case.groups,
        expr.Padding_Mode.CAFFE,  # as the numbers say
    )
    result = expr.convert(result, expr.NCHW)
    result.name = "result"
    return result
