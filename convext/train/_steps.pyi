from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.checks import RealArray
from ..ops.shapes import Geometry

LOSSES: dict[str, int]

class Layer:
    kernels: RealArray
    bias: RealArray | None
    offset: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    geometry: Geometry
    activation: int
    def __init__(
        self,
        kernels: RealArray,
        bias: RealArray | None,
        offset: int,
        input_shape: tuple[int, ...],
        output_shape: tuple[int, ...],
        geometry: Geometry,
        activation: int,
    ) -> None: ...

class Step:
    gradient: npt.NDArray[np.float64]
    measures: npt.NDArray[np.float64] | None
    def __init__(
        self,
        layers: list[Layer],
        num_weights: int,
        batch_size: int,
        loss: int,
        crop: tuple[slice, slice] | None,
        dtype: np.dtype[Any],
        num_threads: int,
        measuring: bool = False,
    ) -> None: ...
    def run(
        self,
        inputs: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        order: npt.NDArray[np.intp],
        sample_weights: npt.NDArray[np.float64] | None,
        learning: bool,
    ) -> float: ...
