import numpy as np
import numpy.typing as npt

from .._support.checks import RealArray

RULES: dict[str, int]
CLIPPING: dict[str, int]

class Update:
    iterations: int
    learning_rate: float
    first: RealArray | None
    second: RealArray | None
    def __init__(
        self,
        rule: int,
        end: npt.NDArray[np.intp],
        multiplier: npt.NDArray[np.float64],
        first: RealArray | None = None,
        second: RealArray | None = None,
        clipping: int = 0,
        limit: float = 0,
        momentum: float = 0,
        nesterov: bool = False,
        beta_1: float = 0,
        beta_2: float = 0,
        epsilon: float = 0,
    ) -> None: ...
    def freeze(self, frozen: npt.NDArray[np.uint8] | None) -> None: ...
    def update(self, weights: RealArray, gradient: npt.NDArray[np.float64]) -> None: ...
