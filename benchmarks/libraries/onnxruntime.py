"""ONNX Runtime: a model of one layer."""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

VERSION = onnxruntime.__version__

# Of the model's format: old enough for any version of the runtime.
_OPSET = 17
_IR_VERSION = 8

_options = onnxruntime.SessionOptions()


def start(settings):
    """Set the number of threads."""
    _options.intra_op_num_threads = settings.threads
    _options.inter_op_num_threads = 1


def operations(case, arrays):
    """Return the forward operation with constant kernels."""
    session = onnxruntime.InferenceSession(
        _model(case, arrays.kernels).SerializeToString(),
        _options,
        providers=["CPUExecutionProvider"],
    )
    # Bound once: what is passed by name is wrapped anew at each call.
    output = np.empty(case.output_shape, arrays.images.dtype)
    binding = session.io_binding()
    binding.bind_cpu_input("images", arrays.images)
    binding.bind_output("result", "cpu", 0, output.dtype, output.shape, output.ctypes.data)

    def forward():
        session.run_with_iobinding(binding)
        return output

    return {"prepared forward": forward}


def _model(case, kernels):
    layer = helper.make_node(
        "Conv",
        ["images", "kernels"],
        ["result"],
        strides=[case.stride] * 2,
        pads=[case.padding] * 4,
        group=case.groups,
    )
    graph = helper.make_graph(
        [layer],
        "layer",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, case.shape)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, case.output_shape)],
        [numpy_helper.from_array(kernels, "kernels")],
    )
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
