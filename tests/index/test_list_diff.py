"""Difference: what a list changes in an index."""

from array import array
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from itertools import permutations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import InvalidRow, WidgetKey
from gatekeeper.index.enabled_origins import IndexedKey
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.list_diff import MAX_ROW, Difference, load
from gatekeeper.index.packed import SLOT, STEP
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.widget_key import ClientKey
from tests.support.indexes import (
    CLIENT_KEYS,
    ENTRIES,
    FIRST,
    LAST8,
    OTHER,
    SECOND,
    Listed,
    apply,
    by_id,
    compare,
    decisions,
    ids,
    index_of,
    known_as,
    nested,
    packed_size,
    resolved,
    row,
    take,
    unreadable,
    used,
)

# What a list changes.


def test_a_difference_tells_what_a_list_changes_before_anything_is_changed() -> None:
    index = index_of(row("same"), row("changed"), row("used"), row("gone"))
    rows = [row("same"), row("changed", FIRST, "shop.test"), used(row("used")), row("new", OTHER)]
    same, before = known_as(index, "same"), known_as(index, "changed")
    difference = compare(index, rows)
    assert (ids(difference.new), difference.added_count, difference.changed_count) == (["new"], 1, 1)
    assert [(last8, *ids([packed])) for last8, packed in difference.removed] == [(LAST8, "gone")]
    assert (difference.duplicate_ids, difference.kept, difference.rejected) == (set(), [], [])
    assert (difference.count, difference.is_empty, difference.slots_hold) == (4, False, True)
    assert known_as(index, "changed") is before
    assert known_as(index, "new") is None
    assert len(index) == 4
    take(difference.apply())
    assert sorted(index, key=lambda each: each.id) == sorted(rows, key=lambda each: each.id)
    assert known_as(index, "same") is same
    assert len(index) == 4
    assert difference.is_empty
    assert sorted(index.replaced) == ["changed", "used"]


def test_nothing_stands_alone_between_two_steps_that_is_refused_before_and_after() -> None:
    """A key that looks like another is refused; it may not work for a moment because the other one goes first."""
    index = index_of(row("a"), row("b"))
    difference = compare(index, [row("a", disabled_at="2026"), *(row(str(n), OTHER) for n in range(STEP))])
    for _ in difference.apply():
        found = index.resolve(FIRST)
        assert found == "ambiguous" or (isinstance(found, IndexedKey) and found.widget_key.disabled)
    index = index_of(row("a"), row("b"))
    for _ in compare(index, [row("a"), row("c")]).apply():
        assert resolved(index, FIRST) == "ambiguous"


def test_no_step_is_about_more_than_some_keys() -> None:
    index = KeyIndex()
    lists = [
        [row(str(n), key, entry) for n in range(start, start + 3 * STEP)]
        for start, key, entry in (
            (0, FIRST, "a.test"),
            (0, FIRST, "b.test"),
            (10_000, OTHER, "a.test"),
            (0, OTHER, "a.test"),
        )
    ]
    for rows in lists:
        difference = compare(index, rows)
        touched = difference.added_count + difference.changed_count + len(difference.removed)
        steps = list(difference.apply())
        assert len(steps) * STEP == touched


def test_slots_are_given_to_other_keys_once_theirs_are_gone() -> None:
    index = index_of(*(row(str(number)) for number in range(10)))
    assert index.slots == 10
    apply(index, [row("0")])
    apply(index, [row(str(number), OTHER) for number in range(10)])
    assert index.slots == 10 + 1
    assert len({packed[:SLOT] for step in index.walk() for _, packed in step}) == len(index) == 10


def test_a_row_that_counts_for_nothing_keeps_no_slot() -> None:
    index = index_of()
    apply(index, [row("a"), row("a", name="again"), row("b")])
    assert (len(index), index.slots) == (2, 3)
    apply(index, [row("a"), row("b"), row("c")])
    assert (len(index), index.slots) == (3, 3)
    assert len({packed[:SLOT] for step in index.walk() for _, packed in step}) == 3


