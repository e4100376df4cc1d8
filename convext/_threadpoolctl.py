"""threadpoolctl, where it is installed, sees how many threads convext uses, and limits them."""

from __future__ import annotations

from . import config
from ._version import __version__

try:
    from threadpoolctl import LibController, register
except ImportError:  # it is not there, or is older than 3.2
    pass
else:

    class ConvextController(LibController):  # type: ignore[misc]  # it has no types
        """What threadpoolctl calls: the limit is the process's, like that of `set_num_threads`."""

        user_api = "convext"
        internal_api = "convext"
        # A file's name that others may have, too, and a function in it that they have not.
        filename_prefixes = ("_dispatch.",)
        check_symbols = ("PyInit__winograd",)

        def get_num_threads(self) -> int:
            """Return the number of threads."""
            return config.get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            """Limit the number of threads."""
            config.set_num_threads(num_threads)

        def get_version(self) -> str:
            """Return convext's version."""
            return __version__

    register(ConvextController)
