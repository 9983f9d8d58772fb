"""Refresher: the loop that keeps an index fresh, in one event loop.

- One loop makes every fetch, so two never overlap. A request for a fresher list wakes the loop and waits for the fetch that
  begins next; any number of requests share it.
- After a list, the next fetch comes after the interval ± 20 %, and not before five times what it took to read and apply the
  last one. After a failure it comes after a full-jittered backoff, 0.25 to 2 s while there is no list and 1 to 30 s with
  one, at most 60 s where only a person can help (401, 403, 404), or when the source asked for it (Retry-After, 1 to 300 s).
  One success ends the backoff.
- A list that changed something is written to the snapshot on disk, and one that did not when the snapshot is getting old.
- Nothing but cancellation ends the loop.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from gatekeeper.quoting import quoted
from gatekeeper.sync.cadence import Cadence, UnknownKeyBudget
from gatekeeper.sync.clock import Clock, Sleep
from gatekeeper.sync.freshness import Freshness
from gatekeeper.sync.schedule import Schedule
from gatekeeper.sync.snapshot_keeper import SnapshotKeeper
from gatekeeper.sync.sources import Source, Updates
from gatekeeper.sync.status import RefreshReport
from gatekeeper.sync.updating import ListUpdater

__all__ = ("Refresher",)


@dataclass(eq=False)
class Refresher:
    """Keeps an index fresh, in one event loop."""

    source: Source
    updater: ListUpdater
    schedule: Schedule
    cadence: Cadence
    budget: UnknownKeyBudget
    freshness: Freshness
    log_state: Callable[[], None]
    clock: Clock
    snapshots: SnapshotKeeper | None
    sleep: Sleep
    left_alone_until: float = -math.inf  # the source asked for it (Retry-After)

    async def refresh(self, *, trust: bool = False) -> RefreshReport:
        """Fetch the list once more; with `trust`, take it as it is."""
        self.schedule.next.is_trusted |= trust
        return await self.schedule.next_fetch()

    async def refresh_for_unknown_key(self, wait: float) -> bool:
        """Wait for the next fetch that the budget allows, within `wait` seconds.

        Returns:
            Whether it was worth waiting: False if the budget allows no fetch in time, or the source wants to be left alone.
        """
        cycle, pause = self.schedule.next, None
        if not cycle.is_wanted and not self._may_fetch():
            # Before the timeout, which costs more than the rest of a refusal.
            pause = self.budget.ready_in(self.updater.last_duration)
            if pause > wait or self.clock() < self.left_alone_until:
                return False
        with anyio.move_on_after(wait):
            if pause is not None:
                await self.sleep(pause)
                if cycle is self.schedule.next and not cycle.is_wanted and not self._may_fetch():
                    return False
            if cycle is self.schedule.next:  # another request may have caused it meanwhile
                self.schedule.want()
            await cycle.done.wait()
        return True

    def _may_fetch(self) -> bool:
        return self.clock() >= self.left_alone_until and self.budget.take(self.updater.last_duration)

    async def run(self) -> None:
        """Fetch the list, again and again, until cancelled."""
        self.schedule.start()
        try:
            if self.snapshots is not None and await self.snapshots.restore():
                self.schedule.note_restored()
            while True:
                try:
                    async with self.source.connect() as updates:
                        while True:
                            await self._fetch(updates)
                except Exception as error:  # noqa: BLE001 - a source of the user's own raises anything; it is logged
                    problem = f"the source could not be opened: {type(error).__name__}: {quoted(str(error))}"
                    report = RefreshReport("failed", error=problem)
                    self.updater.record_failure(report, error)
                    self.schedule.begin()
                    await self._end_fetch(report)
        finally:
            self.schedule.end()

    async def _fetch(self, updates: Updates) -> None:
        cycle = self.schedule.begin()
        await self._end_fetch(await self.updater.update(updates, is_trusted=cycle.is_trusted))

    async def _end_fetch(self, report: RefreshReport) -> None:
        self.log_state()
        self.schedule.finish(report)
        if self.snapshots is not None:
            await self.snapshots.save_if_due()
        ended_at = self.clock()
        due_at = ended_at + self._delay(report)
        self.left_alone_until = -math.inf if report.retry_after is None else due_at
        await self._pause_until(due_at)

    def _delay(self, report: RefreshReport) -> float:
        updater, has_live_list = self.updater, self.freshness.has_live_list
        return self.cadence.delay(report, failures=updater.failures, work=updater.work, has_live_list=has_live_list)

    async def _pause_until(self, end: float) -> None:
        """Wait for the next fetch, and log changes of state meanwhile."""
        self.schedule.plan(end)
        now = self.clock()
        for moment in sorted(filter(None, (self.freshness.degrades_at, self.freshness.expires_at))):
            if now < moment < end:
                is_wanted = await self.schedule.wait_until(moment)
                self.log_state()
                if is_wanted:
                    return
        await self.schedule.wait_until(end)
