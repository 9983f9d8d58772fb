"""Refresher: keeps an index as fresh as its source, and says how fresh that is.

States. A list is `never_loaded` until the first one was accepted, then `fresh`. It is `degraded` once the last accepted
list is older than `soft_stale` seconds: every decision still stands. It is `expired` once that list is older than
`hard_stale` seconds: no key is trusted any more. Whichever list is accepted next makes it fresh again.

Rules.
- One loop makes every fetch, so two never overlap. Whoever wants a fresher list wakes the loop and waits for the fetch
  that begins next; a hundred who wait at once wait for the same one.
- After a list, the next fetch comes after `interval` ± 20 %, so that processes that start together drift apart. After a
  failure it comes after a full-jittered backoff, 0.25 to 2 s while there is no list and 1 to 30 s with one, 60 s where only
  a person can help (401, 403, 404), or when the other side asked for (Retry-After, 1 to 300 s). One success ends that.
- A failure changes no decision: the last accepted list stays, with its age, which runs from the moment it was asked for.
- A list that the source calls unchanged, or whose bytes are those of the last one, is accepted without being read.
- Any other list is read row by row, with a pause for the event loop in between, and only when it is complete and more than
  80 % of its rows are good is its difference to the index applied. A row that cannot be read leaves its key as it is.
- Nothing but cancellation ends the loop.
"""

import hashlib
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from threading import Lock
from typing import Literal

import anyio
import anyio.lowlevel
import msgspec

from gatekeeper.client import Listing
from gatekeeper.errors import HubError, InvalidList, InvalidRow, SourceError
from gatekeeper.index import Difference, KeyIndex
from gatekeeper.keys import mask
from gatekeeper.rows import RowReader
from gatekeeper.sources import Fetch, Source

__all__ = ("Clock", "Freshness", "RefreshReport", "Refresher", "State", "Status", "boot_clock")

JITTER = 0.2
BACKOFF = (1.0, 30.0)
BACKOFF_WITHOUT_LIST = (0.25, 2.0)
LASTING_FAILURE_CEILING = 60.0
RETRY_AFTER = (1.0, 300.0)
MAX_REJECTED_SHARE = 0.2
BUCKET = 3  # fetches that unknown keys can cause at once
BUCKET_PERIOD = 5.0  # seconds until they can cause one more, or
BUCKET_DURATIONS = 5  # as many times the duration of the last fetch, whichever is longer
SLICE = 256  # rows read before the event loop gets its turn: about 1 ms of work

Clock = Callable[[], float]
State = Literal["never_loaded", "fresh", "degraded", "expired"]

logger = logging.getLogger("gatekeeper")


