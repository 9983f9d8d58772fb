"""RefusedPageStore: the pages that gates have refused with a key."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Delete, Insert, and_, bindparam, case, delete, func, or_, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from gatekeeper.hub.accounts import ALL_ACCOUNTS
from gatekeeper.hub.bodies import ReportedPage
from gatekeeper.hub.database import Database
from gatekeeper.hub.report_queue import ReportQueue
from gatekeeper.hub.store import KEY_ID, UnknownKey
from gatekeeper.hub.tables import refused_pages, widget_keys
from gatekeeper.keys.refused_page import RefusedPage

__all__ = ("RefusedPageStore",)

# The pages that are kept of each key. The most frequent ones stay, however many others come in. The latest of the others
# stay beside them, so that the count of a new page can grow.
FREQUENT: Final = 100
LATEST: Final = 100

# Keys whose pages are cut back or expire by one report, the fullest first. SQLite's other writers wait for it.
MAX_CUT: Final = 100

MAX_TOTAL: Final = 2**63 - 1  # Requests; databases have no larger integers.
KEPT_FOR: Final = timedelta(days=30)  # since the last refusal
MAX_LISTED: Final = 1000  # Pages in an answer, of all keys together.

# Earlier times cannot be right, and not all of them can be converted to UTC.
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)

_Name = tuple[str, str, str]
"""The key, the origin and the reason of a page."""

_COLUMNS: Final = refused_pages.c
_KEY: Final = tuple(refused_pages.primary_key)


class RefusedPageStore:
    """The refused pages of a hub.

    Its methods raise DatabaseDown if the database does not answer, and HubOverloaded if others keep it busy. None locks an
    account or changes the ETag of its list, so revocations do not wait for these writes.

    Args:
        database: the database of the pages and their keys.
        clock: a function that returns the current time in UTC.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._queue = ReportQueue(database, self._write, _merge)

    async def record(self, account: str, pages: Iterable[ReportedPage]) -> None:
        """Record the report of a gate.

        Args:
            account: the account; or ALL_ACCOUNTS, for keys of any.
            pages: the pages that were refused since the last report. Unknown ids of keys are ignored: their keys may have
                been deleted since.
        """
        await self._queue.put(account, _by_name(page for page in pages if KEY_ID.fullmatch(page.key_id)))

    async def close(self) -> None:
        """Wait until all reports are written."""
        await self._queue.close()

    async def list(self, account: str, key_id: str | None = None) -> list[RefusedPage]:
        """List refused pages, the most frequent first.

        Args:
            account: the account.
            key_id: the id of a key, for its pages alone.

        Returns:
            The pages of the last 30 days, at most 1,000.

        Raises:
            UnknownKey: the account does not have this key.
        """
        mine = widget_keys.c.account == account
        if key_id is not None:
            mine = and_(mine, widget_keys.c.id == key_id)
        listed = (
            select(*(_COLUMNS[field] for field in RefusedPage.__struct_fields__))
            .join(widget_keys)
            .where(mine, _COLUMNS.last_at >= self._clock() - KEPT_FOR)
            .order_by(_COLUMNS.count.desc(), _COLUMNS.last_at.desc(), *_KEY)
            .limit(MAX_LISTED)
        )

        def read(connection: Connection) -> list[RefusedPage]:
            if key_id is not None and (
                not KEY_ID.fullmatch(key_id) or connection.scalar(select(widget_keys.c.id).where(mine)) is None
            ):
                raise UnknownKey(key_id)
            return [RefusedPage(key, origin or None, *others) for key, origin, *others in connection.execute(listed)]

        return await self._database.read(read, account)

    def _write(self, connection: Connection, pages: Mapping[tuple[str, _Name], ReportedPage]) -> None:
        known = _lock_keys(connection, {(account, page.key_id) for (account, _), page in pages.items()})
        now = self._clock()
        # A report on one account and one on all accounts may have the same page.
        reported = _by_name(page for (account, _), page in pages.items() if (account, page.key_id) in known)
        rows = [_row(page, now) for page in reported.values()]
        if not rows:
            return
        # Transactions that lock rows in the same order do not deadlock.
        connection.execute(_add(connection.dialect.name), sorted(rows, key=itemgetter("key_id", "origin", "reason")))
        expiry = now - KEPT_FOR
        if overfull := _find_overfull(connection, {key_id for _, key_id in known}, expiry):
            connection.execute(_cut(expiry), [{"overfull": key_id} for key_id in overfull])


