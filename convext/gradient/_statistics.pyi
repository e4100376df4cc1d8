import numpy as np
import numpy.typing as npt

def patch_products(
    images: npt.NDArray[np.float64],
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    output_shape: tuple[int, int],
    samples_of_unit: int,
    products: npt.NDArray[np.float64],
    num_threads: int,
) -> None: ...
