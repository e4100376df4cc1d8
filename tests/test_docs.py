"""What the documents name is there: files, and names of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
SOURCES = [
    path
    for pattern in (
        "src/**/*.*",
        "convext/**/*.py",
        "tests/*.py",
        "tests/microkernels/*.*",
        "benchmarks/**/*.py",
        "tools/*.py",
        "setup.py",
    )
    for path in ROOT.glob(pattern)
    if path.is_file()
]
# What the how-tos would add, and names of others.
INVENTED = {"plain", "_plain", "plain_way", "elu", "avx"}
FOREIGN = {"clflushopt", "taskset"}
FOLDERS = ["", "src", "src/convext", "src/microkernels", "convext"]


def quoted(document):
    """Return the words in back-quotes that are names or paths, without options and commands."""
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text("utf-8"), flags=re.S)
    words = re.findall(r"`([^`\n]+)`", text)
    return {word for word in words if re.fullmatch(r"[\w./]+", word) and not word.isdigit()}


def is_file(name):
    places = [ROOT / folder / name for folder in FOLDERS]
    return any(p.exists() or [*p.parent.glob(p.name + ".p[xy]*")] for p in places)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_names_in_documents_are_those_of_the_code(document):
    known = set().union(*(re.findall(r"\w+", path.read_text("utf-8")) for path in SOURCES))
    known |= {part for path in SOURCES for part in path.relative_to(ROOT).with_suffix("").parts}
    unknown = [
        name
        for name in sorted(quoted(document))
        if not is_file(name)
        and not known.issuperset(set(re.findall(r"\w+", name)) - INVENTED - FOREIGN)
    ]
    assert not unknown


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_in_documents_lead_to_files(document):
    paths = {
        name
        for name in quoted(document)
        if "/" in name
        and not name.startswith("..")
        and INVENTED.isdisjoint(re.findall(r"\w+", name))
    }
    assert not [name for name in sorted(paths) if not is_file(name.rstrip("/"))]
