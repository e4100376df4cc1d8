"""Objects whose attributes say how they were made: setting one later would change nothing."""

from __future__ import annotations

from typing import Any, ClassVar


class Sealed:
    """An object of which, once it is made, only some attributes can be set.

    Classes that are derived elsewhere may have attributes of their own.
    """

    _settable: ClassVar[tuple[str, ...]] = ()
    _instead: ClassVar[str] = ""

    def _seal(self) -> None:
        if type(self).__module__.partition(".")[0] == "convext":
            vars(self)["_sealed"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        if "_sealed" in vars(self) and not name.startswith("_") and name not in self._settable:
            kind = f"this {type(self).__name__}"
            if hasattr(self, name):
                raise AttributeError(f"{name} of {kind} cannot be set: {self._instead}")
            raise AttributeError(
                f"{kind} has no attribute {name!r}; what can be set is {', '.join(self._settable)}"
            )
        super().__setattr__(name, value)
