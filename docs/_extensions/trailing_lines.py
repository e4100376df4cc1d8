"""Takes off the empty line at the end of code that is tested, which ends what is printed there."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx


def strip(_: Sphinx, doctree: nodes.document) -> None:
    """Let no block of code end in empty lines."""
    for block in doctree.findall(nodes.literal_block):
        text = block.astext()
        if len(block) == 1 and text != text.rstrip("\n"):
            block.rawsource = text.rstrip("\n")  # by which it is coloured
            block[:] = [nodes.Text(block.rawsource)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Look at each page that was read."""
    app.connect("doctree-read", strip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
