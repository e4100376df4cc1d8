"""Training of convolution kernels by gradient descent, in a single call."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .._support.atomic_files import FilePath, path_of
from .._support.checks import (
    RealArray,
    as_kernel_shape,
    as_numeric_array,
    boolean,
    check_dimensions,
    check_finite,
    common_dtype,
    finite_number,
    integer,
)
from .._support.fingerprints import fingerprint
from .._support.large_arrays import part_of
from .._support.ranks import Ranks, together
from ..config import resolve_num_threads
from ..errors import DivergenceError
from ..ops.data import as_samples, generate_kernels, open_data, paired_samples, random_generator
from ..ops.shapes import KERNELS, Convolution, Padding, Pair, resolve
from ..solve.products import products_of_units
from ._optimizers import RULES, Update
from ._training import Trainer
from .callbacks import Callback
from .checkpoint import DEFAULT_EVERY, describe, make_checkpoint, put_array
from .hooks import checked_callbacks
from .loop import run_epochs
from .methods import Method, choose_method, samples_of_unit
from .reader import make_trainer, place
from .shared_steps import SharedTrainer
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
    checkpoint: FilePath | None = None,
    checkpoint_every: int | str = DEFAULT_EVERY,
    resume: bool = False,
    max_memory: int | str | None = None,
    comm: Any = None,
) -> RealArray:
    """Train convolution kernels by gradient descent on the mean squared error.

    For each batch of samples: predict, compute the loss and its gradient, and take the step
    ``kernels -= learning_rate * gradient``.

    Parameters
    ----------
    input_file : path or array_like, (N, C, H, W)
        The input data: a .npy file, shards such as ``"x-*.npy"``, a .npz file with one array, the
        array itself, or whatever slices like one (h5py, Zarr, Dask). An array may also be a single
        sample, (C, H, W).
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
        with methods as in Keras (on_epoch_end, ...) are called as by `Sequential.fit`. What else
        one raises, such as an OSError since a file cannot be written, ends the training: a
        `History` that comes before it has the kernels of this epoch.
    method : "auto", "direct" or "statistics", default "auto"
        Where losses and gradients come from: "direct", the pixels in every epoch; "statistics",
        sums of their products, from which the same losses follow up to rounding (see
        docs/least-squares.md); "auto", what promises to be faster, with sums of at most 64 MiB. The
        reports of the epochs say what was taken.
    verbose : bool, default True
        Print a line for each epoch; on a terminal, a progress bar when there are many.
    num_threads : int, optional
        Default: `get_num_threads`. The result has the same bits for any number.
    checkpoint : path, optional
        A .npz file to write the state of the training to, with those of learning rate and callbacks
        that have get_state() and set_state(state), as convext's do. The one before is kept beside
        it: run-previous.npz. Ctrl-C and SIGTERM write a last one, then raise KeyboardInterrupt.
    checkpoint_every : int or str, default "30s"
        The epochs from one checkpoint to the next, or the seconds. One is written at the end, too.
    resume : bool, default False
        Go on from the checkpoint, with the bits of a training that never stopped; where there is
        none yet, begin anew. Data and options must be the same, only `num_epochs` may be larger.
        Without `resume` an older checkpoint is replaced.
    max_memory : int or str, optional
        How many bytes of the data may be in memory, such as "2GB", where they are files, maps, or
        slice like an array. Data that are larger are read anew in each epoch, in blocks, each while
        the one before is computed, with the same bits; see docs/large-data.md. Default: half of the
        memory that is available.
    comm : mpi4py.MPI.Comm, optional
        A communicator, such as ``MPI.COMM_WORLD``, whose processes all make this call with the same
        arguments. Each reads and computes its share of every batch; the gradients are summed in the
        order of the ranks. All return the same kernels, those of one process but for rounding.
        Rank 0 prints, calls the callbacks (`History` is called on all ranks), and writes the
        checkpoint. `num_threads` is by default the CPUs of the machine over its ranks. An error on
        some ranks alone ends the whole job; see docs/mpi.md.

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
        An argument does not fit, or the data contain NaN or infinity. The checkpoint is of another
        training (the message says what differs), or damaged (it says which older one is good).
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

    The same in two goes:

    >>> import tempfile
    >>> options = {"seed": 0, "verbose": False, "resume": True}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options["checkpoint"] = f"{folder}/run.npz"
    ...     for epochs in (50, 500):
    ...         again = convext.train_model(before, after, 1, (3, 3), 0.3, epochs, **options)
    >>> np.array_equal(again, learned)
    True
    """
    with together(comm, "train_model") as ranks:
        num_kernels = integer("num_kernels", num_kernels, minimum=1)
        size = as_kernel_shape(kernel_shape)
        num_epochs = integer("num_epochs", num_epochs, minimum=1)
        batch_size = integer("batch_size", batch_size, minimum=1)
        shuffle = boolean("shuffle", shuffle)
        seed = None if seed is None else integer("seed", seed, minimum=0)
        callbacks = checked_callbacks(callbacks)
        how_saved = checkpoint, checkpoint_every, resume
        saved = ranks.attempt(lambda: make_checkpoint(*how_saved) if ranks.first else None)
        if not callable(learning_rate):
            learning_rate = finite_number("learning_rate", learning_rate, minimum=0)
        threads = resolve_num_threads(num_threads, ranks)
        how: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
        sources = input_file, target_file, max_memory
        inputs, targets, block, options, loss_of_zero = _checked_data(
            *sources, num_kernels, size, how, ranks
        )
        start = _first_kernels(kernels, (num_kernels, inputs.shape[1], *size), seed)
        data = {"input_data": inputs, "target_output": targets}
        if kernels is not None:
            data["kernels"] = start
        dtypes = {name: array.dtype for name, array in data.items()}
        trained = np.array(start, common_dtype(**dtypes), order="C")
        sizes = batch_size, block
        run = _Run(data, trained, options, learning_rate, sizes, shuffle, seed, threads, ranks)
        run.loss_of_zero = loss_of_zero
        shapes = inputs.shape, trained.shape, options.output_shape
        run.method = choose_method(
            method, *shapes, unit=run.unit, num_epochs=num_epochs, alone=ranks.size == 1
        )
        run_epochs(run, num_epochs, callbacks, verbose, 0, saved, ranks)
        return trained


class _Run:
    """A training under way: takes an epoch at a time, and notices when the loss diverges."""

    model = None

    def __init__(
        self,
        data: dict[str, npt.NDArray[Any]],
        kernels: RealArray,
        options: Convolution,
        learning_rate: float | Callable[[int], float],
        sizes: tuple[int, int],  # samples of a batch, and those that are read at a time, or 0
        shuffle: bool,
        seed: int | None,
        num_threads: int,
        ranks: Ranks,
    ) -> None:
        batch_size, block = sizes
        inputs, targets = data["input_data"], data["target_output"]
        update = Update(RULES["sgd"], np.array([kernels.size], np.intp), np.ones(1))
        how = batch_size, options.geometry, num_threads, update
        self.trainer: Trainer | SharedTrainer
        if ranks.size == 1:
            self.trainer = make_trainer(inputs, targets, block, kernels, *how)
        else:
            self.trainer = SharedTrainer(inputs, targets, kernels, *how, ranks)
        self.weights, self.options, self.data = kernels, options, data
        self.inputs = self.trainer.input_data  # converted, where they are in memory
        self.learning_rate, self.batch_size, self.seed = learning_rate, batch_size, seed
        self.shuffle, self.num_threads = shuffle, num_threads
        self.unit = samples_of_unit(len(inputs), batch_size, self.shuffle)
        self.in_order = np.arange(len(inputs))
        # A stream of its own, so that the order does not depend on how the kernels were made.
        self.generator = None
        if shuffle:
            of_seed = [] if seed is None else [seed, len(inputs)]
            self.generator = np.random.default_rng(of_seed) if of_seed else random_generator(None)
        self.ranks, self.loss_of_zero = ranks, math.inf
        self.first_loss: float | None = None
        self.method = "direct"
        # The kernels at the start of this epoch and of the one before.
        self.before = self.earlier = kernels.copy()

    def kernels(self) -> RealArray:
        """Return the kernels, themselves."""
        return self.weights

    def order(self) -> npt.NDArray[np.intp]:
        """Return the order of the samples in the next epoch."""
        if self.generator is None:
            return self.in_order
        return self.generator.permutation(len(self.inputs))

    def epoch(self, number: int, rate: float, order: npt.NDArray[np.intp]) -> dict[str, float]:
        """Run an epoch; return its loss."""
        self.earlier, self.before = self.before, self.weights.copy()
        self._use_products()
        self.ranks.take(self.weights)  # a callback may have changed them
        loss, first_loss = self.trainer.run_epoch(order, rate)
        if self.first_loss is None:
            self.first_loss = first_loss
        # Comparisons with NaN are False.
        if not loss <= DIVERGED * max(self.loss_of_zero, self.first_loss):
            last_good = self.before if math.isfinite(first_loss) else self.earlier
            raise self._divergence(number, rate, loss, last_good)
        return {"loss": loss}

    def _use_products(self) -> None:
        if self.method == "statistics" and self.trainer.expansion is None:
            assert isinstance(self.trainer, Trainer)
            size = self.weights.shape[2:]
            self.trainer.use_products(
                products_of_units(self.inputs, size, self.options, self.unit, self.num_threads)
            )

    def progress(self) -> tuple[int, int | None]:
        """Return how many samples of the epoch are done, and how many there are."""
        return self.trainer.done, len(self.inputs)

    def settings(self) -> dict[str, Any]:
        """Return data and options by their names; see `Run`."""
        settings: dict[str, Any] = {"function": "train_model"}
        for name, array in self.data.items():
            settings |= fingerprint(name, array)
        for name in ("batch_size", "shuffle", "seed", "method"):
            settings[name] = getattr(self, name)
        rate, shape = describe(self.learning_rate), self.weights.shape
        return (
            settings | {"shape of kernels": shape, "learning_rate": rate} | self.options._asdict()
        )

    def state(self) -> dict[str, Any]:
        """Return what changes from epoch to epoch."""
        return {
            "kernels": self.weights,
            "before": self.before,
            "first_loss": self.first_loss,
            "generator": None if self.generator is None else self.generator.bit_generator.state,
            "expansion": self.trainer.expansion,
        }

    def put(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        put_array(self.weights, state["kernels"])
        put_array(self.before, state["before"])
        first = state["first_loss"]
        self.first_loss = None if first is None else finite_number("first_loss", first)
        if self.generator is not None:
            self.generator.bit_generator.state = state["generator"]
        if state["expansion"] is not None:
            self._use_products()
            assert self.trainer.expansion is not None
            put_array(self.trainer.expansion, state["expansion"])

    def _divergence(
        self, number: int, rate: float, loss: float, kernels: RealArray
    ) -> DivergenceError:
        stable = largest_stable_rate(
            self.inputs, self.weights.shape, self.options, self.batch_size, self.shuffle
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
    max_memory: int | str | None,
    num_kernels: int,
    kernel_size: tuple[int, int],
    how: dict[str, Any],
    ranks: Ranks,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int, Convolution, float]:
    """Return input, target, how many samples are read at a time, and the convolution; checked.

    With them comes the loss of predicting zero.
    """
    sources: tuple[Any, Any] = input_file, target_file
    are_paths = {isinstance(source, (str, os.PathLike)) for source in sources}
    if len(are_paths) > 1:
        raise TypeError(
            "input_file and target_file must be two paths or two arrays, "
            f"got {type(input_file).__name__} and {type(target_file).__name__}"
        )
    names = ["input_data", "target_output"]
    if are_paths == {True}:
        inputs, targets = open_data(*sources, lambda file, name: as_samples(name, file))
        names = [f"{name} ({path_of(file)})" for name, file in zip(names, sources, strict=True)]
    else:
        inputs, targets = paired_samples(*sources)
    computed = common_dtype(input_data=inputs.dtype, target_output=targets.dtype)
    inputs, targets, block = place(inputs, targets, computed.itemsize, max_memory, ranks.size)
    options = resolve(inputs.shape, kernel_size, **how, groups=1)
    expected = (len(inputs), num_kernels, *options.output_shape)
    if targets.shape != expected:
        raise ValueError(
            f"{names[1]} must have the shape {expected} for {num_kernels} kernels of "
            f"{kernel_size[0]}x{kernel_size[1]} on {names[0]} of shape {inputs.shape}, got "
            f"{targets.shape}"
        )
    own = ranks.part(len(inputs))
    ranks.attempt(partial(check_finite, names[0], part_of(inputs, (own,)), own.start))
    part = part_of(targets, (own,))
    squares = np.array([ranks.attempt(partial(_finite_squares, names[1], part, own.start))])
    ranks.add(squares)
    return inputs, targets, block, options, squares[0] / targets.size


def _finite_squares(name: str, array: npt.NDArray[Any], start: int) -> float:
    """Return the sum of the squares of values, which `check_finite` checks.

    Where the sum is finite, all of them are, and are read once.
    """
    total = float(energies(array).sum())
    if not math.isfinite(total):
        check_finite(name, array, start)
    return total


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
