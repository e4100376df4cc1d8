"""What people read, in English or Chinese.

The code says everything in English. ``chinese.txt`` holds the Chinese: below each English text,
with its fields in braces, stands the Chinese one. What has none is shown in English.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from shutil import get_terminal_size
from typing import IO, Any, Literal, TypeAlias
from unicodedata import east_asian_width

Language: TypeAlias = Literal["zh", "en"]


def language() -> Language:
    """Return the language for people: "zh" (Chinese) or "en" (English).

    It is that of the environment variable CONVEXT_LANG, or else of the locale: the first of
    LC_ALL, LC_MESSAGES and LANG that is set.
    """
    for variable in ("CONVEXT_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def printable_language() -> Language:
    """Return the language of the environment, or English where Chinese cannot be printed."""
    try:
        "卷积核，学习率".encode(_encoding(sys.stdout))
    except UnicodeEncodeError:
        return "en"
    return language()


def translate(text: str, lang: Language | None = None, /, **fields: object) -> str:
    """Return an English text in the language of people, with its fields filled in, if any."""
    if (lang or printable_language()) == "zh":
        text = _chinese("messages").get(text, text)
    return text.format(**fields) if fields else text


def translate_error(text: str) -> str:
    """Return the message of an error, whose fields are filled in, in the language of people.

    Errors are English where they are raised, by this package or by Python. Here the fields
    ``{message}`` and ``{more}`` are messages of their own, and ``{choices}`` are what one is to be
    taken of.
    """
    if printable_language() == "en":
        return text
    for pattern, chinese in _patterns():
        if found := pattern.fullmatch(text):
            fields = found.groupdict()
            for name in fields.keys() & {"message", "more"}:
                fields[name] = translate_error(fields[name])
            if "choices" in fields:
                fields["choices"] = fields["choices"].replace(" or ", " 或 ")
            return chinese.format(**fields)
    return text


def counted(number: int, noun: str) -> str:
    """Return a number of things, as in "1 kernel" and "2 kernels"."""
    ending = "s" if number != 1 and printable_language() == "en" else ""
    return f"{number} {translate(noun)}{ending}"


def format_loss(loss: float) -> str:
    """Return a loss with four decimals, or with four digits where these would not do."""
    return f"{loss:.4f}" if 0.001 <= loss < 1e6 else f"{loss:.4g}"


def format_size(sizes: Iterable[int]) -> str:
    """Return sizes as in "3x28x28"."""
    return "x".join(map(str, sizes))


def say(text: str, /, **fields: object) -> None:
    """Print a message in the language of people; see `translate`."""
    print_line(translate(text, **fields))


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of the line outside this package that has called it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "convext":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def print_line(text: str) -> None:
    """Print a line that needs no translation."""
    try:
        print(printable(text, sys.stdout), flush=True)
    except OSError as error:  # the disk is full that the output goes to
        raise OSError(error.errno, error.strerror, getattr(sys.stdout, "name", None)) from None


def printable(text: str, stream: IO[str] | None) -> str:
    """Return a text with what the encoding of a stream lacks escaped."""
    encoding = _encoding(stream)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def columns(text: str) -> int:
    """Return how wide a text is on a terminal, where Chinese characters take two columns."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def line_width() -> int:
    """Return how many columns a line may have: those of the terminal, at most 100."""
    return min(100, get_terminal_size((100, 0)).columns)


def _encoding(stream: Any) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


@cache
def _chinese(part: Literal["messages", "errors"]) -> dict[str, str]:
    """Return the Chinese of each English text in a part of the catalogue."""
    messages, errors = Path(__file__).with_name("chinese.txt").read_text("utf-8").split("# Errors")
    text = messages if part == "messages" else errors
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(zip(lines[::2], lines[1::2], strict=True))


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return what messages of errors look like, and their Chinese."""
    return [
        (re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.*?)", re.escape(english)), re.DOTALL), chinese)
        for english, chinese in _chinese("errors").items()
    ]