def test_an_empty_list_removes_every_key() -> None:
    index = index_of(row("a"), row("b", OTHER))
    difference = apply(index, [])
    assert len(index) == 0
    assert (difference.new, index.replaced) == ([], [])
    assert index.ambiguous() == ()
    assert [resolved(index, key) for key in CLIENT_KEYS] == ["unknown"] * len(CLIENT_KEYS)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Shop"},
        {"last8": OTHER.last8},
        {"domain_allowlist": ("acme.com", "shop.test")},
        {"domain_allowlist": ()},
        {"agent_id": "agent-7"},
        {"disabled_at": "2026-11-01T00:00:00Z"},
        {"disabled_at": False},
        {"key_sha256": FIRST.sha256()},
        {"created_at": "2026-11-01T00:00:00Z"},
        {"updated_at": "2026-11-01T00:00:00Z"},
        {"name": "Shop", "last_used_at": "2026-11-01T00:00:00Z"},
    ],
    ids=repr,
)
def test_a_row_with_another_value_in_any_field_is_changed_and_one_without_is_not(change: dict[str, object]) -> None:
    before = row("a")
    after = msgspec.structs.replace(before, **change)
    index = index_of(before)
    assert compare(index, [row("a")]).is_empty
    difference = compare(index, [after])
    assert (difference.is_empty, difference.changed_count + difference.added_count) == (False, 1)
    take(difference.apply())
    assert list(index) == [after]


def test_a_row_whose_only_news_is_when_it_was_used_changes_no_decision_and_is_kept() -> None:
    index = index_of(row("a"), row("b", OTHER))
    for rows in ([used(row("a")), row("b", OTHER)], [row("a"), row("b", OTHER)]):
        difference = compare(index, rows)
        assert (difference.is_empty, difference.changed_count) == (True, 0)
        index.replaced.clear()
        take(difference.apply())
        assert index.replaced == ["a"]
        assert sorted(index, key=lambda each: each.id) == rows


@pytest.mark.parametrize("client_key", [FIRST, OTHER], ids=["the same suffix", "another suffix"])
def test_of_a_row_that_comes_used_and_then_disabled_only_the_latter_is_applied(client_key: ClientKey) -> None:
    index = index_of(row("a"))
    difference = compare(index, [used(row("a")), row("a", client_key, disabled_at="2026")])
    take(difference.apply())
    assert list(index) == [row("a", client_key, disabled_at="2026")]
    assert len(index.replaced) == (client_key is FIRST)


def test_what_newly_revokes_a_key_is_told_and_nothing_else() -> None:
    index = index_of(*(row(row_id, disabled_at="2024" if row_id in "dg" else None) for row_id in "abcdefg"))
    rows: list[Listed] = [
        row("a", disabled_at="2025"),
        row("b", FIRST, "shop.test"),
        unreadable("c", "2026"),
        row("d", disabled_at="2027"),
        row("e"),
        unreadable("f"),
        row("g"),
        row("new", disabled_at="2028"),
    ]
    assert compare(index, rows).revoked_at == ["2025", "2026"]


@pytest.mark.parametrize(
    "disabled_at",
    [10**30, {1, 2}, object(), [[]] * 3, {"at": None}, -0.0, b"2026", datetime(2026, 11, 1, tzinfo=UTC), nested()],
    ids=lambda value: type(value).__name__,
)
def test_whatever_says_that_a_key_is_disabled_it_is_and_another_list_with_it_changes_nothing(disabled_at: object) -> None:
    revoked = row("a", disabled_at=disabled_at)
    index = index_of(revoked)
    known = index.resolve(FIRST)
    assert isinstance(known, IndexedKey)
    assert known.widget_key.disabled
    assert compare(index, [revoked]).is_empty
    index = index_of(row("a"))
    apply(index, [unreadable("a", disabled_at)])
    assert [each.disabled for each in index] == [True]


