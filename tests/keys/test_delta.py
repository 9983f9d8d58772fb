"""DeltaReader: whole rows, and the names of removed ones."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import InvalidList, InvalidRow, WidgetKey
from gatekeeper.keys.delta import DeltaReader, Removal
from gatekeeper.keys.reader import RowReader, as_widget_key
from gatekeeper.keys.slices import SLICE, ListReader, read_list
from tests.keys.rows import ROW, body, read_one

REMOVED = {**ROW, "removed": True}
REMOVAL = Removal("wk_1", "UVwXyZ-_")
MANY = settings(max_examples=150, deadline=None)


def read(text: bytes, *, suffix_field: str = "last8", slice_size: int = SLICE) -> list[Any]:
    """Read a delta in slices of a size."""
    reader = ListReader(DeltaReader(RowReader(suffix_field)), slice_size)
    reader.feed(text)
    reader.end()
    read = [each for piece in reader for each in reader.read(piece)[0]]
    return [each if isinstance(each, Removal | InvalidRow) else as_widget_key(each) for each in read]


def test_a_delta_has_whole_rows_and_removals() -> None:
    rows = [{**ROW, "id": "wk_2", "domain_allowlist": ["acme.com"]}, REMOVED, {**ROW, "id": "wk_3"}]
    first, removal, last = read(body(*rows))
    assert (first, removal, last) == (read_one(rows[0]), REMOVAL, read_one(rows[2]))


def test_an_empty_delta_is_none() -> None:
    assert read(b"[]") == []


def test_removals_name_the_suffix_as_rows_do() -> None:
    (removal,) = read(body({"id": "wk_1", "suffix": "UVwXyZ-_", "removed": True}), suffix_field="suffix")
    assert removal == REMOVAL


@pytest.mark.parametrize("name", ['"removed"', '"remove\\u0064"', '"\\u0072emoved"', '\n"removed" \t'])
def test_the_field_may_be_written_in_any_way(name: str) -> None:
    assert read(f'[{{"id":"wk_1",{name}:true,"last8":"UVwXyZ-_"}}]'.encode()) == [REMOVAL]


def test_other_fields_of_a_removal_do_not_count() -> None:
    assert read(body({**REMOVED, "domain_allowlist": 7, "disabled_at": "2026", "more": [{}]})) == [REMOVAL]


@pytest.mark.parametrize("removed", ["yes", "true", "", 1, 1.0, 0, False, None, [], [True], {"at": "2026"}, 10**30])
@pytest.mark.parametrize("more", [{}, {"domain_allowlist": ["acme.com"]}])
def test_any_removed_but_true_is_an_unreadable_row(removed: object, more: dict[str, object]) -> None:
    before, rejected, after = read(body(ROW, {**ROW, **more, "removed": removed}, ROW))
    assert (before, after) == (read_one(ROW), read_one(ROW))
    assert isinstance(rejected, InvalidRow)
    assert (rejected.index, rejected.row_id, rejected.last8) == (1, "wk_1", "UVwXyZ-_")
    assert "'removed'" in rejected.problem


@pytest.mark.parametrize(
    ("removal", "reason"),
    [
        ({"id": "wk_1"}, "suffix"),
        ({"last8": "UVwXyZ-_"}, "id"),
        ({"id": "", "last8": "UVwXyZ-_"}, "id"),
        ({"id": 7, "last8": "UVwXyZ-_"}, "id"),
        ({"id": None, "last8": "UVwXyZ-_"}, "id"),
        ({"id": "wk_1", "last8": "short"}, "suffix"),
        ({"id": "wk_1", "last8": "pk_live_acme_UVwXyZ-_"}, "suffix"),
        ({"id": "wk_1", "last8": "UVwXyZ-\n"}, "suffix"),
        ({"id": "wk_1", "last8": None}, "suffix"),
        ({}, "suffix"),
    ],
)
def test_a_removal_without_both_names_is_an_unreadable_row(removal: dict[str, object], reason: str) -> None:
    (rejected,) = read(body({**removal, "removed": True}))
    assert isinstance(rejected, InvalidRow)
    assert rejected.reason == reason
    assert "pk_live_acme" not in str(rejected)


@pytest.mark.parametrize(
    "element",
    [
        b'{"id":"wk_1","last8":"UVwXyZ-_","removed":true',
        b'{"id":"wk_1","last8":"UVwXyZ-_" "removed":true}',
        b'{"id":"wk_1","last8":"UVwXyZ-_","removed":tru}',
        b'{"id":"wk_1","last8":"UVwXyZ-_","removed":NaN}',
        b'{"id":"wk_1\xff","last8":"UVwXyZ-_","removed":true}',
        b'{"id":"wk_1\\ud800","last8":"UVwXyZ-_","removed":true}',
        b'{"id":"wk_1","last8":"UVwXyZ-_","removed":"\\ud800"}',
        b'{"id":"wk_1","last8":"UVwXyZ-_","name":"\\ud800","removed":0}',
        b'{"id":"wk_1","last8":"UVwXyZ-_","removed":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id":"wk_1","last8":"UVwXyZ-_","removed":true,"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'["removed"]',
        b'"removed"',
    ],
    ids=lambda element: repr(element[:60]),
)
def test_a_garbled_removal_is_neither_a_row_nor_a_removal(element: bytes) -> None:
    with pytest.raises(InvalidRow) as rejected:
        DeltaReader(RowReader()).read(3, element)
    assert rejected.value.index == 3


@pytest.mark.parametrize(
    "element",
    [
        b'{"id":"wk_1","last8":"UVwXyZ-_","disabled_at":"2026","agent_id":7}',
        b'{"id":"wk_1","last8":"UVwXyZ-_","disabled_at":"2026","removed":0}',
        b'{"id":"wk_1","last8":"UVwXyZ-_","disabled_at":"2026",}',
    ],
)
def test_an_unreadable_row_keeps_its_names_and_its_revocation(element: bytes) -> None:
    (rejected,) = read(b"[" + element + b"]")
    assert isinstance(rejected, InvalidRow)
    assert (rejected.row_id, rejected.last8) == ("wk_1", "UVwXyZ-_")
    assert rejected.disabled_at is not None


def test_no_text_of_another_length_passes_for_a_suffix() -> None:
    for element in (b'{"id":"a","last8":"pk_live_acme_0123456789"}', b'{"id":"a","last8":"pk_live_acme_0123456789",}'):
        (rejected,) = read(b"[" + element + b"]")
        assert rejected.last8 is None


def test_a_body_that_is_no_array_is_refused() -> None:
    for text in (b"", b"{}", body(REMOVED)[:-1], body(REMOVED) + b"]"):
        with pytest.raises(InvalidList):
            read(text)


@MANY
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"id": st.text(min_size=1), "last8": st.just("UVwXyZ-_")},
            optional={"name": st.text(), "domain_allowlist": st.lists(st.text()), "disabled_at": st.text()},
        ),
        max_size=6,
    ),
    removed=st.sets(st.integers(0, 5)),
    ensure_ascii=st.booleans(),
    slice_size=st.integers(1, 200),
)
def test_rows_are_read_as_in_a_whole_list(
    rows: list[dict[str, Any]], removed: set[int], *, ensure_ascii: bool, slice_size: int
) -> None:
    marked = [{**row, "removed": True} if place in removed else row for place, row in enumerate(rows)]
    expected: list[Any] = [
        Removal(row["id"], row["last8"]) if place in removed else RowReader().convert(place, row)
        for place, row in enumerate(rows)
    ]
    assert read(json.dumps(marked, ensure_ascii=ensure_ascii).encode(), slice_size=slice_size) == expected


def test_ten_thousand_changes_are_read_in_many_steps() -> None:
    """Between two of them, an event loop does other things."""
    changes = [{**ROW, "id": f"wk_{number}", **({"removed": True} if number % 3 else {})} for number in range(10_000)]
    reader = ListReader(DeltaReader(RowReader()))
    reader.feed(body(*changes))
    reader.end()
    sizes = [len(reader.read(piece)[0]) for piece in reader]
    assert sum(sizes) == 10_000
    assert max(sizes) < 3_000
    assert [type(each) for each in read(body(*changes[:3]))] == [WidgetKey, Removal, Removal]


def test_a_removal_in_a_whole_list_is_a_key_that_no_page_may_use() -> None:
    """A whole list names no removed keys. Its readers ignore fields that they do not know."""
    (key,), rejected = read_list(RowReader(), body(REMOVED))
    assert (key.domain_allowlist, rejected) == ((), [])
