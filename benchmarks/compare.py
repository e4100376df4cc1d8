"""convext beside the libraries that are installed: convolution and its gradients, by layers.

Run as ``python -m benchmarks.compare``; ``--help`` lists the options. Each library runs in a
process of its own and has the same data; each result is checked before it is timed; the libraries
take turns. Times are medians in microseconds, a ratio is the fastest peer's time over convext's,
so convext is slower where it is below 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import sys
from pathlib import Path

from . import peak, report, shapes
from .libraries import BEFORE, ENGINES, OPERATIONS, PEERS, Settings
from .processes import Library, LibraryError
from .reference import TOLERANCES, error_of, expected
from .report import Entry, Failure

# In how many slices a library's time is taken, so that what disturbs the machine for a while
# disturbs all libraries.
TURNS = 3

# For each entry, beside the libraries.
SECONDS_FOR_PEAK = 0.03


def main():
    """Print a line for each shape and operation, and the summary; fail if convext failed."""
    arguments = command_line()
    # As Ctrl-C does, so that the processes are ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    settings = Settings(arguments.dtype, arguments.threads, arguments.algorithm)
    if arguments.before:
        os.environ[BEFORE] = str(arguments.before.absolute())
    libraries = [
        Library(name, settings, arguments.python.get(name, sys.executable))
        for name in ["peak", "convext", *selected_peers(arguments)]
    ]
    try:
        versions = start(libraries, required={"convext", *(arguments.peers or [])})
        print(*report.preface(settings, versions), sep="\n")
        comparison = Comparison(libraries, settings, arguments.seconds)
        with contextlib.suppress(KeyboardInterrupt):  # what has been measured is reported
            comparison.run(arguments.cases, arguments.operation)
    finally:
        for library in libraries:
            library.end()

    entries, failures = comparison.entries, comparison.failures
    print(*report.summary(entries, failures), sep="\n")
    if arguments.json:
        report.write_json(arguments.json, settings, versions, entries, failures)
    if arguments.plot:
        from .plot import plot  # noqa: PLC0415  (matplotlib is for this alone)

        plot(arguments.plot, report.conditions(settings), entries)
    return int(any(failure.name == "convext" for failure in failures))


class Comparison:
    """The entries and the failures so far.

    Parameters
    ----------
    libraries : list of Library
        That have been started, convext and perhaps the peak among them.
    settings : Settings
        That they were told.
    seconds : float
        For each library and operation.
    """

    def __init__(self, libraries, settings, seconds):
        self.peak = next((library for library in libraries if library.name == "peak"), None)
        if self.peak:
            self.peak.prepare(shapes.CASES[0])  # any: the loop is the same
        self.libraries = [library for library in libraries if library.name != "peak"]
        self.settings = settings
        self.seconds = seconds
        self.peak_times = []
        self.entries = []
        self.failures = []

    def run(self, cases, operations):
        """Measure the cases, and print them as they are done."""
        for case in cases:
            offers = self.prepare(case)
            for operation in operations:
                libraries = [library for library in offers if operation in offers[library]]
                self.entries.append(self.measure(case, operation, libraries))
                print(report.line(self.entries[-1]), flush=True)

    def prepare(self, case):
        """Return, for each library, the operations that it has for the case."""
        offers = {}
        for library in self.libraries:
            try:
                offers[library] = library.prepare(case)
            except LibraryError as error:
                self.fail(library, case, "setting up", error)
        return offers

    def measure(self, case, operation, libraries):
        """Check the libraries' results, then take their times."""
        reference = expected(case, operation, self.settings.dtype)
        tolerance = TOLERANCES[self.settings.dtype]
        times = {}
        for library in libraries:
            try:
                error = error_of(library.compute(operation), reference)
                if not error <= tolerance:  # NaN is wrong, too
                    raise ValueError(f"wrong by {error:.1e}, more than {tolerance:.0e}")
            except (LibraryError, ValueError) as error:
                self.fail(library, case, operation, error)
            else:
                times[library] = []
        self.take_turns(case, operation, times)
        return Entry(
            case,
            operation,
            {library.name: statistics.median(taken) for library, taken in times.items()},
            self.peak_so_far(),
        )

    def take_turns(self, case, operation, times):
        """Fill in the times, and leave out who fails."""
        for turn in range(TURNS):
            if self.peak:
                self.peak_times += self.peak.times("peak", SECONDS_FOR_PEAK / TURNS)
            order = list(times)
            # Each time another one begins.
            for library in order[turn:] + order[:turn]:
                try:
                    times[library] += library.times(operation, self.seconds / TURNS)
                except LibraryError as error:
                    self.fail(library, case, operation, error)
                    del times[library]

    def peak_so_far(self):
        """Return the median over all that was measured, in operations per second, or None."""
        if not self.peak_times:
            return None
        return peak.flops(self.settings.threads) / statistics.median(self.peak_times)

    def fail(self, library, case, operation, error):
        """Note that the library failed."""
        self.failures.append(Failure(library.name, case, operation, str(error)))


