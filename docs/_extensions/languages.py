"""Links from each page to the same page in the other language, where that site has been made.

The overview, which the forge shows in both, has a file for each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx


def link(app: Sphinx, page: str, _: str, context: dict[str, Any], __: object) -> None:
    """Give the page's template where the other language is, and what it is called there."""
    root = context.get("content_root", "./")
    if app.config.language.startswith("zh"):
        context["other_language"] = {"url": f"{root}../{page}.html", "name": "English"}
    elif (Path(app.outdir) / "zh" / f"{page}.html").exists():
        context["other_language"] = {"url": f"{root}zh/{page}.html", "name": "中文"}


def read_chinese_overview(app: Sphinx, page: str, source: list[str]) -> None:
    """Take the text of the overview from its Chinese file, and its list of pages from its own."""
    if page == "docs/overview" and app.config.language.startswith("zh"):
        pages = source[0][source[0].index("```{toctree}") :]
        source[0] = f"{(Path(app.srcdir) / f'{page}.zh-CN.md').read_text('utf-8')}\n{pages}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the links when pages are written."""
    app.connect("html-page-context", link)
    app.connect("source-read", read_chinese_overview)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
