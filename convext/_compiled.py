"""Loads the compiled code, and with it OpenMP, so that waiting threads soon give up their CPU.

By default a thread of an OpenMP library that waits for another one spins for milliseconds. Where
the other has lost its CPU to another process, the spinning keeps it from getting one back, and a
convolution of a third of a millisecond takes ten (see docs/measurements.md). The library reads its
settings once, when it is loaded (GCC's), or called first, by `_dispatch` (LLVM's and Intel's);
the environment is put back then.

All compiled modules lie in one shared library, that of `_dispatch`: apart they would take 350 KB
more.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location

# Turns of the waiting loop: a tenth of a millisecond. Threads that sleep between two calls take
# long to wake, and may wake on the CPU of the one that calls them. LLVM's library and Intel's count
# in milliseconds: one is the least.
SPINNING = {"GOMP_SPINCOUNT": "4000", "KMP_BLOCKTIME": "1"}

_set_here = not {*SPINNING, "OMP_WAIT_POLICY"} & os.environ.keys()
if _set_here:
    os.environ.update(SPINNING)
# On Windows OpenMP's library is that of the environment, which NumPy's may use, too.
_libraries = os.path.join(sys.prefix, "Library", "bin")
_folder = None
if hasattr(os, "add_dll_directory") and os.path.isdir(_libraries):
    _folder = os.add_dll_directory(_libraries)
try:
    from .base import _dispatch
finally:
    if _folder is not None:
        _folder.close()
    if _set_here:
        for _name in SPINNING:
            del os.environ[_name]


class _Finder:
    """Finds the other compiled modules in the library of `_dispatch`."""

    names = frozenset(_dispatch.MODULES)

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in cls.names:
            return None
        file = _dispatch.__file__
        return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file))


# First, so that no library that an older build left beside it is taken.
sys.meta_path.insert(0, _Finder)

__all__ = ["_dispatch"]
