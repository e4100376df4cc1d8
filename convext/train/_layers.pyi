from .._support.checks import RealArray

ACTIVATIONS: dict[str, int]

def activate(out: RealArray, bias: RealArray | None, activation: int, num_threads: int) -> None: ...
def differentiate(
    gradient: RealArray,
    activated: RealArray,
    bias_grad: RealArray | None,
    activation: int,
    num_threads: int,
) -> None: ...
