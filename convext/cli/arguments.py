"""The arguments of the command line: what there is, what it means, and how it is read."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from .._support.checks import finite_number, integer
from .._support.messages import printable
from .._version import __version__
from ..train._layers import ACTIVATIONS
from ..train.methods import METHODS
from .help import HelpFormatter

if TYPE_CHECKING:
    from ..ops.shapes import Padding
    from ..schedules import Schedule

    Commands: TypeAlias = argparse._SubParsersAction["Parser"]

# The textbook's data set, and how long it is trained on.
SAMPLES, CHANNELS, IMAGE_SIZE = 100, 3, (28, 28)
NUM_KERNELS, KERNEL_SHAPE = 2, (2, 2)
EPOCHS_WITHOUT_FILES, EPOCHS = 10, 100


class UsageError(Exception):
    """The command line cannot be understood."""


class Parser(argparse.ArgumentParser):
    """A parser that leaves it to `main` to report errors, on one line."""

    def error(self, message: str) -> NoReturn:
        """Raise what the parser would print."""
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: Any = None) -> None:
        if message and file is not None:
            file.write(printable(message, file))


def make_parser() -> Parser:
    """Return the parser; what it returns has the name of the subcommand as `command`."""
    parser = Parser(
        prog="convext",
        description="Train convolution kernels from pairs of arrays, and apply them.",
        epilog="example:\n  convext train && convext show kernels.npz\n\n"
        "The language is that of the environment; CONVEXT_LANG=en or CONVEXT_LANG=zh chooses it.",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"convext {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_solve(commands)
    _add_generate(commands)
    _add_apply(commands)
    _add_show(commands)
    _add_train_images(commands)
    _add_enhance(commands)
    _add_info(commands)
    return parser


def with_both_sizes(arguments: Sequence[str]) -> list[str]:
    """Return arguments in which two numbers follow --kernel-shape, where there was one.

    Only what follows tells whether it was one, which argparse does not look at.

    Examples
    --------
    >>> with_both_sizes(["solve", "--kernel-shape", "3", "before.png", "after.png"])
    ['solve', '--kernel-shape', '3', '3', 'before.png', 'after.png']
    """
    option, line = "--kernel-shape", []
    for text in arguments:
        line += text.split("=", 1) if text.startswith(f"{option}=") else [text]
    if option in line:
        at = line.index(option) + 1
        numbers = [text.lstrip("+-").isdecimal() for text in line[at : at + 2]]
        if numbers in ([True], [True, False]):
            line.insert(at, line[at])
    return line


def _add_command(
    commands: Commands,
    name: str,
    summary: str,
    description: str,
    example: str,
) -> Parser:
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )


def _add_train(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "train",
        "train kernels",
        "Train convolution kernels that turn the input into the target, by gradient descent.\n\n"
        "INPUT (N, C, H, W) and TARGET (N, K, OH, OW) are .npy files, or .npz files that hold one "
        "array. Without them, the textbook's data set is made in memory from the seed: 100 samples "
        "of 3x28x28 and random targets, trained on for 10 epochs.\n\n"
        "A training that is interrupted (Ctrl-C, SIGTERM) leaves the kernels of its last whole "
        "epoch in the file of --out. Where there is one already, it stays, and they are in a file "
        "named after it, such as kernels-interrupted1.npz.",
        "convext train before.npy after.npy --kernel-shape 3 3 --epochs 50 --plot loss.png",
    )
    parser.add_argument("input", metavar="INPUT", nargs="?", help="the file of the input data")
    parser.add_argument("target", metavar="TARGET", nargs="?", help="the file of the target output")
    add = parser.add_argument
    add(
        "--num-kernels",
        type=_integer_from(1),
        metavar="K",
        help="how many kernels (default: as many as TARGET has channels; 2 without files)",
    )
    add(
        "--kernel-shape",
        type=_integer_from(1),
        nargs=2,
        metavar=("H", "W"),
        help="height and width of the kernels, or one number for both (default: what the sizes of "
        "INPUT and TARGET say; 2 2 without files)",
    )
    add(
        "--padding",
        type=_padding,
        default="valid",
        help="zeros around the input: valid (none, the default), same, or how many",
    )
    add(
        "--epochs",
        type=_integer_from(1),
        metavar="N",
        help="how often to go through the data (default: 100; 10 without files)",
    )
    add(
        "--learning-rate",
        type=_positive,
        default=0.1,
        metavar="LR",
        help="the learning rate of the first epoch (default: 0.1)",
    )
    add(
        "--schedule",
        metavar="NAME[:VALUE...]",
        help="how the learning rate changes: step:0.5:10 (times 0.5 every 10 epochs), "
        "exponential:0.95 (times 0.95 every epoch), cosine (down to 0; cosine:0.01 down to "
        "0.01), plateau:0.1:10 (times 0.1 after 10 epochs without improvement)",
    )
    add(
        "--batch-size",
        type=_integer_from(1),
        default=1,
        metavar="B",
        help="how many samples each step takes (default: 1)",
    )
    add("--shuffle", action="store_true", help="take the samples in a new order every epoch")
    add(
        "--method",
        choices=METHODS,
        default="auto",
        help="where losses come from: direct (the pixels), statistics (sums over them), or auto "
        "(what promises to be faster; the default)",
    )
    add(
        "--seed",
        type=_integer_from(0),
        default=0,
        metavar="S",
        help="the seed of all random numbers (default: 0)",
    )
    _add_threads(parser)
    add(
        "--out",
        default="kernels.npz",
        metavar="FILE",
        help="the kernels file to write (default: kernels.npz)",
    )
    _add_channels(parser)
    add("--plot", metavar="FILE", help="draw loss and kernels: a .png, .pdf or .svg file")
    add("--quiet", action="store_true", help="print nothing but errors")


def _add_solve(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "solve",
        "find the filter between two images or arrays",
        "Find the kernels that turn BEFORE into AFTER with the smallest mean squared error, "
        "exactly: without a learning rate, and without epochs.\n\n"
        "Each is an image (.png, .jpg, .tif and others), with values in [0, 1], or an array, "
        "(C, H, W), (N, C, H, W) or, if grey, (H, W), in a .npy or .npz file. Where AFTER is as "
        "large as BEFORE, its border is left out. Colour images give kernels from every colour to "
        "every colour, or, with --per-channel, one kernel for each. Where AFTER is a grey JPEG "
        "file, the kernel is fitted to the rounded coefficients in it, which allows for clipping, "
        "too.",
        "convext solve before.png after.png --kernel-shape 3 3 --bias --ignore-saturated",
    )
    parser.add_argument("before", metavar="BEFORE", help="the image or array before")
    parser.add_argument("after", metavar="AFTER", help="the image or array after")
    add = parser.add_argument
    add(
        "--kernel-shape",
        type=_integer_from(1),
        nargs=2,
        metavar=("H", "W"),
        required=True,
        help="height and width of the kernels, or one number for both",
    )
    add("--bias", action="store_true", help="the filter may add a number, too")
    add(
        "--l2",
        type=_number_from_zero,
        default=0.0,
        metavar="X",
        help="add X times the squared kernel values to what is minimized (default: 0)",
    )
    add(
        "--ignore-saturated",
        action="store_true",
        help="leave out where AFTER is 0 or at its maximum: there it may have been clipped",
    )
    add(
        "--per-channel",
        action="store_true",
        help="a kernel for each channel, which sees that channel alone",
    )
    add(
        "--fit",
        choices=("coefficients", "pixels"),
        default="coefficients",
        help="what of a grey JPEG file the kernel is fitted to: its coefficients (the default), or "
        "the pixels, which is quick",
    )
    _add_channels(parser)
    _add_threads(parser)
    _add_max_pixels(parser)
    add("--out", metavar="FILE", help="the kernels file to write")
    add(
        "--plot",
        metavar="FILE",
        help="draw before, after, what the kernels make of it, the difference and the kernels: a "
        ".png, .pdf or .svg file",
    )


def _add_threads(parser: Parser) -> None:
    parser.add_argument(
        "--threads",
        type=_integer_from(1),
        metavar="T",
        help="how many threads (default: OMP_NUM_THREADS, or all CPUs that it may use)",
    )


def _add_channels(parser: Parser) -> None:
    add = parser.add_mutually_exclusive_group().add_argument
    for where, order in (
        ("last", "(H, W, C) or (N, H, W, C)"),
        ("first", "(C, H, W) or (N, C, H, W)"),
    ):
        add(
            f"--channels-{where}",
            dest="channels",
            action="store_const",
            const=where,
            help=f"arrays in files are {order}",
        )


def _add_generate(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "generate",
        "write a random data set",
        "Write input data and target output, random and uniform on [0, 1), as two .npy files. "
        "The defaults are the data set that `convext train` trains on.",
        "convext generate && convext train input_data.npy target_output.npy",
    )
    add = parser.add_argument
    add(
        "input",
        metavar="INPUT",
        nargs="?",
        default="input_data.npy",
        help="the file to write the input data to (default: input_data.npy)",
    )
    add(
        "target",
        metavar="TARGET",
        nargs="?",
        default="target_output.npy",
        help="the file to write the target output to (default: target_output.npy)",
    )
    height, width = IMAGE_SIZE
    add(
        "--input-shape",
        type=_integer_from(1),
        nargs=4,
        metavar=("N", "C", "H", "W"),
        default=(SAMPLES, CHANNELS, height, width),
        help="shape of the input data (default: 100 3 28 28)",
    )
    add(
        "--target-shape",
        type=_integer_from(1),
        nargs=4,
        metavar=("N", "K", "OH", "OW"),
        default=(SAMPLES, NUM_KERNELS, height - 1, width - 1),
        help="shape of the target output (default: 100 2 27 27)",
    )
    add(
        "--seed",
        type=_integer_from(0),
        default=0,
        metavar="S",
        help="the seed of the random numbers (default: 0)",
    )


def _add_apply(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "apply",
        "convolve an array or an image with kernels",
        "Convolve INPUT with the kernels and write the result to OUTPUT.\n\n"
        "Each is an array, (C, H, W), (N, C, H, W) or, if grey, (H, W), or an image (.png, .jpg, "
        ".tif; INPUT also .bmp, .gif, .webp, .ppm, .pgm and others) with values in [0, 1]. Kernels "
        "with one channel are applied to each channel of a colour image. Arrays are written as "
        ".npy; images keep the bits, the ICC profile and the resolution of INPUT, but no "
        "transparency.",
        "convext apply kernels.npz photo.png filtered.png --padding same",
    )
    parser.add_argument("kernels", metavar="KERNELS", help="a kernels file, or a 4-D array")
    parser.add_argument("input", metavar="INPUT", help="an array or an image")
    parser.add_argument("output", metavar="OUTPUT", help="the file to write")
    parser.add_argument(
        "--padding",
        type=_padding,
        default="valid",
        help="zeros around the input: valid (none, the default), same (the output is as large "
        "as the input), or how many",
    )
    _add_channels(parser)
    _add_page(parser)
    _add_max_pixels(parser)


def _add_page(parser: Parser) -> None:
    parser.add_argument(
        "--page",
        type=_integer_from(0),
        metavar="N",
        help="which image of a file with several, 0 for the first (the default)",
    )


def _add_max_pixels(parser: Parser) -> None:
    parser.add_argument(
        "--max-pixels",
        type=_integer_from(1),
        metavar="N",
        help="the pixels of the largest image to read (default: 178956970)",
    )


def _add_show(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "show",
        "print kernels and how they were trained",
        "Print the shape of the kernels, the record of their training, and their values.",
        "convext show kernels.npz --plot kernels.png",
    )
    parser.add_argument("kernels", metavar="KERNELS", help="a kernels file, or a 4-D array")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw the kernels: a .png, .pdf or .svg file"
    )


def _add_train_images(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "train-images",
        "train a network on two folders of images",
        "Train a network of convolutions that turns the images in BEFORE_DIR into those of the "
        "same names, but for the suffix, and sizes in AFTER_DIR. With one filter in the last layer "
        "it sees the luminance, with three the colours. The best model is kept: after each epoch "
        "it is measured on patches that it is not trained on.\n\n"
        "A training that is interrupted (Ctrl-C, SIGTERM) leaves the best model so far in the file "
        "of --out. Where there is one already, it stays, and the model is in a file named after "
        "it, such as model-interrupted1.npz.",
        "convext train-images blurred sharp --layers 64x9,32x1,1x5 --residual --plot report.png",
    )
    parser.add_argument("before", metavar="BEFORE_DIR", help="a folder of images to start from")
    parser.add_argument(
        "after", metavar="AFTER_DIR", help="a folder of the images that they are to become"
    )
    add = parser.add_argument
    add(
        "--layers",
        type=_layers,
        default=_layers("64x9,32x1,1x5"),
        metavar="KxS,...",
        help="filters and kernel size of each layer (default: 64x9,32x1,1x5)",
    )
    add(
        "--activation",
        choices=tuple(ACTIVATIONS),
        default="relu",
        metavar="NAME",
        help="the activation of all layers but the last: %(choices)s (default: relu)",
    )
    add("--residual", action="store_true", help="learn what is to be added to the image")
    add(
        "--patch",
        type=_integer_from(1),
        default=33,
        metavar="SIZE",
        help="height and width of a patch (default: 33)",
    )
    add(
        "--stride",
        type=_integer_from(1),
        default=14,
        metavar="PIXELS",
        help="how far one patch is from the next (default: 14)",
    )
    add(
        "--epochs",
        type=_integer_from(1),
        default=20,
        metavar="N",
        help="how often to go through the patches (default: 20)",
    )
    add(
        "--batch-size",
        type=_integer_from(1),
        default=16,
        metavar="B",
        help="how many patches each step takes (default: 16)",
    )
    add(
        "--learning-rate",
        type=_positive,
        default=0.001,
        metavar="LR",
        help="the learning rate of Adam in the first epoch (default: 0.001); it falls to 0 along a "
        "cosine",
    )
    add("--loss", choices=("mse", "mae"), default="mse", help="what is made small (default: mse)")
    add(
        "--seed",
        type=_integer_from(0),
        default=0,
        metavar="S",
        help="the seed of all random numbers (default: 0)",
    )
    _add_threads(parser)
    add(
        "--out",
        default="model.npz",
        metavar="FILE",
        help="the file of the model to write (default: model.npz)",
    )
    add("--plot", metavar="FILE", help="draw losses and results: a .png, .pdf or .svg file")
    add("--quiet", action="store_true", help="print nothing but errors")
    _add_max_pixels(parser)


def _add_enhance(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "enhance",
        "apply a network to an image",
        "Apply a model that Sequential.save or train-images wrote to an image. A model of one "
        "channel changes the luminance of a colour image and leaves its chroma. The result is as "
        "large as the image: where the layers lose pixels, its border is repeated outwards. It "
        "keeps the bits, the ICC profile and the resolution, but no transparency.",
        "convext enhance model.npz photo.png enhanced.png",
    )
    parser.add_argument("model", metavar="MODEL", help="the file of a model")
    parser.add_argument("input", metavar="INPUT", help="an image")
    parser.add_argument("output", metavar="OUTPUT", help="the image to write")
    parser.add_argument(
        "--scale",
        type=_integer_from(1),
        default=1,
        metavar="S",
        help="enlarge the image by bicubic interpolation first, so many times",
    )
    _add_page(parser)
    _add_max_pixels(parser)


def _layers(text: str) -> list[tuple[int, int]]:
    """Return the filters and kernel sizes that "64x9,1x5" stands for."""
    layers = []
    for layer in text.split(","):
        filters, _, size = layer.partition("x")
        if not (filters.isdecimal() and size.isdecimal() and int(filters) and int(size)):
            raise argparse.ArgumentTypeError(
                f"expected FILTERSxSIZE for each layer, as in 64x9,32x1,1x5, got {text!r}"
            )
        layers.append((int(filters), int(size)))
    return layers


def _add_info(commands: Commands) -> None:
    _add_command(
        commands,
        "info",
        "print what this build and this machine are",
        "Print the version, instruction set, OpenMP, compiler and number of threads.",
        "convext info",
    )


def _integer_from(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}") from None
        try:
            return integer("it", value, minimum=minimum)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _positive(text: str) -> float:
    try:
        return finite_number("it", float(text), above=0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a finite number above 0, got {text!r}"
        ) from None


def _number_from_zero(text: str) -> float:
    try:
        return finite_number("it", float(text), minimum=0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a finite number of at least 0, got {text!r}"
        ) from None


def _padding(text: str) -> Padding:
    if text == "valid":
        return "valid"
    if text == "same":
        return "same"
    try:
        return integer("it", int(text), minimum=0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected valid, same or an integer of at least 0, got {text!r}"
        ) from None


def make_schedule(text: str | None, rate: float, num_epochs: int) -> Schedule | None:
    """Return the schedule that ``NAME:VALUE:VALUE`` stands for."""
    from ..schedules import cosine_decay, exponential_decay, reduce_on_plateau, step_decay

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
