"""Rows of the list endpoint, and the client keys that belong to them."""

import json
from typing import Any

ACCOUNT = "acme"
TOKEN = "sk_live_acme_5Ea9f0c2b7d1"
ORIGIN = "https://acme.com"


def row(number: int, **fields: Any) -> dict[str, Any]:
    """Write the row of one key, which acme.com may use."""
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
    """Write a row that has an id and is no widget key."""
    return row(number, last8="short", **fields)


def client_key(number: int, account: str = ACCOUNT) -> str:
    """Write the client key whose row is `row(number)`."""
    return f"pk_live_{account}_{number:08d}"


def as_json(*rows: Any) -> bytes:
    """Write a list of rows as the hub sends it."""
    return json.dumps(rows).encode()
