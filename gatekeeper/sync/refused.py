"""The report on refused pages."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from gatekeeper.keys.refused_page import RefusedPage
from gatekeeper.sync.reports import Report
from gatekeeper.sync.sources import ReportsRefused

__all__ = ("RefusedName", "refused_report")

BATCH = 1000  # pages: the most that the reference hub takes in one request, 0.8 MB with the longest origins

RefusedName = tuple[str, str | None, str]  # key id, origin, reason


def refused_report(source: ReportsRefused, take: Callable[[], Sequence[RefusedPage]]) -> Report[RefusedName, RefusedPage]:
    """Make the report on refused pages.

    Args:
        source: takes the report.
        take: gives the pages that were refused since it was last called.
    """

    def take_refused() -> dict[RefusedName, RefusedPage]:
        return {(page.key_id, page.origin, page.reason): page for page in take()}

    async def send(pages: Mapping[RefusedName, RefusedPage]) -> None:
        await source.report_refused(tuple(pages.values()))

    # Any client can make up pages, so few of them are kept while the hub is down.
    return Report("refused", "refused pages", send, take_refused, _add, BATCH, most=BATCH, drops_rejected=True)


def _add(old: RefusedPage, new: RefusedPage) -> RefusedPage:
    return msgspec.structs.replace(
        new,
        count=old.count + new.count,
        first_at=min(old.first_at, new.first_at),
        last_at=max(old.last_at, new.last_at),
    )
