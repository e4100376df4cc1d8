"""The textbook run: an epoch of the plain loops, and of JAX where installed, beside one of convext.

100 samples of 3x28x28, two 2x2 kernels, batch size 1, float64. Run as
``python -m benchmarks.textbook``.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import numpy as np

import convext

LEARNING_RATE = 0.1
FIRST_EPOCHS = 10


def plain_conv2d(image, kernels):
    """Convolve as the definition reads, a pixel at a time."""
    num_kernels, _, kh, kw = kernels.shape
    height, width = image.shape[1] - kh + 1, image.shape[2] - kw + 1
    result = np.zeros((num_kernels, height, width))
    for k in range(num_kernels):
        for y in range(height):
            for x in range(width):
                result[k, y, x] = np.sum(image[:, y : y + kh, x : x + kw] * kernels[k])
    return result


def plain_gradient(image, kernels, residual):
    """Return the gradient of the mean squared error, a pixel at a time."""
    _, _, kh, kw = kernels.shape
    gradient = np.zeros_like(kernels)
    for k in range(len(kernels)):
        for y in range(residual.shape[1]):
            for x in range(residual.shape[2]):
                window = image[:, y : y + kh, x : x + kw]
                gradient[k] += 2 * residual[k, y, x] / residual.size * window
    return gradient


def plain_epoch(inputs, targets, kernels):
    """Run an epoch of the textbook program, updating `kernels`; return the average loss."""
    losses = []
    for image, target in zip(inputs, targets, strict=True):
        residual = plain_conv2d(image, kernels) - target
        losses.append(np.mean(residual**2))
        kernels -= LEARNING_RATE * plain_gradient(image, kernels, residual)
    return np.mean(losses)


def fastest_training(inputs, targets, start, method, epochs, repeats):
    """Return the history of one training, and the least time that the epochs of any took."""
    totals = []
    for _ in range(repeats):
        history = convext.History()
        convext.train_model(
            inputs,
            targets,
            2,
            (2, 2),
            LEARNING_RATE,
            epochs,
            kernels=start,
            callbacks=[history],
            method=method,
            verbose=False,
        )
        totals.append(sum(history.seconds))
    return history, min(totals)


def fastest_epoch(history):
    """Return the time of the fastest of the epochs after the first few."""
    return min(history.seconds[FIRST_EPOCHS:] or history.seconds)


def jax_epoch(inputs, targets, start, repeats):
    """Return the loss and the least seconds of an epoch of JAX, compiled as one scan; or None."""
    try:
        import jax
    except ImportError:
        return None
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)

    def loss(kernels, image, target):
        predicted = jax.lax.conv_general_dilated(image[None], kernels, (1, 1), "VALID")
        return ((predicted[0] - target) ** 2).mean()

    def step(kernels, sample):
        value, gradient = jax.value_and_grad(loss)(kernels, *sample)
        return kernels - LEARNING_RATE * gradient, value

    samples = tuple(map(jax.numpy.asarray, (inputs, targets)))
    epoch = jax.jit(lambda kernels: jax.lax.scan(step, kernels, samples))
    seconds = []
    for _ in range(repeats + 1):  # the first one compiles
        begin = time.perf_counter()
        _, losses = jax.block_until_ready(epoch(start))
        seconds.append(time.perf_counter() - begin)
    return float(losses.mean()), min(seconds[1:])


def main():
    """Print both times, their ratio, and that both computed the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100, help="of convext (default 100)")
    parser.add_argument("--repeats", type=int, default=20, help="of each training (default 20)")
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    inputs, targets = rng.random((100, 3, 28, 28)), rng.random((100, 2, 27, 27))
    start = rng.random((2, 3, 2, 2))

    kernels = start.copy()
    begin = time.perf_counter()
    plain_loss = plain_epoch(inputs, targets, kernels)
    plain_seconds = time.perf_counter() - begin

    histories, totals = {}, {}
    for method in ("direct", "statistics"):
        histories[method], totals[method] = fastest_training(
            inputs, targets, start, method, arguments.epochs, arguments.repeats
        )
    direct, later = (fastest_epoch(histories[method]) for method in histories)
    history = histories["direct"]
    difference = abs(history.loss[0] / plain_loss - 1)
    print(f"machine          {cpu_name()}, Python {platform.python_version()}")
    print(f"instruction set  {convext.get_config()['isa']}")
    print(f"plain loops      {plain_seconds:.3f} s an epoch")
    print(f"convext, direct  {direct * 1e3:.3f} ms an epoch")
    print(f"from statistics  {later * 1e3:.4f} ms an epoch")
    print(f"ratios           {plain_seconds / direct:.0f} and {plain_seconds / later:.0f}")
    print_jax(jax_epoch(inputs, targets, start, 10 * arguments.repeats), plain_loss, direct, later)
    print(f"{arguments.epochs} epochs in all, statistics included:")
    for method, seconds in totals.items():
        print(f"  {method:<14} {seconds * 1e3:.2f} ms")
    print(f"direct over statistics: {direct / later:.1f} for an epoch, ", end="")
    print(f"{totals['direct'] / totals['statistics']:.1f} for {arguments.epochs}")
    losses = [np.array(history.loss) for history in histories.values()]
    print(f"their losses     differ by {np.max(np.abs(losses[1] / losses[0] - 1)):.1e} at most")
    print(f"loss of epoch 1  {history.loss[0]:.15f}, relative difference {difference:.1e}")


def print_jax(result, plain_loss, direct, later):
    """Print JAX's time of an epoch beside convext's."""
    if result is None:
        print("JAX              is not installed")
        return
    loss, seconds = result
    difference = abs(loss / plain_loss - 1)
    print(f"JAX, jit of scan {seconds * 1e3:.2f} ms an epoch, its loss differs by {difference:.1e}")
    print(f"ratios           {seconds / direct:.1f} and {seconds / later:.0f}")


def cpu_name():
    """Return the name of the processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} CPUs" if names else platform.machine()


if __name__ == "__main__":
    main()
