"""UsageWriter: the use of widget keys that gates report."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from operator import itemgetter
from typing import Final

from sqlalchemy import BindParameter, Connection, String, bindparam, case, or_, update

from gatekeeper.hub.accounts import ALL_ACCOUNTS
from gatekeeper.hub.bodies import KeyUse
from gatekeeper.hub.database import Database
from gatekeeper.hub.report_queue import ReportQueue
from gatekeeper.hub.store import KEY_ID
from gatekeeper.hub.tables import UtcDateTime, widget_keys

__all__ = ("UsageWriter",)

# Earlier times of use cannot be right, and not all of them can be converted to UTC.
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)

_KNOWN: Final = widget_keys.c.last_used_at
_REPORTED: Final = bindparam("used_at", type_=UtcDateTime)
_ACCOUNT: Final[BindParameter[str]] = bindparam("used_account", type_=String)
_ADD_USE: Final = (
    update(widget_keys)
    # Databases look for the id, which is unique, also where the account is any.
    .where(widget_keys.c.id == bindparam("used_id"), or_(widget_keys.c.account == _ACCOUNT, _ACCOUNT == ALL_ACCOUNTS))
    .values(
        use_count=widget_keys.c.use_count + bindparam("used_count"),
        last_used_at=case((or_(_KNOWN.is_(None), _KNOWN < _REPORTED), _REPORTED), else_=_KNOWN),
    )
)


class UsageWriter:
    """The writer of use.

    Use is no change of the list: the ETag stays, so that gates do not fetch the whole list after each report. No account is
    locked, so that changes of keys do not wait for it.

    Args:
        database: the database of the keys.
        clock: a function that returns the current time in UTC.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._queue = ReportQueue(database, self._write, _merge)

    async def record(self, account: str, uses: Mapping[str, KeyUse]) -> None:
        """Record the report of a gate.

        Args:
            account: the account; or ALL_ACCOUNTS, for keys of any.
            uses: the reported use by key id. Unknown ids are ignored: their keys may have been deleted since.

        Raises:
            DatabaseDown: the database does not answer.
            HubOverloaded: too many reports wait, or this one has waited too long.
        """
        await self._queue.put(account, {key_id: use for key_id, use in uses.items() if KEY_ID.fullmatch(key_id)})

    async def close(self) -> None:
        """Wait until all reports are written."""
        await self._queue.close()

    def _write(self, connection: Connection, uses: Mapping[tuple[str, str], KeyUse]) -> None:
        now = self._clock()
        rows = [
            {
                "used_account": account,
                "used_id": key_id,
                "used_count": use.count,
                "used_at": min(max(use.last_used_at, _EARLIEST), now),
            }
            for (account, key_id), use in uses.items()
        ]
        # Transactions of several workers that lock rows in the same order do not deadlock.
        connection.execute(_ADD_USE, sorted(rows, key=itemgetter("used_id")))


def _merge(one: KeyUse, other: KeyUse) -> KeyUse:
    return KeyUse(one.count + other.count, max(one.last_used_at, other.last_used_at))
