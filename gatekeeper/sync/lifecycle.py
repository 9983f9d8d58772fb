"""Lifecycle: starts and ends the background tasks of each event loop."""

import asyncio
import os
import weakref
from collections.abc import Callable, Sequence
from threading import Lock

import anyio
from anyio.lowlevel import RunVar

from gatekeeper.sync.refresher import Refresher
from gatekeeper.sync.running import ListTasks, RunningLists, RunningOnAsyncio, RunningOnTrio
from gatekeeper.sync.status import RefreshReport

__all__ = ("Lifecycle", "watch_forks")

_OUTCOMES = ("unchanged", "changed", "failed")  # the worst one last

RESTART_DELAY = 0.5  # seconds
FLUSH_TIMEOUT = 0.5  # seconds for the last reports when a gate stops
FLUSH_EACH = 0.01  # seconds more for each list: a report takes 2 to 4 ms of processor time
SETTLED = 1.0  # seconds without one more first list after which a start waits no longer for the others


class Lifecycle:
    """Runs the refreshers of lists, in each event loop.

    Args:
        lists: gives the lists; the same object until they change. None if there never are any, so that nothing runs.
        start_timeout: seconds from the start in which requests wait for a first list.
        restart_delay: seconds until a refresher that has crashed is restarted.

    Attributes:
        lists: as given; without any it gives none.
        start_timeout, restart_delay: as given.
    """

    def __init__(
        self, lists: Callable[[], Sequence[ListTasks]] | None, *, start_timeout: float, restart_delay: float = RESTART_DELAY
    ) -> None:
        self.lists: Callable[[], Sequence[ListTasks]] = lists or tuple
        self._never_runs = lists is None
        self.start_timeout = start_timeout
        self.restart_delay = restart_delay
        self._latest: Callable[[], RunningOnAsyncio | None] = _none
        self._here: RunVar[RunningLists | None] = RunVar("gatekeeper: the refreshers of this event loop", None)
        self._all: weakref.WeakSet[RunningLists] = weakref.WeakSet()
        self._lock = Lock()

    def running(self) -> RunningLists | None:
        """What runs in this event loop, begun if need be.

        Returns:
            The lists that run here; None under trio, unless the gate was entered there, and where nothing is to run.
        """
        if self._never_runs:
            return None
        lists = self.lists()
        here = self._running_here()
        if here is None and lists:
            here = self._open_on_asyncio()
        if here is not None and here.begun is not lists:
            here.begin(lists)
        return here

    async def started(self, tasks: ListTasks) -> Refresher | None:
        """The refresher of a list, after a wait for its first list.

        Args:
            tasks: the list.

        Returns:
            The refresher; None if it does not run here.
        """
        running = self.running()
        refresher = None if running is None else await running.refresher(tasks)
        if refresher is not None and not tasks.sync.freshness.has_list:
            await refresher.schedule.first_list(self.start_timeout)
        return refresher

    async def start(self) -> None:
        """Start refreshers that run until `stop` is called as often.

        It waits for the first lists, within `start_timeout`. Once one of them has come, it waits for the others as long as
        one comes in each second. If the gate runs here and has a list, it does not wait. Under trio it does nothing.
        """
        if self._never_runs:
            return
        here = self.running() or self._open_on_asyncio()  # where there is no list yet, one may be added
        if not isinstance(here, RunningOnAsyncio):
            return
        is_first = not (here.starts or here.users)
        here.starts += 1
        missing = [each for each in here.begun if not each.sync.freshness.has_list]
        if not is_first and len(missing) < len(here.begun):
            return  # health checks start the gate as well: the hub of one account must not hold them up
        try:
            await self._first_lists(here, missing)
        except BaseException:
            await self.stop()
            raise

    async def refresh(self, lists: Sequence[ListTasks], *, trust: bool) -> RefreshReport:
        """Fetch lists once more, all at once.

        Args:
            lists: the lists.
            trust: whether they are taken as they are.

        Returns:
            The worst outcome: failed, then changed, then unchanged.
        """
        reports: list[RefreshReport] = []

        async def refresh(tasks: ListTasks) -> None:
            refresher = await self.started(tasks)
            if refresher is not None:
                reports.append(await refresher.refresh(trust=trust))

        async with anyio.create_task_group() as group:
            for each in lists:
                group.start_soon(refresh, each)
        return max(reports, key=lambda report: _OUTCOMES.index(report.outcome), default=RefreshReport("unchanged"))

    async def stop(self) -> None:
        """Undo one start. The last one ends the refreshers, unless something else uses them."""
        here = self._here.get()
        if here is not None:
            here.starts = max(here.starts - 1, 0)
            await self._end_unused(here)

    async def enter(self) -> None:
        """Start refreshers in this event loop; wait as `start` does."""
        if self._never_runs:
            return
        here = self.running() or self._open_on_asyncio() or await self._open_on_trio()
        here.users += 1
        try:
            here.begin(self.lists())
            await self._first_lists(here, here.begun)
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """End this event loop's refreshers, unless something else uses them."""
        here = self._here.get()
        if here is not None:
            here.users -= 1
            await self._end_unused(here)

    async def add(self, tasks: ListTasks) -> None:
        """Start a new list, if the others run in this event loop."""
        here = self._here.get()
        if here is not None:
            here.begin(self.lists())
            await self._first_lists(here, [tasks])

    async def remove(self, tasks: ListTasks) -> None:
        """End the refreshers of a removed list; send its last reports.

        In this event loop they have ended when it returns. In others they end as soon as those run.
        """
        tasks.is_removed = True
        here = self._here.get()
        with self._lock:
            others = [each for each in self._all if each is not here]
        for other in others:
            try:
                other.end_later(tasks)
            except RuntimeError:  # it was closed without an end of its tasks
                with self._lock:
                    self._all.discard(other)
        if here is not None:
            await here.end(tasks)
        await _flush([tasks])

    def after_fork(self) -> None:
        """Forget the event loops of the parent, which run in it alone."""
        self._latest = _none
        self._all = weakref.WeakSet()
        self._lock = Lock()

    async def _end_unused(self, here: RunningLists) -> None:
        if here.users > 0 or here.starts > 0:
            return
        # The next one to enter starts other refreshers.
        self._here.set(None)
        if self._latest() is here:
            self._latest = _none
        with self._lock:
            self._all.discard(here)
        await _flush(await here.stop())

    async def _first_lists(self, here: RunningLists, lists: Sequence[ListTasks]) -> None:
        """Wait for the first lists: for all of them, or until they come no longer."""
        with anyio.move_on_after(self.start_timeout) as patience:
            latest = patience.deadline
            async with anyio.create_task_group() as group:

                async def wait_for(tasks: ListTasks) -> None:
                    refresher = await here.refresher(tasks)
                    if refresher is not None:
                        await refresher.schedule.first_list(self.start_timeout)
                    if tasks.sync.freshness.has_list:
                        patience.deadline = min(latest, anyio.current_time() + SETTLED)

                for tasks in lists:
                    group.start_soon(wait_for, tasks)

    def _running_here(self) -> RunningLists | None:
        """What runs in this event loop."""
        latest = self._latest()
        # Reading a variable of the event loop takes 2 µs.
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._here.get()
        return latest if latest is not None and latest.loop is loop else self._here.get()

    def _open_on_asyncio(self) -> RunningLists | None:
        """Begin to run in this event loop; None if it is another's."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        here = RunningOnAsyncio(loop, self.restart_delay)
        self._latest = weakref.ref(here)
        return self._opened(here)

    async def _open_on_trio(self) -> RunningLists:
        return self._opened(await RunningOnTrio.begun_here())

    def _opened(self, here: RunningLists) -> RunningLists:
        self._here.set(here)
        with self._lock:
            self._all.add(here)
        return here


def watch_forks(in_child: Callable[[], None]) -> None:
    """Call a method in each forked child, where no other thread runs.

    Args:
        in_child: a bound method. It is not called any more once its object is gone.
    """
    if hasattr(os, "register_at_fork"):
        method = weakref.WeakMethod(in_child)
        os.register_at_fork(after_in_child=lambda: (call := method()) and call())


async def _flush(lists: Sequence[ListTasks]) -> None:
    """Send the last reports of lists, all at once."""
    with anyio.move_on_after(FLUSH_TIMEOUT + FLUSH_EACH * len(lists), shield=True):
        async with anyio.create_task_group() as group:
            for tasks in lists:
                group.start_soon(tasks.sync.reporting.flush)


def _none() -> None:
    return None
