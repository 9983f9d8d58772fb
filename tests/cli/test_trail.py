"""The audit trail of a key, as a person reads it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gatekeeper.cli.trail import trail_lines
from gatekeeper.client import FieldChange, KeyEvent

AT = datetime(2026, 1, 2, 12, 0, 0, 5, UTC)


def lines(action: str = "updated", /, **changes: tuple[Any, Any]) -> list[str]:
    """The lines of one event by the token ci, after the first."""
    event = KeyEvent(1, "key-1", action, "ci", AT, {field: FieldChange(*change) for field, change in changes.items()})
    first, *others = trail_lines([event])
    assert first == f"2026-01-02 12:00:00+00:00  {action} by ci"
    return others


@pytest.mark.parametrize(
    ("field", "before", "after", "said"),
    [
        ("agent_id", None, "agent-7", "agent: none -> agent-7"),
        ("agent_id", "agent-7", None, "agent: agent-7 -> none"),
        ("name", "Shop", "None", "name: Shop -> None"),
        ("domain_allowlist", ["acme.com"], ["acme.com", "*.acme.com"], "allowlist: added *.acme.com"),
        (
            "domain_allowlist",
            ["a.example", "b.example"],
            ["c.example"],
            "allowlist: added c.example; removed a.example, b.example",
        ),
        ("domain_allowlist", ["acme.com"], [], "allowlist: removed acme.com"),
        (
            "domain_allowlist",
            ["a.example", "b.example"],
            ["b.example", "a.example"],
            "allowlist: reordered: b.example, a.example",
        ),
        ("disabled_at", None, "2026-01-02T12:00:00.123456Z", "disabled since: none -> 2026-01-02 12:00:00+00:00"),
        ("disabled_at", "9999-12-31T23:59:59-01:00", None, "disabled since: 9999-12-31T23:59:59-01:00 -> none"),
        ("locked", False, True, "locked: no -> yes"),
        ("limit", 5, 7.5, "limit: 5 -> 7.5"),
        ("limits", {"day": 5}, None, 'limits: {"day":5} -> none'),
        ("\x1b[2J", "\x1b[2J", "\n", r"'\x1b[2J': '\x1b[2J' -> '\n'"),
    ],
)
def test_a_change_is_in_words(field: str, before: object, after: object, said: str) -> None:
    assert lines(**{field: (before, after)}) == [f"  {said}"]


def test_a_new_key_shows_what_it_was_given() -> None:
    changes = {"name": (None, "Shop"), "domain_allowlist": (None, ["acme.com", "*.acme.com"]), "agent_id": (None, None)}
    assert lines("created", **changes) == ["  name: Shop", "  allowlist: acme.com, *.acme.com"]


def test_an_event_without_changes_is_one_line() -> None:
    assert lines("rotated") == []
