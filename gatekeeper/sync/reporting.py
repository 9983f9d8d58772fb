"""Reporting: sends the reports of a source beside the refreshers.

It runs in a task of its own in each event loop, so that neither a list nor a request waits for a report. Every event loop
wakes for every report, and the first one to do so sends it: if one stops, the others go on.
"""

from collections.abc import Awaitable, Callable
from threading import Lock
from typing import Protocol

from gatekeeper.sync.clock import Clock, Sleep

__all__ = ("Reporting", "Reports", "Turns")

JITTER = 0.2  # of the interval, so that gates that start together do not report together


class Reports(Protocol):
    """Something that reports to the hub."""

    async def report(self) -> None:
        """Report once. A failure raises nothing."""
        ...

    async def flush(self) -> None:
        """Report for the last time, as the gate stops."""
        ...

    def forget(self) -> None:
        """Forget what the parent process reports, in a forked child."""
        ...


class Turns:
    """When something is due, once for all event loops of a process.

    Args:
        interval: seconds between two turns, ± 20 %.
        clock: seconds; see `boot_clock`.
        jitter: gives a number from 0 to 1.
        first: seconds to the first turn, at least and at most; by default as between two.

    Attributes:
        due_at: the moment of the next turn, by the clock.
    """

    def __init__(
        self,
        interval: float,
        clock: Clock,
        jitter: Callable[[], float],
        *,
        first: tuple[float, float] | None = None,
    ) -> None:
        self._between = (interval * (1 - JITTER), interval * (1 + JITTER))
        self._first = first or self._between
        self._clock = clock
        self._jitter = jitter
        self.restart()

    def take(self) -> bool:
        """Whether a turn is due. It is then taken, and the next one is set."""
        with self._lock:
            is_due = self._clock() >= self.due_at
            if is_due:
                self._set_next(self._between)
        return is_due

    def restart(self) -> None:
        """Begin again, in a forked child, where no thread holds the lock."""
        self._lock = Lock()
        self._set_next(self._first)

    def _set_next(self, within: tuple[float, float]) -> None:
        least, most = within
        self.due_at = self._clock() + least + (most - least) * self._jitter()


class Reporting:
    """Sends reports when they are due.

    Args:
        clock: seconds; see `boot_clock`.
        sleep: waits for seconds.
    """

    def __init__(self, clock: Clock, sleep: Sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._all: list[tuple[Reports, Turns]] = []

    def __bool__(self) -> bool:
        """Whether there is anything to report."""
        return bool(self._all)

    def add(self, reports: Reports, turns: Turns) -> None:
        """Send these reports, too. All are added before it runs."""
        self._all.append((reports, turns))

    async def run(self, first_fetch: Callable[[], Awaitable[None]]) -> None:
        """Send what is due, again and again, until cancelled.

        Args:
            first_fetch: waits for the end of the first fetch in this event loop, before which there is nothing to report.
        """
        await first_fetch()
        while True:
            due_at = min(turns.due_at for _, turns in self._all)
            await self._sleep(max(0.0, due_at - self._clock()))
            for reports, turns in self._all:
                if turns.take():
                    await reports.report()

    async def flush(self) -> None:
        """Send the last reports."""
        for reports, _ in self._all:
            await reports.flush()

    def after_fork(self) -> None:
        """Leave to the parent what it reports."""
        for reports, turns in self._all:
            reports.forget()
            turns.restart()
