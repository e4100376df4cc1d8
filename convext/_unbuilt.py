"""What the sources do where they were not built, but hide the package that was installed.

Python looks into the working directory first: in the source folder, after ``pip install .``, it
finds the sources. They hand over to the installed package if that was made of the same sources, so
that nothing is ever mixed.
"""

from __future__ import annotations

import filecmp
import os
import sys
from importlib.util import find_spec
from pathlib import Path


def hand_over(path: list[str]) -> None:
    """Let the package whose folder is `path` find its modules where they were installed.

    Raises
    ------
    ImportError
        It is not installed, or was made of other sources.
    """
    sources = os.path.realpath(path[0])
    root = os.path.dirname(sources)
    installed = _installed(
        sources, [entry for entry in sys.path if os.path.realpath(entry) != root]
    )
    if installed and _same_sources(sources, installed):
        path[:] = [installed]
        return
    problem = "is not built"
    if installed:
        problem += f", and differs from what is installed in {installed}"
    elif find_spec("convext.base._dispatch"):
        return  # found in another way, as by a program that was packed into one file
    raise ImportError(f"convext in {sources} {problem}: run `pip install .` in {root}")


def _installed(sources: str, entries: list[str]) -> str | None:
    """Return the folder of the package that would be imported if the sources were not there."""
    for finder in sys.meta_path:
        spec = finder.find_spec("convext", entries)
        for folder in (spec and spec.submodule_search_locations) or ():
            if os.path.realpath(folder) != sources:
                return folder
    return None


def _same_sources(folder: str, other: str) -> bool:
    names = [str(file.relative_to(folder)) for file in Path(folder).rglob("*.py")]
    return filecmp.cmpfiles(folder, other, names, shallow=False)[0] == names
