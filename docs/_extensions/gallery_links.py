"""Links to programs in examples/, which the forge shows, lead to their pages in the gallery."""

from __future__ import annotations

from pathlib import PurePosixPath

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def lead_to_gallery(app: Sphinx, doctree: nodes.document) -> None:
    """Replace what would offer a program for download."""
    for node in list(doctree.findall(addnodes.download_reference)):
        path = PurePosixPath(node["reftarget"])
        if path.parent.name != "examples" or path.suffix != ".py":
            continue
        page = addnodes.pending_xref(
            refdomain="std",
            reftype="doc",
            reftarget=f"/docs/gallery/{path.stem}",
            refdoc=app.env.docname,
            refexplicit=True,
            refwarn=True,
        )
        page += nodes.inline("", node.astext())
        node.replace_self(page)


def setup(app: Sphinx) -> dict[str, bool]:
    """Do so before the files to be downloaded are gathered."""
    app.connect("doctree-read", lead_to_gallery, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
