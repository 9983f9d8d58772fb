"""Packed keys, changes between two rows of a key, and steps."""

from collections.abc import Generator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper import WidgetKey
from gatekeeper.index.packed import (
    SLOT,
    STEP,
    classify_change,
    drain,
    has_row,
    id_of,
    last8_of,
    pack,
    row_of,
    slot_of,
    steps_of,
    unpack,
    unpack_row,
    winning_row,
    with_revocation,
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
    """The row of KEY with some fields changed."""
    return pack(msgspec.structs.replace(KEY, **fields))


@given(KEYS, st.integers(0, 2**32 - 1))
def test_an_unpacked_key_equals_the_packed_one(key: WidgetKey, slot: int) -> None:
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
    ("first", "second", "kind", "winner"),
    [
        pytest.param({}, {}, "none", "first", id="the same"),
        pytest.param({}, {"last_used_at": "2026"}, "use", "first", id="used"),
        pytest.param({"last_used_at": "2026"}, {}, "use", "first", id="no longer used"),
        pytest.param({}, {"name": "Store"}, "change", "first", id="renamed"),
        pytest.param({}, {"name": "Store", "last_used_at": "2026"}, "change", "first", id="renamed and used"),
        pytest.param({"disabled_at": "2026"}, {}, "change", "first", id="enabled"),
        pytest.param({"disabled_at": 0}, {"disabled_at": False}, "change", "first", id="disabled in two ways"),
        pytest.param({"disabled_at": "2026"}, {"disabled_at": "2027"}, "change", "first", id="disabled twice"),
        pytest.param({}, {"disabled_at": "2026"}, "revocation", "second", id="disabled"),
        pytest.param({}, {"disabled_at": 0}, "revocation", "second", id="disabled by a value that is false"),
        pytest.param({}, {"disabled_at": False, "last_used_at": "2026"}, "revocation", "second", id="disabled and used"),
        pytest.param({"name": "Store"}, {"disabled_at": "2026"}, "revocation", "second", id="disabled and renamed"),
    ],
)
def test_two_rows_of_a_key_are_classified_and_one_wins(
    first: dict[str, Any], second: dict[str, Any], kind: str, winner: str
) -> None:
    rows = {"first": changed(**first), "second": changed(**second)}
    assert classify_change(rows["first"], rows["second"]) == kind
    assert winning_row(rows["first"], rows["second"]) is rows[winner]


def test_a_revocation_is_added_to_an_enabled_row_only() -> None:
    row, gone = changed(), changed(disabled_at="2026")
    assert with_revocation(row, None) is row
    assert with_revocation(gone, "2027") is gone
    assert with_revocation(row, "2026") == gone
    assert unpack_row(with_revocation(row, 2**70)).disabled


def test_a_missing_allowlist_is_packed_like_an_empty_one() -> None:
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
        account: None = None

    assert unpack_row(pack(Row())) == WidgetKey("a", None, "abcdefgh", ())


@pytest.mark.parametrize(("number", "sizes"), [(0, []), (1, [1]), (STEP, [STEP]), (2 * STEP + 1, [STEP, STEP, 1])])
def test_items_are_split_into_steps(number: int, sizes: list[int]) -> None:
    steps = list(steps_of(range(number)))
    assert [len(step) for step in steps] == sizes
    assert [item for step in steps for item in step] == list(range(number))


def test_draining_runs_the_steps_that_are_left_and_returns_the_value() -> None:
    run = []

    def count() -> Generator[None, None, str]:
        for number in range(3):
            run.append(number)
            yield
        return "done"

    steps = count()
    next(steps)
    assert run == [0]
    assert drain(steps) == "done"
    assert run == [0, 1, 2]
