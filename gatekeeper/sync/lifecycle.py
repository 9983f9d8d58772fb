"""Lifecycle: what runs in the background of each event loop: begun, brought back, ended, and begun anew after a fork."""

import asyncio
import contextvars
import logging
import os
import weakref
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import RunVar

from gatekeeper.sync.refresher import Refresher

__all__ = ("Lifecycle", "PerLoop")

Thing = TypeVar("Thing")

BACK_AFTER = 0.5  # seconds until what has died is brought back
LAST_WORDS = 0.5  # seconds that whoever ends has for what is left to do

logger = logging.getLogger("gatekeeper")


class Lifecycle:
    """Runs a refresher in each event loop that asks for one.

    Args:
        new_refresher: makes a refresher.
        beside: runs beside the refresher, for as long; None for nothing.
        on_end: called whenever one has ended, and in a forked child, where none runs.
        on_fork: called in a forked child before that.
        last_words: awaited when one is ended in order.
        counters: where it is counted that one was brought back.

    Attributes:
        beside: as given.
    """

    def __init__(
        self,
        new_refresher: Callable[[], Refresher],
        *,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
        on_end: Callable[[], None],
        on_fork: Callable[[], None],
        last_words: Callable[[], Awaitable[None]],
        counters: Counter[str],
    ) -> None:
        self._new_refresher = new_refresher
        self.beside = beside
        self._on_end = on_end
        self._on_fork = on_fork
        self._last_words = last_words
        self._counters = counters
        self._count = 0
        self._forks_are_watched = False
        self._latest: Callable[[], _InTask | None] = _none
        self._here: RunVar[_Running | None] = RunVar("gatekeeper: the refresher of this event loop", None)

    @property
    def is_running(self) -> bool:
        """Whether a refresher runs in some event loop of this process."""
        return self._count > 0

    def latest(self) -> Refresher | None:
        """The refresher of this event loop, if it is the one begun last, and runs; every stranger's request asks for it."""
        running = self._latest()
        if running is None:
            return None
        # A loop has its own variables, which take 2 µs to ask.
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        return running.refresher if running.is_of(loop) else None

    async def refresher(self, *, in_background: bool) -> Refresher | None:
        """The refresher of this event loop, begun if need be.

        Args:
            in_background: whether nobody will end it; None is returned where that needs somebody (trio).
        """
        running = self._here.get()
        if running is None:
            running = await self._begin(in_background=in_background)
        if running is None:
            return None
        await running.revive()
        return running.refresher

    async def enter(self) -> Refresher:
        """Begin a refresher in this event loop, unless it has one; to be followed by `leave`."""
        running = self._here.get() or await self._begin(in_background=False)
        if running is None:
            raise RuntimeError("no event loop runs here")
        running.users += 1
        return running.refresher

    async def leave(self) -> None:
        """End this event loop's refresher, if nobody else who entered is left."""
        running = self._here.get()
        if running is None:
            return
        running.users -= 1
        if running.users <= 0:
            # Whoever enters from now on begins another one.
            self._here.set(None)
            await running.stop()

    async def run(self, refresher: Refresher) -> None:
        """Run a refresher to its end.

        Args:
            refresher: one that has not run yet.
        """
        self._watch_forks()
        self._count += 1
        try:
            await refresher.run()
        finally:
            # First what works without an event loop: one that was closed under way ends its tasks when they are collected.
            self._count -= 1
            self._on_end()

    async def _begin(self, *, in_background: bool) -> "_Running | None":
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            if in_background:
                return None
            running: _Running = await _InTaskGroup.begin(self, self._new_refresher())
        else:
            running = in_task = _InTask(self, self._new_refresher, loop)
            self._latest = weakref.ref(in_task)
        self._here.set(running)
        return running

    async def say_last_words(self) -> None:
        """Do what is left to do, within a moment."""
        with anyio.move_on_after(LAST_WORDS, shield=True):
            await self._last_words()

    def note_death(self, error: BaseException | None) -> None:
        """Say that a refresher has ended although nobody ended it."""
        self._counters["refresher_restarts"] += 1
        logger.error("gatekeeper: the refresher of the list of widget keys died and is brought back", exc_info=error)

    def _watch_forks(self) -> None:
        if self._forks_are_watched or not hasattr(os, "register_at_fork"):
            return
        self._forks_are_watched = True
        in_child = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := in_child()) and method())

    def _after_fork(self) -> None:
        self._count = 0
        self._on_fork()
        self._on_end()


