"""DeltaReader: decodes what has changed in the hub's list.

A delta is an array of whole rows, and of the names of removed ones: `{"id": …, "last8": …, "removed": true}`. An element
with any other `removed` cannot be read. It is never a row: without an allowlist it would be a key that no page may use.
"""

from functools import lru_cache
from typing import Annotated, Any

import msgspec

from gatekeeper.keys.client_key import SUFFIX_LENGTH
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.salvage import decode_leniently
from gatekeeper.keys.widget_key import WidgetKey

__all__ = ("DeltaReader", "Removal")

_REMOVED = b"removed"
_EXPECTED_TRUE = "Expected `true`, got `false` - at `$.removed`"


class Removal(msgspec.Struct, frozen=True):
    """The name of a removed row.

    Attributes:
        id: the id of the row.
        last8: the last 8 characters of its client key.
    """

    id: str
    last8: str


class DeltaReader:
    """Decodes the elements of a delta, for ListReader.

    Args:
        rows: decodes whole rows. Its `suffix_field` also names the field of removals.
    """

    def __init__(self, rows: RowReader) -> None:
        self._rows = rows
        self.split = rows.split
        self._removals = _removals(rows.suffix_field)

    def tidy(self, array: bytes) -> list[Any] | None:
        """Decode an array of well-formed whole rows in one step.

        Args:
            array: JSON in UTF-8.

        Returns:
            Rows with the attributes of a WidgetKey, in its order; None if some row is not well formed, or may be a removal.
        """
        return None if _may_be_removal(array) else self._rows.tidy(array)

    def read(self, index: int, raw: msgspec.Raw | bytes) -> WidgetKey | Removal:
        """Decode one element.

        Args:
            index: its index in the delta, from 0, for the message.
            raw: its bytes.

        Returns:
            A row, or the name of a removed one.

        Raises:
            InvalidRow: with the index, the field and the problem.
        """
        element = bytes(raw)
        if not _may_be_removal(element) or not _has_removed(element):
            return self._rows.read(index, element)
        try:
            removed = self._removals.decode(element)
            if not removed.removed:
                raise msgspec.ValidationError(_EXPECTED_TRUE)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._rows.invalid(index, decode_leniently(element), error) from error
        return Removal(removed.id, removed.last8)


class _Probe(msgspec.Struct):
    """Whether an element has the field."""

    removed: msgspec.Raw = msgspec.Raw(b"")


_probe = msgspec.json.Decoder(_Probe).decode


def _may_be_removal(text: bytes) -> bool:
    """Whether the field may be in a text. A backslash may hide its name."""
    return _REMOVED in text or b"\\" in text


def _has_removed(element: bytes) -> bool:
    try:
        return bool(bytes(_probe(element).removed))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        row = decode_leniently(element)  # as RowReader reads what msgspec does not
        return isinstance(row, dict) and "removed" in row


@lru_cache(maxsize=16)  # as the decoders of rows
def _removals(suffix_field: str) -> msgspec.json.Decoder[Any]:
    fields: list[tuple[str, Any]] = [
        ("id", Annotated[str, msgspec.Meta(min_length=1)]),
        ("last8", Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9_-]{{{SUFFIX_LENGTH}}}\Z")]),
        ("removed", bool),
    ]
    return msgspec.json.Decoder(msgspec.defstruct("Removed", fields, rename={"last8": suffix_field}))
