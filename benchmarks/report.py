"""What the comparison prints and writes: a line for each entry, a summary, JSON."""

from __future__ import annotations

import json
import platform
import statistics
from dataclasses import dataclass

from . import shapes
from .libraries import OPERATIONS, TITLES
from .shapes import Case
from .textbook import cpu_name

SETS = {"reference shapes": shapes.REFERENCE, "further shapes": shapes.FURTHER}


@dataclass(frozen=True)
class Entry:
    """The median times, in seconds, of one operation on one shape."""

    case: Case
    operation: str
    seconds: dict[str, float]
    peak: float | None  # median up to then, in floating-point operations per second

    @property
    def ours(self):
        """The time of convext, or None."""
        return self.seconds.get("convext")

    @property
    def peers(self):
        """The names of the others, the fastest first."""
        return sorted(self.seconds.keys() - {"convext"}, key=self.seconds.get)

    @property
    def ratio(self):
        """The fastest peer's time over convext's, or None."""
        return self.seconds[self.peers[0]] / self.ours if self.ours and self.peers else None

    @property
    def share_of_peak(self):
        """How fast convext is; above 1 where a transform saves multiplications."""
        return self.case.flops / self.ours / self.peak if self.ours and self.peak else None


@dataclass(frozen=True)
class Failure:
    """A library that failed on a shape, or gave a wrong result."""

    name: str
    case: Case
    operation: str
    message: str

    def __str__(self):
        return f"{TITLES[self.name]}: {self.case.name}, {self.operation}: {self.message}"


def conditions(settings):
    """Return what all figures depend on, in a line."""
    return f"{cpu_name()}; {settings.dtype}, {settings.threads} thread(s)"


def preface(settings, versions):
    """Return the lines before the entries."""
    titled = [f"{TITLES[name]} {version}" for name, version in versions.items() if name != "peak"]
    yield conditions(settings)
    yield ", ".join(titled)
    yield ""
    yield (
        f"{'images -> kernels':<36}{'operation':<17}{'convext':>8}"
        f"  {'fastest peer':<22}  {'next':<22}{'ratio':>7}{'of peak':>9}"
    )


def line(entry):
    """Return the entry as a line of the table."""
    peers = [f"{TITLES[n]:<13} {microseconds(entry.seconds[n]):>8}" for n in entry.peers]
    first, second, *_ = [*peers, "", ""]
    ours = microseconds(entry.ours) if entry.ours else "failed"
    ratio = f"{entry.ratio:.2f}" if entry.ratio else ""
    share = f"{entry.share_of_peak:.0%}" if entry.share_of_peak else ""
    return (
        f"{entry.case.name:<36}{entry.operation:<17}{ours:>8}"
        f"  {first:<22}  {second:<22}{ratio:>7}{share:>9}"
    )


def microseconds(seconds):
    """Return the time with three digits or more."""
    time = seconds * 1e6
    return f"{time:.{0 if time >= 100 else 1}f}"


def summary(entries, failures):
    """Return the lines after the entries: the reference shapes' figures for themselves."""
    for name, cases in SETS.items():
        rows = figures_of([entry for entry in entries if entry.case in cases])
        if rows:
            yield f"\n{name:<36}{'entries':>8}{'geometric mean':>16}{'below 1':>9}  worst"
        for operation, row in rows.items():
            yield (
                f"  {operation:<34}{row['entries']:>8}{row['geometric_mean']:>16.2f}"
                f"{row['below_1']:>9}  {row['worst']:.2f}: {row['worst_entry']}"
            )
    peak = entries[-1].peak if entries else None
    yield f"\npeak of multiply-adds: {peak / 1e9:.0f} GFLOP/s" if peak else "\npeak: not measured"
    if failures:
        yield "\nfailed:"
    for failure in failures:
        yield f"  {failure}"


def figures_of(entries):
    """Return the figures of each operation, and of all."""
    rated = [entry for entry in entries if entry.ratio]
    groups = {name: [entry for entry in rated if entry.operation == name] for name in OPERATIONS}
    groups["all"] = rated
    return {name: _figures(group) for name, group in groups.items() if group}


def _figures(entries):
    ratios = [entry.ratio for entry in entries]
    worst = min(entries, key=lambda entry: entry.ratio)
    return {
        "entries": len(entries),
        "geometric_mean": statistics.geometric_mean(ratios),
        "below_1": sum(ratio < 1 for ratio in ratios),
        "worst": worst.ratio,
        "worst_entry": f"{worst.case.name}, {worst.operation}",
    }


def write_json(path, settings, versions, entries, failures):
    """Write everything that was measured; times in microseconds."""
    peak = entries[-1].peak if entries else None
    content = {
        "machine": cpu_name(),
        "python": platform.python_version(),
        "dtype": settings.dtype,
        "threads": settings.threads,
        "algorithm": settings.algorithm,
        "versions": versions,
        "peak_gflops": peak / 1e9 if peak else None,
        "entries": [_entry_as_json(entry) for entry in entries],
        "failures": [
            {
                "library": failure.name,
                "shape": failure.case.name,
                "operation": failure.operation,
                "message": failure.message,
            }
            for failure in failures
        ],
        "summary": {
            name: figures_of([entry for entry in entries if entry.case in cases])
            for name, cases in SETS.items()
        },
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def _entry_as_json(entry):
    return {
        "shape": entry.case.name,
        "family": entry.case.family,
        "operation": entry.operation,
        "microseconds": {name: seconds * 1e6 for name, seconds in entry.seconds.items()},
        "fastest_peer": next(iter(entry.peers), None),
        "ratio": entry.ratio,
        "gflops": entry.case.flops / entry.ours / 1e9 if entry.ours else None,
        "share_of_peak": entry.share_of_peak,
    }