def selected_peers(arguments):
    """Return the names of the peers that have anything to do."""
    names = arguments.peers or list(PEERS)
    idle = set() if "prepared forward" in arguments.operation else set(ENGINES)
    if arguments.dtype != "float32":
        idle |= set(ENGINES)
    return [name for name in names if name not in idle]


def start(libraries, required):
    """Start the libraries, drop those that cannot be; return the versions of the others."""
    versions = {}
    for library in list(libraries):
        try:
            versions[library.name] = library.start()
        except LibraryError as error:
            library.end()
            libraries.remove(library)
            if library.name in required:
                raise SystemExit(f"{library.title} cannot be measured: {error}") from None
            print(f"without {library.title}: {error}")
    if versions.keys() <= {"peak", "convext"}:
        raise SystemExit("none of the peers is installed: pip install -e '.[bench]'")
    return versions


def command_line():
    """Return the arguments, with the cases that they select."""
    parser = argument_parser()
    arguments = parser.parse_args()
    arguments.python = dict(arguments.python)
    if arguments.before:
        arguments.peers = ["convext_before"]
    arguments.cases = [case for case in shapes.CASES if any(map(case.matches, arguments.shapes))]
    check(parser, arguments)
    return arguments


def argument_parser():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__.partition("\n\n")[0],
        epilog="Example: python -m benchmarks.compare --shapes 56,56 U-Net --peers pytorch ncnn",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of each library (default: 1)"
    )
    parser.add_argument(
        "--dtype", choices=TOLERANCES, default="float32", help="of all arrays (default: float32)"
    )
    parser.add_argument(
        "--algorithm",
        default="auto",
        metavar="NAME",
        help="of convext's forward operation, such as direct (default: auto)",
    )
    parser.add_argument(
        "--operation",
        nargs="+",
        choices=OPERATIONS,
        default=OPERATIONS,
        metavar="NAME",
        help=f"of {', '.join(map(repr, OPERATIONS))} (default: all)",
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=[""],
        metavar="TEXT",
        help="those with the text in their name, such as '7x7 s2', or in their family's, which is "
        "reference, MobileNet or U-Net (default: all)",
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=PEERS,
        metavar="NAME",
        help=f"of {', '.join(PEERS)} (default: all that are installed)",
    )
    parser.add_argument(
        "--before",
        type=Path,
        metavar="FOLDER",
        help="a checkout of an earlier commit, built in place: convext as it was is the only peer",
    )
    parser.add_argument(
        "--python",
        nargs="+",
        type=name_and_path,
        default=[],
        metavar="PEER=PATH",
        help="the Python that has a peer which needs an environment of its own",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.3,
        metavar="S",
        help="for each operation and library, about (default: 0.3)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="to write all figures to")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="to draw the ratios to")
    return parser


def name_and_path(text):
    """Split NAME=PATH."""
    name, _, path = text.partition("=")
    if name not in PEERS or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not a peer's name, '=' and a path")
    program = shutil.which(path)
    if program is None:
        raise argparse.ArgumentTypeError(f"{path} cannot be run")
    return name, str(Path(program).absolute())  # since processes start in another folder


def check(parser, arguments):
    """End the program with a message if what was asked for cannot be done."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if not 1 <= arguments.threads <= cpus:
        parser.error(f"--threads must be from 1 to {cpus}, the CPUs, got {arguments.threads}")
    if not arguments.seconds > 0:
        parser.error(f"--seconds must be positive, got {arguments.seconds}")
    if not arguments.cases:
        parser.error(f"no shape's name has any of {arguments.shapes}")
    if arguments.before and not any(arguments.before.glob("convext/**/_dispatch.*[od]")):
        parser.error(f"{arguments.before} has no convext that was built in place")
    if not selected_peers(arguments):
        parser.error(
            f"{', '.join(arguments.peers)}: only for the operation 'prepared forward' in float32"
        )
    for path in filter(None, (arguments.json, arguments.plot)):
        if not path.absolute().parent.is_dir():
            parser.error(f"{path.parent} is not a folder")


if __name__ == "__main__":
    sys.exit(main())
