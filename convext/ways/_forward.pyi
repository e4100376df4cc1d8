from .._support.checks import RealArray

ALGORITHMS: dict[str, int]

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
    kept: dict[object, object] | None = None,
    algorithm: int = 0,
) -> None: ...
def keep_kernels(
    kernels: RealArray,
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    stride: tuple[int, int],
    padding_before: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    kept: dict[object, object],
    algorithm: int = ...,
) -> None: ...
