"""Refresher: keeps an index as fresh as its source, through every fault of it.

States. A list is `never_loaded` until the first one was accepted, then `fresh`. It is `degraded` once the last accepted
list is older than `soft_stale` seconds, and while it comes from the snapshot on disk: every decision still stands. It is
`expired` once that list is older than `hard_stale` seconds: no key is trusted any more. Whichever list is accepted next
makes it fresh again.

When a list is asked for.
- One loop makes every fetch, so two never overlap. Whoever wants a fresher list wakes the loop and waits for the fetch
  that begins next; a hundred who wait at once wait for the same one.
- After a list, the next fetch comes after `interval` ± 20 %, so that processes that start together drift apart, and not
  before five times what it took to read and apply the last one. After a failure it comes after a full-jittered backoff,
  0.25 to 2 s while there is no list and 1 to 30 s with one, 60 s where only a person can help (401, 403, 404), or when the
  other side asked for (Retry-After, 1 to 300 s). One success ends that.
- Every 10 minutes the list is asked for without its validator, in case the validator is stuck.
- Nothing but cancellation ends the loop.

What becomes of it.
- A failure changes no decision: the last accepted list stays, with its age, which runs from the moment it was asked for.
- A list is read in slices as it arrives, with a pause for the event loop after each. A slice that the last list had, too,
  byte for byte, is not read again. What is new is collected beside the index.
- It is accepted when it is complete, no older than the last one by the source's own clock, and more than 80 % of its rows
  are good. Then its difference is applied in place, in slices again; whoever began that ends it, even when cancelled.
- A row that cannot be read leaves its key as it is, for as long as a list may be old; a revocation in it counts.
- A list that lacks more than half of ten keys or more may be a mistake: what it lacks is dropped only when two more lists
  lack as much, or after 60 s. The rest of it is applied at once, and nobody is told "unchanged" about it meanwhile.
- A list that changed something is written to the snapshot on disk, and one that did not when that is getting old.

What the log says.
- One line for each change of state, at the moment it comes.
- One line for each failure that is not the one told last, until six lists in a row have come, and one when they have.
"""

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

import anyio
import anyio.lowlevel
import msgspec

from gatekeeper.client import Listing
from gatekeeper.errors import HubError, InvalidList, SnapshotError, SourceError
from gatekeeper.index.change_set import ChangeSet
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.list_diff import ListDiff
from gatekeeper.keys.client_key import mask
from gatekeeper.keys.reader import ListReader, RowReader
from gatekeeper.sync.freshness import Clock, Freshness, KnownSlice, RefreshReport
from gatekeeper.sync.snapshot import Snapshot
from gatekeeper.sync.sources import Fetch, Source

__all__ = ("Refresher",)

JITTER = 0.2
BACKOFF = (1.0, 30.0)
BACKOFF_WITHOUT_LIST = (0.25, 2.0)
LASTING_FAILURE_CEILING = 60.0
RETRY_AFTER = (1.0, 300.0)
INTERVAL_PER_WORK = 5  # seconds between two fetches for every second that it takes to read and apply a list
UNCONDITIONAL_AFTER = 600.0  # seconds (FAULTS row 10)
CLOCK_SKEW = 5.0  # seconds that the clocks of two machines of one hub may differ by
MAX_REJECTED_SHARE = 0.2
MAX_ROWS = 2_000_000  # FAULTS row 12
HELD_FROM = 10  # keys; of fewer, any number may go at once
HELD_LISTS = 2
HELD_FOR = 60.0  # seconds
BUCKET = 3  # fetches that unknown keys can cause at once
BUCKET_PERIOD = 5.0  # seconds until they can cause one more, or
BUCKET_DURATIONS = 5  # as many times the duration of the last fetch, whichever is longer
ATTEMPTS = 10  # at applying a list while the refreshers of other event loops apply theirs
SETTLED_AFTER = 6  # lists in a row, which is a minute by default; the next failure after them is another story
RENEWALS = 10  # of the snapshot in the time after which it would be too old
SNAPSHOT_RETRY = 60.0  # seconds
AFTER_LIST = 5.0  # seconds

logger = logging.getLogger("gatekeeper")


