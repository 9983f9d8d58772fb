"""Packed keys: widget keys as bytes, which the garbage collector never visits.

A packed key is the number of its slot in an index, followed by its row. It takes half the memory of a typed row. In this
package "row" means the bytes without the slot number.
"""

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from struct import Struct
from types import GenericAlias
from typing import Any, Literal, TypeVar, get_type_hints

import msgspec

from gatekeeper.keys.widget_key import WidgetKey

__all__ = (
    "SLOT",
    "STEP",
    "Change",
    "ChangeKind",
    "classify_change",
    "compare_rows",
    "drain",
    "has_row",
    "id_of",
    "last8_of",
    "pack",
    "row_of",
    "slot_of",
    "steps_of",
    "unpack",
    "unpack_row",
    "widened",
    "winning_row",
    "with_revocation",
    "with_slot",
)

_SLOT = Struct(">I")
SLOT = _SLOT.size  # bytes of the slot number, before the row
STEP = 512  # keys that are processed between two turns of the event loop, in about a millisecond

ChangeKind = Literal["none", "use", "change", "revocation"]

Item = TypeVar("Item")
Value = TypeVar("Value")


class _Head(msgspec.Struct, array_like=True, gc=False):
    """The first fields of a row."""

    id: str
    name: str | None
    last8: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(GenericAlias(tuple, tuple(get_type_hints(WidgetKey).values()))).decode
_decode_head = msgspec.msgpack.Decoder(_Head).decode
_as_tuple = msgspec.structs.astuple
_ALLOWLIST = WidgetKey.__struct_fields__.index("domain_allowlist")
_DISABLED_AT = WidgetKey.__struct_fields__.index("disabled_at")
_LAST_USED_AT = WidgetKey.__struct_fields__.index("last_used_at")
_UPDATED_AT = WidgetKey.__struct_fields__.index("updated_at")


def pack(key: Any) -> bytes:
    """Encode a key as a row.

    Args:
        key: an object with the attributes of a WidgetKey, in the same order.

    Returns:
        The row, without a slot number.
    """
    fields: tuple[Any, ...] = _as_tuple(key)
    if fields[_ALLOWLIST] is None:
        fields = (*fields[:_ALLOWLIST], (), *fields[_ALLOWLIST + 1 :])
    try:
        return _encode(fields)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Only disabled_at can hold a value that cannot be encoded. Any value disables the key, so store True.
        return _encode((*fields[:_DISABLED_AT], True, *fields[_DISABLED_AT + 1 :]))


def with_slot(slot: int, row: bytes) -> bytes:
    """Prefix a row with its slot number."""
    return _SLOT.pack(slot) + row


def slot_of(packed: bytes) -> int:
    """Return the slot number of a key."""
    slot: int = _SLOT.unpack_from(packed)[0]
    return slot


def row_of(packed: bytes) -> bytes:
    """Return the row of a key, without the slot number."""
    return packed[SLOT:]


def id_of(packed: bytes) -> str:
    """Return the id of a key."""
    return _decode_head(memoryview(packed)[SLOT:]).id


def last8_of(packed: bytes) -> str:
    """Return the last 8 characters of the client key."""
    return _decode_head(memoryview(packed)[SLOT:]).last8


def has_row(packed: bytes, row: bytes) -> bool:
    """Whether a key has exactly this row."""
    return len(packed) == SLOT + len(row) and packed.endswith(row)


def unpack(packed: bytes) -> WidgetKey:
    """Decode a packed key."""
    return unpack_row(memoryview(packed)[SLOT:])


def unpack_row(row: bytes | memoryview) -> WidgetKey:
    """Decode a row."""
    return WidgetKey(*_decode(row))


def widened(packed: bytes) -> bytes:
    """Append the fields that an earlier version did not have.

    Args:
        packed: a key whose row has only the first fields of a WidgetKey.
    """
    row = msgspec.msgpack.decode(memoryview(packed)[SLOT:])
    return packed[:SLOT] + _encode([*row, *[None] * (len(WidgetKey.__struct_fields__) - len(row))])


class Change(msgspec.Struct, frozen=True, gc=False):
    """The change between two rows of a key.

    Attributes:
        kind: "use" if only last_used_at differs; "revocation" if the key is newly disabled.
        updated_before, updated_after: the rows' own `updated_at`.
        disabled_at: that of the second row.
    """

    kind: ChangeKind
    updated_before: str | None = None
    updated_after: str | None = None
    disabled_at: object = None


def compare_rows(before: bytes, after: bytes) -> Change:
    """Compare two rows of a key."""
    if before == after:
        return Change("none")
    known, now = _decode(before), _decode(after)
    if now[_DISABLED_AT] is not None and known[_DISABLED_AT] is None:
        kind: ChangeKind = "revocation"
    else:
        kind = "use" if _is_use(known, now, after) else "change"
    return Change(kind, known[_UPDATED_AT], now[_UPDATED_AT], now[_DISABLED_AT])


def _is_use(known: tuple[Any, ...], now: tuple[Any, ...], after: bytes) -> bool:
    """Whether no field but last_used_at has changed; `after` is the row of `now`."""
    start, end = known[:_LAST_USED_AT], known[_LAST_USED_AT + 1 :]
    # Most changes are found here. Values that are equal may differ all the same: True and 1, 0.0 and -0.0.
    if start != now[:_LAST_USED_AT] or end != now[_LAST_USED_AT + 1 :]:
        return False
    return _encode((*start, now[_LAST_USED_AT], *end)) == after


def classify_change(before: bytes, after: bytes) -> ChangeKind:
    """Classify the change between two rows of a key."""
    return compare_rows(before, after).kind


def winning_row(first: bytes, second: bytes) -> bytes:
    """Choose the winner of two rows: the first disabled, otherwise the first."""
    return second if classify_change(first, second) == "revocation" else first


def with_revocation(row: bytes, disabled_at: object) -> bytes:
    """Set disabled_at in a row that is not disabled; None changes nothing."""
    key = unpack_row(row)
    return row if disabled_at is None or key.disabled else pack(msgspec.structs.replace(key, disabled_at=disabled_at))


def steps_of(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Split items into steps of at most 512."""
    iterator = iter(items)
    while step := list(islice(iterator, STEP)):
        yield step


def drain(steps: Generator[None, None, Value]) -> Value:
    """Run all steps that are left, and return the generator's value."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: Value = end.value
            return value
