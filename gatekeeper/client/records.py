"""The records of a client besides WidgetKey: created keys, lists, events, usage."""

from datetime import datetime
from typing import Any

import msgspec

from gatekeeper.errors import ConfigError, InvalidRow
from gatekeeper.keys.client_key import mask
from gatekeeper.keys.widget_key import WidgetKey

__all__ = ("CreatedWidgetKey", "FieldChange", "KeyEvent", "KeyUsage", "VersionedWidgetKey", "WidgetKeyList")


class VersionedWidgetKey(WidgetKey, frozen=True, kw_only=True):
    """A widget key with the ETag of its row. Rows of the list have none.

    Attributes:
        etag: the strong ETag, with its quotes, for `if_match`; None if the hub gives none.
    """

    etag: str | None = None


class CreatedWidgetKey(VersionedWidgetKey, frozen=True, kw_only=True):
    """A widget key with its plaintext, which the hub never shows again.

    Attributes:
        public_key: the whole client key, as the page's script tag needs it; hidden in the `repr`.
    """

    public_key: str

    def __repr__(self) -> str:
        return f"CreatedWidgetKey(id={self.id!r}, name={self.name!r}, public_key={mask(self.last8)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Hide the plaintext from rich tracebacks, too. msgspec would show every field."""
        return [("id", self.id), ("name", self.name), ("public_key", mask(self.last8))]


class WidgetKeyList(list[WidgetKey]):
    """The rows of the account, oldest first.

    Attributes:
        rejected: the malformed rows of the answer, as errors.
    """

    rejected: tuple[InvalidRow, ...] = ()


class FieldChange(msgspec.Struct, frozen=True):
    """The change of one field of a row.

    Attributes:
        before: the old value, or None.
        after: the new value, or None.
    """

    before: Any = None
    after: Any = None


class KeyEvent(msgspec.Struct, frozen=True):
    """One entry of a key's audit trail.

    Attributes:
        id: a number that grows with every event.
        key_id: the id of the row, which may be deleted by now.
        action: "created", "updated", "disabled", "enabled" or "deleted"; a newer hub may add others.
        token_name: the operator's name for the token that was used.
        at: the time of the event.
        changes: the changed fields, by name.
    """

    id: int
    key_id: str
    action: str
    token_name: str
    at: datetime
    changes: dict[str, FieldChange] = {}


class KeyUsage(msgspec.Struct, frozen=True):
    """The use of a key since the last report.

    Attributes:
        count: the number of allowed requests, 1 or more.
        last_used_at: the time of the last one, with a time zone.

    Raises:
        ConfigError: the count is below 1, or the moment has no time zone.
    """

    count: int
    last_used_at: datetime

    def __post_init__(self) -> None:
        """Check what the types cannot express."""
        problems = []
        if self.count < 1:
            problems.append(f"count is {self.count}: expected 1 or more")
        if self.last_used_at.utcoffset() is None:
            problems.append("last_used_at has no time zone: expected a time such as datetime.now(UTC)")
        if problems:
            raise ConfigError(problems)
