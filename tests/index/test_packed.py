"""Packed rows: a widget key as bytes, and what a row says that another one of the same key has not said."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper import WidgetKey
from gatekeeper.index.packed import (
    SLOT,
    has_row,
    id_of,
    last8_of,
    news,
    pack,
    revoked,
    row_of,
    slot_of,
    standing,
    unpack,
    unpack_row,
    with_slot,
)

TEXT = st.none() | st.text(st.characters(codec="utf-8"), max_size=40)
KEYS = st.builds(
    WidgetKey,
    st.text(min_size=1, max_size=300),
    TEXT,
    st.text("abcXYZ019_-", min_size=8, max_size=8),
    st.lists(st.text(max_size=20), max_size=20).map(tuple),
    TEXT,
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.lists(st.text()) | st.dictionaries(TEXT, TEXT),
    TEXT,
    TEXT,
    TEXT,
    st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
)
KEY = WidgetKey("a", "Shop", "abcdefgh", ("acme.com",))


def changed(**fields: Any) -> bytes:
    """The row of the key with some fields otherwise."""
    return pack(msgspec.structs.replace(KEY, **fields))


@given(KEYS, st.integers(0, 2**32 - 1))
def test_a_key_comes_out_of_its_row_as_it_went_in(key: WidgetKey, slot: int) -> None:
    row = pack(key)
    packed = with_slot(slot, row)
    assert repr(unpack(packed)) == repr(unpack_row(row)) == repr(key)
    assert (slot_of(packed), row_of(packed), id_of(packed), last8_of(packed)) == (slot, row, key.id, key.last8)
    assert len(packed) == SLOT + len(row)


@given(KEYS, KEYS)
def test_a_key_has_its_own_row_and_no_other(key: WidgetKey, other: WidgetKey) -> None:
    packed = with_slot(7, pack(key))
    assert has_row(packed, pack(key))
    assert has_row(packed, pack(other)) is (pack(key) == pack(other))
    assert not has_row(packed, pack(key)[1:])


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ({}, {}, "none"),
        ({}, {"last_used_at": "2026"}, "use"),
        ({"last_used_at": "2026"}, {}, "use"),
        ({}, {"name": "Store"}, "change"),
        ({}, {"name": "Store", "last_used_at": "2026"}, "change"),
        ({"disabled_at": "2026"}, {}, "change"),
        ({"disabled_at": 0}, {"disabled_at": False}, "change"),
        ({}, {"disabled_at": "2026"}, "revocation"),
        ({}, {"disabled_at": False, "last_used_at": "2026"}, "revocation"),
        ({"disabled_at": "2026"}, {"disabled_at": "2027"}, "change"),
    ],
)
def test_what_a_row_says_that_another_has_not_said(before: dict[str, Any], after: dict[str, Any], what: str) -> None:
    assert news(changed(**before), changed(**after)) == what


def test_of_two_rows_the_first_disabled_one_stands_else_the_first() -> None:
    one, two, gone, gone_too = changed(), changed(name="Store"), changed(disabled_at=0), changed(disabled_at="2026")
    assert standing(one, two) is one
    assert standing(one, gone) is gone
    assert standing(gone, one) is gone
    assert standing(gone, gone_too) is gone


def test_a_revocation_is_added_to_a_row_that_has_none() -> None:
    row, gone = changed(), changed(disabled_at="2026")
    assert revoked(row, None) is row
    assert revoked(gone, "2027") is gone
    assert revoked(row, "2026") == gone
    assert unpack_row(revoked(row, 2**70)).disabled


def test_what_has_no_allowlist_is_packed_like_what_allows_nothing() -> None:
    class Row(msgspec.Struct):
        id: str = "a"
        name: None = None
        last8: str = "abcdefgh"
        domain_allowlist: None = None
        agent_id: None = None
        disabled_at: None = None
        created_at: None = None
        updated_at: None = None
        last_used_at: None = None
        key_sha256: None = None

    assert unpack_row(pack(Row())) == WidgetKey("a", None, "abcdefgh", ())
