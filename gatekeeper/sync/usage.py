"""UsageReporter: reports used keys to the hub in the background."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice

from gatekeeper.client import KeyUsage
from gatekeeper.errors import HubError, SourceError
from gatekeeper.sync.clock import Clock

__all__ = ("Report", "UsageReporter")

Report = Callable[[Mapping[str, KeyUsage]], Awaitable[None]]

# Keys in one report: at about 100 bytes each, half of the 1 MB that the reference hub takes in one request.
BATCH = 5000
_NO_SUCH_ENDPOINT = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)

logger = logging.getLogger("gatekeeper")


class UsageReporter:
    """Reports used keys in batches, each key once in a batch.

    Args:
        report: sends a batch; raises SourceError.
        take: gives the allowed requests by key id since it was last called.
        interval: seconds between two reports, at least.
        clock: seconds; see `boot_clock`.
        wall_clock: seconds since 1970.
        counters: counts of batches.
    """

    def __init__(
        self,
        report: Report,
        take: Callable[[], Counter[str]],
        *,
        interval: float,
        clock: Clock,
        wall_clock: Clock,
        counters: Counter[str],
    ) -> None:
        self._report = report
        self._take = take
        self._interval = interval
        self._clock = clock
        self._wall_clock = wall_clock
        self._counters = counters
        self._kept: dict[str, KeyUsage] = {}
        self._is_wanted = True
        self._last_at = clock()

    async def report_if_due(self) -> None:
        """Report if the interval has passed."""
        if self._clock() - self._last_at >= self._interval:
            await self.report()

    async def report(self) -> None:
        """Report the keys used since the last report."""
        self._last_at = self._clock()
        used = self._take()
        if not self._is_wanted:
            return
        kept = self._kept
        unreported = dict(kept)
        kept.clear()
        now = datetime.fromtimestamp(self._wall_clock(), UTC)
        _add(unreported, {row_id: KeyUsage(count, now) for row_id, count in used.items()})
        try:
            while batch := dict(islice(unreported.items(), BATCH)):
                await self._report(batch)
                self._counters["usage_reported"] += 1
                for row_id in batch:
                    del unreported[row_id]
        except Exception as error:
            self._counters["usage_failed"] += 1
            if isinstance(error, HubError) and error.status in _NO_SUCH_ENDPOINT:
                self._is_wanted = False
                unreported.clear()
                logger.info("gatekeeper: the hub takes no reports on used keys, so none are sent")
            else:
                bug = None if isinstance(error, SourceError) else error
                logger.debug("gatekeeper: used keys could not be reported: %s", error, exc_info=bug)
        finally:
            # Rather count a use twice than lose it: an owner may delete a key that looks unused.
            _add(kept, unreported)

    def forget(self) -> None:
        """Drop unreported uses, because the parent process reports them."""
        self._kept = {}


def _add(usage: dict[str, KeyUsage], more: Mapping[str, KeyUsage]) -> None:
    for row_id, new in more.items():
        old = usage.get(row_id)
        if old is None:
            usage[row_id] = new
        else:
            usage[row_id] = KeyUsage(old.count + new.count, max(old.last_used_at, new.last_used_at))
