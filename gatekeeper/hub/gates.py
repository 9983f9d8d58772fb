"""GateStore: the gates of every account, as they have reported themselves."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import Connection, Delete, Insert, and_, bindparam, delete, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from gatekeeper.hub.bodies import ReportedGate
from gatekeeper.hub.database import Database
from gatekeeper.hub.report_queue import ReportQueue
from gatekeeper.hub.tables import gates
from gatekeeper.keys.gate_report import GateRow

__all__ = ("GateStore",)

MAX_GATES: Final = 1000  # of an account. The one that was seen least recently makes room for a new one.
LISTED_FOR: Final = timedelta(hours=24)  # since the last report

_COLUMNS: Final = gates.c


class GateStore:
    """The gates of a hub.

    Its methods raise DatabaseDown if the database does not answer, and HubOverloaded if others keep it busy. None locks an
    account or changes the ETag of its list, so revocations do not wait for these writes.

    Args:
        database: the database of the gates.
        clock: a function that returns the current time in UTC.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._queue: ReportQueue[str, ReportedGate] = ReportQueue(database, self._write, _later)

    async def record(self, account: str, gate: ReportedGate) -> None:
        """Record the report of a gate, in place of its last one.

        Args:
            account: the account.
            gate: what the gate says of itself.
        """
        await self._queue.put(account, {gate.id: gate})

    async def close(self) -> None:
        """Wait until all reports are written."""
        await self._queue.close()

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
        rows = await self._database.read(lambda connection: connection.execute(listed).mappings().all(), account)
        return [GateRow(**row) for row in rows]

    def _write(self, connection: Connection, reports: Mapping[tuple[str, str], ReportedGate]) -> None:
        now = self._clock()
        # Transactions that lock rows in the same order do not deadlock.
        rows = [msgspec.structs.asdict(reports[name]) | {"account": name[0], "seen_at": now} for name in sorted(reports)]
        connection.execute(_put(connection.dialect.name), rows)
        expiry = now - LISTED_FOR
        if overfull := _find_overfull(connection, {account for account, _ in reports}, expiry):
            connection.execute(_cut(expiry), [{"overfull": account} for account in overfull])


def _later(_one: ReportedGate, other: ReportedGate) -> ReportedGate:
    return other


def _put(dialect: str) -> Insert:
    """The statement that writes a row, in place of one with the same key."""
    insert = sqlite.insert(gates) if dialect == "sqlite" else postgresql.insert(gates)
    new = {column.name: insert.excluded[column.name] for column in _COLUMNS if not column.primary_key}
    return insert.on_conflict_do_update(index_elements=gates.primary_key, set_=new)


def _find_overfull(connection: Connection, accounts: set[str], expiry: datetime) -> list[str]:
    """Find those of these accounts that have too many gates, or some that are gone for long."""
    counted = select(_COLUMNS.account).where(_COLUMNS.account.in_(accounts)).group_by(_COLUMNS.account)
    is_overfull = or_(func.count() > MAX_GATES, func.min(_COLUMNS.seen_at) < expiry)
    return list(connection.scalars(counted.having(is_overfull).order_by(_COLUMNS.account)))


def _cut(expiry: datetime) -> Delete:
    """The statement that deletes the gates of an account that are not kept."""
    mine = _COLUMNS.account == bindparam("overfull")
    fresh = select(_COLUMNS.id).where(mine, _COLUMNS.seen_at >= expiry)
    kept = fresh.order_by(_COLUMNS.seen_at.desc(), _COLUMNS.id).limit(MAX_GATES)
    # Another report may have locked such a row, and want to delete this one. It is left to a later report.
    surplus = select(_COLUMNS.id).where(mine, _COLUMNS.id.not_in(kept)).with_for_update(skip_locked=True)
    return delete(gates).where(mine, _COLUMNS.id.in_(surplus))
