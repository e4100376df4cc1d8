from ._checks import RealArray

def conv2d(
    input_data: RealArray,
    kernels: RealArray,
    bias: RealArray | None,
    out: RealArray,
    stride: tuple[int, int],
    padding_before: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    num_threads: int,
) -> None: ...
