"""RunningLists: the refreshers that run in one event loop, and their users."""

import asyncio
import contextvars
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.abc

from gatekeeper.sync.clock import Sleep, boot_sleep
from gatekeeper.sync.list_sync import ListSync
from gatekeeper.sync.refresher import Refresher

__all__ = ("ListTasks", "RunningLists", "RunningOnAsyncio", "RunningOnTrio")

Companion = Callable[[], Coroutine[Any, Any, None]]


class ListTasks:
    """What runs for one list, in each event loop.

    Args:
        sync: makes the refreshers.
        companion: runs beside each of them, for as long; None for nothing.
        farewell: awaited in each event loop before the list is removed there; None for nothing.
        nap: sleeps in real time.

    Attributes:
        sync, companion, farewell: as given.
        is_removed: whether it must not run any more.
    """

    def __init__(
        self,
        sync: ListSync,
        companion: Companion | None = None,
        farewell: Callable[[], Awaitable[None]] | None = None,
        *,
        nap: Sleep = boot_sleep,
    ) -> None:
        self.sync = sync
        self.companion = companion
        self.farewell = farewell
        self.is_removed = False
        self._nap = nap

    def beside(self, refresher: Refresher) -> Iterator[Companion]:
        """What runs beside a refresher."""
        yield partial(refresher.schedule.keep_beating, self._nap)
        if self.sync.reporting:
            yield partial(self.sync.reporting.run, refresher.schedule.first_fetch)
        if self.companion is not None:
            yield self.companion


class RunningLists(ABC):
    """The lists whose refreshers run in this event loop.

    Attributes:
        users: how often the gate was entered here.
        starts: how often it was started here.
        begun: the lists that were begun last.
    """

    def __init__(self) -> None:
        self.users = 0
        self.starts = 0
        self.begun: Sequence[ListTasks] = ()
        self._running: dict[ListTasks, _Running] = {}

    def begin(self, lists: Sequence[ListTasks]) -> None:
        """Begin those that do not run yet."""
        for tasks in lists:
            # In this order: a list that is removed meanwhile is ended here, or sees that it is removed.
            if tasks not in self._running and not tasks.is_removed:
                self._running[tasks] = self._run(tasks)
        self.begun = lists

    async def refresher(self, tasks: ListTasks) -> Refresher | None:
        """The refresher of a list, brought back if it has crashed.

        Returns:
            The refresher; None if the list was removed.
        """
        running = self._running.get(tasks)
        if running is not None and self.has_crashed(tasks):
            await running.revive()
        return None if running is None else running.refresher

    def has_crashed(self, tasks: ListTasks) -> bool:
        """Whether the refresher of a list has to be brought back."""
        running = self._running.get(tasks)
        return running is not None and running.refresher.schedule.has_ended

    async def end(self, tasks: ListTasks) -> None:
        """End a list that was removed, if it runs here."""
        self.begun = ()  # which holds it
        running = self._running.get(tasks)
        if running is None:
            return
        running.refresher.schedule.give_up()
        try:
            if tasks.farewell is not None:
                with anyio.CancelScope(shield=True):
                    await tasks.farewell()
        finally:
            if self._running.pop(tasks, None) is not None:
                running.cancel()
                await running.ended()

    async def stop(self) -> list[ListTasks]:
        """End all lists, and wait until they have ended; returns them."""
        stopped, self._running = self._running, {}
        for running in stopped.values():
            running.cancel()
        for running in stopped.values():
            await running.ended()
        return list(stopped)

    @abstractmethod
    def end_later(self, tasks: ListTasks) -> None:
        """End a list that was removed; any thread may call it.

        Raises:
            RuntimeError: the event loop is closed.
        """

    @abstractmethod
    def _run(self, tasks: ListTasks) -> "_Running":
        """Run the refresher of a list, and what runs beside it."""


