"""How long a call takes on a machine that is busy with other things, too."""

from __future__ import annotations

import time


def seconds() -> float:
    """Return the time of a clock that stands still while this thread waits for a CPU.

    It goes on while the thread waits for anything else, such as a lock; where the system does not
    say how long CPUs were waited for, it never stands still.
    """
    now = time.monotonic()
    try:
        with open("/proc/thread-self/schedstat") as status:
            _, waited, _ = map(int, status.read().split())
    except OSError:
        waited = 0
    return now - waited / 1e9
