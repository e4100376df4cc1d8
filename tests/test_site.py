"""The site's pages: what they list is there, and their links lead somewhere."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from convext.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "docs").rglob("*.md")
    if not any(part.startswith("_") for part in path.parts)
)
MODULES = [
    "convext",
    "convext.dask",
    "convext.enhancement",
    "convext.image",
    "convext.kernels_file",
    "convext.plotting",
    "convext.schedules",
]


def text_of(page):
    return (ROOT / page).read_text("utf-8")


def public_names(module):
    """Return the names that a module offers, without those of modules."""
    if hasattr(module, "__all__"):
        names = module.__all__
    else:
        own = {
            n for n, o in vars(module).items() if getattr(o, "__module__", "") == module.__name__
        }
        names = [name for name in own if not name.startswith("_")]
    names = [name for name in names if not name.startswith("__")]
    return {name for name in names if not inspect.ismodule(getattr(module, name))}


def listed_names():
    """Return the names in the lists of the reference, by their module."""
    names = {module: set() for module in MODULES}
    module = None
    for line in text_of("docs/reference/python.md").splitlines():
        if named := re.match(r"\.\. (?:currentmodule|automodule):: (\S+)", line):
            module = named[1]
        elif entry := re.match(r"   (\w+)$", line):
            names[module].add(entry[1])
    return names


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_lists_every_public_name(module):
    if module == "convext.dask":
        pytest.importorskip("dask")
    assert listed_names()[module] == public_names(import_module(module))


def test_the_reference_lists_every_command():
    named = re.findall(r"^```\{command\} (\S+)$", text_of("docs/reference/command-line.md"), re.M)
    assert named == list(COMMANDS)


def anchors(text):
    """Return the places of a page that a link can name: its headings, as the forge names them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```|`[^`]*`", "", text_of(page), flags=re.S)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, place = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.is_file() or (place and place not in anchors(target.read_text("utf-8"))):
            dead.append(link)
    assert not dead


@pytest.mark.parametrize("page", PAGES)
def test_code_is_in_blocks(page):
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.S | re.M)
    assert not re.findall(r"^>>>.*", text, re.M)  # which would be quotations of quotations


def test_every_page_is_in_a_list_of_pages():
    listed = set()
    for page in PAGES:
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", text_of(page), re.S | re.M):
            lines = [line for line in tree.splitlines() if line and not line.startswith(":")]
            entries = [re.sub(r".*<(.*)>", r"\1", line) for line in lines]
            folder = (ROOT / page).parent
            listed |= {str((folder / f"{e}.md").resolve().relative_to(ROOT)) for e in entries}
    assert set(PAGES) - listed == {"docs/index.md"}


def translations():
    """Return the English and Chinese texts of docs/locale."""
    pairs = []
    for file in (ROOT / "docs" / "locale").glob("*/LC_MESSAGES/docs/**/*.po"):
        text = file.read_text("utf-8")
        entries = re.findall(r'^msgid ((?:".*"\n)+)msgstr ((?:".*"\n?)+)', text, re.M)
        pairs += [
            tuple(re.sub(r"\\(.)", r"\1", "".join(re.findall(r'"(.*)"', part))) for part in entry)
            for entry in entries
        ]
    return [(english, chinese) for english, chinese in pairs if english]


def test_translations_have_the_same_code_and_links():
    pairs = translations()
    assert len(pairs) > 80
    for english, chinese in pairs:
        assert chinese
        for what in (r"`+[^`]+`+", r"\]\(([^)]*)\)"):
            assert sorted(re.findall(what, chinese)) == sorted(re.findall(what, english))


def test_what_is_translated_is_on_a_page():
    texts = [text_of(page).replace(r"\|", "|") for page in (*PAGES, "examples/README.rst")]
    pages = " ".join("".join(text.split()) for text in texts)
    for english, _ in translations():
        assert "".join(english.split()) in pages
