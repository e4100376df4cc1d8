"""The command line: ``convext train``, ``apply``, ``train-images`` and the other commands.

The exit status is 0 for success, 2 for wrong usage or input, 1 for a run that failed, 130 after
Ctrl-C, 143 when SIGTERM ended a training and 141 when whatever reads the output has gone.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from .._support.checks import RealArray
from .._support.files import FilePath, check_writable
from .._support.interruption import stoppable, unused_name
from .._support.messages import (
    columns,
    counted,
    format_loss,
    line_width,
    print_line,
    printable,
    say,
    translate,
    translate_error,
)
from .._version import __version__
from .arguments import (
    CHANNELS,
    EPOCHS,
    EPOCHS_WITHOUT_FILES,
    IMAGE_SIZE,
    KERNEL_SHAPE,
    NUM_KERNELS,
    SAMPLES,
    UsageError,
    make_parser,
    make_schedule,
    with_both_sizes,
)

if TYPE_CHECKING:
    from .._support.array_files import NumericArray
    from ..kernels_file import Record
    from ..ops.data import DataFormat
    from ..train.epoch_report import EpochReport

# `show` prints the values of so many kernels, and so many channels of each.
_MOST_SHOWN = 4

# A record holds the losses of at most so many epochs, which stand for those between.
_MOST_LOSSES = 500_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit status.

    Examples
    --------
    >>> main(["--version"])
    convext ...
    0
    """
    try:
        status = _run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt as stop:
        _discard_unwritten_output()
        what = ": ".join(["interrupted", *map(str, stop.args)])
        return _fail(what, 128 + getattr(stop, "signal", signal.SIGINT))
    except BrokenPipeError:
        _discard_output()
        return 141
    except Exception as error:
        _discard_unwritten_output()
        return _fail(f"error: {_describe(error)}", 2 if _is_bad_input(error) else 1)


_BAD_INPUT = (
    UsageError,
    ValueError,
    TypeError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


def _is_bad_input(error: Exception) -> bool:
    """Return whether other arguments or files would help."""
    named = isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENAMETOOLONG)
    return named or isinstance(error, _BAD_INPUT)


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = with_both_sizes(sys.argv[1:] if argv is None else argv)
        options = make_parser().parse_args(arguments)
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    with warnings.catch_warnings():
        quiet = getattr(options, "quiet", False)
        warnings.simplefilter("ignore" if quiet else "default", UserWarning)
        # Of Pillow, about images that are large, which it reads all the same.
        warnings.filterwarnings("ignore", "Image size .* exceeds limit")
        warnings.showwarning = _show_warning
        _COMMANDS[options.command](options)
    return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _fail(f"warning: {message}", 0)


def _fail(message: str, status: int) -> int:
    line = translate_error(" ".join(message.split()))
    with suppress(OSError):  # of a terminal that was closed
        print(printable(f"convext: {line}", sys.stderr), file=sys.stderr)
    return status


def _describe(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"out of memory: {error}"
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part is not None)
    if isinstance(error, (*_BAD_INPUT, OSError, ArithmeticError, ImportError)):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}"


def _discard_output() -> None:
    """Send what is still to be printed nowhere, lest Python complain about it when it exits."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _discard_unwritten_output() -> None:
    """Discard the output if it cannot be written, as when the disk is full."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _discard_output()


# train


@stoppable()
def _train(options: argparse.Namespace) -> None:
    from ..train.training import train_model

    if options.input is not None and options.target is None:
        raise UsageError("INPUT needs a TARGET (see convext train --help)")
    num_epochs = options.epochs or (EPOCHS if options.input else EPOCHS_WITHOUT_FILES)
    schedule = make_schedule(options.schedule, options.learning_rate, num_epochs)
    _check_outputs([options.out, options.plot], [options.input, options.target])
    if options.plot is not None:
        _check_plot(options.plot)
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
        )
        training.save()
    if options.plot is not None:
        training.history.plot(options.plot)
    if not options.quiet:
        _say_trained(options, kernels, training.history.loss)