def test_a_row_without_an_allowlist_is_the_same_however_it_was_read() -> None:
    raw = b'{"id":"a","last8":"abcdefgh","domain_allowlist":null}'
    index = KeyIndex()
    load(index, RowReader().tidy(b"[" + raw + b"]") or ())
    assert [each.domain_allowlist for each in index] == [()]
    assert Difference(index).see([RowReader().read(0, raw)]) is not None


def test_a_row_that_takes_too_much_room_is_one_that_cannot_be_read() -> None:
    around = packed_size(row("a", FIRST, name="x" * 50_000)) - 50_000
    largest = row("a", FIRST, name="x" * (MAX_ROW - around))
    assert packed_size(largest) == MAX_ROW
    index = index_of(row("a"), row("b", OTHER))
    assert not compare(index, [largest, row("b", OTHER)]).rejected
    too_large = msgspec.structs.replace(largest, name="x" * MAX_ROW)
    difference = apply(index, [too_large, row("b", OTHER)])
    (rejected,) = difference.rejected
    assert (rejected.index, rejected.row_id) == (0, "a")
    assert rejected.problem == f"Expected at most 65536 bytes in a row, got {packed_size(too_large)}"
    assert difference.kept == ["a"]
    assert by_id(index) == {"a": row("a"), "b": row("b", OTHER)}
    apply(index, [row("b", OTHER), msgspec.structs.replace(too_large, disabled_at="2026")])
    assert sorted((each.id, each.disabled) for each in index) == [("a", True), ("b", False)]


def test_a_long_id_keeps_its_own_key_and_no_other() -> None:
    long_id = "a" * 300
    rows = [row(long_id), row("a" * 200, OTHER)]
    index = index_of(*rows)
    apply(index, [msgspec.structs.replace(rows[0], name="x" * MAX_ROW, disabled_at="2026"), rows[1]])
    assert {len(each.id): each.disabled for each in index} == {300: True, 200: False}


def test_a_key_that_changes_its_suffix_is_found_by_the_new_one_only() -> None:
    index = index_of(row("a", FIRST), row("b", FIRST))
    apply(index, [row("a", OTHER), row("b", FIRST)])
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["b", "a"]
    apply(index, [row("a", OTHER), row("b", OTHER)])
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["unknown", "ambiguous"]


def test_two_keys_may_change_places() -> None:
    index = index_of(row("a", FIRST), row("b", OTHER))
    apply(index, [row("a", OTHER), row("b", FIRST)])
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["b", "a"]
    assert len(index) == 2


def test_a_key_that_changes_its_suffix_counts_as_another_one() -> None:
    index = index_of(row("a", FIRST))
    difference = compare(index, [row("a", OTHER)])
    assert (ids(difference.new), len(difference.removed), difference.duplicate_ids) == (["a"], 1, set())


OPEN, OPEN_TOO = row("a", FIRST, "first.test"), row("a", FIRST, "second.test")
REVOKED, REVOKED_TOO = row("a", FIRST, "third.test", disabled_at="2026"), row("a", FIRST, "fourth.test", disabled_at=0)


@pytest.mark.parametrize(
    ("rows", "stands"),
    [
        pytest.param([OPEN, OPEN_TOO], OPEN, id="two enabled: the first"),
        pytest.param([OPEN, REVOKED], REVOKED, id="enabled, disabled: the disabled one"),
        pytest.param([REVOKED, OPEN], REVOKED, id="disabled, enabled: the disabled one"),
        pytest.param([REVOKED, REVOKED_TOO], REVOKED, id="two disabled: the first"),
        pytest.param([OPEN, OPEN_TOO, REVOKED], REVOKED, id="a disabled one at the end"),
        pytest.param([OPEN, REVOKED, OPEN_TOO, REVOKED_TOO], REVOKED, id="the first disabled one"),
        pytest.param([OPEN, OPEN], OPEN, id="twice the same"),
    ],
)
@pytest.mark.parametrize("known", [None, OPEN, OPEN_TOO, REVOKED, REVOKED_TOO], ids=["new", "o", "o2", "r", "r2"])
def test_of_rows_with_one_id_a_disabled_one_stands_else_the_first(
    rows: list[WidgetKey], stands: WidgetKey, known: WidgetKey | None
) -> None:
    index = index_of(row("b", OTHER), *([] if known is None else [known]))
    difference = compare(index, [*rows, row("b", OTHER)])
    assert difference.is_empty is (known == stands)
    take(difference.apply())
    found = known_as(index, "a")
    assert found is not None
    assert found.widget_key == stands
    assert found.allowlist.patterns == stands.domain_allowlist
    assert difference.duplicate_ids == {"a"}
    assert len(index) == 2