class RunningOnAsyncio(RunningLists):
    """Refreshers run in tasks, and restart after a crash.

    Args:
        loop: the event loop.
        restart_delay: seconds until a refresher that has crashed is restarted.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, restart_delay: float) -> None:
        super().__init__()
        self.loop = loop
        self._restart_delay = restart_delay
        self._ending: set[asyncio.Task[None]] = set()

    def end_later(self, tasks: ListTasks) -> None:
        """See RunningLists."""
        self.loop.call_soon_threadsafe(self._end_soon, tasks)

    async def stop(self) -> list[ListTasks]:
        """See RunningLists."""
        with anyio.CancelScope(shield=True):
            stopped = await super().stop()
            if self._ending:
                await asyncio.wait(self._ending)
        return stopped

    def _end_soon(self, tasks: ListTasks) -> None:
        task = self.loop.create_task(self.end(tasks), context=contextvars.Context())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _run(self, tasks: ListTasks) -> "_Running":
        return _InTask(tasks, self.loop, self._restart_delay)


class RunningOnTrio(RunningLists):
    """Refreshers run in a task group.

    The task that opens it has to close it.
    """

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        super().__init__()
        from trio.lowlevel import current_trio_token  # noqa: PLC0415 - gatekeeper does not need it, and it runs here

        self._group = group
        self._is_over = False
        self._call_soon = current_trio_token().run_sync_soon

    @classmethod
    async def begun_here(cls) -> "RunningOnTrio":
        """Open the task group."""
        group = anyio.create_task_group()
        await group.__aenter__()
        return cls(group)

    def end_later(self, tasks: ListTasks) -> None:
        """See RunningLists."""
        self._call_soon(self._end_soon, tasks)

    async def stop(self) -> list[ListTasks]:
        """See RunningLists."""
        self._is_over = True
        stopped, self._running = self._running, {}
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
        return list(stopped)

    def _end_soon(self, tasks: ListTasks) -> None:
        if not self._is_over:
            self._group.start_soon(self.end, tasks)

    def _run(self, tasks: ListTasks) -> "_Running":
        return _InGroup(tasks, self._group)


class _Running(ABC):
    """A refresher that runs in this event loop."""

    def __init__(self, tasks: ListTasks) -> None:
        self.refresher = tasks.sync.new_refresher()
        self._tasks = tasks

    @abstractmethod
    async def revive(self) -> None:
        """Restart it, if it has crashed and can be restarted."""

    @abstractmethod
    def cancel(self) -> None:
        """Begin to end it."""

    @abstractmethod
    async def ended(self) -> None:
        """Wait until it has ended, after `cancel`."""


class _InTask(_Running):
    """Runs in tasks of asyncio, and restarts after a crash."""

    def __init__(self, tasks: ListTasks, loop: asyncio.AbstractEventLoop, restart_delay: float) -> None:
        super().__init__(tasks)
        self._loop = loop
        self._restart_delay = restart_delay
        self._is_stopping = False
        self._restart: asyncio.TimerHandle | None = None
        self._begin()

    async def revive(self) -> None:
        crashed = self._task
        if self.refresher.schedule.has_ended:
            await asyncio.wait([crashed])
        if crashed is self._task and crashed.done() and not self._is_stopping:
            if self._restart is not None:
                self._restart.cancel()
            self._begin_again(crashed)

    def cancel(self) -> None:
        self._is_stopping = True
        if self._restart is not None:
            self._restart.cancel()
        self._task.cancel()

    async def ended(self) -> None:
        with anyio.CancelScope(shield=True):
            await asyncio.wait([self._task])
            for companion in self._beside:
                companion.cancel()
            await asyncio.wait(self._beside)

    def _begin(self) -> None:
        # In contexts of their own, because they outlive the request that happened to come first.
        self._task = self._loop.create_task(self.refresher.run(), context=contextvars.Context())
        self._task.add_done_callback(self._begin_later)
        beside = self._tasks.beside(self.refresher)
        self._beside = [self._loop.create_task(each(), context=contextvars.Context()) for each in beside]
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
        self._tasks.sync.log.crash(None if task.cancelled() else task.exception())
        self.refresher = self._tasks.sync.new_refresher()
        self._begin()


class _InGroup(_Running):
    """Runs under trio, where the task that starts another ends it."""

    def __init__(self, tasks: ListTasks, group: anyio.abc.TaskGroup) -> None:
        super().__init__(tasks)
        self._scope = anyio.CancelScope()
        self._has_ended = anyio.Event()
        group.start_soon(self._run)

    async def revive(self) -> None:
        """Do nothing: the task group has raised the crash already."""

    def cancel(self) -> None:
        self._scope.cancel()

    async def ended(self) -> None:
        await self._has_ended.wait()

    async def _run(self) -> None:
        try:
            with self._scope:
                async with anyio.create_task_group() as group:
                    for each in self._tasks.beside(self.refresher):
                        group.start_soon(each)
                    await self.refresher.run()
        finally:
            self._has_ended.set()
