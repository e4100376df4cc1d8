"""Objects with a state: copies of their own, and what threads may do with them together."""

from __future__ import annotations

import copy
from typing import TypeVar

T = TypeVar("T")


class Independent:
    """An object whose copies by `copy.copy` share nothing with it, as those by `copy.deepcopy`."""

    def __copy__(self: T) -> T:
        return copy.deepcopy(self)