def test_of_many_changed_rows_each_is_found_again_when_its_id_comes_once_more() -> None:
    numbers = range(3 * STEP)
    index = index_of(*(row(str(number)) for number in numbers))
    difference = Difference(index)
    difference.see(row(str(number), name="changed") for number in numbers)
    repeated = [0, STEP - 1, STEP, 2 * STEP + 7, 3 * STEP - 1]
    difference.see([row(str(number), name="again") for number in repeated])
    difference.see([row(str(number), name="revoked", disabled_at="2026") for number in repeated[1:]])
    take(difference.finish())
    assert (difference.changed_count, len(difference.revoked_at)) == (3 * STEP, len(repeated) - 1)
    take(difference.apply())
    assert {int(row_id): (each.name, each.disabled) for row_id, each in by_id(index).items()} == {
        number: ("revoked", True) if number in repeated[1:] else ("changed", False) for number in numbers
    }


def test_of_rows_with_one_id_it_is_the_same_where_their_last_characters_differ() -> None:
    """Whichever of them is known, in whatever order they come."""
    there = [OPEN, REVOKED]
    elsewhere = [msgspec.structs.replace(each, last8=OTHER.last8, name="elsewhere") for each in (OPEN_TOO, REVOKED_TOO)]
    for rows in permutations([*there, *elsewhere]):
        for length in (2, 3, 4):
            listed = rows[:length]
            stands = next((each for each in listed if each.disabled), listed[0])
            for known in ([], *([each] for each in (*there, *elsewhere))):
                index = index_of(*known, row("b"))
                difference = apply(index, [*listed, row("b")])
                assert by_id(index) == {"a": stands, "b": row("b")}
                assert difference.duplicate_ids == {"a"}


# Rows that cannot be read.


def test_a_key_whose_row_cannot_be_read_stays_as_it_was() -> None:
    index = index_of(row("a"), row("b", OTHER))
    before = known_as(index, "a")
    difference = compare(index, [unreadable("a")])
    assert difference.kept == ["a"]
    assert ids(packed for _, packed in difference.removed) == ["b"]
    take(difference.apply())
    assert known_as(index, "a") is before
    assert len(index) == 1


def test_a_row_that_cannot_be_read_makes_no_key() -> None:
    index = KeyIndex()
    difference = apply(index, [unreadable("a"), unreadable(None), unreadable("b", "2026"), row("c")])
    assert list(index) == [row("c")]
    assert (difference.count, difference.kept, len(difference.rejected)) == (4, [], 3)


@pytest.mark.parametrize("disabled_at", ["2026-11-01T00:00:00Z", False, 0, "", [], 10**30])
def test_what_says_that_a_key_is_disabled_counts_whatever_else_is_wrong_with_its_row(disabled_at: object) -> None:
    index = index_of(row("a", name="Shop"), row("b", OTHER))
    apply(index, [unreadable("a", disabled_at), row("b", OTHER)])
    assert sorted((each.id, each.name, each.disabled) for each in index) == [("a", "Shop", True), ("b", None, False)]


def test_a_revoked_key_stays_revoked_as_it_was() -> None:
    index = index_of(REVOKED)
    assert compare(index, [unreadable("a", "2027")]).is_empty
    assert compare(index, [unreadable("a")]).is_empty


