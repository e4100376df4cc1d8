"""How the help of the command line is laid out, in English or Chinese."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from typing import Any

from .._support.messages import columns, translate

# What a line is not broken within: a word or a Chinese character, with the punctuation before and
# behind it.
_WIDE = "\u2e80-\uffef"
_PIECE = re.compile(rf"[（《]*(?:[^\s{_WIDE}]+|[{_WIDE}])[，。、；：？！）》:,;)]*\s*")


class HelpFormatter(argparse.HelpFormatter):
    """Translates help, and breaks its lines to the width of the terminal.

    The lines of a description are paragraphs; indented ones, such as examples, stay as they are.
    """

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None = None,
    ) -> None:
        """Add "usage: ", in the language of people."""
        super().add_usage(
            usage, actions, groups, f"{translate('usage:')} " if prefix is None else prefix
        )

    def _format_usage(self, *arguments: Any) -> str:
        # As one line, whose parts are then laid out: argparse's own lines begin too far to the
        # right for a narrow terminal, and take a wide character for one column.
        width, self._width = self._width, sys.maxsize
        line = super()._format_usage(*arguments).strip()
        self._width = width
        begin = columns(f"{arguments[-1]}{self._prog} ")
        indent = " " * (begin if begin <= width / 2 else 4)
        lines = [""]
        for part in re.findall(r"\[.*?\]+(?=\s|$)|\S+", line):
            if columns(f"{lines[-1]} {part}") > width:
                lines.append(indent[1:])
            lines[-1] += f" {part}"
        return "\n".join([lines[0][1:], *lines[1:]]) + "\n\n"

    def start_section(self, heading: str | None) -> None:
        """Start a section such as "options"."""
        super().start_section(translate(heading or ""))

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return translate(action.help or "")

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for line in text.splitlines():
            lines += [line] if line.startswith(" ") else wrap(translate(line), width) or [""]
        return "\n".join(lines)


def wrap(text: str, width: int) -> list[str]:
    """Return the lines of a text, of at most `width` columns where its words are no longer."""
    lines = [""]
    for piece in _PIECE.findall(text):
        if lines[-1] and columns(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines if line]
