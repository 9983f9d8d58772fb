"""Rows of the list endpoint, and their client keys."""

import json
from typing import Any

ACCOUNT = "acme"
TOKEN = "sk_live_acme_5Ea9f0c2b7d1"
ORIGIN = "https://acme.com"


def row(number: int, **fields: Any) -> dict[str, Any]:
    """The row of one key, whose allowlist is acme.com."""
    return {
        "id": f"key-{number}",
        "name": "shop",
        "last8": f"{number:08d}",
        "domain_allowlist": ["acme.com"],
        "agent_id": None,
        "disabled_at": None,
        "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:05Z",
        "last_used_at": None,
        **fields,
    }


def bad_row(number: int, **fields: Any) -> dict[str, Any]:
    """A row with an id and an invalid suffix."""
    return row(number, last8="short", **fields)


def client_key(number: int, account: str = ACCOUNT) -> str:
    """The client key whose row is `row(number)`."""
    return f"pk_live_{account}_{number:08d}"


def as_json(*rows: Any) -> bytes:
    """A list of rows as the hub sends it."""
    return json.dumps(rows).encode()
