"""PerLoop: one object for each event loop."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from anyio.lowlevel import RunVar, RunvarToken

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
        self._here: RunVar[_Made[Thing] | None] = RunVar(name, None)

    def here(self) -> Thing:
        """The object of this event loop."""
        made = self._here.get()
        if made is None:
            made = _Made(self._make(), self._here.set(None))
            self._here.set(made)
        return made.thing

    def forget(self) -> None:
        """Drop the object of this event loop; the next use makes another."""
        made = self._here.get()
        if made is not None:
            self._here.reset(made.unset)  # an event loop keeps each variable that is set there, even to None


class _Made(NamedTuple, Generic[Thing]):
    thing: Thing
    unset: "RunvarToken[_Made[Thing] | None]"  # undoes that it is set
