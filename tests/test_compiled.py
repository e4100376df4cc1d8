"""The compiled modules, which all lie in one shared library."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from convext.base import _dispatch

SOURCES = Path(__file__).parents[1] / "src/convext"
NAMES = sorted(
    ".".join(path.relative_to(SOURCES.parent).with_suffix("").parts)
    for path in SOURCES.rglob("*.pyx")
)


def test_the_library_holds_all_modules():
    assert {"convext.base._dispatch", *_dispatch.MODULES} == set(NAMES)
    for name in NAMES:
        module = importlib.import_module(name)
        assert module.__file__ == _dispatch.__file__
        assert module.__spec__.name == module.__name__ == name


@pytest.mark.parametrize("name", ["convext._none", "convext.ways._forward.none", "_forward"])
def test_other_names_are_not_found(name):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)
