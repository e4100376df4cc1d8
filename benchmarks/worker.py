"""A process that serves one library: started by `benchmarks.processes`, it answers over a pipe.

Each message is the name of a `Server` method and its arguments; each answer is whether that went
well, and the result or a message. The libraries' own messages go nowhere.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
from multiprocessing.connection import Connection

import numpy as np

from . import libraries


class Server:
    """One library, and the functions that it has for the case at hand."""

    def start(self, name, settings):
        """Import the library; return its version."""
        module = "benchmarks.peak" if name == "peak" else f"{libraries.__name__}.{name}"
        self.library = importlib.import_module(module)
        self.library.start(settings)
        self.settings = settings
        return self.library.VERSION

    def prepare(self, case):
        """Return the operations that the library has for the case."""
        self.functions = {}  # first, so that two cases are never in memory together
        self.functions = self.library.operations(case, case.arrays(self.settings.dtype))
        # What has nothing to prepare competes with what it has.
        if "forward" in self.functions:
            self.functions.setdefault("prepared forward", self.functions["forward"])
        return list(self.functions)

    def compute(self, operation):
        """Return the result, and settle the threads that work on it."""
        function = self.functions[operation]
        result = np.asarray(function())
        if self.settings.threads > 1 and hasattr(os, "sched_setaffinity"):
            settle_threads(function)
        return result

    def times(self, operation, seconds):
        """Return the times of as many calls as there are in so many seconds, but of one at least.

        One call before is not counted: it brings back to the caches what others have driven out.
        """
        function, clock = self.functions[operation], time.perf_counter
        times = []
        begin = clock()
        while len(times) < 2 or clock() - begin < seconds:
            start = clock()
            function()
            times.append(clock() - start)
        return times[1:]


SECONDS_TO_SETTLE = 0.03


def settle_threads(function):
    """Give each of the threads that `function` keeps busiest a CPU of its own.

    A system may let threads that begin together wait on one CPU for a while.
    """
    cpus = set().union(*(affinity(thread) for thread in cpu_times()))
    for thread in cpu_times():
        bind(thread, cpus)
    before = cpu_times()
    begin = time.perf_counter()
    while time.perf_counter() - begin < SECONDS_TO_SETTLE:
        function()
    worked = {thread: seconds - before.get(thread, 0) for thread, seconds in cpu_times().items()}
    for thread, cpu in zip(sorted(worked, key=worked.get, reverse=True), cpus, strict=False):
        bind(thread, {cpu})


def affinity(thread):
    """Return the CPUs that a thread may use; none if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        return os.sched_getaffinity(thread)
    return set()


def bind(thread, cpus):
    """Let a thread use these CPUs alone, if it has not ended."""
    with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(thread, cpus)


def cpu_times():
    """Return how many seconds each thread of this process has worked, by its number."""
    times = {}
    for thread in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(OSError):  # a thread may have ended meanwhile
            # The number of a thread's clock is made of its own: see pthread_getcpuclockid(3).
            times[thread] = time.clock_gettime(~thread << 3 | 6)
    return times


def main(connection):
    """Answer until the other end is closed."""
    # Ctrl-C goes to all processes of a terminal; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = Server()
    while True:
        try:
            method, *arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = (True, getattr(server, method)(*arguments))
        except Exception as error:  # whatever a library may raise
            answer = (False, error_message(error))
        connection.send(answer)


def error_message(error):
    """Return the kind of the error and the first line of its text."""
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}"


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
