"""The site's search: what pages it finds for a question, and how it splits Chinese."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")

# A long page with all words, and short ones; stemming is left out.
INDEX = {
    "docnames": ["long", "blur", "install"],
    "filenames": ["long.md", "blur.md", "install.md"],
    "titles": ["All there is", "Questions", "Installation"],
    "alltitles": {
        "All there is": [[0, None]],
        "Questions": [[1, None]],
        "How wide is a blur?": [[1, "how-wide"]],
        "Installation": [[2, None]],
    },
    "terms": {
        "blur": [0, 1],
        "image": [0, 1, 2],
        "compiler": [0, 2],
        "convolve2d": 0,
        **{f"other{n}": 0 for n in range(20)},
    },
    "titleterms": {"wide": 1, "blur": 1, "installation": 2},
}
SITE = """
const Search = { _index: INDEX }, Scorer = { term: 5 }, SearchResultKind = { text: "text" };
const splitQuery = (text) => text.match(/\\w+/g);
class Stemmer { stemWord(word) { return word; } }
"""


def node(program):
    done = subprocess.run(
        ["node", "-"], input=program, capture_output=True, check=True, encoding="utf-8"
    )
    return json.loads(done.stdout)


def search(question, excluded=()):
    """Return page and place of what is found, and its title, the best first."""
    program = (
        f"const INDEX = {json.dumps(INDEX)};{SITE}"
        f"{(DOCS / '_static' / 'search.js').read_text('utf-8')}"
        f"const [asked, not] = {json.dumps([question.split(), list(excluded)])};"
        "const found = Search.performTermsSearch(new Set(asked), new Set(not));"
        "console.log(JSON.stringify(found.sort((a, b) => b[4] - a[4])));"
    )
    return [(page + place, title) for page, title, place, *_ in node(program)]


def test_a_question_is_answered_though_no_page_has_all_of_its_words():
    found = search("wide blur image nobody wrote")
    assert found[0] == ("blur#how-wide", "Questions > How wide is a blur?")


def test_rare_words_count_more_than_frequent_ones():
    assert search("image compiler")[0][0] == "install"
    assert search("image convolve2d")[0][0] == "long"


def test_words_may_go_on_differently_and_be_parts_of_others():
    assert search("install")[0] == ("install", "Installation")
    assert [place for place, _ in search("volve")] == ["long"]


def test_pages_with_excluded_words_are_not_found():
    assert "long" not in {place for place, _ in search("image", excluded=["convolve2d"])}
    assert search("nothing") == []


def test_pages_and_queries_are_split_alike():
    pytest.importorskip("sphinx")
    path = DOCS / "_extensions" / "chinese_search.py"
    spec = importlib.util.spec_from_file_location("chinese_search", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pairs = module.Pairs({})
    for text, words in {
        "卷积核": ["卷积", "积核"],
        "用conv2d求模糊核，3x3": ["conv2d", "求模", "模糊", "糊核", "3x3"],
        "核": [],
        "no Chinese": ["no", "Chinese"],
    }.items():
        split = f"{pairs.js_splitter_code};console.log(JSON.stringify(splitQuery({text!r})));"
        assert pairs.split(text) == node(split) == words
