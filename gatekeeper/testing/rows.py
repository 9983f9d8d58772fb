"""Rows of the hub's list, and their client keys, derived from names."""

import hashlib
from typing import Any, Final

from gatekeeper.keys.client_key import ClientKey

__all__ = ("ALL_ACCOUNTS_TOKEN", "DEFAULT_KEY", "TOKEN", "client_key", "row")

ACCOUNT: Final = "test"
TOKEN: Final = f"sk_live_{ACCOUNT}_0123456789abcdef"
ALL_ACCOUNTS_TOKEN: Final = "sk_all_0123456789abcdef"  # noqa: S105 - for tests
DEFAULT_KEY: Final = "widget"
RANDOM_LENGTH: Final = 32  # characters


def client_key(name: str = DEFAULT_KEY, *, account: str = ACCOUNT) -> str:
    """The client key of a row.

    Args:
        name: the name of the row.
        account: the account of the row.

    Returns:
        The key, pk_live_test_… It is the same in every run.
    """
    return f"pk_live_{account}_{hashlib.sha256(name.encode()).hexdigest()[:RANDOM_LENGTH]}"


def row(name: str, *entries: str, account: str | None = None, **fields: Any) -> dict[str, Any]:
    """Make a row of the hub's list.

    Args:
        name: the row's name and id, which decides its client key.
        entries: its allowed domains. Without entries no page may use the key.
        account: the account of its client key, which the row then names, as in a list of all accounts; None for the account
            of the other rows, which they do not name.
        fields: other fields, or other values, such as agent_id="agent_7" or disabled_at="2026-01-02T03:04:05Z". They are not
            checked, so that a row can be broken.

    Returns:
        The fields of the hub's JSON, for `Gatekeeper.from_rows` and FakeHub.
    """
    key = ClientKey.parse(client_key(name, account=account or ACCOUNT))
    named = {} if account is None else {"account": account}
    return {
        "id": name,
        "name": name,
        "last8": key.last8,
        "domain_allowlist": list(entries),
        "agent_id": None,
        "disabled_at": None,
        "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:05Z",
        "last_used_at": None,
        "key_sha256": key.sha256(),
        **named,
        **fields,
    }
