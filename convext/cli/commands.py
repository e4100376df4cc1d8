"""The commands: each is a module here, with its arguments and what it does."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from .._version import __version__
from .arguments import Parser
from .help import HelpFormatter

# In the order of the help, with what it says of them. The module of `train-images` is
# `train_images`: it has a DESCRIPTION, an EXAMPLE, `add_arguments(parser)` and `run(options)`.
COMMANDS = {
    "train": "train kernels",
    "solve": "find the filter between two images or arrays",
    "generate": "write a random data set",
    "apply": "convolve an array or an image with kernels",
    "show": "print kernels and how they were trained",
    "train-images": "train a network on two folders of images",
    "enhance": "apply a network to an image",
    "explain": "print how a convolution would be computed",
    "info": "print what this build and this machine are",
}

# Those that the processes of mpiexec share; the others are left to the first one.
TOGETHER = ("train", "solve", "train-images")


def make_parser(named: Iterable[str] = COMMANDS) -> Parser:
    """Return the parser; what it returns has what the command does as `run`.

    Commands that are not among `named` get no arguments, so that their modules need no importing.
    """
    parser = Parser(
        prog="convext",
        description="Train convolution kernels from pairs of arrays, and apply them.",
        epilog="example:\n  convext train\n  convext show kernels.npz\n\n"
        "The language is that of the environment; CONVEXT_LANG=en or CONVEXT_LANG=zh chooses it.",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"convext {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, formatter_class=HelpFormatter, allow_abbrev=False
        )
        if name in named:
            module = import_module(f".{name.replace('-', '_')}", __package__)
            command.description = module.DESCRIPTION
            command.epilog = f"example:\n  {module.EXAMPLE}"
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
