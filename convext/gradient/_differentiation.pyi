from .._support.checks import RealArray
from ..ops.shapes import Geometry
from ..ways._convolution import Row

NAMES: tuple[str, ...]

def conv2d_kernel_grad(
    input_data: RealArray,
    output_grad: RealArray,
    kernel_grad: RealArray,
    geometry: Geometry,
    num_threads: int,
    algorithm: int = 0,
) -> None: ...
def explain(
    input_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    geometry: Geometry,
    num_threads: int,
    itemsize: int,
) -> tuple[list[Row], int]: ...
