"""KeyRow: a widget key as the hub answers it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from sqlalchemy import ColumnElement

from gatekeeper.hub.accounts import ALL_ACCOUNTS
from gatekeeper.hub.tables import widget_keys
from gatekeeper.matching.advice import EntryWarning

__all__ = (
    "AccountKeyRow",
    "AccountRemovedRow",
    "CheckedKeyRow",
    "CreatedKeyRow",
    "KeyList",
    "KeyRow",
    "RemovedRow",
    "RowChanged",
    "row_columns",
    "row_kind",
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICK: Final = timedelta(microseconds=1)  # The precision of both databases.


class KeyRow(msgspec.Struct, frozen=True):
    """A row of the list endpoint.

    Attributes:
        id: the id of the key, for update and delete.
        name: the name that the owner gave it.
        last8: the last 8 characters of the key, unique within the account.
        domain_allowlist: entries as written.
        agent_id: the agent that the key is pinned to, or None.
        disabled_at: the time of the revocation, or None.
        created_at: the time of the create.
        updated_at: the time of the last change.
        last_used_at: the time of the last use, or None.
        key_sha256: SHA-256 of the whole key, in hexadecimal digits.
        use_count: the number of uses that gates have reported.
    """

    id: str
    name: str
    last8: str
    domain_allowlist: list[str]
    agent_id: str | None
    disabled_at: datetime | None
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None
    key_sha256: str
    use_count: int

    @property
    def etag(self) -> str:
        """The strong ETag of the row, with its quotes. Every change of the row changes it, but not its use."""
        # Every change moves `updated_at` forward, and so does a restore.
        return f'"{(self.updated_at - _EPOCH) // _TICK:x}"'


class AccountKeyRow(KeyRow, frozen=True):
    """A row of the list of all accounts.

    Attributes:
        account: the account that has the key.
    """

    account: str


class CheckedKeyRow(KeyRow, frozen=True, kw_only=True):
    """The answer to an update.

    Attributes:
        warnings: entries that are valid but may not do what was intended.
    """

    warnings: tuple[EntryWarning, ...]


class CreatedKeyRow(CheckedKeyRow, frozen=True, kw_only=True):
    """The answer to a create. No other answer has the plaintext.

    Attributes:
        public_key: the client key.
    """

    public_key: str

    def __repr__(self) -> str:
        """Identify the key without its plaintext."""
        return f"CreatedKeyRow(id={self.id!r}, last8={self.last8!r})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """Hide the plaintext in rich's tracebacks; msgspec would show every field."""
        return [("id", self.id), ("last8", self.last8)]


class RemovedRow(msgspec.Struct, frozen=True):
    """A row that the list has no more.

    Attributes:
        id: the id of the deleted key.
        last8: the last 8 characters of the key.
        removed: true; other rows do not have this field.
    """

    id: str
    last8: str
    removed: Annotated[bool, msgspec.Meta(extra_json_schema={"const": True})]  # msgspec 0.19 knows no Literal[True]


class AccountRemovedRow(RemovedRow, frozen=True):
    """A row that the list of all accounts has no more.

    Attributes:
        account: the account that had the key.
    """

    account: str


class KeyList(msgspec.Struct, frozen=True):
    """All rows of a list, from one state of the database.

    Attributes:
        etag: a weak ETag, with its quotes.
        pages: pages of rows, oldest first; readable once, while the list is open.
    """

    etag: str
    pages: AsyncIterator[list[KeyRow]]


class RowChanged(Exception):
    """The row is not the one that the change was meant for.

    Args:
        etag: the ETag of the row as it is now.
    """

    def __init__(self, etag: str) -> None:
        self.etag = etag
        super().__init__(etag)


def row_kind(account: str) -> type[KeyRow]:
    """Tell how a list has its rows.

    Args:
        account: the account; ALL_ACCOUNTS for the list of all.

    Returns:
        The type of its rows.
    """
    return AccountKeyRow if account == ALL_ACCOUNTS else KeyRow


def row_columns(kind: type[KeyRow]) -> tuple[ColumnElement[Any], ...]:
    """List the columns of a row.

    Args:
        kind: the type of the row.

    Returns:
        The columns, in the order of its fields.
    """
    return tuple(widget_keys.c[field] for field in kind.__struct_fields__)
