"""Schedule: the fetches of one event loop, and their waiters.

The refresher renews its heartbeat while it keeps to its schedule. Once it is overdue, because the process was frozen or its
event loop stopped, only a fetch that has begun since and has ended renews it, or a request that has waited for one in vain.
An answer that the source holds may be cut off for a fetch that is wanted, or after a freeze, until it begins to arrive.
"""

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from gatekeeper.sync.clock import Alarm, Clock, Sleep, boot_sleep
from gatekeeper.sync.heartbeat import Heartbeat
from gatekeeper.sync.moment import Moment
from gatekeeper.sync.status import RefreshReport

__all__ = ("FetchCycle", "Schedule")

Value = TypeVar("Value")


class FetchCycle:
    """One fetch, and the requests that wait for it."""

    def __init__(self) -> None:
        self.began_at = math.inf
        self.done = Moment()
        self.report = RefreshReport("failed", error="the refresher was stopped")
        self.is_wanted = False
        self.is_trusted = False

    def finish(self, report: RefreshReport) -> None:
        """Release the requests."""
        self.report = report
        self.done.come()


class Schedule:
    """The current fetch, the next one, and the pause between them."""

    def __init__(self, heartbeat: Heartbeat, alarm: Alarm, clock: Clock) -> None:
        self.has_ended = False
        self._heartbeat = heartbeat
        self.lead = heartbeat.lead
        self._alarm = alarm
        self._clock = clock
        self.next = self._current = self._first = FetchCycle()
        self._pause: anyio.CancelScope | None = None
        self._pause_ends_at = -math.inf
        self._loaded = Moment()
        self._made_at = clock()

    @property
    def is_wanted(self) -> bool:
        """Whether a request waits for the next fetch."""
        return self.next.is_wanted

    @property
    def is_held(self) -> bool:
        """Whether the source may hold its answer, which has not begun."""
        return self._pause is not None and not self._current.done.has_come

    @property
    def is_first(self) -> bool:
        """Whether the first fetch has not ended."""
        return not self._first.done.has_come

    @property
    def is_overdue(self) -> bool:
        """Whether no refresher of this process keeps to its schedule."""
        return self._heartbeat.is_overdue

    def start(self) -> None:
        """Note that the refresher runs."""
        self._heartbeat.begin()

    def begin(self) -> FetchCycle:
        """Begin the next fetch."""
        self._current, self.next = self.next, FetchCycle()
        self._current.began_at = self._clock()
        self._pause_ends_at = -math.inf
        return self._current

    def finish(self, report: RefreshReport) -> None:
        """End the current fetch."""
        if report.outcome != "failed":
            self._loaded.come()
        self._renew()
        self._current.finish(report)

    def end(self) -> None:
        """Release all who wait."""
        self.has_ended = True
        self.lead.leave(self)
        self._heartbeat.end()
        self._current.done.come()
        self.next.done.come()

    def give_up(self) -> None:
        """Release those who wait for the first list of a removed source."""
        self._loaded.come()

    def note_restored(self) -> None:
        """Note that a list from the disk decides until the first fetch."""
        self._loaded.come()
        self._heartbeat.renew()

    def want(self) -> FetchCycle:
        """Wake the loop for the next fetch."""
        self.next.is_wanted = True
        self._end_pause()
        return self.next

    async def next_fetch(self) -> RefreshReport:
        """Wake the loop, and wait for the fetch that begins next."""
        awaited = self.want()
        await awaited.done.wait()
        return awaited.report

    async def first_list(self, within: float) -> bool:
        """Wait for a list, up to `within` seconds after the start.

        Returns:
            Whether there was time left to wait.
        """
        left = self._made_at + within - self._clock()
        if left <= 0:
            return False
        with anyio.move_on_after(left):
            await self._loaded.wait()
        return True

    async def first_fetch(self) -> None:
        """Wait for the end of the first fetch, whatever its outcome."""
        await self._first.done.wait()

    async def catch_up(self, wait: float) -> None:
        """Wait for a fetch if the refresher is behind its schedule."""
        if self.beat():
            return
        if wait:
            with anyio.move_on_after(wait):
                if self._heartbeat.overdue_at <= self._current.began_at < math.inf and not self._current.done.has_come:
                    await self._current.done.wait()
                else:
                    await self.next_fetch()
        self._heartbeat.renew()  # so that the next requests do not wait as well, if the hub is down

    def beat(self) -> bool:
        """Renew the heartbeat if, as returned, the refresher is on schedule."""
        keeps = not self.has_ended and (not self._heartbeat.is_overdue or self._clock() < self._pause_ends_at)
        if keeps:
            self._heartbeat.renew()
            self.lead.renew(self)
        return keeps

    def plan(self, moment: float) -> None:
        """Note when the next fetch is due."""
        self._pause_ends_at = moment
        self._renew()

    async def keep_beating(self, nap: Sleep = boot_sleep) -> None:
        """Beat until cancelled.

        What a source has held since before a freeze is cut off: its connection has often gone.

        Args:
            nap: sleeps in real time.
        """
        while True:
            pause = self._heartbeat.ahead / 2
            due_at = self._clock() + pause
            await nap(pause)
            self._alarm.note(due_at)  # a refresher with a live list waits for nothing else
            if not self.beat():
                self._end_pause()

    async def wait_until(self, moment: float) -> bool:
        """Wait until a moment; whether a fetch is wanted before."""
        return await self.unless_wanted(lambda: self._alarm.wait_until(moment))

    async def hold(self, ask: Callable[[Callable[[], None]], Awaitable[Value]], within: float | None) -> Value | None:
        """Await an answer that the source may hold.

        Args:
            ask: asks for it, and calls its argument once the answer begins to arrive, or is not held.
            within: seconds after which it is cut off; None for any time.

        Returns:
            What `ask` returns; None if it was cut off.
        """
        value = None
        with anyio.move_on_after(within) as self._pause:
            scope = self._pause

            def let_it_end() -> None:
                scope.deadline = math.inf
                self._pause = None

            value = await ask(let_it_end)
        self._pause = None
        return value

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()

    def _renew(self) -> None:
        # An answer from before the process was frozen says nothing of what has changed meanwhile.
        if not self._heartbeat.is_overdue or self._current.began_at >= self._heartbeat.overdue_at:
            self._heartbeat.renew()
            self.lead.renew(self)

    async def unless_wanted(self, do: Callable[[], Awaitable[None]]) -> bool:
        """Await `do` until a fetch is wanted; whether one is."""
        if not self.is_wanted:
            with anyio.CancelScope() as self._pause:
                await do()
            self._pause = None
        return self.is_wanted
