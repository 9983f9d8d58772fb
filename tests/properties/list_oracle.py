"""A naive reading of lists, and of what the keys decide.

As `oracle`, it shares no code with the package. A row is an element of the hub's JSON array.
"""

import hashlib
from typing import Any

from tests.properties import oracle

SUFFIX = oracle.LABEL + oracle.LABEL.upper()
LONGEST_SUFFIX = 8
LONGEST_DIGEST = 64
PREFIX = "pk_live_"

Row = dict[str, Any]


def read_list(known: dict[str, Row], rows: list[Any]) -> dict[str, Row]:
    """Return the rows by id after a list, given those before it."""
    bad = [row for row in rows if not is_widget_key(row)]
    if len(bad) * 5 > len(rows):
        return known  # more than a fifth is bad, so the whole list is rejected
    after: dict[str, Row] = {}
    for row in rows:
        if row not in bad and (row["id"] not in after or (is_disabled(row) and not is_disabled(after[row["id"]]))):
            after[row["id"]] = row
    for row in bad:
        row_id = row["id"] if isinstance(row, dict) else None
        if not isinstance(row_id, str) or not (winner := after.get(row_id) or known.get(row_id)):
            continue
        is_revoked = is_disabled(row) and not is_disabled(winner)
        after[row_id] = {**winner, "disabled_at": row["disabled_at"]} if is_revoked else winner
    return after


def decide(rows: list[Row], account: str, client_key: str, origin: str | None) -> str:
    """Return the reason of the decision about a well-formed client key."""
    if not client_key.startswith(f"{PREFIX}{account}_"):
        return "key_unknown"
    row = find_row(rows, client_key)
    if isinstance(row, str):
        return row
    if is_disabled(row):
        return "key_disabled"
    entries = row["domain_allowlist"] or []
    if all(oracle.read_entry(entry) is None for entry in entries):
        return "allowlist_empty"
    if origin is None:
        return "origin_missing"
    if origin == "null":
        return "origin_null"
    if oracle.read_origin(origin) is None:
        return "origin_malformed"
    return "allowed" if oracle.allows(entries, origin) else "origin_not_allowed"


def find_row(rows: list[Row], client_key: str) -> Row | str:
    """Return the row of a client key, otherwise the reason."""
    alike = [row for row in rows if row["last8"] == client_key[-8:]]
    digest = hashlib.sha256(client_key.encode()).hexdigest()
    proven = [row for row in alike if row["key_sha256"] == digest]
    possible = proven or [row for row in alike if row["key_sha256"] is None]
    if len(possible) == 1:
        return possible[0]
    return "key_ambiguous" if possible else "key_unknown"


def is_allowed_by_some_key(rows: list[Row], origin: str) -> bool:
    """Whether any enabled key allows an origin."""
    return any(not is_disabled(row) and oracle.allows(row["domain_allowlist"] or [], origin) for row in rows)


def is_disabled(row: Row) -> bool:
    """Whether a row is disabled."""
    return row["disabled_at"] is not None


def is_widget_key(row: Any) -> bool:
    """Whether the fields that decisions depend on are valid."""
    if not isinstance(row, dict):
        return False
    entries, digest = row["domain_allowlist"], row["key_sha256"]
    return (
        _is_text(row["id"])
        and _is_text(row["last8"], LONGEST_SUFFIX, SUFFIX)
        and (entries is None or (isinstance(entries, list) and all(isinstance(entry, str) for entry in entries)))
        and (digest is None or _is_text(digest, LONGEST_DIGEST, oracle.HEX))
        and (row["agent_id"] is None or isinstance(row["agent_id"], str))
    )


def _is_text(value: Any, length: int | None = None, alphabet: str | None = None) -> bool:
    if not isinstance(value, str) or not value:
        return False
    return length in (None, len(value)) and (alphabet is None or all(character in alphabet for character in value))
