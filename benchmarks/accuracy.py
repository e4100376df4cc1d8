"""The rounding errors of float32, beside float64.

First the kernel gradient of large grey images, whose sums are long; then Winograd's algorithm
beside the direct way. Run as ``python -m benchmarks.accuracy``.
"""

from __future__ import annotations

import argparse

import numpy as np

import convext

IMAGES = {"1080p": (1080, 1920), "4K": (2160, 3840)}
SIZE = 5

# Channels, kernels, height and width, and size of the kernels.
LAYERS = [(64, 64, 56, 3), (256, 256, 14, 3), (512, 512, 14, 3)]

DATA = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.random(shape),
}


def main():
    """Print both tables."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(f"kernel gradient, 1 channel, {SIZE}x{SIZE}, uniform random data")
    print("largest error, relative to the largest entry")
    for name, shape in IMAGES.items():
        print(f"  {name:<8}{error_of_long_sums(shape):10.1e}", flush=True)
    print()
    print("Winograd's errors, as a multiple of the direct way's: root mean square, largest")
    for layer in LAYERS:
        channels, kernels, pixels, size = layer
        print(f"{channels} -> {kernels} channels, {size}x{size} on {pixels}x{pixels}")
        for name, make in DATA.items():
            ratios = winograd_ratios(layer, make)
            print(f"  {name:<8}", *(f"{key} {rms:.2f} {most:.2f} " for key, (rms, most) in ratios))


def error_of_long_sums(shape):
    """Return the largest error of a kernel gradient in float32, beside sums by NumPy in float64."""
    rng = np.random.default_rng(0)
    image = rng.random(shape, dtype=np.float32)
    gradient = rng.random([length - SIZE + 1 for length in shape], dtype=np.float32)
    result = convext.conv2d_kernel_grad(image[None], gradient[None], (SIZE, SIZE))[0, 0]
    wide, height, width = gradient.astype(float), *gradient.shape
    expected = np.array(
        [
            [np.vdot(image[i : i + height, j : j + width].astype(float), wide) for j in range(SIZE)]
            for i in range(SIZE)
        ]
    )
    return np.abs(result - expected).max() / np.abs(expected).max()


def winograd_ratios(layer, make):
    """Return, by operation, the ratios of the errors of both ways."""
    channels, kernels, pixels, size = layer
    rng = np.random.default_rng(0)
    images = make(rng, (1, channels, pixels, pixels)).astype(np.float32)
    weights = make(rng, (kernels, channels, size, size)).astype(np.float32)
    output = make(rng, (1, kernels, pixels, pixels)).astype(np.float32)
    padding = size // 2
    operations = {
        "forward": lambda x, w, g, how: convext.conv2d(x, w, padding=padding, algorithm=how),
        "kernel gradient": lambda x, w, g, how: convext.conv2d_kernel_grad(
            x, g, (size, size), padding=padding, algorithm=how
        ),
        "input gradient": lambda x, w, g, how: convext.conv2d_input_grad(
            g, w, x.shape, padding=padding, algorithm=how
        ),
    }
    for name, function in operations.items():
        exact = function(
            images.astype(float), weights.astype(float), output.astype(float), "direct"
        )
        errors = [
            np.abs(function(images, weights, output, how) - exact) for how in ("winograd", "direct")
        ]
        rms = [np.sqrt(np.mean(error**2)) for error in errors]
        yield name, (rms[0] / rms[1], errors[0].max() / errors[1].max())


if __name__ == "__main__":
    main()