@pytest.mark.parametrize("known", [None, OPEN, REVOKED, msgspec.structs.replace(OPEN, last8=OTHER.last8)], ids=str)
@pytest.mark.parametrize("listed", [OPEN_TOO, REVOKED_TOO, used(OPEN)], ids=str)
def test_a_row_that_can_be_read_stands_over_one_of_its_id_that_cannot_but_for_a_revocation(
    known: WidgetKey | None, listed: WidgetKey
) -> None:
    for disabled_at, stands in (
        (None, listed),
        ("2030", listed if listed.disabled else msgspec.structs.replace(listed, disabled_at="2030")),
    ):
        listings: list[Listed] = [listed, unreadable("a", disabled_at), unreadable("a")]
        for rows in permutations(listings):
            index = index_of(*([] if known is None else [known]))
            difference = apply(index, rows)
            assert list(index) == [stands]
            assert difference.duplicate_ids == set()
            assert difference.kept == []


def test_a_lapsed_key_is_removed_where_its_row_cannot_be_read_and_neither_says_that_it_is_disabled() -> None:
    index = index_of(row("a"), row("b"), row("c"), row("d"), row("e", disabled_at=""))
    rows: list[Listed] = [unreadable("a"), unreadable("b"), unreadable("c", ""), row("d"), unreadable("d"), unreadable("e")]
    difference = compare(index, rows, lapsed={"a", "c", "d", "e", "unlike"})
    take(difference.apply())
    assert sorted((each.id, each.disabled) for each in index) == [("b", False), ("c", True), ("d", False), ("e", True)]
    assert sorted(difference.kept) == ["b", "c", "e"]


# Rows that are known to be as they were.


def seen_slots(index: KeyIndex, rows: Iterable[Listed]) -> "array[int]":
    """The slots of rows that are all known."""
    slots = Difference(index).see(rows)
    assert slots is not None
    return slots


def test_rows_that_are_known_as_they_are_need_not_be_seen_again() -> None:
    rows = [row("a"), row("b"), row("c", OTHER)]
    index = index_of(*rows)
    difference = Difference(index)
    assert difference.see_slots(seen_slots(index, rows[:2]))
    assert difference.see([rows[2]]) is not None
    take(difference.finish())
    assert (difference.is_empty, difference.count, difference.slots_hold) == (True, 3, True)
    difference = Difference(index)
    difference.see_slots(seen_slots(index, rows[1:]))
    take(difference.finish())
    assert ids(packed for _, packed in difference.removed) == ["a"]


def test_rows_that_are_new_or_changed_need_not_be_seen_again_once_they_are_applied() -> None:
    index = index_of(row("gone"), row("a"), row("b"), row("c"))
    apply(index, [row("a"), row("b"), row("c")])
    rows = [row("new", OTHER), row("a", name="changed"), used(row("b")), row("c"), row("another")]
    difference = Difference(index)
    slots = difference.see(rows)
    assert slots is not None
    assert len(set(slots)) == len(rows)
    take(difference.finish())
    assert difference.slots_hold
    take(difference.apply())
    assert slots == seen_slots(index, rows)


@pytest.mark.parametrize("other", [unreadable("a"), unreadable(None), row("b"), row("b", name="changed")], ids=str)
def test_rows_that_are_not_all_as_the_index_will_have_them_have_no_slots(other: Listed) -> None:
    index = index_of(row("a"), row("b"))
    assert Difference(index).see([row("b"), other]) is None


def test_rows_of_which_one_has_come_already_are_seen_one_by_one() -> None:
    index = index_of(row("a"), row("b"))
    slots = seen_slots(index, [row("a"), row("b")])
    difference = Difference(index)
    assert difference.see([row("b", disabled_at="2026")]) == slots[1:]
    assert not difference.see_slots(slots)
    assert difference.count == 1
    assert difference.see([row("a"), row("b")]) is None
    take(difference.finish())
    take(difference.apply())
    assert difference.duplicate_ids == {"b"}
    assert sorted((each.id, each.disabled) for each in index) == [("a", False), ("b", True)]


