"""Refresher: the loop that keeps an index fresh, in one event loop.

- One loop makes every fetch, so two never overlap. A request for a fresher list wakes the loop and waits for the fetch that
  begins next; any number of requests share it.
- After a list, the next fetch comes after the interval ± 20 %, and not before five times what it took to read and apply the
  last one. After a failure it comes after a full-jittered backoff, 0.25 to 2 s while there is no list and 1 to 30 s with
  one, at most 60 s where only a person can help (401, 403, 404), or when the source asked for it (Retry-After, 1 to 300 s).
  After a wait that ended without an answer, or with the last one of a source that stops, it comes after 0 to 1 s. Where a
  live source refuses the connection, it comes after a random part of an interval or of the backoff, whichever is longer. One
  success ends the backoff.
- From the second question on, a source that has a name for its list is asked to hold its answer until something changes. The
  second one follows at once if the first answer says that the source may do so. If it does, the list is live: the next
  question follows at once, or 3 ms after a change. But an answer that may have been held was held, or is followed by a
  pause, for five times what it took to apply it. A fetch that is wanted cuts the wait off. After a failure, the first
  question wants an answer at once.
- After three waits in a row that fail, or ten early answers in a row that change nothing, the list is polled, and each poll
  tries a wait.
- One event loop of a process waits for a live list. The others fetch only what is wanted, until its promise has ended.
- A live connection is renewed every 10 minutes ± 20 %.
- A list that changed something is written to the snapshot on disk, and one that did not when the snapshot is getting old.
- Nothing but cancellation ends the loop.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import anyio.lowlevel

from gatekeeper.quoting import quoted
from gatekeeper.sync.cadence import Cadence, UnknownKeyBudget
from gatekeeper.sync.clock import Clock, Sleep
from gatekeeper.sync.freshness import Freshness
from gatekeeper.sync.live import CUT_FROM, LiveWait
from gatekeeper.sync.schedule import Schedule
from gatekeeper.sync.snapshot_keeper import SnapshotKeeper
from gatekeeper.sync.sources import Source, Updates
from gatekeeper.sync.status import RefreshReport
from gatekeeper.sync.updating import Fetch, ListUpdater

__all__ = ("AFTER_CHANGE", "Refresher")

# Seconds in which other gates of the machine apply the change, too. Asking at once would take the processor from them: four
# gates on two cores then know of a change 0.8 ms later.
AFTER_CHANGE = 0.003


@dataclass(eq=False)
class Refresher:
    """Keeps an index fresh, in one event loop."""

    source: Source
    updater: ListUpdater
    schedule: Schedule
    cadence: Cadence
    budget: UnknownKeyBudget
    live: LiveWait
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
            Whether it has waited. It does not if the budget allows no fetch in time, if enough others wait for it, or if the
            source wants to be left alone.
        """
        cycle, pause = self.schedule.next, None
        if not cycle.is_wanted and not self._may_fetch():
            # Before the timeout, which costs more than the rest of a refusal.
            pause = self.budget.ready_in(self.updater.last_duration)
            if pause > wait or self.budget.is_awaited or self.clock() < self.left_alone_until:
                return False
        with anyio.move_on_after(wait):
            if pause is not None:
                with self.budget.awaited():
                    await self.sleep(pause)
                if cycle is self.schedule.next and not cycle.is_wanted and not self._may_fetch():
                    return True  # a fetch that ran may have ended meanwhile
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
                        await self._fetch_over(updates)
                except Exception as error:  # noqa: BLE001 - a source of the user's own raises anything; it is logged
                    problem = f"the source could not be opened: {type(error).__name__}: {quoted(str(error))}"
                    report = RefreshReport("failed", error=problem)
                    self.updater.record_failure(report, error)
                    self.schedule.begin()
                    await self._end_fetch(report, Fetch())
        except anyio.get_cancelled_exc_class():
            if self.snapshots is not None:
                await self.snapshots.save_last()
            raise
        finally:
            self.schedule.end()

    async def _fetch_over(self, updates: Updates) -> None:
        """Fetch over one connection, until it is to be renewed."""
        self.live.renew()
        opened_at = self.clock()
        while not self.live.is_over(self.clock() - opened_at):
            await self._fetch(updates)
            # A source that answers at once, without IO, would leave no turn of the event loop to others.
            await anyio.lowlevel.checkpoint()

    async def _fetch(self, updates: Updates) -> None:
        cycle = self.schedule.begin()
        fetch = Fetch(is_trusted=cycle.is_trusted, is_live=self.schedule.lead.is_live)
        if not cycle.is_wanted and self._may_wait():
            fetch.wait = self.live.seconds()

        async def update(let_it_end: Callable[[], None]) -> RefreshReport:
            fetch.let_it_end = let_it_end
            return await self.updater.update(updates, fetch)

        # A fetch that does not wait is never cut off: a request may wait for its end.
        within = None if self.snapshots is None or fetch.wait is None else self.snapshots.due_in
        report = await self.schedule.hold(update, within)
        if report is not None:
            self._note(fetch, report)
            await self._end_fetch(report, fetch)
        elif self.snapshots is not None:
            await self.snapshots.save_if_due()

    def _may_wait(self) -> bool:
        """Whether the source may hold its answer, and this event loop is the one that waits."""
        if self.schedule.is_first or self.updater.failures or self.freshness.state != "fresh" or self.schedule.is_overdue:
            return False  # an answer is wanted at once
        has_name = self.updater.shared.basis.validator is not None
        return has_name and self.live.may_wait and self.schedule.lead.take(self.schedule)

    def _note(self, fetch: Fetch, report: RefreshReport) -> None:
        """Note what a wait tells of the source."""
        if fetch.wait is None:
            return
        if fetch.cut_after is not None:
            self.live.note_cut(fetch.wait, fetch.cut_after)
        elif report.outcome != "failed":
            is_granted = fetch.granted is not None
            is_vain = fetch.is_early and report.outcome == "unchanged"
            self.live.note_answer(is_granted=is_granted, is_vain=is_vain)
        else:
            self.live.note_failure()
        if self.schedule.lead.note(self.schedule, is_live=self.live.is_granted):
            self.updater.log.live(is_live=self.live.is_granted)

    async def _end_fetch(self, report: RefreshReport, fetch: Fetch) -> None:
        self.log_state()
        self.schedule.finish(report)
        if self.snapshots is not None:
            await self.snapshots.save_if_due()
        if report.outcome == "changed" and self.live.is_granted:
            await self.schedule.unless_wanted(lambda: anyio.sleep(AFTER_CHANGE))
        ended_at = self.clock()
        due_at = ended_at + self._delay(report, fetch)
        self.left_alone_until = -math.inf if report.retry_after is None else due_at
        if due_at > ended_at:
            await self._pause_until(due_at)
        while not self.schedule.is_wanted and (end := self.schedule.lead.followed_until(self.schedule)) > self.clock():
            await self._pause_until(end)

    def _delay(self, report: RefreshReport, fetch: Fetch) -> float:
        """Seconds from the end of a fetch to the next one."""
        if report.outcome == "failed":
            return self._delay_after_failure(report, fetch)
        if self.live.is_granted and fetch.is_farewell:
            return self.cadence.parted_delay()
        if self.live.is_granted or (self.live.is_untried and fetch.invites_wait):
            delay = self.cadence.live_delay(fetch.work, held=fetch.held)
            if fetch.is_misfit:
                return max(delay, self._misfit_delay)
            if self.schedule.is_overdue or self._may_wait():
                return delay
        return self.cadence.delay(report, failures=0, work=self.updater.work, has_live_list=self.freshness.has_live_list)

    def _delay_after_failure(self, report: RefreshReport, fetch: Fetch) -> float:
        failures, has_live_list = self.updater.failures, self.freshness.has_live_list
        if self.live.is_granted and fetch.is_refused:
            return self.cadence.refused_delay(failures)
        if fetch.cut_after is not None and fetch.cut_after >= CUT_FROM:
            failures = 1  # something on the way may end all waits, and the source may be well
        delay = self.cadence.delay(report, failures=failures, work=self.updater.work, has_live_list=has_live_list)
        return max(delay, self._misfit_delay) if fetch.is_misfit else delay

    @property
    def _misfit_delay(self) -> float:
        return self.cadence.misfit_delay(self.updater.whole_lists.read_ago)

    async def _pause_until(self, end: float) -> None:
        """Wait for the next fetch, and write the snapshot and log changes of state meanwhile."""
        self.schedule.plan(end)
        if self.snapshots is not None and (due_in := self.snapshots.due_in) is not None and self.clock() + due_in < end:
            if await self.schedule.wait_until(self.clock() + due_in):
                return
            await self.snapshots.save_if_due()
        now = self.clock()
        for moment in sorted(filter(None, (self.freshness.degrades_at, self.freshness.expires_at))):
            if now < moment < end:
                is_wanted = await self.schedule.wait_until(moment)
                self.log_state()
                if is_wanted:
                    return
        await self.schedule.wait_until(end)
