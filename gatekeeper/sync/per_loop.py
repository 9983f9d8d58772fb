"""PerLoop: one object for each event loop."""

from collections.abc import Callable
from typing import Generic, TypeVar

from anyio.lowlevel import RunVar

__all__ = ("PerLoop",)

Thing = TypeVar("Thing")


class PerLoop(Generic[Thing]):
    """One object for each event loop, made on first use.

    Args:
        name: a name for it.
        make: makes one.
    """

    def __init__(self, name: str, make: Callable[[], Thing]) -> None:
        self._make = make
        self._here: RunVar[Thing | None] = RunVar(name, None)

    def here(self) -> Thing:
        """The object of this event loop."""
        thing = self._here.get()
        if thing is None:
            thing = self._make()
            self._here.set(thing)
        return thing

    def forget(self) -> None:
        """Drop the object of this event loop; the next use makes another."""
        self._here.set(None)