@pytest.mark.parametrize(
    "later",
    [
        row("a", disabled_at="2026"),
        row("a", OTHER, disabled_at="2026"),
        row("a", OTHER),
        unreadable("a", "2026"),
        row("new"),
        row("new", disabled_at="2026"),
        unreadable("new", "2026"),
    ],
    ids=str,
)
def test_slots_do_not_hold_where_a_later_row_has_the_id_of_an_earlier_one_and_either_does_not_stand(later: Listed) -> None:
    index = index_of(row("a"), row("b"))
    difference = Difference(index)
    assert difference.see([row("a"), row("b"), row("new")]) is not None
    difference.see([later])
    take(difference.finish())
    assert not difference.slots_hold


@pytest.mark.parametrize("later", [row("a"), row("c"), unreadable("a"), unreadable("new"), unreadable("c", "2026")], ids=str)
def test_slots_hold_as_long_as_every_earlier_row_stands(later: Listed) -> None:
    index = index_of(row("a"), row("b"))
    difference = Difference(index)
    assert difference.see([row("a"), row("b"), row("new")]) is not None
    difference.see([later])
    take(difference.finish())
    assert difference.slots_hold


@pytest.mark.parametrize(
    "news",
    [
        [unreadable("b", "2026")],
        [unreadable("b")],
        [row("b", OTHER)],
        [row("b", OTHER), unreadable("b")],
        [row("new")],
        [],
    ],
    ids=["revoked", "kept", "moved", "moved and unreadable", "new", "gone"],
)
def test_slots_hold_whatever_becomes_of_keys_that_have_none_of_them(news: list[Listed]) -> None:
    index = index_of(row("a"), row("b", SECOND))
    difference = Difference(index)
    slots = difference.see([row("a")])
    assert slots is not None
    difference.see(news)
    take(difference.finish())
    assert difference.slots_hold
    take(difference.apply())
    assert seen_slots(index, [row("a")]) == slots


# Whatever lists come.

MANY = settings(max_examples=300, deadline=None)
ROWS = st.builds(
    lambda row_id, key, entries, digest, disabled_at, name, last_used_at: msgspec.structs.replace(
        row(row_id, key, *entries, digest=digest, disabled_at=disabled_at, name=name), last_used_at=last_used_at
    ),
    st.sampled_from("abcde"),
    st.sampled_from(CLIENT_KEYS),
    st.lists(st.sampled_from(ENTRIES), max_size=2),
    st.booleans(),
    st.sampled_from([None, None, None, "2026", False, "", 10**30]),
    st.sampled_from([None, None, "Shop", "x" * MAX_ROW]),
    st.sampled_from([None, "2026", "2027"]),
)
UNREADABLE = st.builds(unreadable, st.sampled_from([*"abcde", None]), st.sampled_from([None, None, "2028", 0]))
LISTS = st.lists(st.lists(ROWS | ROWS | ROWS | UNREADABLE, max_size=8), min_size=1, max_size=6)


def expected(before: dict[str, WidgetKey], listed: Iterable[Listed], lapsed: Collection[str] = ()) -> dict[str, WidgetKey]:
    """Tell what a list makes of some keys, id by id, from the rules as they are written down."""
    rows = list(listed)
    after = {}
    for row_id in {*before, *(each.id for each in rows if isinstance(each, WidgetKey))}:
        readable = [each for each in rows if isinstance(each, WidgetKey) and each.id == row_id and not is_too_large(each)]
        others = [each for each in rows if row_id == (each.row_id if isinstance(each, InvalidRow) else each.id)]
        revocations = [each.disabled_at for each in others if each not in readable and each.disabled_at is not None]
        stands: WidgetKey | None
        if readable:
            stands = next((each for each in readable if each.disabled), readable[0])
        elif others and row_id in before and (row_id not in lapsed or revocations or before[row_id].disabled):
            stands = before[row_id]
        else:
            stands = None
        if stands is not None:
            revoked = revocations and not stands.disabled
            after[row_id] = msgspec.structs.replace(stands, disabled_at=revocations[0]) if revoked else stands
    return after


