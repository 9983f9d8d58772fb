"""Changes to allowlists that undo no other change meanwhile."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gatekeeper.client import HubClient, VersionedWidgetKey
from gatekeeper.errors import HubNotFoundError, HubPreconditionFailedError, HubProtocolError, InvalidEntry
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.matching.pattern import Pattern

__all__ = ("MAX_ATTEMPTS", "absent", "change_entries", "normalised")

# Of several changes to one row, one succeeds in each round. So this many commands at once all succeed.
MAX_ATTEMPTS: Final = 20


def normalised(entry: str) -> str:
    """The one form of equal entries. An invalid entry stays as it is."""
    try:
        return str(Pattern.parse(entry))
    except InvalidEntry:
        return entry


def absent(entries: Sequence[str], row: WidgetKey) -> list[str]:
    """The entries that a key's allowlist does not have yet, each once."""
    known = {normalised(entry) for entry in row.domain_allowlist}
    return [entry for entry in dict.fromkeys(entries) if normalised(entry) not in known]


def change_entries(client: HubClient, listed: WidgetKey, edit: Callable[[WidgetKey], list[str]]) -> WidgetKey:
    """Change the allowlist of a key, again if another change came first.

    Args:
        client: the client of the hub.
        listed: the row in the list, for a hub that answers no single rows.
        edit: makes the new entries from the present row.

    Returns:
        The changed row, or the present one if it has these entries already.

    Raises:
        HubError: the subclass for what went wrong; HubPreconditionFailedError if other changes came first every time.
    """
    for _ in range(MAX_ATTEMPTS - 1):
        try:
            return _change_once(client, listed, edit)
        except HubPreconditionFailedError:
            continue
    return _change_once(client, listed, edit)


def _change_once(client: HubClient, listed: WidgetKey, edit: Callable[[WidgetKey], list[str]]) -> WidgetKey:
    try:
        row = client.widget_keys.get(listed.id)
    except (HubNotFoundError, HubProtocolError):
        # The hub answers no single rows, or the key is gone, as the update will say.
        row = VersionedWidgetKey(**msgspec.structs.asdict(listed))
    entries = edit(row)
    if entries == [*row.domain_allowlist]:
        return row
    return client.widget_keys.update(row.id, domain_allowlist=entries, if_match=row.etag)
