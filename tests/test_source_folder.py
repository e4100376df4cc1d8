"""The source folder without compiled modules, in which people stand after ``pip install .``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import convext

PACKAGE = Path(convext._version.__file__).parent


@pytest.fixture
def sources(tmp_path):
    """A folder with the package's Python files, and none that are compiled."""
    folder = tmp_path / "sources"
    (folder / "convext").mkdir(parents=True)
    for file in PACKAGE.rglob("*.py"):
        copy = folder / "convext" / file.relative_to(PACKAGE)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(file, copy)
    return folder


@pytest.fixture
def installed(tmp_path):
    """A folder that holds the whole package, as site-packages do."""
    folder = tmp_path / "installed"
    shutil.copytree(PACKAGE, folder / "convext", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def python(*arguments, folder, path=""):
    """Run Python in a folder; return its status and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(path), "CONVEXT_LANG": "en"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


FEW = (
    "import numpy as np, convext; print(convext.conv2d(np.ones((1, 3, 3)), np.ones((1, 1, 2, 2))))"
)


def test_the_sources_hand_over_to_the_package_that_was_made_of_them(sources, installed):
    status, out, err = python("-c", FEW, folder=sources, path=installed)
    assert (status, err) == (0, "")
    assert out.split() == ["[[[4.", "4.]", "[4.", "4.]]]"]
    status, out, err = python("-m", "convext", "info", folder=sources, path=installed)
    assert (status, err) == (0, "")
    assert out.startswith(f"convext          {convext.__version__}\n")


def test_all_modules_come_from_where_they_were_installed(sources, installed):
    code = (
        "import sys, convext, convext.image, convext.cli; print(*sorted({"
        "m.__file__.rpartition('convext')[0] for n, m in sys.modules.items()"
        " if n.startswith('convext.') and n != 'convext._unbuilt'}))"
    )
    status, out, err = python("-c", code, folder=sources, path=installed)
    assert (status, err, out) == (0, "", f"{installed}/\n")


@pytest.mark.parametrize("change", ["changed", "added"])
def test_sources_that_were_changed_are_not_mixed_with_what_is_installed(change, sources, installed):
    name = "losses.py" if change == "changed" else "more.py"
    with open(sources / "convext" / name, "a") as stream:
        stream.write("# changed\n")
    status, _, err = python("-c", "import convext", folder=sources, path=installed)
    assert status == 1
    assert err.splitlines()[-1] == (
        f"ImportError: convext in {sources}/convext is not built, and differs from what is "
        f"installed in {installed}/convext: run `pip install .` in {sources}"
    )
    assert "another exception" not in err


def test_sources_that_were_never_built_say_so_in_one_line(sources):
    # As `pip install -e .` makes it, after which somebody has removed the modules.
    finder = (
        "import sys, importlib.machinery as m\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        return m.PathFinder.find_spec(name, ['{sources}'])\n"
        "sys.meta_path.append(Finder)\n"
    )
    for arguments in (
        ("-c", "import convext"),
        ("-m", "convext", "info"),
        ("-c", finder + "import convext"),
    ):
        status, _, err = python("-S", "-E", *arguments, folder=sources)
        assert status == 1
        assert err.splitlines()[-1] == (
            f"ImportError: convext in {sources}/convext is not built: run `pip install .` in "
            f"{sources}"
        )
        assert "circular" not in err


def test_compiled_modules_that_do_not_load_keep_their_own_error(installed):
    (module,) = (installed / "convext/base").glob("_dispatch.*.so")
    module.write_bytes(b"no library")
    status, _, err = python("-c", "import convext", folder=installed)
    assert status == 1
    assert "file too short" in err.splitlines()[-1]
