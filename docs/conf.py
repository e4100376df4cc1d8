"""How Sphinx makes the site: ``python -m sphinx -W -c docs . build/site`` in the project's folder.

The sources are the whole project, so that a link from one Markdown file to another leads to the
same place here as on the forge. With ``-D language=zh_CN`` and ``build/site/zh`` the site is
Chinese; where that is made first, each English page has a link to it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_extensions"), str(ROOT / "examples")]
os.environ["MPLBACKEND"] = "Agg"

import convext  # noqa: E402

project = "convext"
author = copyright = "The convext developers"
version = release = convext.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "chinese_search",
    "command_line",
    "dead_links",
    "gallery_links",
    "languages",
    "trailing_lines",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "benchmarks/RESULTS.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
]
exclude_patterns = ["docs/_*/**"]
templates_path = [str(ROOT / "docs" / "_templates")]  # autosummary knows no other folder
default_role = "autolink"
highlight_language = "text"
smartquotes = False  # which would make a dash of the dashes of options

# Headings that other files link to.
myst_heading_anchors = 3

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"
numpydoc_show_class_members = False

# Those that take minutes are shown with pictures that were kept.
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "docs/gallery",
    "filename_pattern": r"/(blur_over|edge_of|how_sure|loss_against|two_tele|undo_blur)",
    "ignore_pattern": r"common\.py",
    "within_subsection_order": "gallery_order.Order",
    "show_memory": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "abort_on_example_error": True,
    "download_all_examples": False,
}

# Pages without a file in docs/locale stay English.
locale_dirs = ["docs/locale"]
gettext_compact = False
gettext_location = False

html_theme = "pydata_sphinx_theme"
html_title = "convext"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("search.js", {"defer": "defer"})]
html_extra_path = ["_root"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "navbar_end": ["language", "theme-switcher", "navbar-icon-links"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
# Pages without others below or beside them.
html_sidebars = {"docs/index": [], "docs/overview*": [], "genindex": [], "py-modindex": []}
