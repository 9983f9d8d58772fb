"""Lifecycle: starts, restarts and ends the background tasks of each event loop."""

import asyncio
import contextvars
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import RunVar

from gatekeeper.sync.list_sync import ListSync
from gatekeeper.sync.refresher import Refresher

__all__ = ("Lifecycle", "NoLifecycle", "PerLoop", "watch_forks")

Companion = Callable[[], Coroutine[Any, Any, None]]
Thing = TypeVar("Thing")

RESTART_DELAY = 0.5  # seconds
FLUSH_TIMEOUT = 0.5  # seconds for the last report when a gate stops


class Lifecycle:
    """Runs a refresher in each event loop that asks for one.

    Args:
        sync: makes the refreshers.
        companion: runs beside each of them, for as long; None for nothing.
        start_timeout: seconds from the start in which requests wait for the first list.
        restart_delay: seconds until a refresher that has crashed is restarted.
    """

    def __init__(
        self,
        sync: ListSync,
        companion: Companion | None,
        *,
        start_timeout: float,
        restart_delay: float = RESTART_DELAY,
    ) -> None:
        self._sync = sync
        self._companion = companion
        self._start_timeout = start_timeout
        self._restart_delay = restart_delay
        self._latest: Callable[[], _InTask | None] = _none
        self._here: RunVar[_Running | None] = RunVar("gatekeeper: the refresher of this event loop", None)

    async def started(self, *, wait: bool) -> Refresher | None:
        """The refresher of this event loop, started if need be.

        Args:
            wait: whether to wait for its first list, within `start_timeout`.

        Returns:
            The refresher; None under trio, unless the gate was entered there.
        """
        refresher = self._running_here() or await self._start()
        if refresher is not None and wait:
            await refresher.schedule.first_list(self._start_timeout)
        return refresher

    async def start(self, *, wait: bool) -> None:
        """Start a refresher that runs until `stop` is called as often.

        Under trio it does nothing.

        Args:
            wait: as for `started`.
        """
        running = self._here.get() or await self._begin(in_background=True)
        if not isinstance(running, _InTask):
            return
        running.starts += 1
        try:
            await self.started(wait=wait)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Undo one start. The last one ends the refresher, unless something else uses it."""
        running = self._here.get()
        if running is not None:
            running.starts = max(running.starts - 1, 0)
            await self._end_unused(running)

    async def enter(self) -> None:
        """Start a refresher in this event loop, and wait for its list."""
        running = self._here.get() or await self._begin(in_background=False)
        if running is None:
            raise RuntimeError("no event loop runs here")
        running.users += 1
        try:
            await running.refresher.schedule.first_list(self._start_timeout)
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """End this event loop's refresher, unless something else uses it."""
        running = self._here.get()
        if running is not None:
            running.users -= 1
            await self._end_unused(running)

    async def _end_unused(self, running: "_Running") -> None:
        if running.users > 0 or running.starts > 0:
            return
        # The next one to enter starts another refresher.
        self._here.set(None)
        await running.stop()
        with anyio.move_on_after(FLUSH_TIMEOUT, shield=True):
            await self._sync.reporting.flush()

    def _running_here(self) -> Refresher | None:
        """The refresher of this event loop, if it was started last."""
        running = self._latest()
        if running is None:
            return None
        # Reading a variable of the event loop takes 2 µs.
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        return running.refresher if running.is_of(loop) else None

    async def _start(self) -> Refresher | None:
        running = self._here.get()
        if running is None:
            running = await self._begin(in_background=True)
        if running is None:
            return None
        await running.revive()
        return running.refresher

    async def _begin(self, *, in_background: bool) -> "_Running | None":
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            if in_background:
                return None
            running: _Running = await _InTaskGroup.begin(self._sync, self._companion)
        else:
            running = in_task = _InTask(self._sync, self._companion, loop, self._restart_delay)
            self._latest = weakref.ref(in_task)
        self._here.set(running)
        return running


class NoLifecycle:
    """The lifecycle of a list that never changes: nothing runs."""

    async def started(self, *, wait: bool) -> Refresher | None:  # noqa: ARG002 - there is nothing to wait for
        """See Lifecycle; there is no refresher."""
        return None

    async def start(self, *, wait: bool) -> None:
        """See Lifecycle."""

    async def stop(self) -> None:
        """See Lifecycle."""

    async def enter(self) -> None:
        """See Lifecycle."""

    async def leave(self) -> None:
        """See Lifecycle."""


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


