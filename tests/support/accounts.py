"""Sources, keys and rows of several accounts."""

import hashlib
from typing import Any

from gatekeeper import HubSource
from gatekeeper.testing import FakeHub

from .guarded import hub_source
from .memory_source import MemorySource
from .rows import client_key, row

__all__ = ("AccountSource", "proven_row", "source_at")


class AccountSource(MemorySource):
    """Rows of an account in memory."""

    def __init__(self, account: str | None, *rows: Any) -> None:
        super().__init__(*rows)
        self.account = account


def proven_row(number: int, account: str, **fields: Any) -> dict[str, Any]:
    """A row with the digest of `client_key(number, account)`."""
    digest = hashlib.sha256(client_key(number, account).encode()).hexdigest()
    return row(number, **{"id": f"{account}-{number}", "key_sha256": digest, **fields})


def source_at(hub: FakeHub, account: str) -> HubSource:
    """The source of an account at a fake hub."""
    return hub_source(hub.url, f"sk_live_{account}_token")
