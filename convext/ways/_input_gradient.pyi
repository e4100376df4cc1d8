from .._support.checks import RealArray

def conv2d_input_grad(
    output_grad: RealArray,
    kernels: RealArray,
    input_grad: RealArray,
    stride: tuple[int, int],
    padding_before: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    num_threads: int,
    algorithm: int = 0,
) -> None: ...
