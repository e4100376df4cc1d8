"""What setup.py says where the package cannot be built."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / "setup.py"

CC = (sysconfig.get_config_var("CC") or "cc").split()

# What setup.py imports, with a setup() that only says that it was reached.
MODULES = {
    "setuptools/__init__.py": "def setup(**_): print('set up')\nclass Extension:\n"
    "    def __init__(self, *_, **__): pass",
    "setuptools/command/build_ext.py": "class build_ext: pass",
    "setuptools/command/sdist.py": "class sdist: pass",
    "setuptools/errors.py": "class CompileError(Exception): pass",
}


needs_compiler = pytest.mark.skipif(
    shutil.which(CC[0]) is None, reason="this Python's C compiler is not there"
)


@pytest.fixture
def run(tmp_path):
    """A function that runs setup.py, after some code, and returns status, output and errors."""
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def run_setup(*arguments, before="", **environment):
        code = f"{before}\nimport runpy, sys\nsys.argv = {['setup.py', *arguments]}\n"
        code += f"runpy.run_path({str(SETUP)!r}, run_name='__main__')"
        environment = os.environ | {"PYTHONPATH": str(tmp_path)} | environment
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=False,
            cwd=SETUP.parent,
            env=environment,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    return run_setup


@pytest.fixture
def compiler(tmp_path):
    """A function that makes a compiler for which some text is an error, and returns its path."""

    def make(text):
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\n! grep -q '{text}'\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.mark.parametrize("command", ["build_ext", "bdist_wheel", "editable_wheel"])
def test_no_compiler_is_one_line_before_any_work(command, run):
    status, out, err = run(command, CC="no-such-compiler --option")
    assert (status, out) == (1, "")
    assert err.startswith(
        "convext needs a C compiler, GCC or Clang, but `no-such-compiler --option` does not work"
    )
    assert err.count("\n") == 1


def test_a_compiler_that_fails_is_one_line(run, compiler):
    status, out, err = run("build_ext", CC=compiler("main"))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "GCC or Clang, but" in err


def test_missing_headers_are_one_line(run, compiler):
    status, out, err = run("build_ext", CC=compiler("Python.h"))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("convext needs Python's headers")


@needs_compiler
def test_a_compiler_that_works_builds(run, compiler):
    for path in (compiler("nothing of that"), sysconfig.get_config_var("CC")):
        assert run("build_ext", CC=path) == (0, "set up\n", "")


@needs_compiler
def test_the_file_that_does_not_compile_is_named(run, tmp_path):
    (tmp_path / "setuptools/__init__.py").write_text(
        """
class Extension:
    def __init__(self, *_, **__): pass

class Compiler:
    compiler_so = ["cc"]
    def object_filenames(self, sources, output_dir): return ["object"]
    def compile(self, sources, **_): raise OSError("the compiler was ended by signal 9")

def setup(cmdclass, **_):
    build = cmdclass["build_ext"]()
    build.force, build.compiler = True, Compiler()
    build.compile("src/microkernels/dispatch.c", "folder", [], [])
"""
    )
    status, _, err = run("build_ext", CC=sysconfig.get_config_var("CC"))
    assert status == 1
    assert "cannot compile src/microkernels/dispatch.c: the compiler was ended by signal 9" in err


@pytest.mark.parametrize("command", ["egg_info", "dist_info", "sdist"])
def test_without_a_compiler_all_but_building_works(command, run):
    assert run(command, CC="no-such-compiler") == (0, "set up\n", "")


def test_an_old_python_is_one_line_before_anything_else(run):
    old = "import sys; sys.version_info = (3, 8, 18); sys.version = '3.8.18 (default)'"
    status, out, err = run("egg_info", before=old)
    assert (status, out) == (1, "")
    assert err == "convext needs Python 3.10 or later, this is Python 3.8.18\n"
    # And it must get so far.
    ast.parse(SETUP.read_text(), feature_version=(3, 6))