class PerLoop(Generic[Thing]):
    """One thing for each event loop, made when it is first asked for.

    Args:
        name: what it is.
        make: makes one.
    """

    def __init__(self, name: str, make: Callable[[], Thing]) -> None:
        self._make = make
        self._here: RunVar[Thing | None] = RunVar(name, None)

    def here(self) -> Thing:
        """That of this event loop."""
        thing = self._here.get()
        if thing is None:
            thing = self._make()
            self._here.set(thing)
        return thing

    def forget(self) -> None:
        """Let another one be made in this event loop, when it is asked for."""
        self._here.set(None)


def _none() -> None:
    return None


class _Running(ABC):
    """A refresher that runs in this event loop, and how many have entered here."""

    def __init__(self, refresher: Refresher) -> None:
        self.refresher = refresher
        self.users = 0

    @abstractmethod
    async def revive(self) -> None:
        """Bring it back, if it has died and can be."""

    @abstractmethod
    async def stop(self) -> None:
        """End it, and wait until it has ended."""


class _InTask(_Running):
    """In a task of its own, which may be ended from any other, and is brought back if it dies."""

    def __init__(
        self, lifecycle: Lifecycle, new_refresher: Callable[[], Refresher], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(new_refresher())
        self._lifecycle = lifecycle
        self._new_refresher = new_refresher
        self._loop = loop
        self._is_stopping = False
        self._coming_back: asyncio.TimerHandle | None = None
        self._beside: asyncio.Task[None] | None = None
        self._begin()

    def is_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it runs in this event loop."""
        return self._loop is loop and not self.refresher.has_ended

    async def revive(self) -> None:
        dead = self._task
        if self.refresher.has_ended:
            await asyncio.wait([dead])
        if dead is self._task and dead.done() and not self._is_stopping:
            if self._coming_back is not None:
                self._coming_back.cancel()
            self._begin_again(dead)

    async def stop(self) -> None:
        self._is_stopping = True
        if self._coming_back is not None:
            self._coming_back.cancel()
        self._task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([self._task])
            if self._beside is not None:
                self._beside.cancel()
                await asyncio.wait([self._beside])
        await self._lifecycle.say_last_words()

    def _begin(self) -> None:
        # In a context of its own, because it outlives the request that happened to come first.
        self._task = self._loop.create_task(self._lifecycle.run(self.refresher), context=contextvars.Context())
        self._task.add_done_callback(self._come_back)
        if self._lifecycle.beside is not None:
            self._beside = self._loop.create_task(self._lifecycle.beside(), context=contextvars.Context())
            self._beside.add_done_callback(self._lose_company)

    def _come_back(self, task: "asyncio.Task[None]") -> None:
        if self._beside is not None:
            self._beside.cancel()
        if self._is_stopping or task is not self._task:
            return
        # Not at once: an event loop that is about to be closed cancels its tasks, and does not wait for new ones.
        self._coming_back = self._loop.call_later(BACK_AFTER, self._begin_again, task)

    def _lose_company(self, beside: "asyncio.Task[None]") -> None:
        if beside is self._beside:
            self._task.cancel()  # neither stays without the other
        if not beside.cancelled():
            beside.exception()

    def _begin_again(self, task: "asyncio.Task[None]") -> None:
        self._coming_back = None
        self._lifecycle.note_death(None if task.cancelled() else task.exception())
        self.refresher = self._new_refresher()
        self._begin()


class _InTaskGroup(_Running):
    """Under trio, where whoever starts a task has to end it."""

    def __init__(self, lifecycle: Lifecycle, refresher: Refresher, group: anyio.abc.TaskGroup) -> None:
        super().__init__(refresher)
        self._lifecycle = lifecycle
        self._group = group

    @classmethod
    async def begin(cls, lifecycle: Lifecycle, refresher: Refresher) -> "_InTaskGroup":
        """Begin it."""
        group = anyio.create_task_group()
        await group.__aenter__()
        group.start_soon(lifecycle.run, refresher)
        if lifecycle.beside is not None:
            group.start_soon(lifecycle.beside)
        return cls(lifecycle, refresher, group)

    async def revive(self) -> None:
        """Leave it to whoever entered: its task group has told them how it died."""

    async def stop(self) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
        await self._lifecycle.say_last_words()
