"""The audit trail of a key, as a person reads it."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gatekeeper.cli.output import as_moment, plain
from gatekeeper.client import FieldChange, KeyEvent

__all__ = ("trail_lines",)

# The fields of a row that commands and options call otherwise.
NAMES = {"domain_allowlist": "allowlist", "agent_id": "agent", "disabled_at": "disabled since"}


def trail_lines(events: Iterable[KeyEvent]) -> Iterator[str]:
    """Describe events, each with what it changed.

    Args:
        events: the events, oldest first.

    Yields:
        The lines, without control characters.
    """
    for event in events:
        yield f"{as_moment(event.at.isoformat())}  {plain(event.action)} by {plain(event.token_name)}"
        for field, change in event.changes.items():
            if change.before != change.after:
                yield f"  {plain(NAMES.get(field, field))}: {_describe(change, is_first=event.action == 'created')}"


def _describe(change: FieldChange, *, is_first: bool) -> str:
    before, after = change.before, change.after
    if isinstance(before, list) and isinstance(after, list):
        changes = {"added": [each for each in after if each not in before]}
        changes["removed"] = [each for each in before if each not in after]
        return "; ".join(f"{verb} {_value(each)}" for verb, each in changes.items() if each) or f"reordered: {_value(after)}"
    return _value(after) if is_first else f"{_value(before)} -> {_value(after)}"


def _value(value: Any) -> str:
    """A value of the hub's JSON in words."""
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, str):
        return plain(as_moment(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else plain(msgspec.json.encode(value).decode())
