"""What several threads share: the same results as those of one thread, or a clear error."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

import convext


def run_together(count, function, *args, **options):
    """Call a function in so many threads, which begin together; return what each returned."""
    barrier = Barrier(count)

    def begin():
        barrier.wait()
        return function(*args, **options)

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(begin) for _ in range(count)]
        return [future.result() for future in futures]


# (input shape, kernel shape, options): by each way that keeps kernels.
FIRST_USES = [
    *(((c, size, size), (c, c, 1, 1), {}) for c, size in [(16, 56), (33, 28), (64, 14)]),
    ((16, 28, 28), (24, 16, 3, 3), {"algorithm": "direct"}),
    ((16, 28, 28), (24, 16, 3, 3), {"algorithm": "winograd"}),
    ((4, 40, 40), (6, 4, 9, 9), {"algorithm": "fft"}),
    ((1, 64, 64), (1, 1, 7, 7), {}),
]


@pytest.mark.parametrize(("input_shape", "kernel_shape", "options"), FIRST_USES)
def test_threads_may_use_prepared_kernels_for_the_first_time_together(
    input_shape, kernel_shape, options
):
    rng = np.random.default_rng(1)
    images = rng.standard_normal(input_shape, np.float32)
    kernels = rng.standard_normal(kernel_shape, np.float32)
    if kernel_shape[:2] == (1, 1):
        kernels = np.ones_like(kernels)
    expected = convext.conv2d(images, kernels, **options)
    for _ in range(60):
        prepared = convext.prepare_kernels(kernels, **options)
        results = run_together(3, convext.conv2d, images, prepared, num_threads=2)
        assert all(np.array_equal(result, expected) for result in results)
