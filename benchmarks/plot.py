"""The comparison as a picture: for each operation a panel, for each shape a dot.

Run as ``python -m benchmarks.plot PICTURE.png`` to draw the first table of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .libraries import OPERATIONS, TITLES
from .report import Entry
from .shapes import CASES

FASTER, SLOWER = "tab:blue", "tab:red"

# In inches.
ROW_HEIGHT, PANEL_WIDTH, LABELS_WIDTH, MARGINS_HEIGHT = 0.22, 3.5, 2.3, 1.2


def plot(path, title, entries):
    """Draw the ratios to the fastest peer, with its name beside each."""
    entries = [entry for entry in entries if entry.ratio]
    if not entries:
        raise SystemExit(f"{path} is not drawn: there is nothing to compare")
    shapes = list(dict.fromkeys(entry.case for entry in entries))
    operations = [name for name in OPERATIONS if any(e.operation == name for e in entries)]
    size = (
        LABELS_WIDTH + PANEL_WIDTH * len(operations),
        MARGINS_HEIGHT + ROW_HEIGHT * len(shapes),
    )
    figure, panels = plt.subplots(
        1,
        len(operations),
        figsize=size,
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, operation in zip(panels[0], operations, strict=True):
        _draw(panel, operation, shapes, [e for e in entries if e.operation == operation])
    _limit(panels[0, 0], [entry.ratio for entry in entries])
    panels[0, 0].set_yticks(range(len(shapes)), [case.name for case in shapes])
    panels[0, 0].set_ylim(len(shapes) - 0.4, -0.6)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel("fastest peer's time / convext's: right of the line convext is faster", size=9)
    figure.savefig(path, dpi=150)


def _draw(panel, operation, shapes, entries):
    rows = [shapes.index(entry.case) for entry in entries]
    ratios = [entry.ratio for entry in entries]
    colors = [SLOWER if ratio < 1 else FASTER for ratio in ratios]
    panel.set_title(operation, fontsize=9)
    panel.set_xscale("log")
    panel.axvline(1, color="black", linewidth=0.8)
    panel.hlines(rows, 1, ratios, colors=colors, linewidth=2)
    panel.scatter(ratios, rows, color=colors, s=16, zorder=3)
    panel.tick_params(labelsize=8)
    panel.grid(axis="x", color="0.9")
    panel.set_axisbelow(True)
    for entry, row in zip(entries, rows, strict=True):
        # On the side of the dot that the line does not come from.
        left = entry.ratio < 1
        panel.annotate(
            f"{TITLES[entry.peers[0]]} {entry.ratio:.2f}",
            (entry.ratio, row),
            xytext=(-5 if left else 5, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=6.5,
            color="0.3",
        )


def _limit(panel, ratios):
    """Leave room for the names on both sides; mark the axis with plain numbers."""
    low, high = min([*ratios, 1]), max([*ratios, 1])
    room = max(high / low, 4) ** 0.7
    panel.set_xlim(low / room, high * room)
    panel.xaxis.set_major_locator(LogLocator(subs=(1,) if high / low > 50 else (1, 2, 5)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


def entries_of(table):
    """Return the entries of a table that the comparison printed, with the fastest peer of each."""
    case_of = {case.name: case for case in CASES}
    name_of = {title: name for name, title in TITLES.items()}
    columns = re.compile(rf"(.+?)  +({'|'.join(OPERATIONS)}) +([\d.]+)  (\D+?) +([\d.]+)  ")
    for line in table.splitlines():
        if found := columns.match(line):
            shape, operation, ours, peer, theirs = found.groups()
            seconds = {"convext": 1e-6 * float(ours), name_of[peer]: 1e-6 * float(theirs)}
            yield Entry(case_of[shape], operation, seconds, None)


def main():
    """Draw the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path, metavar="PICTURE.png")
    parser.add_argument("--operation", nargs="+", choices=OPERATIONS, default=OPERATIONS)
    options = parser.parse_args()
    results = Path(__file__).with_name("RESULTS.md").read_text("utf-8")
    table = results.split("```")[1].strip()
    entries = [entry for entry in entries_of(table) if entry.operation in options.operation]
    plot(options.picture, table.splitlines()[0], entries)


if __name__ == "__main__":
    main()
