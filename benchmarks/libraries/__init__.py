"""The libraries that are measured: one module for each, which imports it.

A module has the library's VERSION; `start`, which is told the settings once; and `operations`,
which gets a case and its arrays and returns, for each operation that the library has for the case,
a function without arguments that does it. What is done once and for all, such as copies in the
library's own type or layout, is done in `operations`, outside of the time that is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

OPERATIONS = ["forward", "prepared forward", "kernel gradient", "input gradient"]

# Given the kernels at each call.
PER_CALL = {
    "pytorch": "PyTorch",
    "jax": "JAX",
    "tensorflow": "TensorFlow",
    "opencv": "OpenCV",
    "scipy_fft": "SciPy FFT",
    "scipy_ndimage": "SciPy ndimage",
    "numpy": "NumPy",
}

# Given constant kernels once, for the forward operation in float32.
ENGINES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "ncnn": "ncnn",
    "mnn": "MNN",
}

PEERS = PER_CALL | ENGINES
TITLES = PEERS | {
    "convext": "convext",
    "convext_before": "convext before",
    "peak": "FMA peak",
}

# Where `convext_before` finds an earlier convext, built in place.
BEFORE = "CONVEXT_BEFORE"


@dataclass(frozen=True)
class Settings:
    """What every library is told."""

    dtype: str = "float32"
    threads: int = 1
    algorithm: str = "auto"