class _Round:
    """One fetch, and those who wait for it."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.report = RefreshReport("failed", error="the refresher was stopped")
        self.wanted = False

    def finish(self, report: RefreshReport) -> None:
        self.report = report
        self.done.set()


class _Reading(NamedTuple):
    """A complete list, read."""

    diff: ListDiff
    changes: ChangeSet
    slices: dict[bytes, KnownSlice]
    digest: bytes
    validator: str | None
    dated_at: float | None


class _OvertakenError(Exception):
    """Another event loop's refresher has changed the index since a list was read."""


class Refresher:
    """Keeps an index fresh, in one event loop.

    Args:
        source: where the list comes from.
        index: what it is applied to.
        freshness: where the outcome is noted.
        on_change: called after decisions may have changed.
        snapshot: where the list is kept on disk; None for nowhere.
        after_list: awaited after a list was had, for 5 s of the pause at most, and cancelled when a list is wanted.
        interval: seconds between two fetches, ± 20 %.
        timeout: seconds that one fetch may take in all.
        clock: seconds; see `boot_clock`.
        wall_clock: seconds since 1970.
        sleep: waits for seconds.
        jitter: gives a number from 0 to 1.

    Attributes:
        has_ended: whether it has run and does so no more.
    """

    def __init__(
        self,
        source: Source,
        index: KeyIndex,
        freshness: Freshness,
        on_change: Callable[[], None],
        *,
        snapshot: Snapshot | None = None,
        after_list: Callable[[], Awaitable[None]] | None = None,
        interval: float,
        timeout: float,
        clock: Clock,
        wall_clock: Clock = time.time,
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self._source = source
        self._index = index
        self._freshness = freshness
        self._on_change = on_change
        self._snapshot = snapshot
        self._after_list = after_list
        self._interval = interval
        self._timeout = timeout
        self._clock = clock
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._jitter = jitter
        self._rows = RowReader(source.suffix_field)
        self.has_ended = False
        self._current = self._next = _Round()
        self._pausing: anyio.CancelScope | None = None
        self._loaded = anyio.Event()
        self._failures = 0
        self._last_duration = 0.0
        self._work = 0.0
        self._whole_list_at = self._made_at = clock()
        self._dates_back_since: float | None = None
        self._unsaved_since: float | None = None
        self._save_not_before = self._made_at
        self._tokens = float(BUCKET)
        self._tokens_counted_at = self._made_at

    async def refresh(self) -> RefreshReport:
        """Fetch the list once more, beginning after this call.

        Returns:
            What it came to; the outcome is "failed" where the refresher was stopped meanwhile.
        """
        awaited = self._next
        awaited.wanted = True
        if self._pausing is not None:
            self._pausing.cancel()
        await awaited.done.wait()
        return awaited.report

    async def refresh_for_stranger(self, wait: float) -> bool:
        """Fetch the list once more because of what a stranger sent, unless strangers have caused too many fetches.

        Args:
            wait: seconds to wait at most.

        Returns:
            Whether it was worth waiting: False if nothing was fetched.
        """
        if not self._next.wanted and not self._take_token():
            return False
        with anyio.move_on_after(wait):
            await self.refresh()
        return True

    async def first_list(self, within: float) -> None:
        """Wait until there is a list.

        Args:
            within: seconds after the refresher was made that this takes at most.
        """
        left = self._made_at + within - self._clock()
        if left > 0:
            with anyio.move_on_after(left):
                await self._loaded.wait()

    async def run(self) -> None:
        """Fetch the list, again and again, until cancelled."""
        try:
            await self._restore()
            while True:
                try:
                    async with self._source.connect() as fetch:
                        while True:
                            await self._round(fetch)
                except Exception as error:  # noqa: BLE001 - whatever a source of the user's own raises; _note logs it
                    report = RefreshReport(
                        "failed", error=f"the source could not be opened: {type(error).__name__}: {error}"
                    )
                    self._note(report, self._clock(), bug=error)
                    self._begin().finish(report)
                    await self._pause(self._delay(report))
        finally:
            self.has_ended = True
            self._current.done.set()
            self._next.done.set()

    async def _round(self, fetch: Fetch) -> None:
        current = self._begin()
        if self._freshness.state == "expired":
            self._on_change()  # the machine was suspended; a fetch may take long, and meanwhile nothing is remembered
        report = await self._once(fetch)
        current.finish(report)
        await self._save()
        began = self._clock()
        if self._after_list is not None and report.outcome != "failed":
            await self._unless_woken(self._after_list, AFTER_LIST)
        await self._pause(max(0.0, self._delay(report) - (self._clock() - began)))

    def _begin(self) -> _Round:
        self._current, self._next = self._next, _Round()
        return self._current

    async def _once(self, fetch: Fetch) -> RefreshReport:
        asked_at, bug = self._clock(), None
        try:
            report = await self._fetch_and_apply(fetch)
        except TimeoutError:
            report = RefreshReport("failed", error=f"the list did not come within {self._timeout:g} s")
        except SourceError as error:
            report = RefreshReport("failed", error=str(error), retry_after=error.retry_after, lasting=error.lasting)
            if isinstance(error, HubError) and error.status == HTTPStatus.NOT_MODIFIED:
                self._freshness.validator = None  # it was about another list, so the next answer has to bring one
        except Exception as error:  # noqa: BLE001 - nothing ends the loop; _note logs it
            report = RefreshReport(
                "failed", error=f"refreshing failed in a way that is a bug: {type(error).__name__}: {error}"
            )
            bug = error
        self._last_duration = self._clock() - asked_at
        self._note(report, asked_at, bug=bug)
        return msgspec.structs.replace(report, duration=self._last_duration)

    async def _fetch_and_apply(self, fetch: Fetch) -> RefreshReport:
        for _ in range(ATTEMPTS):
            asked_at, generation = self._clock(), self._freshness.generation
            try:
                with anyio.fail_after(self._timeout):
                    reading = await self._read(fetch)
                return RefreshReport("unchanged") if reading is None else await self._apply(reading, asked_at, generation)
            except (_OvertakenError, RuntimeError, LookupError):
                # An index that changes while it is read does not hold together.
                if not self._is_overtaken(generation):
                    raise
        raise SourceError(f"the lists of other event loops were applied {ATTEMPTS} times while this one was read")

    async def _read(self, fetch: Fetch) -> _Reading | None:
        """Read a list to its end, and change nothing; None if the source says that nothing has changed."""
        freshness = self._freshness
        is_due = self._clock() - self._whole_list_at >= UNCONDITIONAL_AFTER
        async with fetch(None if is_due else freshness.validator) as listing:
            if listing is None:
                if freshness.age is None:
                    raise SourceError("the source says that nothing has changed, and has not given a list yet")
                return None
            self._require_no_old_copy(listing)
            diff = ListDiff(self._index, expired_ids=freshness.lapsed)
            slices: dict[bytes, KnownSlice] = {}
            digest = hashlib.blake2b()
            reader = ListReader(self._rows)
            self._work = 0.0
            async for chunk in listing.chunks:
                reader.feed(chunk)
                await self._see(reader, diff, slices, digest)
            reader.end()
            await self._see(reader, diff, slices, digest)
        _require_trustworthy(diff)
        changes = await _run(diff.finish())
        self._whole_list_at = self._clock()
        # Where the last list left no slots, because some id came twice in it, this one may leave some.
        if digest.digest() == freshness.digest and not freshness.lapsed and slices.keys() <= freshness.slices.keys():
            freshness.validator, freshness.dated_at = listing.validator, listing.dated_at
            return None
        return _Reading(diff, changes, slices, digest.digest(), listing.validator, listing.dated_at)

    async def _see(
        self, reader: ListReader, diff: ListDiff, slices: dict[bytes, KnownSlice], digest: "hashlib.blake2b"
    ) -> None:
        before = diff.count
        for piece in reader:
            began = self._clock()
            its_digest = piece.digest()
            digest.update(its_digest)
            known = self._freshness.slices.get(its_digest)
            if known is not None and diff.add_known_slice(known.slots):
                piece.skip(len(known.slots), known.size)
                slices[its_digest] = known
            elif (slots := diff.add_rows(piece.rows())) is not None:
                slices[its_digest] = KnownSlice(slots, piece.size)
            self._work += self._clock() - began
            await anyio.lowlevel.checkpoint()
            if diff.count > MAX_ROWS:
                raise InvalidList(f"the list has more than {MAX_ROWS} rows: expected those of one account")
        if diff.count == before:
            await anyio.lowlevel.checkpoint()  # what ends no row gives nobody else a turn

    def _require_no_old_copy(self, listing: Listing) -> None:
        """Refuse a list from before the last one, as a cache on the way may give it."""
        freshness = self._freshness
        if listing.dated_at is None or freshness.dated_at is None:
            return
        behind = freshness.dated_at - listing.dated_at
        if behind <= (0 if listing.is_copy else CLOCK_SKEW):
            self._dates_back_since = None
            return
        now = self._clock()
        if self._dates_back_since is None:
            self._dates_back_since = now
        # Unless a cache says that it is one, the clock of the source may have been set back, which must not last for ever.
        if listing.is_copy or now - self._dates_back_since < UNCONDITIONAL_AFTER:
            raise SourceError(
                f"the list was made {behind:.0f} s before the last one, by its Date and Age: expected a fresh one; "
                "let no cache between here and the hub keep the list"
            )

    def _is_overtaken(self, generation: int) -> bool:
        """Whether another event loop's refresher has applied a list since, or is about to."""
        return self._freshness.is_applying or self._freshness.generation != generation

    async def _apply(self, reading: _Reading, asked_at: float, generation: int) -> RefreshReport:
        freshness, changes = self._freshness, reading.changes
        rejected = reading.diff.rejected_count
        with freshness.lock:
            if freshness.is_superseded(asked_at):
                return RefreshReport("unchanged", rejected=rejected)
            if self._is_overtaken(generation):
                raise _OvertakenError
            freshness.is_applying = True
            self._hold(changes, asked_at)
        report = RefreshReport(
            "unchanged" if changes.is_empty else "changed",
            changes.added_count,
            changes.changed_count,
            changes.removed_count,
            freshness.held,
            rejected,
        )
        await self._change(reading, asked_at, report)
        self._tell(reading.diff, changes)
        return report

    async def _change(self, reading: _Reading, asked_at: float, report: RefreshReport) -> None:
        freshness, changes = self._freshness, reading.changes
        steps = changes.apply()
        began = self._clock()
        freshness.slices = {}  # from now on, their rows are not all as they were
        try:
            for _ in steps:
                if report.outcome == "changed":
                    self._on_change()
                await anyio.lowlevel.checkpoint()
        finally:
            # Even when cancelled, or when the event loop is gone: no list stays half applied.
            for _ in steps:
                pass
            with freshness.lock:
                freshness.is_applying = False
                freshness.supersede(asked_at)
                freshness.dated_at = reading.dated_at
                is_settled = not freshness.held and changes.slots_are_stable
                freshness.validator = None if freshness.held else reading.validator
                freshness.slices = reading.slices if is_settled else {}
                freshness.digest = None if freshness.held else reading.digest
                freshness.kept_since = {row_id: freshness.kept_since.get(row_id, asked_at) for row_id in changes.retained}
                if report.outcome == "changed":
                    freshness.generation += 1
                    self._on_change()
                    self._unsaved_since = asked_at
            self._work += self._clock() - began

    def _hold(self, changes: ChangeSet, asked_at: float) -> None:
        """Do not drop most of the keys at once, unless two more lists lack as many or some time has passed."""
        freshness, missing = self._freshness, changes.removed_count
        freshness.held = 0
        if len(self._index) < HELD_FROM or 2 * missing <= len(self._index):
            freshness.held_since = None
            return
        if freshness.held_since is None:
            freshness.held_since, freshness.held_lists = asked_at, 0
            logger.error(
                "gatekeeper: the list lacks %d of %d widget keys; they stay until two more lists lack as many, or for 60 s",
                missing,
                len(self._index),
            )
        else:
            freshness.held_lists += 1
        if freshness.held_lists >= HELD_LISTS or asked_at - freshness.held_since >= HELD_FOR:
            freshness.held_since = None
            return
        freshness.held = changes.hold_removals()
        freshness.counters["removals_held"] += 1

    def _tell(self, diff: ListDiff, changes: ChangeSet) -> None:
        freshness = self._freshness
        before, freshness.rejected = freshness.rejected, tuple(str(error) for error in diff.rejected)
        freshness.rejected_rows = diff.rejected_count
        freshness.counters["rows_rejected"] += diff.rejected_count
        for reason, count in diff.rejected_reasons.items():
            freshness.counters[f"rows_rejected_{reason}"] += count
        freshness.counters["revocations"] += len(changes.revoked_at)
        freshness.counters["duplicate_ids"] += len(changes.duplicate_ids)
        for problem in freshness.rejected:
            if problem not in before:
                logger.warning("gatekeeper: set aside, its key stays as it was: %s", problem)
        for row_id in sorted(changes.duplicate_ids)[:10]:
            logger.warning("gatekeeper: the list has id %r more than once; a disabled row stands, else the first", row_id)
        ambiguous = self._index.ambiguous()
        for last8 in set(ambiguous).difference(freshness.ambiguous):
            logger.error("gatekeeper: several widget keys end with %s and are refused, for they look alike", mask(last8))
        freshness.ambiguous = ambiguous
        lags = [self._wall_clock() - since for since in map(_seconds, changes.revoked_at) if since is not None]
        if lags:
            freshness.revocation_lag = max(0.0, *lags)

    def _note(self, report: RefreshReport, asked_at: float, *, bug: Exception | None = None) -> None:
        freshness = self._freshness
        freshness.counters[f"refresh_{report.outcome}"] += 1
        if report.outcome == "failed":
            self._failures += 1
            freshness.last_error = report.error
            self._tell_failure(report, bug)
            if freshness.state == "expired":
                self._on_change()
        else:
            if freshness.state in ("never_loaded", "expired"):
                self._on_change()
            self._failures = 0
            freshness.accept(asked_at)
            self._loaded.set()
            self._tell_success()
        self._tell_state()

    def _tell_failure(self, report: RefreshReport, bug: Exception | None) -> None:
        freshness = self._freshness
        freshness.lists_in_a_row = 0
        if freshness.told_error != report.error:
            level = logging.WARNING if bug is None else logging.ERROR
            logger.log(level, "gatekeeper: the list of widget keys stays as it is: %s", report.error, exc_info=bug)
        freshness.told_error = report.error

    def _tell_success(self) -> None:
        freshness = self._freshness
        freshness.lists_in_a_row += 1
        if freshness.told_error is not None and freshness.lists_in_a_row >= SETTLED_AFTER:
            freshness.told_error = None
            logger.info("gatekeeper: the list of widget keys comes again, %d times in a row", freshness.lists_in_a_row)

    def _tell_state(self) -> None:
        """Tell once that the list's state is another."""
        freshness = self._freshness
        before, state, age = freshness.told_state, freshness.state, freshness.age or 0.0
        if state == before:
            return
        freshness.told_state = state
        why = "" if freshness.last_error is None else f"; {freshness.last_error}"
        if state == "fresh":
            freshness.told_error = None
            again = "" if before == "never_loaded" else " again"
            logger.info("gatekeeper: the list of widget keys is fresh%s: %d keys", again, len(self._index))
        elif state == "degraded":
            logger.warning(
                "gatekeeper: the list of widget keys is degraded: it is %.0f s old, and still decides%s", age, why
            )
        elif state == "expired":
            logger.error("gatekeeper: the list of widget keys is expired: it is %.0f s old, and lets no key in%s", age, why)

    async def _restore(self) -> None:
        """Serve what the last process served, until the source gives a list."""
        freshness, snapshot = self._freshness, self._snapshot
        if snapshot is None:
            return
        with freshness.lock:
            if freshness.is_applying or freshness.age is not None:
                return
            freshness.is_applying = True
        try:
            age = await snapshot.load(self._index, max_age=freshness.hard_stale)
        except Exception as error:  # noqa: BLE001 - told with its traceback
            self._note_snapshot_failure(error)
        else:
            if age is not None:
                freshness.restore(age)
                freshness.ambiguous = self._index.ambiguous()
                freshness.generation += 1
                self._on_change()
                self._loaded.set()
                freshness.told_state = freshness.state
                logger.info("gatekeeper: %d widget keys come from the snapshot, %.0f s old", len(self._index), age)
        finally:
            freshness.is_applying = False

    async def _save(self) -> None:
        snapshot, now = self._snapshot, self._clock()
        if snapshot is None or now < self._save_not_before:
            return
        age, saved_at = self._freshness.age, snapshot.saved_at
        if age is None or self._freshness.from_snapshot:
            return
        wall_now = self._wall_clock()
        renew_after = self._freshness.hard_stale / RENEWALS
        is_old = saved_at is None or (renew_after and wall_now - saved_at >= renew_after)
        if self._unsaved_since is None and not is_old:
            return
        self._unsaved_since = None
        try:
            await snapshot.save(self._index, wall_now - age)
        except Exception as error:  # noqa: BLE001 - told with its traceback
            self._unsaved_since = now
            self._save_not_before = now + SNAPSHOT_RETRY
            self._note_snapshot_failure(error)
        else:
            self._freshness.counters["snapshot_saved"] += 1

    def _note_snapshot_failure(self, error: Exception) -> None:
        self._freshness.counters["snapshot_failed"] += 1
        if isinstance(error, SnapshotError):
            logger.warning("gatekeeper: %s", error)
        else:
            logger.error("gatekeeper: the snapshot failed in a way that is a bug", exc_info=error)

    def _delay(self, report: RefreshReport) -> float:
        if report.outcome != "failed":
            interval = max(self._interval, INTERVAL_PER_WORK * self._work)
            return interval * (1 + JITTER * (2 * self._jitter() - 1))
        if report.retry_after is not None:
            least, most = RETRY_AFTER
            return min(max(report.retry_after, least), most)
        first, ceiling = BACKOFF_WITHOUT_LIST if self._lacks_list else BACKOFF
        if report.lasting and not self._lacks_list:
            ceiling = LASTING_FAILURE_CEILING
        return backoff(self._failures, first, ceiling) * self._jitter()

    @property
    def _lacks_list(self) -> bool:
        return self._freshness.age is None or self._freshness.from_snapshot

    def _take_token(self) -> bool:
        now = self._clock()
        period = max(BUCKET_PERIOD, BUCKET_DURATIONS * self._last_duration)
        self._tokens = min(BUCKET, self._tokens + (now - self._tokens_counted_at) / period)
        self._tokens_counted_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    async def _pause(self, seconds: float) -> None:
        """Wait for the next fetch; tell when the list is degraded or expires meanwhile, and then forget what was decided."""
        expires_in = self._freshness.expires_in
        moments = [moment for moment in (self._freshness.degrades_in, expires_in) if moment is not None and moment < seconds]
        began = self._clock()
        for moment in sorted(moments):
            woken = await self._unless_woken(partial(self._wait, moment, began))
            if moment == expires_in:
                self._on_change()
            self._tell_state()
            if woken:
                return
        await self._unless_woken(partial(self._wait, seconds, began))

    async def _wait(self, seconds: float, began: float) -> None:
        """Wait until so many seconds after a moment; they may be over, for the machine may have been suspended."""
        left = seconds - (self._clock() - began)
        if left > 0:
            await self._sleep(left)
            self._freshness.note_lag(self._clock() - (began + seconds))

    async def _unless_woken(self, do: Callable[[], Awaitable[None]], within: float | None = None) -> bool:
        """Do something until a fetch is wanted; whether one is."""
        if not self._next.wanted:
            with anyio.move_on_after(within) as self._pausing:
                await do()
            self._pausing = None
        return self._next.wanted


def backoff(failures: int, first: float, ceiling: float) -> float:
    """The most that the wait after some failures in a row may be, doubling with each.

    Args:
        failures: how many, from 1.
        first: seconds after the first.
        ceiling: seconds that it never exceeds.

    Returns:
        Seconds; full jitter means to wait a random share of them.
    """
    # Beyond 2**32 the ceiling has long been reached, and a float would overflow some day.
    return min(ceiling, first * 2.0 ** min(failures - 1, 32))


async def _run(steps: Generator[None, None, ChangeSet]) -> ChangeSet:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            changes: ChangeSet = end.value
            return changes
        await anyio.lowlevel.checkpoint()


def _require_trustworthy(diff: ListDiff) -> None:
    rejected = diff.rejected_count
    if rejected > MAX_REJECTED_SHARE * diff.count:
        share = f"{rejected} of {diff.count} rows are not widget keys"
        raise InvalidList(f"{share}, so the list is not trusted: {diff.rejected[0]}")


def _seconds(disabled_at: object) -> float | None:
    """What a row says about when its key was revoked, in seconds since 1970; None where that is no time."""
    try:
        at = datetime.fromisoformat(disabled_at) if isinstance(disabled_at, str) else None
    except ValueError:
        return None
    return None if at is None else (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
