"""The files that a command writes, and what it says of them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .._support.atomic_files import check_writable


def check_outputs(
    outputs: Sequence[str | None], inputs: Sequence[str | None], plot: str | None = None
) -> None:
    """Find out before the work whether its result could be written, and to files of its own.

    `plot` is one more output, whose name must be that of a plot.
    """
    taken = {os.path.realpath(file): file for file in inputs if file is not None}
    for output in [*outputs, plot]:
        if output is None:
            continue
        check_writable(output)
        path = os.path.realpath(output)
        if path in taken:
            raise ValueError(f"{output} would overwrite {taken[path]}, which is used as well")
        taken[path] = output
    if plot is not None:
        from ..plotting import check_plot_file

        check_plot_file(plot)
