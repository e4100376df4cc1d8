"""ncnn: a network of one layer. It takes one image at a time."""

import tempfile
from pathlib import Path

import ncnn
import numpy as np

VERSION = ncnn.__version__

# What the file formats begin with.
_TEXT_MAGIC = 7767517
_FLOAT32_WEIGHTS = bytes(4)

_threads = 1


def start(settings):
    """Set the number of threads."""
    global _threads  # noqa: PLW0603
    _threads = settings.threads


def operations(case, arrays):
    """Return the forward operation with constant kernels."""
    network = _network(case, arrays.kernels)

    def convolve(image):
        extractor = network.create_extractor()
        extractor.input("images", ncnn.Mat(image))
        return np.asarray(extractor.extract("result")[1])

    return {"prepared forward": lambda: [convolve(image) for image in arrays.images]}


def _network(case, kernels):
    network = ncnn.Net()
    network.opt.num_threads = _threads
    # float32 throughout, as everywhere else.
    network.opt.use_bf16_storage = False
    network.opt.use_fp16_storage = False
    network.opt.use_fp16_packed = False
    network.opt.use_fp16_arithmetic = False
    with tempfile.TemporaryDirectory() as folder:
        text, weights = Path(folder, "layer.param"), Path(folder, "layer.bin")
        text.write_text(_layers(case, kernels.size))
        weights.write_bytes(_FLOAT32_WEIGHTS + kernels.tobytes())
        if network.load_param(str(text)) or network.load_model(str(weights)):
            raise RuntimeError("ncnn cannot load the layer")
    return network


def _layers(case, num_weights):
    """Return the network as text: so many layers and blobs, then a line for each layer."""
    kind = "Convolution"
    fields = {0: case.num_kernels, 1: case.size, 3: case.stride, 4: case.padding, 6: num_weights}
    if case.groups > 1:
        kind = "ConvolutionDepthWise"
        fields[7] = case.groups
    options = " ".join(f"{key}={value}" for key, value in fields.items())
    return (
        f"{_TEXT_MAGIC}\n2 2\nInput images 0 1 images\n{kind} layer 1 1 images result {options}\n"
    )
