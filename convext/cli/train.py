"""The command ``convext train``: kernels, by gradient descent."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np

from .._support.array_files import NumericArray
from .._support.atomic_files import FilePath
from .._support.checks import RealArray, real_dtype
from .._support.interruption import save_anywhere, stoppable, telling, unused_name
from .._support.large_arrays import in_memory, is_large
from .._support.memory import format_bytes, memory_limit
from .._support.messages import counted, format_loss, format_size, say
from .._version import __version__
from ..kernels_file import save_kernels
from ..ops.data import DataFormat, as_samples, open_data
from ..ops.shapes import resolve
from ..schedules import Schedule, cosine_decay, exponential_decay, reduce_on_plateau, step_decay
from ..train.callbacks import History
from ..train.epoch_report import EpochReport
from ..train.methods import METHODS
from ..train.training import train_model
from .arguments import (
    Parser,
    UsageError,
    add_channels,
    add_shared,
    checkpoint_files,
    checkpoint_options,
    integer_from,
)
from .arrays import channels_first
from .generate import CHANNELS, IMAGE_SIZE, KERNEL_SHAPE, NUM_KERNELS, SAMPLES
from .outputs import check_outputs

EPOCHS_WITHOUT_FILES, EPOCHS = 10, 100

# Epochs of which a record holds the loss, at most; they stand for those between.
_MOST_LOSSES = 500_000

DESCRIPTION = (
    "Train convolution kernels that turn the input into the target, by gradient descent.\n\n"
    'INPUT (N, C, H, W) and TARGET (N, K, OH, OW) are .npy files, shards such as "x-*.npy", or '
    ".npz files that hold one array. Without them, the textbook's data set is made in memory from "
    "the seed: 100 samples of 3x28x28 and random targets, trained on for 10 epochs.\n\n"
    "A training that is interrupted (Ctrl-C, SIGTERM) leaves the kernels of its last whole "
    "epoch in the file of --out. Where there is one already, it stays, and they are in a file "
    "named after it, such as kernels-interrupted1.npz."
)
EXAMPLE = "convext train before.npy after.npy --kernel-shape 3 3 --epochs 50 --plot loss.png"


def add_arguments(parser: Parser) -> None:
    """Add files, kernels and how they are trained."""
    add = parser.add_argument
    add("input", metavar="INPUT", nargs="?", help="the file of the input data")
    add("target", metavar="TARGET", nargs="?", help="the file of the target output")
    add(
        "--num-kernels",
        type=integer_from(1),
        metavar="K",
        help="how many kernels (default: as many as TARGET has channels; 2 without files)",
    )
    add_shared(
        parser,
        "--kernel-shape",
        help="height and width of the kernels, or one number for both (default: what the sizes of "
        "INPUT and TARGET say; 2 2 without files)",
    )
    text = "zeros around the input: valid (none, the default), same, or how many"
    add_shared(parser, "--padding", help=text)
    text = "how often to go through the data (default: 100; 10 without files)"
    add_shared(parser, "--epochs", help=text)
    text = "the learning rate of the first epoch (default: 0.1)"
    add_shared(parser, "--learning-rate", default=0.1, help=text)
    add(
        "--schedule",
        metavar="NAME[:VALUE...]",
        help="how the learning rate changes: step:0.5:10 (times 0.5 every 10 epochs), "
        "exponential:0.95 (times 0.95 every epoch), cosine (down to 0; cosine:0.01 down to "
        "0.01), plateau:0.1:10 (times 0.1 after 10 epochs without improvement)",
    )
    text = "how many samples each step takes (default: 1)"
    add_shared(parser, "--batch-size", default=1, help=text)
    add("--shuffle", action="store_true", help="take the samples in a new order every epoch")
    add(
        "--method",
        choices=METHODS,
        default="auto",
        help="where losses come from: direct (the pixels), statistics (sums over them), or auto "
        "(what promises to be faster; the default)",
    )
    add(
        "--max-memory",
        metavar="SIZE",
        help="how much of the data may be in memory, as in 2GB; larger ones are read in blocks in "
        "each epoch (default: half of the memory that is available)",
    )
    add_shared(parser, "--seed", "--threads", "--checkpoint", "--checkpoint-every", "--resume")
    text = "the kernels file to write (default: kernels.npz)"
    add_shared(parser, "--out", default="kernels.npz", help=text)
    add_channels(parser)
    add_shared(parser, "--plot", help="draw loss and kernels: a .png, .pdf or .svg file")
    add_shared(parser, "--quiet")


@stoppable()
def run(options: Namespace) -> None:
    """Train, save and say so."""
    if options.input is not None and options.target is None:
        raise UsageError("INPUT needs a TARGET (see convext train --help)")
    num_epochs = options.epochs or (EPOCHS if options.input else EPOCHS_WITHOUT_FILES)
    schedule = _make_schedule(options.schedule, options.learning_rate, num_epochs)
    outputs = [options.out, *checkpoint_files(options)]
    inputs, ranks = [options.input, options.target], options.ranks
    ranks.once(lambda: check_outputs(outputs, inputs, options.plot))
    with _Training(options, num_epochs) as training:
        num_kernels, kernel_shape = _sizes(options)
        input_data, target_output = _training_data(options, num_kernels, kernel_shape)
        kernels = train_model(
            input_data,
            target_output,
            num_kernels,
            kernel_shape,
            schedule or options.learning_rate,
            num_epochs,
            seed=options.seed,
            batch_size=options.batch_size,
            shuffle=options.shuffle,
            padding=options.padding,
            callbacks=[training],
            method=options.method,
            verbose=not options.quiet,
            num_threads=options.threads,
            max_memory=options.max_memory,
            **checkpoint_options(options),
            comm=ranks,
        )
        training.save()
    if not ranks.first:
        return
    if not options.quiet:
        _say_trained(options, kernels, training.history.loss)
    if options.plot is not None:
        training.history.plot(options.plot)
        if not options.quiet:
            say("Plot: {file}", file=options.plot)


class _Training:
    """Sees the epochs of a training, as a callback, and saves its kernels.

    To be used as a context manager: where the training ends early, by Ctrl-C, for lack of memory or
    since its output cannot be written, the kernels of the last whole epoch are saved, but replace
    no file.
    """

    def __init__(self, options: Namespace, num_epochs: int) -> None:
        self.options, self.num_epochs = options, num_epochs
        self.history = History()
        self.last: EpochReport | None = None

    def __call__(self, report: EpochReport) -> None:
        self.history(report)
        self.last = report

    def get_state(self) -> dict[str, object]:
        """Return what a checkpoint keeps of it."""
        return self.history.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to the last epoch of a checkpoint."""
        self.history.set_state(state)
        names = ("epoch", "loss", "learning_rate", "seconds", "method")
        last = {name: state[name][-1] for name in names}
        self.last = EpochReport(kernels=state["kernels"], **last)

    def __enter__(self) -> _Training:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            error.args = (self.save(),)
        elif isinstance(error, MemoryError | OSError) and self.last is not None:
            raise telling(error, self.save()) from error

    def save(self) -> str:
        """Save the kernels of the last epoch; return where they are."""
        report, file = self.last, self.options.out
        if report is None:
            return "no epoch has ended, there is nothing to save"
        record = self._record(report)
        if report.epoch < self.num_epochs:
            file, record["interrupted"] = unused_name(file), True
        place, error = save_anywhere(lambda file: save_kernels(file, report.kernels, record), file)
        text = f"the kernels of epoch {report.epoch} of {self.num_epochs} are in {place}"
        if error is not None:
            self.last = None  # which is saved
            raise telling(error, text)
        return text

    def _record(self, report: EpochReport) -> dict[str, object]:
        options = self.options
        random_data = f"random, seed {options.seed}"
        losses = self.history.loss[: report.epoch]
        every = max(1, -(-len(losses) // _MOST_LOSSES))
        return {
            "version": __version__,
            "input_file": options.input or random_data,
            "target_file": options.target or random_data,
            "num_kernels": report.kernels.shape[0],
            "kernel_shape": report.kernels.shape[2:],
            "padding": options.padding,
            "learning_rate": options.learning_rate,
            "schedule": options.schedule,
            "num_epochs": report.epoch,
            "batch_size": options.batch_size,
            "shuffle": options.shuffle,
            "method": report.method,
            "seed": options.seed,
            "seconds": round(sum(self.history.seconds[: report.epoch]), 3),
            "losses": losses[::every],
            **({"losses_of_every": every} if every > 1 else {}),
        }


def _make_schedule(text: str | None, rate: float, num_epochs: int) -> Schedule | None:
    """Return the schedule that ``NAME:VALUE:VALUE`` stands for."""
    if text is None:
        return None
    name, *values = text.split(":")
    makers: dict[str, Callable[..., Schedule]] = {
        "step": lambda drop="0.5", every="10": step_decay(rate, float(drop), int(every)),
        "exponential": lambda factor: exponential_decay(rate, float(factor)),
        "cosine": lambda final_rate="0": cosine_decay(rate, num_epochs, float(final_rate)),
        "plateau": lambda factor="0.1", patience="10": reduce_on_plateau(
            rate, float(factor), int(patience)
        ),
    }
    try:
        return makers[name](*values)
    except (KeyError, TypeError):
        raise UsageError(
            "argument --schedule: expected step[:DROP[:EVERY]], exponential:FACTOR, "
            f"cosine[:FINAL] or plateau[:FACTOR[:PATIENCE]], got {text!r}"
        ) from None
    except ValueError as error:
        raise UsageError(f"argument --schedule: {text!r}: {error}") from None


def _sizes(options: Namespace) -> tuple[int, tuple[int, int]]:
    """Return the number of kernels and their shape, as asked for or as the files say."""
    shape = None if options.kernel_shape is None else tuple(options.kernel_shape)
    if options.input is None:
        return options.num_kernels or NUM_KERNELS, shape or KERNEL_SHAPE
    input_data, target_output = _opened(options)
    _say_if_large(options, input_data, target_output)
    num_kernels = options.num_kernels or target_output.shape[1]
    if options.num_kernels is not None and shape is not None:
        return num_kernels, shape
    if shape is None:
        shape = _infer_kernel_shape(input_data.shape, target_output.shape, options.padding)
    if not options.quiet:
        kernels = counted(num_kernels, "kernel")
        size = format_size(shape)
        say("From the shapes of the files: {kernels} of {size}", kernels=kernels, size=size)
    return num_kernels, shape


def _say_if_large(options: Namespace, *arrays: NumericArray) -> None:
    """Say that data are read in blocks where they are larger than the memory that is meant."""
    limit, size = memory_limit(options.max_memory), sum(array.nbytes for array in arrays)
    itemsize = max(real_dtype("the data", array.dtype).itemsize for array in arrays)
    fitting = in_memory(arrays, itemsize, limit) or not any(map(is_large, arrays))
    if not (options.quiet or fitting):
        say(
            "{size} of data are read in blocks in each epoch: more than the {limit} that they may "
            "take (see --max-memory)",
            size=format_bytes(size),
            limit=format_bytes(limit),
        )


def _opened(options: Namespace) -> tuple[NumericArray, NumericArray]:
    """Return the arrays of both files, of which only the shapes are read where that is possible."""
    names = {"input_data": options.input, "target_output": options.target}
    data_format: DataFormat = "channels_last" if options.channels == "last" else "channels_first"
    arrays = open_data(
        options.input, options.target, lambda file, name: as_samples(name, file), data_format
    )
    if options.channels is None:
        for array, (name, file) in zip(arrays, names.items(), strict=True):
            channels_first(f"{name} ({file})", array, None)
    return arrays


def _infer_kernel_shape(
    input_shape: tuple[int, ...], target_shape: tuple[int, ...], padding: int | str
) -> tuple[int, int]:
    if padding == "same":
        raise ValueError("--padding same says nothing about the kernels: give --kernel-shape")
    margin = padding if isinstance(padding, int) else 0
    sizes = f"(shapes {input_shape} and {target_shape})"
    if margin == 0 and input_shape[2:] == target_shape[2:]:
        raise ValueError(
            "TARGET is as large as INPUT: give --kernel-shape, and --padding same unless the "
            f"kernels are 1x1 {sizes}"
        )
    height, width = (
        size + 2 * margin - output + 1
        for size, output in zip(input_shape[2:], target_shape[2:], strict=True)
    )
    if height < 1 or width < 1:
        raise ValueError(f"TARGET is too large for any kernel on INPUT {sizes}: see --padding")
    return height, width


def _training_data(
    options: Namespace, num_kernels: int, kernel_shape: tuple[int, int]
) -> tuple[FilePath | NumericArray, FilePath | NumericArray]:
    """Return the files, or the textbook's data set as `generate_random_data` would write it."""
    if options.input is not None and options.channels == "last":
        return _opened(options)
    if options.input is not None:
        return options.input, options.target

    convolution = resolve(
        IMAGE_SIZE, kernel_shape, stride=1, padding=options.padding, dilation=1, groups=1
    )
    generator = np.random.default_rng(options.seed)
    input_data = generator.random((SAMPLES, CHANNELS, *IMAGE_SIZE))
    target_output = generator.random((SAMPLES, num_kernels, *convolution.output_shape))
    if not options.quiet:
        say(
            "Training on random data: {samples} samples of {size}, seed {seed}",
            samples=SAMPLES,
            size=format_size((CHANNELS, *IMAGE_SIZE)),
            seed=options.seed,
        )
    return input_data, target_output


def _say_trained(options: Namespace, kernels: RealArray, losses: list[float]) -> None:
    say(
        "Trained {kernels} of {size} for {epochs}: average loss {first} in the first, {last} in "
        "the last",
        kernels=counted(len(kernels), "kernel"),
        size=format_size(kernels.shape[1:]),
        epochs=counted(len(losses), "epoch"),
        first=format_loss(losses[0]),
        last=format_loss(losses[-1]),
    )
    command = f"convext show {shlex.quote(options.out)}"
    say("Kernels: {file} (to see them: {command})", file=options.out, command=command)