class _Training:
    """Sees the epochs of a training, as a callback, and saves its kernels.

    To be used as a context manager: where the training ends early, by Ctrl-C or since its output
    cannot be written, the kernels of the last whole epoch are saved, but replace no file.
    """

    def __init__(self, options: argparse.Namespace, num_epochs: int) -> None:
        from ..train.callbacks import History

        self.options, self.num_epochs = options, num_epochs
        self.history = History()
        self.last: EpochReport | None = None

    def __call__(self, report: EpochReport) -> None:
        self.history(report)
        self.last = report

    def __enter__(self) -> _Training:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, KeyboardInterrupt | OSError):
            saved = self.save()
            if isinstance(error, KeyboardInterrupt):
                error.args = (saved,)

    def save(self) -> str:
        """Save the kernels of the last epoch; return where they are."""
        from ..kernels_file import save_kernels

        report, file = self.last, self.options.out
        if report is None:
            return "no epoch has ended, there is nothing to save"
        record = self._record(report)
        if report.epoch < self.num_epochs:
            file, record["interrupted"] = unused_name(file), True
        save_kernels(file, report.kernels, record)
        return f"the kernels of epoch {report.epoch} of {self.num_epochs} are in {file}"

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


def _check_outputs(outputs: Sequence[str | None], inputs: Sequence[str | None]) -> None:
    """Find out before the work whether its result could be written, and to files of its own."""
    taken = {os.path.realpath(file): file for file in inputs if file is not None}
    for output in outputs:
        if output is None:
            continue
        check_writable(output)
        path = os.path.realpath(output)
        if path in taken:
            raise ValueError(f"{output} would overwrite {taken[path]}, which is used as well")
        taken[path] = output


def _check_plot(file: str) -> None:
    from ..plotting import check_plot_file

    check_plot_file(file)


def _sizes(options: argparse.Namespace) -> tuple[int, tuple[int, int]]:
    """Return the number of kernels and their shape, as asked for or as the files say."""
    shape = None if options.kernel_shape is None else tuple(options.kernel_shape)
    if options.input is None:
        return options.num_kernels or NUM_KERNELS, shape or KERNEL_SHAPE
    input_data, target_output = _mapped(options)
    num_kernels = options.num_kernels or target_output.shape[1]
    if options.num_kernels is not None and shape is not None:
        return num_kernels, shape
    if shape is None:
        shape = _infer_kernel_shape(input_data.shape, target_output.shape, options.padding)
    if not options.quiet:
        kernels = counted(num_kernels, "kernel")
        size = "x".join(map(str, shape))
        say("From the shapes of the files: {kernels} of {size}", kernels=kernels, size=size)
    return num_kernels, shape


def _mapped(options: argparse.Namespace) -> tuple[NumericArray, NumericArray]:
    """Return the arrays of both files, mapped where that is possible, which is the quickest."""
    from .._support.array_files import is_archive
    from ..ops.data import channels_first, load_data

    names = {"input_data": options.input, "target_output": options.target}
    mmap = not any(is_archive(file, name) for name, file in names.items())
    data_format: DataFormat = "channels_last" if options.channels == "last" else "channels_first"
    arrays = load_data(options.input, options.target, mmap=mmap, data_format=data_format)
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
    options: argparse.Namespace, num_kernels: int, kernel_shape: tuple[int, int]
) -> tuple[FilePath | NumericArray, FilePath | NumericArray]:
    """Return the files, or the textbook's data set as `generate_random_data` would write it."""
    if options.input is not None and options.channels == "last":
        return _mapped(options)
    if options.input is not None:
        return options.input, options.target

    from ..ops.shapes import resolve

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
            size="x".join(map(str, (CHANNELS, *IMAGE_SIZE))),
            seed=options.seed,
        )
    return input_data, target_output


def _say_trained(options: argparse.Namespace, kernels: RealArray, losses: list[float]) -> None:
    say(
        "Trained {kernels} of {size} for {epochs}: average loss {first} in the first, {last} in "
        "the last",
        kernels=counted(len(kernels), "kernel"),
        size="x".join(map(str, kernels.shape[1:])),
        epochs=counted(len(losses), "epoch"),
        first=format_loss(losses[0]),
        last=format_loss(losses[-1]),
    )
    command = f"convext show {shlex.quote(options.out)}"
    say("Kernels: {file} (to see them: {command})", file=options.out, command=command)
    if options.plot is not None:
        say("Plot: {file}", file=options.plot)


# solve


def _solve(options: argparse.Namespace) -> None:
    from . import solve

    _check_outputs([options.out, options.plot], [options.before, options.after])
    if options.plot is not None:
        _check_plot(options.plot)
    found = solve.find_filter(options)
    solve.show_filter(found, solve.levels_of(options.after, found.after))
    solve.show_saturated(found, options.ignore_saturated)
    solve.save_filter(found, options)
    if options.out is not None:
        say("Kernels: {file}", file=options.out)
    if options.plot is not None:
        say("Plot: {file}", file=options.plot)


# generate


def _generate(options: argparse.Namespace) -> None:
    from ..ops.data import generate_random_data

    generate_random_data(
        tuple(options.input_shape),
        tuple(options.target_shape),
        options.input,
        options.target,
        seed=options.seed,
    )


