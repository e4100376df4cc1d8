from typing import TypeAlias

from .._support.checks import RealArray
from ..ops.shapes import Geometry

NAMES: tuple[str, ...]

# See `Row` in ops/explanations.py.
Row: TypeAlias = tuple[str, bool, str | None, float | None, int, int, int]

def conv2d(
    input_data: RealArray,
    kernels: RealArray,
    bias: RealArray | None,
    out: RealArray,
    geometry: Geometry,
    num_threads: int,
    kept: dict[object, object] | None = None,
    algorithm: int = 0,
) -> None: ...
def keep_kernels(
    kernels: RealArray,
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    geometry: Geometry,
    kept: dict[object, object],
    algorithm: int = ...,
) -> None: ...
def conv2d_input_grad(
    output_grad: RealArray,
    kernels: RealArray,
    input_grad: RealArray,
    geometry: Geometry,
    num_threads: int,
    algorithm: int = 0,
) -> None: ...
def explain(
    operation: int,
    input_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    geometry: Geometry,
    num_threads: int,
    itemsize: int,
    kernels: RealArray | None = None,
) -> tuple[list[Row], int]: ...
