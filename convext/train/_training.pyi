from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.checks import RealArray
from ..ops.shapes import Geometry
from ._optimizers import Update
from .reader import Reader

def fuses(
    input_shape: tuple[int, ...],
    target_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    batch_size: int,
    geometry: Geometry,
    itemsize: int,
) -> bool: ...

class Trainer:
    done: int
    fused: bool
    part: int
    input_data: npt.NDArray[Any]
    reader: Reader | None
    @property
    def expansion(self) -> npt.NDArray[np.uint8] | None: ...
    def __init__(
        self,
        input_data: npt.NDArray[Any],
        target_output: npt.NDArray[Any],
        kernels: RealArray,
        batch_size: int,
        geometry: Geometry,
        num_threads: int,
        update: Update,
        biased: bool = False,
        activation: int = 0,
    ) -> None: ...
    def use_products(self, products: npt.NDArray[np.float64]) -> None: ...
    def run_epoch(
        self, order: npt.NDArray[np.intp], learning_rate: float
    ) -> tuple[float, float]: ...
