"""setup.py compiles what was made of other contents, and nothing else: see tools/made_of.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools import made_of
from tools.made_of import Made, digest, sources_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A package whose module includes one of two headers, and of a pxd what that one cimports."""
    files = {
        "src/convext/base/_low.pxd": "cdef int low() noexcept nogil\n",
        "src/convext/ways/_way.pxd": "from convext.base._low cimport (\n    low\n)\n",
        "src/convext/ways/_way.pyx": "x = 1\n",
        "src/convext/ways/_other.pxd": "cdef int other() noexcept nogil\n",
        "src/kernels/kernel.c": '#include "near.h"\n#include <stddef.h>\n',
        "src/kernels/near.h": '#  include "far.h"\n#include "none.h"\n',
        "src/kernels/far.h": "enum { FAR };\n",
        "src/kernels/apart.h": "enum { APART };\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


MADE_OF = {
    "src/convext/ways/_way.pyx": ["src/convext/base/_low.pxd", "src/convext/ways/_way.pxd"],
    "src/kernels/kernel.c": ["src/kernels/far.h", "src/kernels/near.h"],
}


@pytest.mark.parametrize("name", MADE_OF)
def test_a_file_is_made_of_all_that_it_includes_and_of_nothing_else(name, tree):
    kernels, path = Path("src/kernels"), Path(name)
    assert sources_of(path, kernels) == sorted([path, *map(Path, MADE_OF[name])])
    before = digest(path, kernels, "how")
    for other in sorted(tree.rglob("*.*")):
        if not other.is_file():
            continue
        os.utime(other, (1, 1))
        assert digest(path, kernels, "how") == before
        text = other.read_text()
        other.write_text(f"{text}\n")
        included = str(other.relative_to(tree)) in (name, *MADE_OF[name])
        assert (digest(path, kernels, "how") != before) == included, other
        other.write_text(text)
    assert digest(path, kernels, "otherwise") != before


def test_what_was_not_made_to_its_end_is_made_again(tmp_path):
    file = tmp_path / "file.o"
    assert not Made(file, "this").already
    file.write_text("half")
    assert not Made(file, "this").already
    Made(file, "this").done()
    assert Made(file, "this").already
    # Begun anew for other contents, and not ended.
    assert not Made(file, "that").already
    assert not Made(file, "this").already
    Made(file, "this").done()
    file.unlink()
    assert not Made(file, "this").already


def test_what_modules_include_is_found(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = sources_of(Path("src/convext/ways/_winograd.pyx"), Path("src/microkernels"))
    assert Path("src/convext/base/_tasks.pxd") in found
    assert set(
        made_of.included_by(Path("src/microkernels/microkernel.c"), Path("src/microkernels"))
    )
