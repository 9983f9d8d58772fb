"""KeyStore: the widget keys of every account."""

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import uuid4

import msgspec
from sqlalchemy import Connection, Select, and_, bindparam, delete, insert, select, update

from gatekeeper.hub.accounts import ALL_ACCOUNTS, Revision, advance_revision, lock_account, read_revision
from gatekeeper.hub.bodies import KeyChange, KeyDraft
from gatekeeper.hub.database import Database
from gatekeeper.hub.events import Action, Change, EventRow, add_event, find_deleted, read_events
from gatekeeper.hub.minting import Mint
from gatekeeper.hub.pools import Transaction
from gatekeeper.hub.rows import (
    AccountKeyRow,
    CheckedKeyRow,
    CreatedKeyRow,
    KeyList,
    KeyRow,
    RowChanged,
    row_columns,
    row_kind,
)
from gatekeeper.hub.tables import widget_keys
from gatekeeper.hub.tokens import Bearer
from gatekeeper.keys.client_key import SUFFIX_LENGTH, ClientKey
from gatekeeper.matching.allowlist import Allowlist

__all__ = ("KEY_ID", "KeyStore", "UnknownKey")

# There are 62^8 suffixes: with a million keys in the account, one draw in 200 million collides. Several collisions in a row
# mean that the generator repeats itself.
MAX_DRAWS: Final = 10

PAGE: Final = 1000  # Rows per query: half a megabyte of JSON.

# The fields in the events of create and delete. The last 8 characters find the events of a key that is gone.
_LASTING_FIELDS: Final = ("last8", "name", "domain_allowlist", "agent_id")

# The form of uuid4. Other ids are not sent to the database: PostgreSQL rejects some strings, such as those with NUL.
KEY_ID: Final = re.compile(r"[0-9a-f-]{36}")
_LAST8: Final = re.compile(rf"[A-Za-z0-9_-]{{{SUFFIX_LENGTH}}}")


_WITH_ID: Final = widget_keys.c.id == bindparam("its_id")
_MINE: Final = and_(widget_keys.c.account == bindparam("its_account"), _WITH_ID)
_WITH_LAST8: Final = select(widget_keys.c.id).where(
    widget_keys.c.account == bindparam("its_account"), widget_keys.c.last8 == bindparam("its_last8")
)
_INSERT: Final = insert(widget_keys)
_UPDATE: Final = update(widget_keys).where(_MINE)
_DELETE: Final = delete(widget_keys).where(_MINE)

Result = TypeVar("Result")


class UnknownKey(LookupError):
    """The account has no widget key with this id."""


