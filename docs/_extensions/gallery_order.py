"""The order of the gallery: what most people come for first."""

from __future__ import annotations

from pathlib import Path

FIRST = (
    "which_filter",
    "learn_filters",
    "undo_blur",
    "blur_over_the_field",
    "two_telescopes",
    "super_resolution",
)


class Order:
    """Gives a file of a folder its place; those that are not named come last, by name."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, file: str) -> tuple[int, str]:
        """Return what to sort by."""
        name = Path(file).stem
        return (FIRST.index(name) if name in FIRST else len(FIRST)), name
