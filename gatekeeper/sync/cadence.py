"""Cadence, WholeLists, UnknownKeyBudget: when to fetch the list. Pure: no IO, no waits."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gatekeeper.sync.clock import Clock
from gatekeeper.sync.status import RefreshReport

__all__ = ("UNCONDITIONAL_AFTER", "Cadence", "UnknownKeyBudget", "WholeLists", "backoff")

JITTER = 0.2
BACKOFF = (1.0, 30.0)  # seconds: the first wait after a failure, and the longest
BACKOFF_WITHOUT_LIST = (0.25, 2.0)  # seconds
LASTING_FAILURE_CEILING = 60.0  # seconds
RETRY_AFTER = (1.0, 300.0)  # seconds: the least and the most that a source can ask for
INTERVAL_PER_WORK = 5  # seconds between two fetches for every second that it takes to read and apply a list
UNCONDITIONAL_AFTER = 600.0  # seconds between two lists that are asked for without a validator, or
UNCONDITIONAL_WORKS = 200  # as many times what it took to read one, whichever is longer
UNCONDITIONAL_AFTER_LIVE = 21_600.0  # seconds ± 20 % between two of them where the list is live
BUCKET = 3  # fetches that unknown keys can cause in a row
BUCKET_PERIOD = 5.0  # seconds until they can cause one more, or
BUCKET_DURATIONS = 5  # as many times the duration of the last fetch, whichever is longer
# Requests that wait for a token at a time. Each takes 7 KB (tracemalloc), and a flood would hold thousands. It would also
# hold all connections of a proxy that has few.
MOST_AWAITING = 10


class Cadence:
    """Decides how long to wait between two fetches.

    Args:
        interval: seconds between two fetches, ± 20 %, so that processes that start together drift apart.
        jitter: gives a number from 0 to 1.
    """

    def __init__(self, interval: float, jitter: Callable[[], float]) -> None:
        self._interval = interval
        self._jitter = jitter

    def delay(self, report: RefreshReport, *, failures: int, work: float, has_live_list: bool) -> float:
        """Seconds from the end of a fetch to the next one.

        Args:
            report: the outcome of the fetch.
            failures: how many fetches in a row have failed.
            work: seconds that it took to read and apply the last list.
            has_live_list: whether there is a list that came from the source.
        """
        if report.outcome != "failed":
            interval = max(self._interval, INTERVAL_PER_WORK * work)
            return interval * (1 + JITTER * (2 * self._jitter() - 1))
        if report.retry_after is not None:
            least, most = RETRY_AFTER
            return min(max(report.retry_after, least), most)
        first, ceiling = BACKOFF if has_live_list else BACKOFF_WITHOUT_LIST
        if report.lasting and has_live_list:
            ceiling = LASTING_FAILURE_CEILING
        return backoff(failures, first, ceiling) * self._jitter()

    def live_delay(self, work: float, *, held: float | None) -> float:
        """Seconds from a fetch to the next one that may wait.

        Args:
            work: seconds that it took to read and apply what the fetch brought, so that a busy hub does not fill a process.
            held: seconds for which the hub has held its answer, in which the process had as long a rest; None if it could
                not. The first list says nothing of how often it changes.
        """
        return 0.0 if held is None else max(0.0, INTERVAL_PER_WORK * work - held)

    def parted_delay(self) -> float:
        """Seconds from the last answer of a source that stops."""
        return backoff(1, *BACKOFF) * self._jitter()

    def refused_delay(self, failures: int) -> float:
        """Seconds from a connection that a live source refuses to the next.

        Its gates were all told at once that the hub has gone, so they come back over one interval.

        Args:
            failures: how many fetches in a row have failed.
        """
        return max(min(self._interval, LASTING_FAILURE_CEILING), backoff(failures, *BACKOFF)) * self._jitter()

    def misfit_delay(self, read_ago: float) -> float:
        """Seconds until the whole list may follow changes that do not fit.

        Args:
            read_ago: seconds since the last whole list was read. One in an interval is enough.
        """
        return max(0.0, self._interval - read_ago)


class WholeLists:
    """Decides when the whole list is asked for without its validator.

    A validator may be stuck, and changes may have been missed. The refreshers of all event loops share it.

    Args:
        clock: seconds; see `boot_clock`.
        jitter: gives a number from 0 to 1.
    """

    def __init__(self, clock: Clock, jitter: Callable[[], float]) -> None:
        self._clock = clock
        self._jitter = jitter
        self.note(0.0)
        self._has_read = False

    @property
    def read_ago(self) -> float:
        """Seconds since the last whole list was read; infinite before the first."""
        return self._clock() - self._read_at if self._has_read else math.inf

    def note(self, work: float) -> None:
        """Note that a whole list was read.

        Args:
            work: seconds that it took.
        """
        self._has_read = True
        self._read_at = self._clock()
        self._after = max(UNCONDITIONAL_AFTER, UNCONDITIONAL_WORKS * work)
        self._after_live = UNCONDITIONAL_AFTER_LIVE * (1 + JITTER * (2 * self._jitter() - 1))

    def is_due(self, *, is_live: bool) -> bool:
        """Whether the next list is asked for without its validator.

        Args:
            is_live: whether the source tells of each change.
        """
        return self._clock() - self._read_at >= (self._after_live if is_live else self._after)


class UnknownKeyBudget:
    """Bounds the fetches that unknown keys cause: a token bucket.

    Args:
        clock: seconds; see `boot_clock`.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens = float(BUCKET)
        self._counted_at = clock()
        self._awaiting = 0

    @property
    def is_awaited(self) -> bool:
        """Whether so many requests wait for a token that no other should."""
        return self._awaiting >= MOST_AWAITING

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Count a request that waits for a token."""
        self._awaiting += 1
        try:
            yield
        finally:
            self._awaiting -= 1

    def take(self, last_duration: float) -> bool:
        """Take a token for one fetch.

        Args:
            last_duration: seconds that the last fetch took; a slow hub is asked less often.

        Returns:
            Whether there was one.
        """
        self._refill(last_duration)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def ready_in(self, last_duration: float) -> float:
        """Seconds until there is a token."""
        period = self._refill(last_duration)
        return max(0.0, (1 - self._tokens) * period)

    def _refill(self, last_duration: float) -> float:
        """Add tokens, and return the seconds that one takes."""
        now = self._clock()
        period = max(BUCKET_PERIOD, BUCKET_DURATIONS * last_duration)
        self._tokens = min(BUCKET, self._tokens + (now - self._counted_at) / period)
        self._counted_at = now
        return period


def backoff(failures: int, first: float, ceiling: float) -> float:
    """The longest wait after some failures in a row, doubling with each.

    Args:
        failures: how many, from 1.
        first: seconds after the first.
        ceiling: seconds that it never exceeds.

    Returns:
        Seconds; full jitter waits a random share of them.
    """
    # Beyond 2**32 the ceiling has long been reached, and a float would overflow in the end.
    return min(ceiling, first * 2.0 ** min(failures - 1, 32))
