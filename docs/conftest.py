"""Of the files here, pytest reads the pages: Sphinx, which the others need, may be missing."""

collect_ignore_glob = ["*.py"]
