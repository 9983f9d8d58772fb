"""UsageReporter: tells the hub which keys were used, now and then and never while a request waits."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice

from gatekeeper.client import KeyUsage
from gatekeeper.errors import HubError
from gatekeeper.freshness import Clock

__all__ = ("Report", "UsageReporter")

Report = Callable[[Mapping[str, KeyUsage]], Awaitable[None]]

# Keys in one report: at about 100 bytes each, half of the 1 MB that the reference hub takes in one request.
BATCH = 5000
_NO_SUCH_ENDPOINT = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)

logger = logging.getLogger("gatekeeper")


class UsageReporter:
    """Reports which keys were used, in batches, each key once in a batch.

    Args:
        report: sends a batch; raises HubError.
        take: gives the allowed requests by key id since it was last called.
        interval: seconds between two batches, at least.
        clock: seconds; see `boot_clock`.
        wall_clock: seconds since 1970.
        counters: where batches are counted.
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
        self._unreported: Counter[str] = Counter()
        self._is_wanted = True
        self._last_at = clock()

    async def report_if_due(self) -> None:
        """Report, if the last batch was long enough ago."""
        if self._clock() - self._last_at >= self._interval:
            await self.report()

    async def report(self) -> None:
        """Report what was used since the last batch, if the hub wants to know and anything was."""
        self._last_at = self._clock()
        self._unreported.update(self._take())
        if not self._is_wanted:
            self._unreported.clear()
        last_used_at = datetime.fromtimestamp(self._wall_clock(), UTC)
        while batch := dict(islice(self._unreported.items(), BATCH)):
            for row_id in batch:
                del self._unreported[row_id]
            if not await self._is_taken(batch, last_used_at):
                return

    async def _is_taken(self, batch: dict[str, int], last_used_at: datetime) -> bool:
        try:
            await self._report({row_id: KeyUsage(count, last_used_at) for row_id, count in batch.items()})
        except HubError as error:
            self._counters["usage_failed"] += 1
            if error.status in _NO_SUCH_ENDPOINT:
                self._is_wanted = False
                self._unreported.clear()
                logger.info("gatekeeper: the hub takes no reports on which keys are used, so none are sent")
                return False
            # To count twice what the hub may have taken is better than to lose it: a key that nobody uses can be deleted.
            self._unreported.update(batch)
            logger.debug("gatekeeper: the keys that were used could not be reported: %s", error)
            return False
        self._counters["usage_reported"] += 1
        return True