class KeyStore:
    """The widget keys of a hub.

    Each method works within one account and one transaction. All raise DatabaseDown if the database does not answer, and
    HubOverloaded if others keep it busy.

    Args:
        database: the database of the keys.
        mint: the maker of keys and their hashes.
        clock: a function that returns the current time in UTC.
        changed: a function that is awaited with the name of an account after its keys may have changed.
    """

    def __init__(
        self, database: Database, mint: Mint, clock: Callable[[], datetime], changed: Callable[[str], Awaitable[None]]
    ) -> None:
        self._database = database
        self._mint = mint
        self._clock = clock
        self._changed = changed

    @asynccontextmanager
    async def list(self, account: str) -> AsyncIterator[KeyList]:
        """Open the list of an account's widget keys.

        Args:
            account: the account; ALL_ACCOUNTS for all.

        Yields:
            The rows and their ETag, from one state of the database, unaffected by concurrent writes. The list of all
            accounts may have changes that only its next ETag knows of.
        """
        async with self._database.transaction("streamer") as transaction:
            revision = await transaction.run(lambda connection: read_revision(connection, account))
            yield KeyList(revision.etag, _pages(self._database, transaction, account))

    async def get(self, account: str, key_id: str) -> KeyRow:
        """Read a widget key.

        Args:
            account: the account; or ALL_ACCOUNTS, for a key of any.
            key_id: the key's id.

        Returns:
            The row, as the list has it.

        Raises:
            UnknownKey: the account does not have this key.
        """
        find = _OF_ANY if account == ALL_ACCOUNTS else _FIND
        return await self._database.read(lambda connection: _find(connection, account, key_id, find), account)

    async def create(self, bearer: Bearer, draft: KeyDraft) -> CreatedKeyRow:
        """Create a widget key.

        Args:
            bearer: the bearer of the token, with the account.
            draft: the name, allowlist and agent of the key.

        Returns:
            The row with the plaintext, which is not stored and cannot be recovered.
        """

        def insert_row(connection: Connection) -> tuple[KeyRow, ClientKey]:
            base = lock_account(connection, bearer.account)
            key = self._draw_key(connection, bearer.account)
            # Read the clock after the wait for other writers, so that created_at follows the order of the rows.
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
                use_count=0,
            )
            hidden = {"account": bearer.account, "keyed_hash": self._mint.keyed_hash(key.value)}
            connection.execute(_INSERT, msgspec.structs.asdict(row) | hidden)
            chosen = {field: Change(None, getattr(row, field)) for field in _LASTING_FIELDS}
            add_event(connection, bearer, base, row.id, "created", now, chosen)
            advance_revision(connection, bearer.account, base)
            return row, key

        row, key = await self._write(bearer.account, insert_row)
        warnings = Allowlist.parse(row.domain_allowlist).warnings
        return CreatedKeyRow(**msgspec.structs.asdict(row), warnings=warnings, public_key=key.value)

    async def update(
        self, bearer: Bearer, key_id: str, change: KeyChange, *, if_match: Collection[str] | None = None
    ) -> CheckedKeyRow:
        """Update a widget key.

        Disabling or enabling it adds an event of its own, apart from that of the other changes.

        Args:
            bearer: the bearer of the token, with the account.
            key_id: the key's id.
            change: the new values. Fields that already have the requested value are ignored.
            if_match: the ETags of rows that may be changed; "*" stands for any. None for no condition.

        Returns:
            The updated row.

        Raises:
            RowChanged: the row has another ETag. A row that has all new values already is answered nevertheless, as the
                change may have been sent twice (RFC 9110 section 13.1.1).
            UnknownKey: the account does not have this key.
        """

        def update_row(connection: Connection) -> KeyRow:
            base = lock_account(connection, bearer.account)
            row = _find(connection, bearer.account, key_id)
            wanted = {field: value for field, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET}
            now = self._clock()
            disable = wanted.pop("disabled", row.disabled_at is not None)
            if disable != (row.disabled_at is not None):
                wanted["disabled_at"] = now if disable else None
            return _change(connection, bearer, base, row, wanted, now, if_match)

        row = await self._write(bearer.account, update_row)
        warnings = Allowlist.parse(row.domain_allowlist).warnings
        return CheckedKeyRow(**msgspec.structs.asdict(row), warnings=warnings)

    async def delete(self, bearer: Bearer, key_id: str, *, if_match: Collection[str] | None = None) -> KeyRow | None:
        """Delete a widget key if it was never used, otherwise disable it.

        Args:
            bearer: the bearer of the token, with the account.
            key_id: the key's id.
            if_match: as for `update`.

        Returns:
            The row of the disabled key; None if the key was deleted.

        Raises:
            RowChanged: the row has another ETag, and is not disabled yet.
            UnknownKey: the account does not have this key.
        """

        def delete_row(connection: Connection) -> KeyRow | None:
            base = lock_account(connection, bearer.account)
            # A report of use, which locks the row alone, comes before this or finds the key gone.
            row = _find(connection, bearer.account, key_id, _FIND_AND_LOCK)
            now = self._clock()
            if row.use_count or row.last_used_at is not None:
                return _change(connection, bearer, base, row, {"disabled_at": row.disabled_at or now}, now, if_match)
            _require_match(row, if_match)
            connection.execute(_DELETE, {"its_account": bearer.account, "its_id": key_id})
            chosen = {field: Change(getattr(row, field), None) for field in _LASTING_FIELDS}
            add_event(connection, bearer, base, key_id, "deleted", now, chosen)
            advance_revision(connection, bearer.account, base)
            return None

        return await self._write(bearer.account, delete_row)

    async def events(self, account: str, key: str) -> Iterable[EventRow]:
        """Read the events of a widget key, also after its deletion.

        Args:
            account: the account that has or had the key.
            key: the key's id, or its last 8 characters.

        Returns:
            The events, oldest first.

        Raises:
            UnknownKey: the account has never had this key.
        """

        def read(connection: Connection) -> list[EventRow]:
            key_id = _find_id(connection, account, key) if _LAST8.fullmatch(key) else key
            if key_id is None or not KEY_ID.fullmatch(key_id):
                raise UnknownKey(key)
            happened = read_events(connection, account, key_id)
            if not happened:
                # A key from before the events table exists without events.
                _find(connection, account, key_id)
            return happened

        return await self._database.read(read, account)

    async def _write(self, account: str, change: Callable[[Connection], Result]) -> Result:
        try:
            return await self._database.write(change, account)
        finally:
            # A commit whose answer is lost has been made, perhaps.
            await self._changed(account)

    def _draw_key(self, connection: Connection, account: str) -> ClientKey:
        for _ in range(MAX_DRAWS):
            key = self._mint.client_key(account)
            if connection.scalar(_WITH_LAST8, {"its_account": account, "its_last8": key.last8}) is None:
                return key
        problem = f"the random generator drew the last 8 characters of an existing key {MAX_DRAWS} times in a row"
        raise RuntimeError(problem)


