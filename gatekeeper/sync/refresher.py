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

from collections.abc import Awaitable, Callable

import anyio

from gatekeeper.sync.cadence import Cadence, UnknownKeyBudget
from gatekeeper.sync.clock import Clock
from gatekeeper.sync.freshness import Freshness
from gatekeeper.sync.schedule import Schedule
from gatekeeper.sync.snapshot_keeper import SnapshotKeeper
from gatekeeper.sync.sources import Source, Updates
from gatekeeper.sync.status import RefreshReport
from gatekeeper.sync.updating import ListUpdater

__all__ = ("Refresher",)


class Refresher:
    """Keeps an index fresh, in one event loop.

    Args:
        source: where the list comes from.
        updater: fetches and applies one list.
        schedule: the fetches, and the requests that wait for one.
        cadence: decides how long to wait between two fetches.
        freshness: the age of the list.
        log_state: logs the state of the list where it has changed.
        clock: seconds; see `boot_clock`.
        snapshots: keeps the list on disk; None for nowhere.
        after_list: awaited after each list, cancelled when a fetch is wanted.
        patience: seconds of the pause that `after_list` may take.
    """

    def __init__(
        self,
        source: Source,
        updater: ListUpdater,
        schedule: Schedule,
        cadence: Cadence,
        freshness: Freshness,
        log_state: Callable[[], None],
        *,
        clock: Clock,
        snapshots: SnapshotKeeper | None = None,
        after_list: Callable[[], Awaitable[None]] | None = None,
        patience: float = 5.0,
    ) -> None:
        self._source = source
        self._updater = updater
        self._schedule = schedule
        self._cadence = cadence
        self._freshness = freshness
        self._log_state = log_state
        self._clock = clock
        self._snapshots = snapshots
        self._after_list = after_list
        self._patience = patience
        self._budget = UnknownKeyBudget(clock)
        self._last_duration = 0.0

    @property
    def has_ended(self) -> bool:
        """Whether it has run and does so no more."""
        return self._schedule.has_ended

    async def refresh(self) -> RefreshReport:
        """Fetch the list once more, beginning after this call.

        Returns:
            What it came to; the outcome is "failed" where the refresher was stopped meanwhile.
        """
        return await self._schedule.next_fetch()

    async def refresh_for_unknown_key(self, wait: float) -> bool:
        """Fetch the list once more for an unknown key, if the budget allows it.

        Args:
            wait: seconds to wait at most.

        Returns:
            Whether it was worth waiting: False if nothing was fetched.
        """
        if not self._schedule.is_wanted and not self._budget.take(self._last_duration):
            return False
        with anyio.move_on_after(wait):
            await self.refresh()
        return True

    async def catch_up(self, wait: float) -> None:
        """Wait for a fetch, where the refresher is behind its schedule.

        Args:
            wait: seconds to wait at most; 0 for not at all.
        """
        await self._schedule.catch_up(wait)

    async def first_list(self, within: float) -> None:
        """Wait until there is a list.

        Args:
            within: seconds after the refresher was made that this takes at most.
        """
        await self._schedule.first_list(within)

    async def keep_beating(self) -> None:
        """Show that the event loop runs, until cancelled; to be run beside `run`."""
        await self._schedule.keep_beating()

    async def run(self) -> None:
        """Fetch the list, again and again, until cancelled."""
        self._schedule.start()
        try:
            if self._snapshots is not None and await self._snapshots.restore():
                self._schedule.note_restored()
            while True:
                try:
                    async with self._source.connect() as updates:
                        while True:
                            await self._fetch(updates)
                except Exception as error:  # noqa: BLE001 - a source of the user's own raises anything; it is logged
                    problem = f"the source could not be opened: {type(error).__name__}: {error}"
                    report = RefreshReport("failed", error=problem)
                    self._updater.record_failure(report, error)
                    self._schedule.begin()
                    await self._end_fetch(report)
        finally:
            self._schedule.end()

    async def _fetch(self, updates: Updates) -> None:
        self._schedule.begin()
        report = await self._updater.update(updates)
        self._last_duration = report.duration
        await self._end_fetch(report)

    async def _end_fetch(self, report: RefreshReport) -> None:
        self._log_state()
        self._schedule.finish(report)
        if self._snapshots is not None:
            await self._snapshots.save_if_due()
        ended_at = self._clock()
        if self._after_list is not None and report.outcome != "failed":
            await self._schedule.unless_wanted(self._after_list, self._patience)
        await self._pause_until(ended_at + self._delay(report))

    def _delay(self, report: RefreshReport) -> float:
        updater, has_live_list = self._updater, self._freshness.has_live_list
        return self._cadence.delay(report, failures=updater.failures, work=updater.work, has_live_list=has_live_list)

    async def _pause_until(self, end: float) -> None:
        """Wait for the next fetch, and log when the list is degraded or expires meanwhile."""
        self._schedule.plan(end)
        now = self._clock()
        for moment in sorted(filter(None, (self._freshness.degrades_at, self._freshness.expires_at))):
            if now < moment < end:
                is_wanted = await self._schedule.wait_until(moment)
                self._log_state()
                if is_wanted:
                    return
        await self._schedule.wait_until(end)
