"""Accounts of any size: client keys, rows and lists.

A key has 1 to 3 entries, 2 on average; one in ten is disabled. Rows have no `key_sha256`.
"""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

__all__ = ("ACCOUNT", "TOKEN", "client_key", "enabled", "last8", "origin", "row", "write_list")

ACCOUNT = "acme"
TOKEN = "sk_live_acme_benchmark"  # noqa: S105 - valid only for the hub of the benchmark
GOLDEN = 0x9E3779B97F4A7C15F39CC0605CEDC835  # spreads neighbouring numbers over all ids


def client_key(number: int, account: str = ACCOUNT) -> str:
    """The client key of a row, as long as a real one."""
    return f"pk_live_{account}_4fJq8ZtR2mXw9LbN6cVh1KsD{last8(number)}"


def last8(number: int) -> str:
    """The end of a client key, by which its row names it."""
    return f"{number:08d}"


def origin(number: int) -> str:
    """A page on which the key is allowed."""
    return f"https://shop-{number}.example.com"


def enabled(keys: int) -> list[int]:
    """The numbers of the keys that are not disabled."""
    return [number for number in range(keys) if not _disabled(number)]


def row(number: int, *entries: str) -> dict[str, Any]:
    """The row of a key, with additional entries."""
    host = f"shop-{number}.example.com"
    return {
        "id": str(uuid.UUID(int=(number + 1) * GOLDEN % 2**128)),
        "name": f"Widget of shop {number}",
        "last8": last8(number),
        "domain_allowlist": [*(host, f"*.{host}", "localhost:*")[: 1 + number % 3], *entries],
        "agent_id": f"agent_{number % 1000}",
        "disabled_at": "2026-03-04T05:06:07Z" if _disabled(number) else None,
        "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:05Z",
        "last_used_at": None,
    }


def write_list(path: Path, keys: int, changed: Callable[[int], bool] = lambda _: False, mark: str = "") -> None:
    """Write the list of an account, with another entry for changed keys."""
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for number in range(keys):
            file.write(b"," if number else b"[")
            file.write(encode(row(number, mark) if changed(number) else row(number)))
        file.write(b"]")


def _disabled(number: int) -> bool:
    return number % 10 == 9  # noqa: PLR2004 - the last of ten
