"""KeyRow: what the hub says about a widget key."""

from datetime import datetime

import msgspec

__all__ = ("CreatedKeyRow", "KeyRow", "Listing")


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


class CreatedKeyRow(KeyRow, frozen=True, kw_only=True):
    """The answer to a create, the only one with the plaintext.

    Attributes:
        public_key: the client key.
    """

    public_key: str

    def __repr__(self) -> str:
        """Show which key it is, and not the plaintext."""
        return f"CreatedKeyRow(id={self.id!r}, last8={self.last8!r})"


class Listing(msgspec.Struct, frozen=True):
    """All rows of an account, as they were at one moment.

    Attributes:
        etag: a strong ETag, in its quotes.
        rows: oldest first.
    """

    etag: str
    rows: list[KeyRow]