def boot_clock() -> float:
    """Seconds that never run backwards and count a suspended machine's sleep, where the system has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class RefreshReport(msgspec.Struct, frozen=True):
    """What one fetch of the list came to.

    Attributes:
        outcome: "changed", "unchanged" or "failed".
        added, changed, removed: how many keys the list brought, altered and dropped.
        rejected: how many of its rows could not be read.
        duration: seconds that it took.
        error: why it failed, as a sentence without secrets.
        retry_after: seconds after which the source wants to be asked again, where it said so.
        lasting: whether only a person can mend the failure.
    """

    outcome: Literal["changed", "unchanged", "failed"]
    added: int = 0
    changed: int = 0
    removed: int = 0
    rejected: int = 0
    duration: float = 0.0
    error: str | None = None
    retry_after: float | None = None
    lasting: bool = False


class Status(msgspec.Struct, frozen=True):
    """How fresh the gate's list is.

    Attributes:
        state: never_loaded, fresh, degraded or expired.
        age: seconds since the last accepted list was asked for; None before the first.
        keys: how many keys there are.
        generation: how many lists have changed something.
        etag: what the source calls the list, where it does.
        last_error: why the last fetch failed, as a sentence; None if it did not.
        ambiguous: the last 8 characters of keys that cannot be told apart and are refused.
        rejected: what is wrong with the rows of the last list that could not be read, at most 10 of them.
        counters: refreshes by outcome, rows rejected, ids that came twice, since the start.
    """

    state: State
    age: float | None
    keys: int
    generation: int
    etag: str | None
    last_error: str | None
    ambiguous: tuple[str, ...]
    rejected: tuple[str, ...]
    counters: dict[str, int]


class Freshness:
    """How fresh a list is, whoever fetches it.

    Args:
        soft_stale: seconds after which the list is degraded.
        hard_stale: seconds after which it is expired; 0 for never.
        clock: seconds; see `boot_clock`.
    """

    def __init__(self, *, soft_stale: float, hard_stale: float, clock: Clock) -> None:
        self._soft_stale = soft_stale
        self._hard_stale = hard_stale
        self._clock = clock
        self._accepted_at: float | None = None
        self.lock = Lock()
        self.generation = 0
        self.validator: str | None = None
        self.digest: bytes | None = None
        self.last_error: str | None = None
        self.ambiguous: tuple[str, ...] = ()
        self.rejected: tuple[str, ...] = ()
        self.counters: Counter[str] = Counter()

    @property
    def age(self) -> float | None:
        """Seconds since the last accepted list was asked for; None before the first."""
        return None if self._accepted_at is None else max(0.0, self._clock() - self._accepted_at)

    @property
    def state(self) -> State:
        """How fresh the list is now."""
        age = self.age
        if age is None:
            return "never_loaded"
        if self._hard_stale and age >= self._hard_stale:
            return "expired"
        return "degraded" if age > self._soft_stale else "fresh"

    @property
    def expires_in(self) -> float | None:
        """Seconds until the list expires; None if it never will, or already has."""
        age = self.age
        if age is None or not self._hard_stale or age >= self._hard_stale:
            return None
        return self._hard_stale - age

    def pin(self, ambiguous: tuple[str, ...]) -> None:
        """Note that there is a list, and that it is always fresh because it never changes.

        Args:
            ambiguous: as in `Status`.
        """
        self._soft_stale = self._hard_stale = math.inf
        self.ambiguous = ambiguous
        self.accept(self._clock())

    def is_superseded(self, asked_at: float) -> bool:
        """Whether a list that was asked for later has been accepted already, by the refresher of another event loop.

        Args:
            asked_at: when the list at hand was asked for, by the clock.
        """
        return self._accepted_at is not None and asked_at < self._accepted_at

    def accept(self, asked_at: float) -> None:
        """Note that a list was accepted.

        Args:
            asked_at: when it was asked for, by the clock.
        """
        self.supersede(asked_at)
        self.last_error = None

    def supersede(self, asked_at: float) -> None:
        """Let no list that was asked for earlier be applied from now on.

        Args:
            asked_at: when the list at hand was asked for, by the clock.
        """
        if not self.is_superseded(asked_at):
            self._accepted_at = asked_at


class _Round:
    """One fetch, and those who wait for it."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.report = RefreshReport("failed", error="the refresher was stopped")
        self.wanted = False

    def finish(self, report: RefreshReport) -> None:
        self.report = report
        self.done.set()


