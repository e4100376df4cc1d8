"""The Chinese pages say what the English ones do."""

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
    """Where links lead, whichever the language there."""
    return sorted({re.sub(r"\.zh-CN|#.*", "", link) for link in re.findall(r"\]\((.*?)\)", text)})


def shape(text):
    """Headings, and tables with their columns, in their order."""
    lines = re.findall(r"^(#+|\|.*\|$)", text, re.MULTILINE)
    return [line if line.startswith("#") else line.replace(r"\|", "").count("|") for line in lines]


def figures(text):
    """All numbers that are not in words."""
    return sorted(re.findall(r"\d[\d,.]*\d|\d", text.replace("-CN", "")))


PAGES = [("README.md", "README.zh-CN.md"), ("docs/overview.md", "docs/overview.zh-CN.md")]


@pytest.mark.parametrize("part", [commands, links, shape, figures])
@pytest.mark.parametrize("pages", PAGES, ids=["readme", "overview"])
def test_both_pages_have_the_same(part, pages):
    english, chinese = (part((FOLDER / name).read_text("utf-8")) for name in pages)
    assert chinese == english
    assert len(english) >= 3


def test_both_overviews_explain_the_same_names():
    english, chinese = (names((FOLDER / name).read_text("utf-8")) for name in PAGES[1])
    assert chinese == english
    assert len(english) > 5
