"""The command ``convext info``: what this build and this machine are."""

from __future__ import annotations

from argparse import Namespace

from ..config import show_config
from .arguments import Parser

DESCRIPTION = "Print the version, instruction set, OpenMP, compiler and number of threads."
EXAMPLE = "convext info"


def add_arguments(_: Parser) -> None:
    """Add none."""


def run(_: Namespace) -> None:
    """Print it."""
    show_config()
