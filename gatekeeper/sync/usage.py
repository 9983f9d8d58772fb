"""The report on used keys."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from gatekeeper.client import KeyUsage
from gatekeeper.sync.clock import Clock
from gatekeeper.sync.reports import Report
from gatekeeper.sync.sources import ReportsUsage

__all__ = ("usage_report",)

# Keys in one report: at about 100 bytes each, half of the 1 MB that the reference hub takes in one request.
BATCH = 5000


def usage_report(source: ReportsUsage, take: Callable[[], Counter[str]], wall_clock: Clock) -> Report[str, KeyUsage]:
    """Make the report on used keys.

    Args:
        source: takes the report.
        take: gives the allowed requests by key id since it was last called.
        wall_clock: seconds since 1970.
    """

    def take_usage() -> dict[str, KeyUsage]:
        now = datetime.fromtimestamp(wall_clock(), UTC)
        return {row_id: KeyUsage(count, now) for row_id, count in take().items()}

    return Report("usage", "used keys", source.report_usage, take_usage, _add, BATCH)


def _add(old: KeyUsage, new: KeyUsage) -> KeyUsage:
    return KeyUsage(old.count + new.count, max(old.last_used_at, new.last_used_at))
