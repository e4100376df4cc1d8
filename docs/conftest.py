"""Of the files here, pytest reads the pages: Sphinx, which the others need, may be missing."""

import pytest

collect_ignore_glob = ["*.py"]


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path, monkeypatch):
    """Let what a page writes go nowhere else."""
    monkeypatch.chdir(tmp_path)
