"""What a client hands out and takes besides WidgetKey: created keys, lists, events, usage."""

from datetime import datetime
from typing import Any

import msgspec

from gatekeeper.errors import ConfigError, InvalidRow
from gatekeeper.keys.client_key import mask
from gatekeeper.keys.widget_key import WidgetKey

__all__ = ("CreatedWidgetKey", "FieldChange", "KeyEvent", "KeyUsage", "WidgetKeyList")


class CreatedWidgetKey(WidgetKey, frozen=True, kw_only=True):
    """A widget key and its plaintext, which is told this once.

    Attributes:
        public_key: the whole client key, for the page's script tag. It does not show in the `repr`.
    """

    public_key: str

    def __repr__(self) -> str:
        return f"CreatedWidgetKey(id={self.id!r}, name={self.name!r}, public_key={mask(self.last8)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """As `repr`, for tracebacks by rich: msgspec would show every field."""
        return [("id", self.id), ("name", self.name), ("public_key", mask(self.last8))]


class WidgetKeyList(list[WidgetKey]):
    """The rows of the account, oldest first.

    Attributes:
        rejected: what is wrong with those rows of the answer that are no widget keys.
    """

    rejected: tuple[InvalidRow, ...] = ()


class FieldChange(msgspec.Struct, frozen=True):
    """What became of one field of a row.

    Attributes:
        before: its value until then; None where there was none.
        after: its value from then on; None where there is none.
    """

    before: Any = None
    after: Any = None


class KeyEvent(msgspec.Struct, frozen=True):
    """One entry of a key's audit trail.

    Attributes:
        id: grows with every event.
        key_id: the row's id, which may be gone by now.
        action: "created", "updated", "disabled", "enabled" or "deleted"; a newer hub may know more.
        token_name: what the operator called the token that did it.
        at: when.
        changes: what became of each field that changed, by its name.
    """

    id: int
    key_id: str
    action: str
    token_name: str
    at: datetime
    changes: dict[str, FieldChange] = {}


class KeyUsage(msgspec.Struct, frozen=True):
    """How much a key was used since the last report.

    Attributes:
        count: the requests that it was good for, 1 or more.
        last_used_at: when the last of them came, with its time zone.

    Raises:
        ConfigError: the count is below 1, or the moment has no time zone.
    """

    count: int
    last_used_at: datetime

    def __post_init__(self) -> None:
        """Check what the types cannot say."""
        problems = []
        if self.count < 1:
            problems.append(f"count is {self.count}: expected 1 or more")
        if self.last_used_at.utcoffset() is None:
            problems.append("last_used_at has no time zone: expected a moment such as datetime.now(UTC)")
        if problems:
            raise ConfigError(problems)
