"""GateStore: the gates of every account, as they have reported themselves."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import Insert, and_, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gatekeeper.hub.bodies import ReportedGate
from gatekeeper.hub.database import Database
from gatekeeper.hub.tables import gates
from gatekeeper.keys.gate_report import GateRow

__all__ = ("GateStore",)

MAX_GATES: Final = 1000  # of an account. The one that was seen least recently makes room for a new one.
LISTED_FOR: Final = timedelta(hours=24)  # since the last report

_COLUMNS: Final = gates.c


class GateStore:
    """The gates of a hub.

    Each method is one transaction, and raises DatabaseDown if the database does not answer. None locks an account or
    changes the ETag of its list, so revocations do not wait for these writes.

    Args:
        database: the database of the gates.
        clock: a function that returns the current time in UTC.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def record(self, account: str, gate: ReportedGate) -> None:
        """Record the report of a gate, in place of its last one.

        Args:
            account: the account.
            gate: what the gate says of itself.
        """
        async with self._database.reporting() as connection:
            now = self._clock()
            row = msgspec.structs.asdict(gate) | {"account": account, "seen_at": now}
            await connection.execute(_put(connection.dialect.name), row)
            await _drop_surplus(connection, account, now - LISTED_FOR)

    async def list(self, account: str) -> list[GateRow]:
        """List the gates that were seen within 24 hours, the latest first.

        Args:
            account: the account.

        Returns:
            The gates.
        """
        fields = GateRow.__struct_fields__
        is_listed = and_(_COLUMNS.account == account, _COLUMNS.seen_at >= self._clock() - LISTED_FOR)
        listed = (
            select(*(_COLUMNS[field] for field in fields))
            .where(is_listed)
            .order_by(_COLUMNS.seen_at.desc(), _COLUMNS.id)
            .limit(MAX_GATES)
        )
        async with self._database.reading() as connection:
            return [GateRow(**row) for row in (await connection.execute(listed)).mappings()]


def _put(dialect: str) -> Insert:
    """The statement that writes a row, in place of one with the same key."""
    insert = sqlite.insert(gates) if dialect == "sqlite" else postgresql.insert(gates)
    new = {column.name: insert.excluded[column.name] for column in _COLUMNS if not column.primary_key}
    return insert.on_conflict_do_update(index_elements=gates.primary_key, set_=new)


async def _drop_surplus(connection: AsyncConnection, account: str, expiry: datetime) -> None:
    """Delete the gates of an account that are gone for long, or too many."""
    mine = _COLUMNS.account == account
    count, oldest = (await connection.execute(select(func.count(), func.min(_COLUMNS.seen_at)).where(mine))).one()
    if count <= MAX_GATES and oldest >= expiry:
        return
    fresh = select(_COLUMNS.id).where(mine, _COLUMNS.seen_at >= expiry)
    kept = fresh.order_by(_COLUMNS.seen_at.desc(), _COLUMNS.id).limit(MAX_GATES)
    # Another report may have locked such a row, and want to delete this one. It is left to a later report.
    surplus = select(_COLUMNS.id).where(mine, _COLUMNS.id.not_in(kept)).with_for_update(skip_locked=True)
    await connection.execute(delete(gates).where(mine, _COLUMNS.id.in_(surplus)))
