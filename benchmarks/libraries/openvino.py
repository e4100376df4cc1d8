"""OpenVINO: a model of one layer."""

import openvino
from openvino import opset13

VERSION = openvino.__version__.partition("-")[0]

_config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


def start(settings):
    """Set the number of threads."""
    _config["INFERENCE_NUM_THREADS"] = settings.threads


def operations(case, arrays):
    """Return the forward operation with constant kernels."""
    images = opset13.parameter(case.shape, arrays.images.dtype)
    stride, padding, dilation = ([number] * 2 for number in (case.stride, case.padding, 1))
    options = (stride, padding, padding, dilation)
    if case.groups == 1:
        layer = opset13.convolution(images, opset13.constant(arrays.kernels), *options)
    else:
        num_kernels, *rest = case.kernels_shape
        by_group = arrays.kernels.reshape(case.groups, num_kernels // case.groups, *rest)
        layer = opset13.group_convolution(images, opset13.constant(by_group), *options)
    model = openvino.compile_model(openvino.Model([layer], [images]), "CPU", _config)
    request = model.create_infer_request()

    def forward():
        return request.infer([arrays.images], share_inputs=True, share_outputs=True)[0]

    return {"prepared forward": forward}
