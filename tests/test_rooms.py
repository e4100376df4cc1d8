"""The compiled modules depend on each other in one direction; lint-imports looks at the others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src" / "convext"
ROOMS = ["base", "ways", "gradient", "train"]  # each knows those before it


def imports(folder):
    """Return which modules each module names in its sources, imports of Python included."""
    found = {}
    for file in sorted(folder.rglob("*.p[yx][xd]")):
        module = f"{file.parent.name}.{file.stem}"
        lines = re.findall(
            r"^ *(?:from|c?import) +((?:convext|\.).*)", file.read_text("utf-8"), re.M
        )
        names = [re.match(r"convext\.(\w+\.\w+) c?import ", line) for line in lines]
        assert all(names), f"{file} does not import from a module by its full name: {lines}"
        found.setdefault(module, set()).update({name[1] for name in names} - {module})
    return found


def upward(graph):
    """Return the imports from a room of what lies above it."""
    room = {module: ROOMS.index(module.split(".")[0]) for module in graph}
    return {(a, b) for a, others in graph.items() for b in others if room[b] > room[a]}


def circles(graph):
    """Return the sets of modules that reach each other."""
    reached = {module: set(others) for module, others in graph.items()}
    for middle in graph:
        for others in reached.values():
            if middle in others:
                others.update(reached[middle])
    found = {frozenset(b for b in reached[a] if a in reached[b]) for a in graph if a in reached[a]}
    return [set(circle) for circle in found]


def test_compiled_modules_know_only_those_of_their_room_and_below():
    graph = imports(SOURCES)
    assert len(graph) > 20
    assert not upward(graph)


def test_no_compiled_modules_import_each_other_in_a_circle():
    assert not circles(imports(SOURCES))


@pytest.mark.parametrize("word", ["cimport", "import"])
def test_a_new_circle_and_an_import_of_a_room_above_are_found(word, tmp_path):
    for file in SOURCES.rglob("*.p[yx][xd]"):
        copy = tmp_path / file.relative_to(SOURCES)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(file.read_text("utf-8") + "\n", "utf-8")
    lines = {"base/_scratch": "ways._tile", "ways/_tile": "ways._correlation"}
    for module, other in lines.items():
        with (tmp_path / f"{module}.pxd").open("a") as stream:
            stream.write(f"from convext.{other} {word} Tile\n")
    graph = imports(tmp_path)
    assert ("base._scratch", "ways._tile") in upward(graph)
    assert any({"base._scratch", "ways._tile"} <= circle for circle in circles(graph))
    assert any({"ways._tile", "ways._correlation"} <= circle for circle in circles(graph))