async def _pages(database: Database, transaction: Transaction, account: str) -> AsyncIterator[list[KeyRow]]:
    kind = row_kind(account)
    later = widget_keys.c.sequence > bindparam("after")
    mine = later if account == ALL_ACCOUNTS else and_(widget_keys.c.account == account, later)
    page = select(*row_columns(kind), widget_keys.c.sequence).where(mine).order_by(widget_keys.c.sequence).limit(PAGE)
    last, taken = 0, 0.0

    def read(connection: Connection) -> list[KeyRow]:
        nonlocal last, taken
        # A page keeps the interpreter busy for some milliseconds. For others, a list takes at most half as long again.
        database.defer(taken / 2)
        begun = time.monotonic()
        rows = connection.execute(page, {"after": last}).all()
        if rows:
            last = rows[-1].sequence
        made = [kind(*row[:-1]) for row in rows]
        taken = time.monotonic() - begun
        return made

    while rows := await transaction.run(read):
        yield rows


_FIND: Final = select(*row_columns(KeyRow)).where(_MINE)
_FIND_AND_LOCK: Final = _FIND.with_for_update()
_OF_ANY: Final = select(*row_columns(AccountKeyRow)).where(_WITH_ID)


def _find(connection: Connection, account: str, key_id: str, find: Select[Any] = _FIND) -> KeyRow:
    if KEY_ID.fullmatch(key_id):
        found = connection.execute(find, {"its_account": account, "its_id": key_id}).one_or_none()
        if found is not None:
            return row_kind(account)(*found)
    raise UnknownKey(key_id)


def _find_id(connection: Connection, account: str, last8: str) -> str | None:
    """The id of the key that has these last 8 characters, otherwise of the last one that had them."""
    listed = connection.scalar(_WITH_LAST8, {"its_account": account, "its_last8": last8})
    return listed or find_deleted(connection, account, last8)


def _require_match(row: KeyRow, if_match: Collection[str] | None) -> None:
    if if_match is not None and not {row.etag, "*"} & set(if_match):
        raise RowChanged(row.etag)


def _change(
    connection: Connection,
    bearer: Bearer,
    base: Revision,
    row: KeyRow,
    wanted: Mapping[str, Any],
    now: datetime,
    if_match: Collection[str] | None,
) -> KeyRow:
    changes = {field: Change(getattr(row, field), value) for field, value in wanted.items() if value != getattr(row, field)}
    if not changes:
        return row
    _require_match(row, if_match)
    # Gates take an older row for that of an old copy, so this never goes back, whatever the clock does.
    updated_at = max(now, row.updated_at + timedelta(microseconds=1))
    values = {field: change.after for field, change in changes.items()} | {"updated_at": updated_at}
    connection.execute(_UPDATE, {**values, "its_account": bearer.account, "its_id": row.id})
    disabling = {field: changes.pop(field) for field in ("disabled_at",) if field in changes}
    if changes:
        add_event(connection, bearer, base, row.id, "updated", now, changes)
    if disabling:
        action: Action = "enabled" if values["disabled_at"] is None else "disabled"
        add_event(connection, bearer, base, row.id, action, now, disabling)
    advance_revision(connection, bearer.account, base)
    return msgspec.structs.replace(row, **values)
