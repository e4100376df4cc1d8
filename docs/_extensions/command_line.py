"""The directive ``command``: what the parser says of a command, as a section of a page."""

from __future__ import annotations

import argparse
import os
import re
from functools import cache
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective

from convext._support.messages import translate
from convext.cli.commands import make_parser

# What a page's column of text has room for.
USAGE_COLUMNS = "70"


@cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of all commands by name, and the whole one, whose name is empty."""
    whole = make_parser()
    (commands,) = (
        action for action in whole._actions if isinstance(action, argparse._SubParsersAction)
    )
    return {"": whole, **commands.choices}


def words_and_code(text: str) -> nodes.paragraph:
    """Return a paragraph of a text; what stands in back-quotes is code."""
    parts = enumerate(text.split("`"))
    kinds = [nodes.literal(part, part) if i % 2 else nodes.Text(part) for i, part in parts]
    return nodes.paragraph("", "", *kinds)


def paragraphs(text: str) -> list[nodes.Node]:
    """Return the paragraphs of a description; its indented lines are code."""
    result: list[nodes.Node] = []
    for block in text.split("\n\n"):
        words, *code = re.split(r"\n(?=  )", block)
        result.append(words_and_code(translate(words)))
        if code:
            lines = "\n".join(line.strip() for line in code)
            result.append(nodes.literal_block(lines, lines, language="sh"))
    return result


def option_names(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """Return how an argument is written, as in ``--threads T``."""
    values = parser._get_formatter()._format_args(action, action.dest.upper())
    if not action.option_strings:
        return values if isinstance(action.metavar, str) else action.dest
    return ", ".join(action.option_strings) + (f" {values}" if action.nargs != 0 else "")


def option_list(parser: argparse.ArgumentParser) -> nodes.definition_list:
    """Return the arguments of a command with what they do."""
    items = nodes.definition_list()
    for action in parser._actions:
        if action.help is argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
            continue
        name = option_names(action, parser)
        term = nodes.term("", "", nodes.literal(name, name))
        meaning = words_and_code(translate(action.help or "").replace("%%", "%"))
        items += nodes.definition_list_item("", term, nodes.definition("", meaning))
    return items


class Command(SphinxDirective):
    """Usage, description, arguments and example of the command that is named."""

    optional_arguments = 1
    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Return what is to be shown."""
        parser = parsers()[self.arguments[0] if self.arguments else ""]
        usage = parser.format_usage().strip()
        return [
            nodes.literal_block(usage, usage, language="text"),
            *paragraphs(parser.description or ""),
            option_list(parser),
            *paragraphs(parser.epilog or ""),
        ]


def speak(_: Sphinx, config: Config) -> None:
    """Let the parser say everything in the language of the site."""
    os.environ["CONVEXT_LANG"] = config.language[:2]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    os.environ["COLUMNS"] = USAGE_COLUMNS
    app.connect("config-inited", speak)
    app.add_directive("command", Command)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
