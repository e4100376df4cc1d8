"""The Chinese README says what the English one does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1]


def commands(text):
    """What is to be typed: the code in shell and Python blocks, without comments."""
    blocks = re.findall(r"```(?:sh|python)\n(.*?)```", text, re.DOTALL)
    return [re.sub(r" *#.*", "", block) for block in blocks]


def names(text):
    """The names that tables explain."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return [re.findall(r"`(.*?)`", cell) for cell in cells]


def links(text):
    return sorted(set(re.findall(r"\]\((.*?)\)", text)))


def shape(text):
    """Headings, and tables with their columns, in their order."""
    lines = re.findall(r"^(#+|\|.*\|$)", text, re.MULTILINE)
    return [line if line.startswith("#") else line.replace(r"\|", "").count("|") for line in lines]


@pytest.mark.parametrize("part", [commands, names, links, shape])
def test_both_readmes_have_the_same(part):
    english, chinese = (
        part((FOLDER / name).read_text("utf-8")) for name in ("README.md", "README.zh-CN.md")
    )
    assert chinese == english
    assert len(english) > 5
