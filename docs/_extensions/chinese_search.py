"""Lets the Chinese site be searched: by pairs of characters, which need no dictionary of words."""

from __future__ import annotations

import re

from sphinx.application import Sphinx
from sphinx.search.zh import SearchChinese

RUNS = re.compile(r"[\u4e00-\u9fff]+|[a-z0-9_]+", re.IGNORECASE)


class Pairs(SearchChinese):
    """Splits texts as the page splits queries; all else is as in English."""

    language_name = "English"  # by which Sphinx names the stemmer
    js_splitter_code = r"""
function splitQuery(query) {
  const pairs = (run) => [...run].slice(1).map((character, i) => run[i] + character);
  const runs = query.match(/[\u4e00-\u9fff]+|[a-z0-9_]+/gi) ?? [];
  return runs.flatMap((run) => (/^\w/.test(run) ? [run] : pairs(run)));
}
"""

    def split(self, input: str) -> list[str]:
        """Return the words of a text in Latin letters, and the pairs of its Chinese characters."""
        words: list[str] = []
        for run in RUNS.findall(input):
            if run.isascii():
                words.append(run)
                self.latin_terms.add(run)
            else:
                words += [run[i : i + 2] for i in range(len(run) - 1)]
        return words


def setup(app: Sphinx) -> dict[str, bool]:
    """Take the place of Sphinx's own search in Chinese, which needs the package jieba."""
    app.add_search_language(Pairs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