def _lock_keys(connection: Connection, named: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Find keys, and keep them from being deleted meanwhile.

    This lock excludes deletions only. SQLite ignores it: it has one writer at a time anyway.

    Returns:
        Those of these accounts and ids that there are. ALL_ACCOUNTS has the keys of every account.
    """
    accounts, ids = {account for account, _ in named}, {key_id for _, key_id in named}
    of_any = {key_id for account, key_id in named if account == ALL_ACCOUNTS}
    is_theirs = or_(widget_keys.c.account.in_(accounts), widget_keys.c.id.in_(of_any))
    keys = select(widget_keys.c.account, widget_keys.c.id).where(widget_keys.c.id.in_(ids), is_theirs)
    found = connection.execute(keys.order_by(widget_keys.c.id).with_for_update(read=True, key_share=True))
    return named & {pair for account, key_id in found for pair in ((account, key_id), (ALL_ACCOUNTS, key_id))}


def _by_name(pages: Iterable[ReportedPage]) -> dict[_Name, ReportedPage]:
    named: dict[_Name, ReportedPage] = {}
    for page in pages:
        name = page.key_id, page.origin or "", page.reason
        named[name] = page if name not in named else _merge(named[name], page)
    return named


def _merge(one: ReportedPage, other: ReportedPage) -> ReportedPage:
    first_at, last_at = min(one.first_at, other.first_at), max(one.last_at, other.last_at)
    return msgspec.structs.replace(other, count=one.count + other.count, first_at=first_at, last_at=last_at)


def _row(page: ReportedPage, now: datetime) -> dict[str, Any]:
    first_at, last_at = (min(max(at, _EARLIEST), now) for at in (page.first_at, page.last_at))
    return msgspec.structs.asdict(page) | {"origin": page.origin or "", "first_at": first_at, "last_at": last_at}


def _add(dialect: str) -> Insert:
    """The statement that adds a row to the one with the same key."""
    insert = sqlite.insert(refused_pages) if dialect == "sqlite" else postgresql.insert(refused_pages)
    held, reported = _COLUMNS, insert.excluded
    merged = {
        "count": case((held.count > MAX_TOTAL - reported.count, MAX_TOTAL), else_=held.count + reported.count),
        "first_at": case((reported.first_at < held.first_at, reported.first_at), else_=held.first_at),
        "last_at": case((reported.last_at > held.last_at, reported.last_at), else_=held.last_at),
        "entry": reported.entry,
    }
    return insert.on_conflict_do_update(index_elements=_KEY, set_=merged)


def _find_overfull(connection: Connection, ids: set[str], expiry: datetime) -> list[str]:
    """Find those of these keys that have too many pages or expired ones, the fullest first."""
    pages = func.count()
    counted = select(_COLUMNS.key_id).where(_COLUMNS.key_id.in_(ids)).group_by(_COLUMNS.key_id)
    is_overfull = or_(pages > FREQUENT + LATEST, func.min(_COLUMNS.last_at) < expiry)
    overfull = counted.having(is_overfull).order_by(pages.desc(), _COLUMNS.key_id).limit(MAX_CUT)
    return list(connection.scalars(overfull))


def _cut(expiry: datetime) -> Delete:
    """The statement that deletes the pages of a key that are not kept."""
    held, mine = _COLUMNS, _COLUMNS.key_id == bindparam("overfull")
    by_count = func.row_number().over(order_by=(held.count.desc(), held.last_at.desc(), *_KEY)).label("by_count")
    fresh = select(held.origin, held.reason, held.last_at, by_count).where(mine, held.last_at >= expiry).subquery().c
    is_rare = case((fresh.by_count <= FREQUENT, 0), else_=1)
    kept = select(fresh.origin, fresh.reason).order_by(is_rare, fresh.last_at.desc(), fresh.by_count)
    kept = kept.limit(FREQUENT + LATEST)
    page = tuple_(held.origin, held.reason)
    # Another report may hold locks on pages, in another order. Those are left to a later report.
    others = select(held.origin, held.reason).where(mine, page.not_in(kept)).with_for_update(skip_locked=True)
    return delete(refused_pages).where(mine, page.in_(others))