# apply


def _apply(options: argparse.Namespace) -> None:
    from . import apply

    apply.check_output(options.output)
    _check_outputs([options.output], [options.kernels, options.input])
    apply.apply(options)


# show and info


def _show(options: argparse.Namespace) -> None:
    from ..kernels_file import load_kernels

    if options.plot is not None:
        _check_outputs([options.plot], [options.kernels])
        _check_plot(options.plot)
    kernels, record = load_kernels(options.kernels)
    say(
        "{file}: {kernels} of {size} ({dtype})",
        file=options.kernels,
        kernels=counted(len(kernels), "kernel"),
        size="x".join(map(str, kernels.shape[1:])),
        dtype=kernels.dtype,
    )
    _show_record(record)
    _show_values(kernels)
    if options.plot is not None:
        _plot(kernels, _losses(record), options.plot)
        say("Plot: {file}", file=options.plot)


def _show_record(record: Record) -> None:
    if not record:
        return
    say("training record:")
    width = max(len(name) for name in record)
    for name, value in record.items():
        text = json.dumps(value, ensure_ascii=False)
        losses = _losses(record) if name == "losses" else []
        if losses:
            text = translate(
                "{first} to {last} ({epochs})",
                first=format_loss(losses[0]),
                last=format_loss(losses[-1]),
                epochs=counted(len(losses), "epoch"),
            )
        print_line(_shorten(f"  {name:<{width}}  {text}"))


def _shorten(text: str) -> str:
    """Return text that fits on a line and does nothing to a terminal but print."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    width = line_width()
    if columns(plain) <= width:
        return plain
    plain = plain[: width - 3]
    while columns(plain) > width - 3:
        plain = plain[:-1]
    return f"{plain}..."


def _losses(record: Mapping[str, object]) -> list[float]:
    """Return the losses in a record, which may hold anything; none where they are not numbers."""
    from ..kernels_file import are_numbers

    losses = record.get("losses")
    return losses if isinstance(losses, list) and are_numbers(losses) else []


def _show_values(kernels: RealArray) -> None:
    for number, kernel in enumerate(kernels[:_MOST_SHOWN], 1):
        for channel, weights in enumerate(kernel[:_MOST_SHOWN], 1):
            say("kernel {number}, channel {channel}:", number=number, channel=channel)
            print_line(
                np.array2string(weights, precision=4, threshold=100, max_line_width=line_width())
            )
        if len(kernel) > _MOST_SHOWN:
            say("... and {rest}", rest=counted(len(kernel) - _MOST_SHOWN, "more channel"))
    if len(kernels) > _MOST_SHOWN:
        say("... and {rest}", rest=counted(len(kernels) - _MOST_SHOWN, "more kernel"))


def _plot(kernels: RealArray, losses: list[float], file: str) -> None:
    from ..plotting import plot_kernels, plot_training

    if losses:
        plot_training(losses, kernels, file)
    else:
        plot_kernels(kernels, file)


# train-images and enhance


@stoppable()
def _train_images(options: argparse.Namespace) -> None:
    from ..enhancement import train_on_folders

    _check_outputs([options.out, options.plot], [])
    if options.plot is not None:
        _check_plot(options.plot)
    train_on_folders(
        options.before,
        options.after,
        options.layers,
        options.out,
        activation=options.activation,
        residual=options.residual,
        patch=options.patch,
        stride=options.stride,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        loss=options.loss,
        seed=options.seed,
        num_threads=options.threads,
        plot=options.plot,
        verbose=not options.quiet,
        max_pixels=options.max_pixels,
    )


def _enhance(options: argparse.Namespace) -> None:
    from ..enhancement import enhanced_strips
    from ..image.files import format_of
    from ..image.pictures import load_picture, save_strips
    from ..nn.models import load_model

    format_of(options.output)
    _check_outputs([options.output], [options.model, options.input])
    model = load_model(options.model)
    picture = load_picture(options.input, options.page, options.max_pixels)
    channels, height, width = picture.shape
    shape = channels, options.scale * height, options.scale * width
    strips = enhanced_strips(model, picture, options.scale)
    save_strips(options.output, shape, strips, like=options.input)
    say("Wrote {file}: {shape}", file=options.output, shape=shape)


def _info(_: argparse.Namespace) -> None:
    from ..config import show_config

    show_config()


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": _train,
    "solve": _solve,
    "generate": _generate,
    "apply": _apply,
    "show": _show,
    "train-images": _train_images,
    "enhance": _enhance,
    "info": _info,
}