def is_too_large(each: WidgetKey) -> bool:
    return each.name is not None and len(each.name) >= MAX_ROW


def stored(keys: dict[str, WidgetKey]) -> dict[str, WidgetKey]:
    """The keys as an index gives them back, which does not keep a number as large as 10**30."""
    return {
        row_id: msgspec.structs.replace(each, disabled_at=True) if each.disabled_at == 10**30 else each
        for row_id, each in keys.items()
    }


@MANY
@given(
    lists=LISTS,
    account=st.sampled_from([None, "acme"]),
    https_only=st.booleans(),
    counted_from=st.integers(0, 6),
    lapsed=st.sets(st.sampled_from("abcde")),
)
def test_an_index_decides_as_one_built_anew_from_what_the_lists_come_to(
    *, lists: list[list[Listed]], account: str | None, https_only: bool, counted_from: int, lapsed: set[str]
) -> None:
    index = KeyIndex(account=account, https_only=https_only)
    keys: dict[str, WidgetKey] = {}
    for number, rows in enumerate(lists):
        if number == counted_from:
            index.enabled_origins()
        keys = stored(expected(keys, rows, lapsed))
        take(compare(index, rows, lapsed=lapsed).apply())
        assert by_id(index) == keys
        if number + 1 == len(lists) or number >= counted_from:
            assert decisions(index) == decisions(index_of(*keys.values(), account=account, https_only=https_only))


@MANY
@given(LISTS)
def test_a_difference_is_what_tells_two_lists_apart(lists: list[list[Listed]]) -> None:
    index = index_of()
    for rows in lists:
        before = by_id(index)
        difference = compare(index, rows)
        added, changed, is_empty = difference.added_count, difference.changed_count, difference.is_empty
        removed = ids(packed for _, packed in difference.removed)
        index.replaced.clear()
        take(difference.apply())
        after = by_id(index)
        staying = {row_id for row_id in before.keys() & after.keys() if before[row_id].last8 == after[row_id].last8}
        assert sorted(removed) == sorted(before.keys() - staying)
        assert added == len(after.keys() - staying)
        # By what they look like, for a key that is disabled by 0 equals one that is disabled by False.
        news = {row_id for row_id in staying if repr(before[row_id]) != repr(after[row_id])}
        uses = {row_id for row_id in news if but_for_use(before[row_id]) == but_for_use(after[row_id])}
        assert (changed, sorted(index.replaced)) == (len(news - uses), sorted(news))
        assert is_empty == ({*map(but_for_use, before.values())} == {*map(but_for_use, after.values())})
        readable = [each.id for each in rows if isinstance(each, WidgetKey) and not is_too_large(each)]
        assert difference.duplicate_ids == {row_id for row_id in readable if readable.count(row_id) > 1}
        assert sorted(difference.kept) == sorted(after.keys() - set(readable))
        assert difference.count == len(rows)
        assert compare(index, rows).is_empty


def but_for_use(each: WidgetKey) -> str:
    return repr(msgspec.structs.replace(each, last_used_at=None))


@MANY
@given(
    lists=st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=2, max_size=6),
    slices=st.lists(st.lists(ROWS | UNREADABLE, max_size=4), min_size=6, max_size=6),
)
def test_slices_that_are_skipped_make_no_difference(*, lists: list[list[int]], slices: list[list[Listed]]) -> None:
    """As the refresher does it: a slice whose rows were all known as they are is not seen again as long as slots hold."""
    index = KeyIndex()
    keys: dict[str, WidgetKey] = {}
    known: dict[int, array[int]] = {}
    for numbers in lists:
        difference = Difference(index)
        now_known: dict[int, array[int]] = {}
        for number in numbers:
            slots = known.get(number)
            if slots is None or not difference.see_slots(slots):
                slots = difference.see(slices[number])
            if slots is not None:
                now_known[number] = slots
        take(difference.finish())
        keys = stored(expected(keys, [each for number in numbers for each in slices[number]]))
        known = now_known if difference.slots_hold else {}
        take(difference.apply())
        assert by_id(index) == keys
