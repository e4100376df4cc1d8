"""The command ``convext train-images``: a network, trained on two folders of images."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace

from .._support.interruption import stoppable
from ..enhancement import train_on_folders
from ..train._layers import ACTIVATIONS
from ..train.checkpoint import beside
from .arguments import Parser, add_shared, checkpoint_files, checkpoint_options, integer_from
from .outputs import check_outputs

DESCRIPTION = (
    "Train a network of convolutions that turns the images in BEFORE_DIR into those of the "
    "same names, but for the suffix, and sizes in AFTER_DIR. With one filter in the last layer "
    "it sees the luminance, with three the colours. The best model is kept: after each epoch "
    "it is measured on patches that it is not trained on.\n\n"
    "A training that is interrupted (Ctrl-C, SIGTERM) leaves the best model so far in the file "
    "of --out. Where there is one already, it stays, and the model is in a file named after "
    "it, such as model-interrupted1.npz."
)
EXAMPLE = "convext train-images blurred sharp --layers 64x9,32x1,1x5 --residual --plot report.png"


def add_arguments(parser: Parser) -> None:
    """Add folders, layers and how they are trained."""
    add = parser.add_argument
    add("before", metavar="BEFORE_DIR", help="a folder of images to start from")
    add("after", metavar="AFTER_DIR", help="a folder of the images that they are to become")
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
    for option, metavar, default, text in (
        ("--patch", "SIZE", 33, "height and width of a patch (default: 33)"),
        ("--stride", "PIXELS", 14, "how far one patch is from the next (default: 14)"),
    ):
        add(option, type=integer_from(1), metavar=metavar, default=default, help=text)
    text = "how often to go through the patches (default: 20)"
    add_shared(parser, "--epochs", default=20, help=text)
    text = "how many patches each step takes (default: 16)"
    add_shared(parser, "--batch-size", default=16, help=text)
    add_shared(
        parser,
        "--learning-rate",
        default=0.001,
        help="the learning rate of Adam in the first epoch (default: 0.001); it falls to 0 along a "
        "cosine",
    )
    add("--loss", choices=("mse", "mae"), default="mse", help="what is made small (default: mse)")
    add_shared(parser, "--seed", "--threads", "--checkpoint", "--checkpoint-every", "--resume")
    text = "the file of the model to write (default: model.npz)"
    add_shared(parser, "--out", default="model.npz", help=text)
    add_shared(parser, "--plot", help="draw losses and results: a .png, .pdf or .svg file")
    add_shared(parser, "--quiet", "--max-pixels")


@stoppable()
def run(options: Namespace) -> None:
    """Train and save."""
    ranks, outputs = options.ranks, [options.out, *checkpoint_files(options)]
    if options.checkpoint is not None:
        outputs.append(beside(options.checkpoint, "best"))
    ranks.once(lambda: check_outputs(outputs, [], options.plot))
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
        **checkpoint_options(options),
        comm=ranks,
    )


def _layers(text: str) -> list[tuple[int, int]]:
    """Return the filters and kernel sizes that "64x9,1x5" stands for."""
    layers = []
    for layer in text.split(","):
        filters, _, size = layer.partition("x")
        if not (filters.isdecimal() and size.isdecimal() and int(filters) and int(size)):
            raise ArgumentTypeError(
                f"expected FILTERSxSIZE for each layer, as in 64x9,32x1,1x5, got {text!r}"
            )
        layers.append((int(filters), int(size)))
    return layers
