"""What `import convext` brings with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import convext

LAZY = ["dask", "enhancement", "image", "kernels_file", "plotting"]


def run(code):
    """Run Python code in a process of its own and return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()


def test_importing_the_package_imports_nothing_that_takes_long():
    code = "import convext, sys; dir(convext); print(*sys.modules)"
    loaded = set(run(code))
    assert "convext.nn.models" in loaded
    assert not loaded & {"PIL", "dask", "matplotlib", "tqdm", "concurrent.futures", "argparse"}
    assert not loaded & {f"convext.{name}" for name in LAZY}


@pytest.mark.parametrize("name", LAZY)
def test_modules_are_there_when_they_are_asked_for(name):
    assert name in dir(convext)
    assert run(f"import convext; print(convext.{name}.__name__)") == [f"convext.{name}"]


def test_every_name_that_is_listed_is_there():
    assert set(convext.__all__) <= set(dir(convext))
    for name in dir(convext):
        getattr(convext, name)


def test_other_names_are_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'convext' has no attribute 'images'"):
        _ = convext.images
    assert not hasattr(convext, "nothing")
