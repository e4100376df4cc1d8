"""Training of convolution kernels by gradient descent, in a single call."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .._support.atomic_files import FilePath, path_of
from .._support.checks import (
    RealArray,
    as_dtype,
    as_kernel_shape,
    as_numeric_array,
    boolean,
    check_dimensions,
    check_finite,
    common_dtype,
    finite_number,
    integer,
)
from .._support.large_arrays import loaded
from ..config import resolve_num_threads
from ..errors import DivergenceError
from ..ops.data import generate_kernels, load_data, paired_samples, random_generator
from ..ops.shapes import KERNELS, Convolution, Padding, Pair, resolve
from ..solve.products import products_of_units
from . import _training
from ._optimizers import RULES, Update
from .callbacks import Callback
from .epoch_report import EpochReport
from .hooks import checked_callbacks
from .loop import run_epochs
from .methods import Method, choose_method, samples_of_unit
from .stability import energies, largest_stable_rate

Source: TypeAlias = FilePath | npt.ArrayLike

# A loss has diverged when it is that many times the one of predicting zero, or the first one.
DIVERGED = 1000.0


def train_model(
    input_file: Source,
    target_file: Source,
    num_kernels: int,
    kernel_shape: Pair,
    learning_rate: float | Callable[[int], float] = 0.1,
    num_epochs: int = 100,
    *,
    kernels: npt.ArrayLike | None = None,
    seed: int | None = None,
    batch_size: int = 1,
    shuffle: bool = False,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    callbacks: Iterable[Callback] | None = None,
    method: Method = "auto",
    verbose: bool = True,
    num_threads: int | None = None,
) -> RealArray:
    """Train convolution kernels by gradient descent on the mean squared error.

    For every epoch and every batch of samples in order: predict, compute the loss and its
    gradient, and take the step ``kernels -= learning_rate * gradient``.

    Parameters
    ----------
    input_file : path or array_like, (N, C, H, W)
        The input data: a .npy file, a .npz file with one array, or the array itself. An array may
        also be a single sample, (C, H, W).
    target_file : path or array_like, (N, num_kernels, OH, OW)
        What the convolution should give, likewise.
    num_kernels : int
        How many kernels to train: the channels of the target.
    kernel_shape : int or (int, int)
        Height and width of the kernels, (kh, kw); one number is both.
    learning_rate : float or callable, default 0.1
        The length of a step, or a function that returns it for an epoch, counted from 0; see
        `convext.schedules`. If the function has a method ``observe``, it is told the loss of each
        epoch; if it has ``reset``, that is called before the first.
    num_epochs : int, default 100
        How often to go through the data.
    kernels : array_like, (num_kernels, C, kh, kw), optional
        The kernels to start from (they are copied). Default: `generate_kernels`.
    seed : int, optional
        Makes the first kernels and the shuffling repeatable. By default seeds are drawn from
        NumPy's global generator, which ``numpy.random.seed`` makes repeatable.
    batch_size : int, default 1
        Samples for a step. The last batch of an epoch may be smaller.
    shuffle : bool, default False
        Take the samples in a new random order in every epoch.
    stride, padding, dilation
        Of the convolution; see `conv2d`.
    callbacks : iterable of callables, optional
        Each is called after each epoch with an `EpochReport`, and may raise `StopTraining`; those
        with methods as in Keras (on_epoch_end, ...) are called as by `Sequential.fit`.
    method : "auto", "direct" or "statistics", default "auto"
        Where losses and gradients come from. "direct" computes them from the pixels in every epoch.
        "statistics" does so in the first one, and sums the products of every two pixels of the
        patches: from these follow the same losses, up to rounding, for any kernels. Where a loss
        has fallen so far that it would lose digits so, it is computed from the pixels again. "auto"
        takes what promises to be faster for the shapes, batches and epochs, if the sums need no
        more than 64 MiB. The reports of the epochs say what was taken.
    verbose : bool, default True
        Print a line for each epoch; on a terminal, a progress bar when there are many.
    num_threads : int, optional
        Default: `get_num_threads`. The result has the same bits for any number.

    Returns
    -------
    numpy.ndarray, (num_kernels, C, kh, kw)
        The trained kernels: float32 when all arrays given are float32 (or float16), else float64.

    Raises
    ------
    DivergenceError
        The loss became infinite or NaN, or more than 1000 times what predicting zero gives. It
        says which learning rate would be stable; see `suggest_learning_rate`.
    TypeError, ValueError
        An argument does not fit, or the data contain NaN or infinity.
    OSError
        A file cannot be read.

    Notes
    -----
    The loss that is reported for an epoch is the mean over the predictions made on the way, with
    the kernels as they were then.

    Examples
    --------
    Learn a filter from an image before and after:

    >>> import numpy as np
    >>> import convext
    >>> rng = np.random.default_rng(0)
    >>> before = rng.random((20, 1, 16, 16))
    >>> blur = np.array([[[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]]) / 16
    >>> after = convext.conv2d(before, blur)
    >>> learned = convext.train_model(before, after, 1, (3, 3), 0.3, 500, seed=0, verbose=False)
    >>> bool(np.abs(learned - blur).max() < 1e-3)
    True
    """
    num_kernels = integer("num_kernels", num_kernels, minimum=1)
    size = as_kernel_shape(kernel_shape)
    num_epochs = integer("num_epochs", num_epochs, minimum=1)
    batch_size = integer("batch_size", batch_size, minimum=1)
    shuffle = boolean("shuffle", shuffle)
    seed = None if seed is None else integer("seed", seed, minimum=0)
    callbacks = checked_callbacks(callbacks)
    if not callable(learning_rate):
        learning_rate = finite_number("learning_rate", learning_rate, minimum=0)
    threads = resolve_num_threads(num_threads)
    how: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    inputs, targets, options = _checked_data(input_file, target_file, num_kernels, size, how)
    start = _first_kernels(kernels, (num_kernels, inputs.shape[1], *size), seed)
    dtypes = {"input_data": inputs.dtype, "target_output": targets.dtype}
    if kernels is not None:
        dtypes["kernels"] = start.dtype
    trained = np.array(start, common_dtype(**dtypes), order="C")
    run = _Run(inputs, targets, trained, options, learning_rate, batch_size, shuffle, threads)
    shapes = inputs.shape, trained.shape, options.output_shape
    run.method = choose_method(method, *shapes, unit=run.unit, num_epochs=num_epochs)
    run_epochs(run, num_epochs, _orders(len(inputs), shuffle, seed), callbacks, verbose)
    return trained


class _Run:
    """A training under way: takes an epoch at a time, and notices when the loss diverges."""

    def __init__(
        self,
        inputs: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        kernels: RealArray,
        options: Convolution,
        learning_rate: float | Callable[[int], float],
        batch_size: int,
        shuffle: bool,
        num_threads: int,
    ) -> None:
        images, wanted = (as_dtype(a, kernels.dtype, contiguous=True) for a in (inputs, targets))
        update = Update(RULES["sgd"], np.array([kernels.size], np.intp), np.ones(1))
        self.trainer = _training.Trainer(
            images, wanted, kernels, batch_size, options.geometry, num_threads, update
        )
        self.kernels, self.inputs, self.options = kernels, images, options
        self.learning_rate, self.batch_size = learning_rate, batch_size
        self.shuffle, self.num_threads = shuffle, num_threads
        self.unit = samples_of_unit(len(images), batch_size, self.shuffle)
        self.loss_of_zero = energies(targets).sum() / targets.size
        self.first_loss: float | None = None
        self.method = "direct"
        # The kernels at the start of this epoch and of the one before.
        self.before = self.earlier = kernels.copy()

    def report(self, number: int, rate: float, order: npt.NDArray[np.intp]) -> EpochReport:
        """Run an epoch; return what there is to say about it."""
        self.earlier, self.before = self.before, self.kernels.copy()
        started = time.perf_counter()
        if number == 1 and self.method == "statistics":
            size = self.kernels.shape[2:]
            self.trainer.use_products(
                products_of_units(self.inputs, size, self.options, self.unit, self.num_threads)
            )
        loss, first_loss = self.trainer.run_epoch(order, rate)
        seconds = time.perf_counter() - started
        if self.first_loss is None:
            self.first_loss = first_loss
        # Comparisons with NaN are False.
        if not loss <= DIVERGED * max(self.loss_of_zero, self.first_loss):
            last_good = self.before if math.isfinite(first_loss) else self.earlier
            raise self._divergence(number, rate, loss, last_good)
        return EpochReport(
            number, loss, rate, seconds, self.kernels.copy(), self.method, weights=self.kernels
        )

    def progress(self) -> tuple[int, int | None]:
        """Return how many samples of the epoch are done, and how many there are."""
        return self.trainer.done, len(self.inputs)

    def _divergence(
        self, number: int, rate: float, loss: float, kernels: RealArray
    ) -> DivergenceError:
        stable = largest_stable_rate(
            self.inputs, self.kernels.shape, self.options, self.batch_size, self.shuffle
        )
        return DivergenceError(
            f"the loss is {loss:.3g} in epoch {number}, with learning_rate {rate:g}: gradient "
            f"descent diverged. On this data a learning_rate up to {stable:.3g} is stable.",
            kernels=kernels,
            epoch=number,
            loss=loss,
            learning_rate=rate,
            stable_learning_rate=stable,
        )


def _checked_data(
    input_file: Source,
    target_file: Source,
    num_kernels: int,
    kernel_size: tuple[int, int],
    how: dict[str, Any],
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Convolution]:
    """Return input, target and the convolution between them, all checked."""
    sources: tuple[Any, Any] = input_file, target_file
    are_paths = {isinstance(source, (str, os.PathLike)) for source in sources}
    if len(are_paths) > 1:
        raise TypeError(
            "input_file and target_file must be two paths or two arrays, "
            f"got {type(input_file).__name__} and {type(target_file).__name__}"
        )
    names = ["input_data", "target_output"]
    if are_paths == {True}:
        inputs, targets = load_data(*sources)
        names = [f"{name} ({path_of(file)})" for name, file in zip(names, sources, strict=True)]
    else:
        inputs, targets = map(loaded, paired_samples(*sources))
    options = resolve(inputs.shape, kernel_size, **how, groups=1)
    expected = (len(inputs), num_kernels, *options.output_shape)
    if targets.shape != expected:
        raise ValueError(
            f"{names[1]} must have the shape {expected} for {num_kernels} kernels of "
            f"{kernel_size[0]}x{kernel_size[1]} on {names[0]} of shape {inputs.shape}, got "
            f"{targets.shape}"
        )
    check_finite(names[0], inputs)
    check_finite(names[1], targets)
    return inputs, targets, options


def _first_kernels(
    kernels: npt.ArrayLike | None, shape: tuple[int, int, int, int], seed: int | None
) -> npt.NDArray[Any]:
    if kernels is None:
        return generate_kernels(shape[0], shape[2:], shape[1], seed=seed)
    given = as_numeric_array("kernels", kernels)
    check_dimensions("kernels", given.shape, KERNELS)
    if given.shape != shape:
        raise ValueError(f"kernels must have the shape {shape}, got {given.shape}")
    check_finite("kernels", given)
    return given


def _orders(
    num_samples: int, shuffle: bool, seed: int | None
) -> Callable[[], npt.NDArray[np.intp]]:
    """Return a function that gives the order of the samples, epoch after epoch."""
    if not shuffle:
        in_order = np.arange(num_samples)
        return lambda: in_order
    # A stream of its own, so that the order does not depend on how the kernels were made.
    generator = (
        random_generator(None) if seed is None else np.random.default_rng([seed, num_samples])
    )
    return lambda: generator.permutation(num_samples)
