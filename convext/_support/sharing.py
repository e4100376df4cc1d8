"""Objects with a state: copies of their own, and what threads may do with them together."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from threading import RLock, get_ident
from typing import Any, ClassVar, TypeVar, cast
from weakref import WeakSet

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound="Stateful")


def lock_of_process() -> AbstractContextManager[object]:
    """Return a lock that no other thread holds when the process is forked.

    Of all threads the child has the one that forks, and would wait for the others for ever.
    """
    lock = RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )
    return lock


class Guard:
    """Lets several threads read an object, or one change it; the others get a RuntimeError.

    A copy of its owner has a guard of its own.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        # What is under way, and in which threads: the readers; what changes the object.
        self._readers: list[tuple[int, str]] = []
        self._changer: tuple[int, str] | None = None
        _guards.add(self)

    def __reduce__(self) -> tuple[type[Guard], tuple[()]]:
        return type(self), ()

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Let no other thread change the object."""
        reader, begun = (get_ident(), what), False
        try:
            with self.lock:
                if self._changer is not None and not self.held():
                    raise _conflict(what, self._changer[1])
                self._readers.append(reader)
                begun = True
            yield
        finally:
            if begun:
                with self.lock:
                    self._readers.remove(reader)

    def held(self) -> bool:
        """Whether this thread changes the object already."""
        changer = self._changer  # another thread may set it meanwhile
        return changer is not None and changer[0] == get_ident()

    @contextmanager
    def changing(self, what: str, within: bool = False) -> Iterator[None]:
        """Change the object; `within`: also from a callback of what changes it already."""
        begun, before = False, None
        try:
            with self.lock:
                before = self._changer
                if before is not None and self.held():
                    if not within:
                        raise _conflict(what, before[1], "")
                elif before is not None or self._readers:
                    raise _conflict(what, (before or self._readers[0])[1])
                self._changer, begun = (get_ident(), what), True
            yield
        finally:
            if begun:
                self._changer = before

    def forget_other_threads(self) -> None:
        """Forget what is under way in threads that a forked child has not."""
        self.lock = RLock()
        self._readers = [reader for reader in self._readers if reader[0] == get_ident()]
        if not self.held():
            self._changer = None


_guards: WeakSet[Guard] = WeakSet()


def _after_fork() -> None:
    for guard in _guards:
        guard.forget_other_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _conflict(what: str, other: str, where: str = " in another thread") -> RuntimeError:
    return RuntimeError(f"{what} cannot begin while {other} is under way{where}")


class Stateful:
    """An object that has a guard, and whose copies share nothing with it."""

    @property
    def _guard(self) -> Guard:
        guard: Guard = vars(self).get("_guard") or vars(self).setdefault("_guard", Guard())
        return guard

    def __copy__(self: S) -> S:
        return copy.deepcopy(self)


class Resumable(Stateful):
    """An object whose state is part of a training's checkpoint."""

    # The names of what changes in a training, and of what says how it does.
    _changing: ClassVar[tuple[str, ...]] = ()
    _options: ClassVar[tuple[str, ...]] = ()

    def get_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of this object."""
        return {name: getattr(self, name) for name in self._changing}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state that `get_state` has returned."""
        for name in self._changing:
            old, new = getattr(self, name), state[name]
            if old is not None and type(new) is not type(old):
                raise TypeError(f"{name} must be {type(old).__name__}, got {new!r}")
        vars(self).update({name: state[name] for name in self._changing})


def in_use(owner: Stateful) -> AbstractContextManager[None]:
    """Keep an object for one training, in this thread."""
    return owner._guard.changing(f"a training with this {type(owner).__name__}", within=True)


def _holding(
    hold: Callable[[Any, str], AbstractContextManager[object]], within: bool = False
) -> Callable[[F], F]:
    """Return a decorator of methods, which hold their object while they run.

    `within`: they may run where this thread holds it already, and then cost next to nothing.
    """

    def decorate(method: F) -> F:
        @wraps(method)
        def run(self: Stateful, *args: Any, **options: Any) -> Any:
            if within and self._guard.held():
                return method(self, *args, **options)
            with hold(self, method.__name__):
                return method(self, *args, **options)

        return cast("F", run)

    return decorate


reading = _holding(lambda owner, name: owner._guard.reading(name))
changing = _holding(lambda owner, name: owner._guard.changing(name))
changing_within = _holding(lambda owner, name: owner._guard.changing(name), within=True)
in_one_training = _holding(lambda owner, _: in_use(owner), within=True)
# Threads wait for each other.
in_turn = _holding(lambda owner, _: owner._guard.lock)
