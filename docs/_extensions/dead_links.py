"""Warns of links within the finished pages that lead to no file, or to no place in it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


class Page(HTMLParser):
    """The links of a page, and the names of its places."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = set()
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Take note of what an element links to, and of its names."""
        for name, value in attributes:
            if value and name in ("href", "src"):
                self.links.add(value)
            elif value and name in ("id", "name"):
                self.places.add(value)


def dead_links(folder: Path) -> list[str]:
    """Return the links of all pages in a folder that lead nowhere, each behind its page."""
    files = [file for file in folder.rglob("*.html") if "_static" not in file.parts]
    pages = {file.resolve(): Page(file) for file in files}
    dead = []
    for file, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            place = unquote(parts.fragment)
            if not target.is_relative_to(folder.resolve()):
                continue  # to the site in another language
            missing = target in pages and place not in ("", *pages[target].places)
            if missing or not target.exists():
                dead.append(f"{file.relative_to(folder.resolve())}: {link}")
    return dead


def check(app: Sphinx, error: Exception | None) -> None:
    """Warn of each dead link, once all pages are written."""
    if error is None and app.builder.format == "html":
        for link in dead_links(Path(app.outdir)):
            logger.warning("dead link: %s", link)


def setup(app: Sphinx) -> dict[str, bool]:
    """Look at the pages when they are all there."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
