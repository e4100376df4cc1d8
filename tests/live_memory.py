"""How much of this process's memory is in use, and how much its allocators only keep for later."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from typing import NamedTuple


class _Mallinfo(ctypes.Structure):
    """What glibc's `mallinfo2` says of all its arenas together."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _find_mallinfo():
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is not None:
        function.restype = _Mallinfo
    return function


_mallinfo = _find_mallinfo()
# glibc has it from 2.33 on.
MEASURABLE = _mallinfo is not None


def allocated() -> int:
    """Return how many bytes are allocated by malloc and not freed; 0 where it does not say.

    Python's small objects are not among them, unless PYTHONMALLOC is malloc.
    """
    if _mallinfo is None:
        return 0
    info = _mallinfo()
    return info.uordblks + info.hblkhd


class State(NamedTuple):
    """The memory of this process, or how it has changed."""

    # Bytes that the process has, in use or not.
    resident: int
    # Bytes of malloc's that are in use.
    allocated: int
    # Small objects of Python's own allocator, of up to 512 bytes each.
    blocks: int

    @classmethod
    def now(cls) -> State:
        """Return the memory at this moment, without what only waits for the garbage collector."""
        gc.collect()
        with open("/proc/self/statm") as status:
            resident = int(status.read().split()[1]) * resource.getpagesize()
        return cls(resident, allocated(), sys.getallocatedblocks())

    def since(self, before: State) -> State:
        """Return the growth from a state to this one."""
        return State(*(now - then for now, then in zip(self, before, strict=True)))

    def __str__(self) -> str:
        return (
            f"{self.resident / 2**20:.1f} MB resident, {self.allocated / 2**20:.2f} MB and "
            f"{self.blocks} small objects in use"
        )
