"""KeyRow: what the hub says about a widget key."""

from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from gatekeeper.matching.advice import EntryWarning

__all__ = ("CheckedKeyRow", "CreatedKeyRow", "KeyList", "KeyRow")


class KeyRow(msgspec.Struct, frozen=True):
    """A row of the list endpoint.

    Attributes:
        id: names the key in update and delete.
        name: what its owner calls it.
        last8: the last 8 characters of the key, which no other key of the account has.
        domain_allowlist: entries as written.
        agent_id: the agent that the key is pinned to, or None.
        disabled_at: when it was revoked, or None.
        created_at: when it was made.
        updated_at: when it was last changed.
        last_used_at: when it was last used, or None.
        key_sha256: SHA-256 of the whole key, in hexadecimal digits.
        use_count: how often it was used, as far as gates have reported.
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


class CheckedKeyRow(KeyRow, frozen=True, kw_only=True):
    """The answer to an update.

    Attributes:
        warnings: entries of the allowlist that work, and may not do what their writer expects.
    """

    warnings: tuple[EntryWarning, ...]


class CreatedKeyRow(CheckedKeyRow, frozen=True, kw_only=True):
    """The answer to a create, the only one with the plaintext.

    Attributes:
        public_key: the client key.
    """

    public_key: str

    def __repr__(self) -> str:
        """Show which key it is, and not the plaintext."""
        return f"CreatedKeyRow(id={self.id!r}, last8={self.last8!r})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """As `repr`, for tracebacks by rich: msgspec would show every field."""
        return [("id", self.id), ("last8", self.last8)]


class KeyList(msgspec.Struct, frozen=True):
    """All rows of an account, as they were at one moment.

    Attributes:
        etag: a strong ETag, in its quotes.
        pages: the rows, oldest first, some at a time; to be read once, while the list is open.
    """

    etag: str
    pages: AsyncIterator[list[KeyRow]]
