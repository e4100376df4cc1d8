"""The libraries, each in a process of its own.

Together in one process they would spoil each other's times: their waiting threads spin. So would
they in processes side by side, which is why a process is stopped for as long as it is not asked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path

from .libraries import TITLES

ROOT = Path(__file__).resolve().parents[1]

# For any one answer: more than the slowest library needs, even to compile what it is asked for.
SECONDS_TO_ANSWER = 120


class LibraryError(Exception):
    """A library failed, or its process did."""


class Library:
    """One library, in its own process, which starts when it is needed.

    Parameters
    ----------
    name : str
        The module's in `benchmarks.libraries`.
    settings : Settings
        For the library.
    python : str, optional
        The interpreter that has the library.
    """

    def __init__(self, name, settings, python=sys.executable):
        self.name = name
        self.title = TITLES[name]
        self.settings = settings
        self.python = python
        self.process = None

    def start(self):
        """Start the process; return the library's version."""
        self.connection, theirs = Pipe()
        command = [self.python, "-m", "benchmarks.worker", str(theirs.fileno())]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.settings.threads)}
        with theirs, pinned(self.settings.threads):
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        return self.ask("start", self.name, self.settings)

    def prepare(self, case):
        """Return the operations that the library has for the case."""
        self.case = case
        if self.process is None:  # it was ended by the case before
            self.start()
        return self.ask("prepare", case)

    def compute(self, operation):
        """Return the result of the operation."""
        if self.process is None:  # it was ended by the operation before
            self.prepare(self.case)
        return self.ask("compute", operation)

    def times(self, operation, seconds):
        """Return the times of the calls that fit into so many seconds."""
        return self.ask("times", operation, seconds)

    def ask(self, *message):
        """Let the process run until it has answered; return its answer."""
        if self.process is None:
            raise LibraryError("its process has ended")
        self.process.send_signal(signal.SIGCONT)
        try:
            self.connection.send(message)
            if not self.connection.poll(SECONDS_TO_ANSWER):
                self.end()
                raise LibraryError(f"gave no answer in {SECONDS_TO_ANSWER} s")
            done, answer = self.connection.recv()
        except (EOFError, OSError):
            raise LibraryError(f"its process ended {self.end()}") from None
        self.process.send_signal(signal.SIGSTOP)
        if not done:
            raise LibraryError(answer)
        return answer

    def end(self):
        """End the process; return how it ended, in words."""
        if self.process is None:
            return "before"
        self.connection.close()
        self.process.kill()  # which also ends a stopped one, and does nothing to an ended one
        code = self.process.wait()
        self.process = None
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"


@contextlib.contextmanager
def pinned(threads):
    """Let processes that are started meanwhile run on so many CPUs alone, where systems can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cpus = os.sched_getaffinity(0)
    # The last ones: systems give the first one more of their own work.
    os.sched_setaffinity(0, sorted(cpus)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)
