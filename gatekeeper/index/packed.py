"""Packed rows: a widget key as bytes, which the garbage collector never visits, behind the number of its slot in an index.

That takes half the memory of typed rows (DESIGN 11). "Row" means the bytes without the slot's number here.
"""

from struct import Struct
from types import GenericAlias
from typing import Any, Literal, get_type_hints

import msgspec

from gatekeeper.keys.widget_key import WidgetKey

__all__ = (
    "SLOT",
    "News",
    "has_row",
    "id_of",
    "last8_of",
    "news",
    "pack",
    "revoked",
    "row_of",
    "slot_of",
    "standing",
    "unpack",
    "unpack_row",
    "with_slot",
)

_SLOT = Struct(">I")
SLOT = _SLOT.size  # bytes that number a key, before its row

News = Literal["none", "use", "change", "revocation"]


class _Head(msgspec.Struct, array_like=True, gc=False):
    """The fields that a row begins with."""

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


def pack(key: Any) -> bytes:
    """The row of a key.

    Args:
        key: an object with the attributes of a WidgetKey in its order.

    Returns:
        The row, without a slot's number.
    """
    fields: tuple[Any, ...] = _as_tuple(key)
    if fields[_ALLOWLIST] is None:
        fields = (*fields[:_ALLOWLIST], (), *fields[_ALLOWLIST + 1 :])
    try:
        return _encode(fields)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # What cannot be packed is what says that the key is disabled, where it could be anything. It still says so.
        return _encode((*fields[:_DISABLED_AT], True, *fields[_DISABLED_AT + 1 :]))


def with_slot(slot: int, row: bytes) -> bytes:
    """A row behind the number of its slot."""
    return _SLOT.pack(slot) + row


def slot_of(packed: bytes) -> int:
    """The number of a key's slot."""
    slot: int = _SLOT.unpack_from(packed)[0]
    return slot


def row_of(packed: bytes) -> bytes:
    """A key's row, without the number of its slot."""
    return packed[SLOT:]


def id_of(packed: bytes) -> str:
    """The id of a key."""
    return _decode_head(memoryview(packed)[SLOT:]).id


def last8_of(packed: bytes) -> str:
    """The last 8 characters of a client key."""
    return _decode_head(memoryview(packed)[SLOT:]).last8


def has_row(packed: bytes, row: bytes) -> bool:
    """Whether a key has just this row."""
    return len(packed) == SLOT + len(row) and packed.endswith(row)


def unpack(packed: bytes) -> WidgetKey:
    """The key, with its row as it was given to `pack`."""
    return unpack_row(memoryview(packed)[SLOT:])


def unpack_row(row: bytes | memoryview) -> WidgetKey:
    """The key that has a row."""
    return WidgetKey(*_decode(row))


def news(before: bytes, after: bytes) -> News:
    """What one row of a key says that another one has not said before it."""
    if before == after:
        return "none"
    known, now = _decode(before), _decode(after)
    if now[_DISABLED_AT] is not None and known[_DISABLED_AT] is None:
        return "revocation"
    used_now = (*known[:_LAST_USED_AT], now[_LAST_USED_AT], *known[_LAST_USED_AT + 1 :])
    return "use" if _encode(used_now) == after else "change"


def standing(first: bytes, second: bytes) -> bytes:
    """Which of two rows with one id counts: the first disabled one, else the first."""
    return second if news(first, second) == "revocation" else first


def revoked(row: bytes, disabled_at: object) -> bytes:
    """A row after a revocation, which counts whatever else is wrong with the row that brings it."""
    key = unpack_row(row)
    return row if disabled_at is None or key.disabled else pack(msgspec.structs.replace(key, disabled_at=disabled_at))
