"""WidgetKey: a row of the hub's list."""

from typing import Any

import msgspec

__all__ = ("WidgetKey",)


class WidgetKey(msgspec.Struct, frozen=True):
    """A widget key as the hub lists it.

    Attributes:
        id: the hub's id of the row.
        name: the name that the owner gave the key.
        last8: the last 8 characters of the client key.
        domain_allowlist: the entries as written. Without entries no page may use the key.
        agent_id: the agent that the key is pinned to. It overrides the agent in the page.
        disabled_at: the time of the revocation. Any value but None means that the key is revoked.
        created_at, updated_at, last_used_at: ISO 8601 times, as the hub sends them.
        key_sha256: the hexadecimal SHA-256 of the whole client key, if the hub sends it.
        account: the account of the key, if the hub sends it. It counts only where the gate knows no account itself.
    """

    id: str
    name: str | None
    last8: str
    domain_allowlist: tuple[str, ...]
    agent_id: str | None = None
    disabled_at: Any = None
    created_at: str | None = None
    updated_at: str | None = None
    last_used_at: str | None = None
    key_sha256: str | None = None
    account: str | None = None

    @property
    def disabled(self) -> bool:
        """Whether the key is revoked."""
        return self.disabled_at is not None