class Refresher:
    """Keeps an index fresh, in one event loop.

    Args:
        source: where the list comes from.
        index: what it is applied to.
        freshness: where the outcome is noted.
        on_change: called after decisions may have changed.
        interval: seconds between two fetches, ± 20 %.
        timeout: seconds that one fetch may take in all.
        clock: seconds; see `boot_clock`.
        sleep: waits for seconds.
        jitter: gives a number from 0 to 1.
    """

    def __init__(
        self,
        source: Source,
        index: KeyIndex,
        freshness: Freshness,
        on_change: Callable[[], None],
        *,
        interval: float,
        timeout: float,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self._source = source
        self._index = index
        self._freshness = freshness
        self._on_change = on_change
        self._interval = interval
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._reader = RowReader(source.suffix_field)
        self._current = self._next = _Round()
        self._pausing: anyio.CancelScope | None = None
        self._loaded = anyio.Event()
        self._failures = 0
        self._last_duration = 0.0
        self._tokens = float(BUCKET)
        self._tokens_counted_at = self._made_at = clock()

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

    async def refresh_for_stranger(self, wait: float) -> None:
        """Fetch the list once more because of what a stranger sent, unless strangers have caused too many fetches.

        Args:
            wait: seconds to wait at most.
        """
        if self._next.wanted or self._take_token():
            with anyio.move_on_after(wait):
                await self.refresh()

    async def first_list(self, within: float) -> None:
        """Wait until a list was accepted.

        Args:
            within: seconds after the refresher was made that this takes at most.
        """
        with anyio.move_on_after(self._made_at + within - self._clock()):
            await self._loaded.wait()

    async def run(self) -> None:
        """Fetch the list, again and again, until cancelled."""
        try:
            while True:
                try:
                    async with self._source.connect() as fetch:
                        while True:
                            await self._round(fetch)
                except Exception as error:
                    logger.exception("gatekeeper: the source of the list of widget keys could not be opened")
                    report = RefreshReport(
                        "failed", error=f"the source could not be opened: {type(error).__name__}: {error}"
                    )
                    self._note(report, self._clock())
                    self._begin().finish(report)
                    await self._pause(self._delay(report))
        finally:
            self._current.done.set()
            self._next.done.set()

    async def _round(self, fetch: Fetch) -> None:
        current = self._begin()
        report = await self._once(fetch)
        current.finish(report)
        await self._pause(self._delay(report))

    def _begin(self) -> _Round:
        self._current, self._next = self._next, _Round()
        return self._current

    async def _once(self, fetch: Fetch) -> RefreshReport:
        asked_at = self._clock()
        try:
            with anyio.fail_after(self._timeout):
                listing = await fetch(self._freshness.validator)
                report = await self._accept(listing, asked_at)
        except TimeoutError:
            report = RefreshReport("failed", error=f"the list did not come within {self._timeout:g} s")
        except SourceError as error:
            report = RefreshReport("failed", error=str(error), retry_after=error.retry_after, lasting=error.lasting)
            if isinstance(error, HubError) and error.status == HTTPStatus.NOT_MODIFIED:
                self._freshness.validator = None  # it was about another list, so the next answer has to bring one
        except Exception as error:
            logger.exception("gatekeeper: refreshing the list of widget keys failed in a way that is a bug")
            report = RefreshReport("failed", error=f"{type(error).__name__}: {error}")
        self._last_duration = self._clock() - asked_at
        self._note(report, asked_at)
        return msgspec.structs.replace(report, duration=self._last_duration)

    async def _accept(self, listing: Listing | None, asked_at: float) -> RefreshReport:
        freshness = self._freshness
        if listing is None:
            if freshness.age is None:
                raise SourceError("the source says that nothing has changed, and has not given a list yet")
            return RefreshReport("unchanged")
        digest = hashlib.blake2b(listing.body).digest()
        if digest == freshness.digest:
            freshness.validator = listing.validator
            return RefreshReport("unchanged")
        while True:
            generation = freshness.generation
            difference, rejected = await self._read(listing.body)
            with freshness.lock:
                if freshness.is_superseded(asked_at):
                    return RefreshReport("unchanged")
                # What the refresher of another event loop has applied meanwhile makes it another difference.
                if generation == freshness.generation:
                    report = self._apply(difference, len(rejected))
                    ambiguous = self._index.ambiguous()
                    # Here, so that no other refresher sees the new rows beside what was known of the old list.
                    freshness.digest, freshness.validator = digest, listing.validator
                    freshness.supersede(asked_at)
                    break
        self._tell(difference, rejected, ambiguous)
        return report

    def _apply(self, difference: Difference, rejected: int) -> RefreshReport:
        removed, put, added = len(difference.removed), len(difference.put), difference.added
        if not put and not removed:
            return RefreshReport("unchanged", rejected=rejected)
        self._index.apply(difference)
        self._freshness.generation += 1
        self._on_change()
        return RefreshReport("changed", added, put - added, removed, rejected)

    async def _read(self, body: bytes) -> tuple[Difference, list[InvalidRow]]:
        difference = Difference(self._index)
        rejected: list[InvalidRow] = []
        rows = self._reader.split(body)
        for number, raw in enumerate(rows):
            try:
                difference.see(self._reader.read(number, raw))
            except InvalidRow as error:
                rejected.append(error)
                if error.row_id is not None:
                    difference.keep(error.row_id, error.disabled_at)
            if number % SLICE == SLICE - 1:
                await anyio.lowlevel.checkpoint()
        if len(rejected) > MAX_REJECTED_SHARE * len(rows):
            problem = f"{len(rejected)} of {len(rows)} rows are not widget keys, so the list is not trusted: {rejected[0]}"
            raise InvalidList(problem)
        return difference, rejected

    def _tell(self, difference: Difference, rejected: list[InvalidRow], ambiguous: tuple[str, ...]) -> None:
        freshness = self._freshness
        freshness.rejected = tuple(str(error) for error in rejected[:10])
        freshness.counters["rows_rejected"] += len(rejected)
        freshness.counters["duplicate_ids"] += len(difference.duplicate_ids)
        for problem in freshness.rejected:
            logger.warning("gatekeeper: set aside, its key stays as it was: %s", problem)
        for row_id in sorted(difference.duplicate_ids)[:10]:
            logger.warning("gatekeeper: the list has id %r more than once; a disabled row stands, else the first", row_id)
        for last8 in set(ambiguous).difference(freshness.ambiguous):
            logger.error("gatekeeper: several widget keys end with %s and are refused, for they look alike", mask(last8))
        freshness.ambiguous = ambiguous

    def _note(self, report: RefreshReport, asked_at: float) -> None:
        freshness = self._freshness
        freshness.counters[f"refresh_{report.outcome}"] += 1
        if report.outcome == "failed":
            self._failures += 1
            if freshness.last_error != report.error:
                logger.warning("gatekeeper: the list of widget keys stays as it is: %s", report.error)
            freshness.last_error = report.error
            if freshness.state == "expired":
                self._on_change()
            return
        if freshness.last_error is not None:
            logger.info("gatekeeper: the list of widget keys is fresh again")
        if freshness.state in ("never_loaded", "expired"):
            self._on_change()
        self._failures = 0
        freshness.accept(asked_at)
        self._loaded.set()

    def _delay(self, report: RefreshReport) -> float:
        if report.outcome != "failed":
            return self._interval * (1 + JITTER * (2 * self._jitter() - 1))
        if report.retry_after is not None:
            least, most = RETRY_AFTER
            return min(max(report.retry_after, least), most)
        first, ceiling = BACKOFF_WITHOUT_LIST if self._freshness.age is None else BACKOFF
        if report.lasting and self._freshness.age is not None:
            ceiling = LASTING_FAILURE_CEILING
        return backoff(self._failures, first, ceiling) * self._jitter()

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
        """Wait for the next fetch; forget what was decided at the moment the list expires meanwhile."""
        expires_in = self._freshness.expires_in
        if expires_in is not None and expires_in < seconds:
            seconds -= expires_in
            woken = await self._sleep_unless_woken(expires_in)
            self._on_change()
            if woken:
                return
        await self._sleep_unless_woken(seconds)

    async def _sleep_unless_woken(self, seconds: float) -> bool:
        if not self._next.wanted:
            with anyio.CancelScope() as self._pausing:
                await self._sleep(seconds)
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
