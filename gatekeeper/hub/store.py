"""KeyStore: the widget keys of every account, each to itself."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import msgspec
from sqlalchemy import ColumnElement, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gatekeeper.hub.accounts import advance_revision, read_etag
from gatekeeper.hub.bodies import KeyChange, KeyDraft
from gatekeeper.hub.database import Database
from gatekeeper.hub.minting import Mint
from gatekeeper.hub.rows import CreatedKeyRow, KeyRow, Listing
from gatekeeper.hub.tables import widget_keys
from gatekeeper.keys import ClientKey

__all__ = ("KeyStore", "UnknownKey")

# Of 62^8 suffixes, an account of a million keys draws a taken one once in 200 million times; several in a row come from
# a generator that repeats itself.
MAX_DRAWS: Final = 10

_COLUMNS: Final = tuple(widget_keys.c[field] for field in KeyRow.__struct_fields__)


class UnknownKey(LookupError):
    """The account has no widget key of this id."""


class KeyStore:
    """The widget keys of a hub. Each method works within one account and one transaction.

    Args:
        database: where they are kept.
        mint: makes and hashes the plaintexts.
        clock: the present, in UTC.
    """

    def __init__(self, database: Database, mint: Mint, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._mint = mint
        self._clock = clock

    async def etag(self, account: str) -> str:
        """Read the ETag of an account's list, and not the list.

        Args:
            account: whose list.

        Returns:
            A strong ETag, in its quotes, which every write of the account changes.
        """
        async with self._database.reading() as connection:
            return await read_etag(connection, account)

    async def list(self, account: str) -> Listing:
        """Read all widget keys of an account.

        Args:
            account: whose keys.

        Returns:
            The rows, oldest first, and the ETag that belongs to them.
        """
        rows = select(*_COLUMNS).where(widget_keys.c.account == account).order_by(widget_keys.c.sequence)
        async with self._database.reading() as connection:
            etag = await read_etag(connection, account)
            return Listing(etag, [KeyRow(*row) for row in await connection.execute(rows)])

    async def create(self, account: str, draft: KeyDraft) -> CreatedKeyRow:
        """Make a widget key.

        Args:
            account: whose it becomes.
            draft: its name, allowlist and agent.

        Returns:
            The row with the plaintext, which is not kept and cannot be had again.
        """
        async with self._database.writing() as connection:
            await advance_revision(connection, account)
            key = await self._draw_key(connection, account)
            # Read behind the wait for other writers, so that the oldest is also the first.
            now = self._clock()
            row = KeyRow(
                id=str(uuid4()),
                name=draft.name,
                last8=key.last8,
                domain_allowlist=draft.domain_allowlist,
                agent_id=draft.agent_id,
                disabled_at=None,
                created_at=now,
                updated_at=now,
                last_used_at=None,
                key_sha256=key.sha256(),
            )
            fields = msgspec.structs.asdict(row)
            hidden = {"account": account, "keyed_hash": self._mint.keyed_hash(key.value)}
            await connection.execute(insert(widget_keys).values(fields | hidden))
        return CreatedKeyRow(**fields, public_key=key.value)

    async def update(self, account: str, key_id: str, change: KeyChange) -> KeyRow:
        """Change a widget key.

        Args:
            account: whose it is.
            key_id: its id.
            change: what to change.

        Returns:
            The row after the change.

        Raises:
            UnknownKey: the account has no such key.
        """
        async with self._database.writing() as connection:
            await advance_revision(connection, account)
            row = await _find(connection, account, key_id)
            values = {field: value for field, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET}
            disabled = values.pop("disabled", row.disabled_at is not None)
            now = self._clock()
            if disabled != (row.disabled_at is not None):
                values["disabled_at"] = now if disabled else None
            return await _change(connection, account, row, values, now)

    async def delete(self, account: str, key_id: str) -> KeyRow | None:
        """Remove a widget key that was never used; disable one that was.

        Args:
            account: whose it is.
            key_id: its id.

        Returns:
            The row of a key that was used; None for one that is gone.

        Raises:
            UnknownKey: the account has no such key.
        """
        async with self._database.writing() as connection:
            await advance_revision(connection, account)
            row = await _find(connection, account, key_id)
            if row.last_used_at is None:
                await connection.execute(delete(widget_keys).where(_is(account, key_id)))
                return None
            now = self._clock()
            values = {"disabled_at": now} if row.disabled_at is None else {}
            return await _change(connection, account, row, values, now)

    async def record_use(self, account: str, key_id: str, used_at: datetime) -> None:
        """Note that a widget key was used.

        Args:
            account: whose it is.
            key_id: its id.
            used_at: when, as an aware datetime.

        Raises:
            UnknownKey: the account has no such key.
        """
        async with self._database.writing() as connection:
            await advance_revision(connection, account)
            await _find(connection, account, key_id)
            await connection.execute(update(widget_keys).where(_is(account, key_id)).values(last_used_at=used_at))

    async def _draw_key(self, connection: AsyncConnection, account: str) -> ClientKey:
        for _ in range(MAX_DRAWS):
            key = self._mint.client_key(account)
            taken = and_(widget_keys.c.account == account, widget_keys.c.last8 == key.last8)
            if await connection.scalar(select(widget_keys.c.id).where(taken)) is None:
                return key
        problem = f"the random generator drew the last 8 characters of a known key {MAX_DRAWS} times in a row"
        raise RuntimeError(problem)


def _is(account: str, key_id: str) -> ColumnElement[bool]:
    return and_(widget_keys.c.account == account, widget_keys.c.id == key_id)


async def _find(connection: AsyncConnection, account: str, key_id: str) -> KeyRow:
    found = (await connection.execute(select(*_COLUMNS).where(_is(account, key_id)))).one_or_none()
    if found is None:
        # Raised inside the transaction, which takes the advanced revision back.
        raise UnknownKey(key_id)
    return KeyRow(*found)


async def _change(connection: AsyncConnection, account: str, row: KeyRow, values: dict[str, Any], now: datetime) -> KeyRow:
    if not values:
        return row
    values["updated_at"] = now
    await connection.execute(update(widget_keys).where(_is(account, row.id)).values(values))
    return msgspec.structs.replace(row, **values)