def watch_forks(in_child: Callable[[], None]) -> None:
    """Call a method in each forked child, where no other thread runs.

    Args:
        in_child: a bound method. It is not called any more once its object is gone.
    """
    if hasattr(os, "register_at_fork"):
        method = weakref.WeakMethod(in_child)
        os.register_at_fork(after_in_child=lambda: (call := method()) and call())


def _none() -> None:
    return None


class _Running(ABC):
    """A refresher that runs in this event loop, and its users."""

    def __init__(self, sync: ListSync, companion: Companion | None) -> None:
        self.refresher = sync.new_refresher()
        self.users = 0
        self.starts = 0
        self._sync = sync
        self._companion = companion

    def _companions(self) -> Iterator[Companion]:
        schedule, reporting = self.refresher.schedule, self._sync.reporting
        yield schedule.keep_beating
        if reporting:
            yield partial(reporting.run, schedule.first_fetch)
        if self._companion is not None:
            yield self._companion

    @abstractmethod
    async def revive(self) -> None:
        """Restart it, if it has crashed and can be restarted."""

    @abstractmethod
    async def stop(self) -> None:
        """End it, and wait until it has ended."""


class _InTask(_Running):
    """Runs in a task of asyncio, and restarts after a crash."""

    def __init__(
        self, sync: ListSync, companion: Companion | None, loop: asyncio.AbstractEventLoop, restart_delay: float
    ) -> None:
        super().__init__(sync, companion)
        self._loop = loop
        self._restart_delay = restart_delay
        self._is_stopping = False
        self._restart: asyncio.TimerHandle | None = None
        self._begin()

    def is_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it runs in this event loop."""
        return self._loop is loop and not self.refresher.schedule.has_ended

    async def revive(self) -> None:
        crashed = self._task
        if self.refresher.schedule.has_ended:
            await asyncio.wait([crashed])
        if crashed is self._task and crashed.done() and not self._is_stopping:
            if self._restart is not None:
                self._restart.cancel()
            self._begin_again(crashed)

    async def stop(self) -> None:
        self._is_stopping = True
        if self._restart is not None:
            self._restart.cancel()
        self._task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([self._task])
            for companion in self._beside:
                companion.cancel()
            await asyncio.wait(self._beside)

    def _begin(self) -> None:
        # In contexts of their own, because they outlive the request that happened to come first.
        self._task = self._loop.create_task(self.refresher.run(), context=contextvars.Context())
        self._task.add_done_callback(self._begin_later)
        self._beside = [self._loop.create_task(each(), context=contextvars.Context()) for each in self._companions()]
        for companion in self._beside:
            companion.add_done_callback(self._end_with_companion)

    def _begin_later(self, task: "asyncio.Task[None]") -> None:
        for companion in self._beside:
            companion.cancel()
        if self._is_stopping or task is not self._task:
            return
        # Not immediately: an event loop that is about to be closed cancels its tasks, and does not wait for new ones.
        self._restart = self._loop.call_later(self._restart_delay, self._begin_again, task)

    def _end_with_companion(self, companion: "asyncio.Task[None]") -> None:
        if companion in self._beside:
            self._task.cancel()  # neither runs without the other
        if not companion.cancelled():
            companion.exception()

    def _begin_again(self, task: "asyncio.Task[None]") -> None:
        self._restart = None
        self._sync.log.crash(None if task.cancelled() else task.exception())
        self.refresher = self._sync.new_refresher()
        self._begin()


class _InTaskGroup(_Running):
    """Runs under trio, where the task that starts another ends it."""

    def __init__(self, sync: ListSync, companion: Companion | None, group: anyio.abc.TaskGroup) -> None:
        super().__init__(sync, companion)
        self._group = group
        group.start_soon(self.refresher.run)
        for each in self._companions():
            group.start_soon(each)

    @classmethod
    async def begin(cls, sync: ListSync, companion: Companion | None) -> "_InTaskGroup":
        """Begin it."""
        group = anyio.create_task_group()
        await group.__aenter__()
        return cls(sync, companion, group)

    async def revive(self) -> None:
        """Do nothing: the task group has raised the crash already."""

    async def stop(self) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
