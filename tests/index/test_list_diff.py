"""ListDiff: comparing a complete list with an index."""

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
from gatekeeper.index.list_diff import MAX_ROW, ListDiff, load
from gatekeeper.index.packed import STEP, drain
from gatekeeper.keys.reader import RowReader
from tests.support.indexes import (
    CLIENT_KEYS,
    ENTRIES,
    FIRST,
    OTHER,
    SECOND,
    Listed,
    apply,
    by_id,
    compare,
    decisions,
    index_of,
    known_as,
    nested,
    packed_size,
    resolved,
    row,
    unreadable,
    used,
)

# Single rows.


@pytest.mark.parametrize(
    "disabled_at",
    [10**30, {1, 2}, object(), [[]] * 3, {"at": None}, -0.0, b"2026", datetime(2026, 11, 1, tzinfo=UTC), nested()],
    ids=lambda value: type(value).__name__,
)
def test_any_disabled_at_disables_a_key_and_repeating_it_changes_nothing(disabled_at: object) -> None:
    revoked = row("a", disabled_at=disabled_at)
    index = index_of(revoked)
    known = index.resolve(FIRST)
    assert isinstance(known, IndexedKey)
    assert known.widget_key.disabled
    assert compare(index, [revoked]).is_empty
    index = index_of(row("a"))
    apply(index, [unreadable("a", disabled_at)])
    assert [each.disabled for each in index] == [True]


def test_a_row_without_an_allowlist_is_the_same_in_bulk_and_alone() -> None:
    raw = b'{"id":"a","last8":"abcdefgh","domain_allowlist":null}'
    index = KeyIndex()
    load(index, RowReader().tidy(b"[" + raw + b"]") or ())
    assert [each.domain_allowlist for each in index] == [()]
    assert ListDiff(index).add_rows([RowReader().read(0, raw)]) is not None


def test_a_row_of_more_than_64_kib_is_rejected() -> None:
    around = packed_size(row("a", FIRST, name="x" * 50_000)) - 50_000
    largest = row("a", FIRST, name="x" * (MAX_ROW - around))
    assert packed_size(largest) == MAX_ROW
    index = index_of(row("a"), row("b", OTHER))
    too_large = msgspec.structs.replace(largest, name="x" * MAX_ROW)
    diff = ListDiff(index)
    diff.add_rows([largest, row("b", OTHER)])
    assert not diff.rejected
    diff = ListDiff(index)
    assert diff.add_rows([too_large, row("b", OTHER)]) is None
    (rejected,) = diff.rejected
    assert (rejected.index, rejected.row_id) == (0, "a")
    assert rejected.problem == f"Expected at most 65536 bytes in a row, got {packed_size(too_large)}"
    changes = drain(diff.finish())
    assert changes.retained == ["a"]
    drain(changes.apply())
    assert by_id(index) == {"a": row("a"), "b": row("b", OTHER)}
    apply(index, [row("b", OTHER), msgspec.structs.replace(too_large, disabled_at="2026")])
    assert sorted((each.id, each.disabled) for each in index) == [("a", True), ("b", False)]


def test_long_ids_are_not_confused_with_their_prefixes() -> None:
    long_id = "a" * 300
    rows = [row(long_id), row("a" * 200, OTHER)]
    index = index_of(*rows)
    apply(index, [msgspec.structs.replace(rows[0], name="x" * MAX_ROW, disabled_at="2026"), rows[1]])
    assert {len(each.id): each.disabled for each in index} == {300: True, 200: False}


def test_a_key_with_a_new_suffix_is_found_by_that_one_only() -> None:
    index = index_of(row("a", FIRST), row("b", FIRST))
    apply(index, [row("a", OTHER), row("b", FIRST)])
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["b", "a"]
    apply(index, [row("a", OTHER), row("b", OTHER)])
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["unknown", "ambiguous"]


def test_two_keys_may_swap_suffixes() -> None:
    index = index_of(row("a", FIRST), row("b", OTHER))
    apply(index, [row("a", OTHER), row("b", FIRST)])
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["b", "a"]
    assert len(index) == 2


def test_a_key_with_a_new_suffix_counts_as_added_and_removed() -> None:
    index = index_of(row("a", FIRST))
    changes = compare(index, [row("a", OTHER)])
    assert (changes.added_count, changes.changed_count, changes.removed_count) == (1, 0, 1)
    assert changes.duplicate_ids == set()


# Duplicate ids.

ENABLED, ENABLED_TOO = row("a", FIRST, "first.test"), row("a", FIRST, "second.test")
REVOKED, REVOKED_TOO = row("a", FIRST, "third.test", disabled_at="2026"), row("a", FIRST, "fourth.test", disabled_at=0)


@pytest.mark.parametrize(
    ("rows", "winner"),
    [
        pytest.param([ENABLED, ENABLED_TOO], ENABLED, id="two enabled: the first"),
        pytest.param([ENABLED, REVOKED], REVOKED, id="enabled, disabled: the disabled one"),
        pytest.param([REVOKED, ENABLED], REVOKED, id="disabled, enabled: the disabled one"),
        pytest.param([REVOKED, REVOKED_TOO], REVOKED, id="two disabled: the first"),
        pytest.param([ENABLED, ENABLED_TOO, REVOKED], REVOKED, id="a disabled one at the end"),
        pytest.param([ENABLED, REVOKED, ENABLED_TOO, REVOKED_TOO], REVOKED, id="the first disabled one"),
        pytest.param([ENABLED, ENABLED], ENABLED, id="twice the same"),
    ],
)
@pytest.mark.parametrize(
    "known",
    [None, ENABLED, ENABLED_TOO, REVOKED, REVOKED_TOO],
    ids=["new", "enabled", "enabled too", "revoked", "revoked too"],
)
def test_the_first_disabled_row_of_an_id_wins_otherwise_the_first(
    rows: list[WidgetKey], winner: WidgetKey, known: WidgetKey | None
) -> None:
    index = index_of(row("b", OTHER), *([] if known is None else [known]))
    changes = compare(index, [*rows, row("b", OTHER)])
    assert changes.is_empty is (known == winner)
    drain(changes.apply())
    found = known_as(index, "a")
    assert found is not None
    assert found.widget_key == winner
    assert found.allowlist.patterns == winner.domain_allowlist
    assert changes.duplicate_ids == {"a"}
    assert len(index) == 2


def test_a_changed_row_is_found_again_when_its_id_repeats() -> None:
    numbers = range(3 * STEP)
    index = index_of(*(row(str(number)) for number in numbers))
    diff = ListDiff(index)
    diff.add_rows(row(str(number), name="changed") for number in numbers)
    repeated = [0, STEP - 1, STEP, 2 * STEP + 7, 3 * STEP - 1]
    diff.add_rows([row(str(number), name="again") for number in repeated])
    diff.add_rows([row(str(number), name="revoked", disabled_at="2026") for number in repeated[1:]])
    changes = drain(diff.finish())
    assert (changes.changed_count, len(changes.revoked_at)) == (3 * STEP, len(repeated) - 1)
    drain(changes.apply())
    assert {int(row_id): (each.name, each.disabled) for row_id, each in by_id(index).items()} == {
        number: ("revoked", True) if number in repeated[1:] else ("changed", False) for number in numbers
    }


def test_the_same_row_wins_if_rows_of_an_id_have_several_suffixes() -> None:
    """In any order, and with any of them known."""
    here = [ENABLED, REVOKED]
    elsewhere = [msgspec.structs.replace(each, last8=OTHER.last8, name="elsewhere") for each in (ENABLED_TOO, REVOKED_TOO)]
    for rows in permutations([*here, *elsewhere]):
        for length in (2, 3, 4):
            listed = rows[:length]
            winner = next((each for each in listed if each.disabled), listed[0])
            for known in ([], *([each] for each in (*here, *elsewhere))):
                index = index_of(*known, row("b"))
                changes = apply(index, [*listed, row("b")])
                assert by_id(index) == {"a": winner, "b": row("b")}
                assert changes.duplicate_ids == {"a"}


# Unreadable rows.


def test_a_key_with_an_unreadable_row_is_retained() -> None:
    index = index_of(row("a"), row("b", OTHER))
    before = known_as(index, "a")
    changes = compare(index, [unreadable("a")])
    assert (changes.retained, changes.removed_count) == (["a"], 1)
    drain(changes.apply())
    assert known_as(index, "a") is before
    assert len(index) == 1


def test_an_unreadable_row_adds_no_key() -> None:
    index = KeyIndex()
    diff = ListDiff(index)
    diff.add_rows([unreadable("a"), unreadable(None), unreadable("b", "2026"), row("c")])
    assert (diff.count, diff.rejected_count, len(diff.rejected)) == (4, 3, 3)
    changes = drain(diff.finish())
    assert changes.retained == []
    drain(changes.apply())
    assert list(index) == [row("c")]


def test_the_first_ten_unreadable_rows_are_kept_and_all_are_counted() -> None:
    diff = ListDiff(KeyIndex())
    rows = [unreadable(str(number)) for number in range(12)]
    diff.add_rows(rows)
    assert diff.rejected == rows[:10]
    assert (diff.rejected_count, diff.rejected_reasons.total()) == (12, 12)


@pytest.mark.parametrize("disabled_at", ["2026-11-01T00:00:00Z", False, 0, "", [], 10**30])
def test_an_unreadable_row_with_disabled_at_revokes_its_key(disabled_at: object) -> None:
    index = index_of(row("a", name="Shop"), row("b", OTHER))
    apply(index, [unreadable("a", disabled_at), row("b", OTHER)])
    assert sorted((each.id, each.name, each.disabled) for each in index) == [("a", "Shop", True), ("b", None, False)]


def test_an_unreadable_row_leaves_a_revoked_key_as_it_is() -> None:
    index = index_of(REVOKED)
    assert compare(index, [unreadable("a", "2027")]).is_empty
    assert compare(index, [unreadable("a")]).is_empty


@pytest.mark.parametrize("known", [None, ENABLED, REVOKED, msgspec.structs.replace(ENABLED, last8=OTHER.last8)], ids=str)
@pytest.mark.parametrize("listed", [ENABLED_TOO, REVOKED_TOO, used(ENABLED)], ids=str)
def test_a_readable_row_wins_over_unreadable_ones_except_revocations(known: WidgetKey | None, listed: WidgetKey) -> None:
    for disabled_at, winner in (
        (None, listed),
        ("2030", listed if listed.disabled else msgspec.structs.replace(listed, disabled_at="2030")),
    ):
        listings: list[Listed] = [listed, unreadable("a", disabled_at), unreadable("a")]
        for rows in permutations(listings):
            index = index_of(*([] if known is None else [known]))
            changes = apply(index, rows)
            assert list(index) == [winner]
            assert changes.duplicate_ids == set()
            assert changes.retained == []


def test_an_expired_key_is_removed_unless_it_is_or_becomes_disabled() -> None:
    index = index_of(row("a"), row("b"), row("c"), row("d"), row("e", disabled_at=""))
    rows: list[Listed] = [unreadable("a"), unreadable("b"), unreadable("c", ""), row("d"), unreadable("d"), unreadable("e")]
    changes = compare(index, rows, expired_ids={"a", "c", "d", "e", "unlike"})
    drain(changes.apply())
    assert sorted((each.id, each.disabled) for each in index) == [("b", False), ("c", True), ("d", False), ("e", True)]
    assert sorted(changes.retained) == ["b", "c", "e"]


# Known slices.


def slots_of(index: KeyIndex, rows: Iterable[Listed]) -> "array[int]":
    """The slots of rows that the index has unchanged."""
    slots = ListDiff(index).add_rows(rows)
    assert slots is not None
    return slots


def test_rows_of_a_known_slice_are_not_compared_again() -> None:
    rows = [row("a"), row("b"), row("c", OTHER)]
    index = index_of(*rows)
    diff = ListDiff(index)
    assert diff.add_known_slice(slots_of(index, rows[:2]))
    assert diff.add_rows([rows[2]]) is not None
    assert diff.count == 3
    changes = drain(diff.finish())
    assert (changes.is_empty, changes.slots_are_stable) == (True, True)
    diff = ListDiff(index)
    diff.add_known_slice(slots_of(index, rows[1:]))
    drain(drain(diff.finish()).apply())
    assert set(by_id(index)) == {"b", "c"}


def test_the_slots_of_new_and_changed_rows_are_valid_once_applied() -> None:
    index = index_of(row("gone"), row("a"), row("b"), row("c"))
    apply(index, [row("a"), row("b"), row("c")])
    rows = [row("new", OTHER), row("a", name="changed"), used(row("b")), row("c"), row("another")]
    diff = ListDiff(index)
    slots = diff.add_rows(rows)
    assert slots is not None
    assert len(set(slots)) == len(rows)
    changes = drain(diff.finish())
    assert changes.slots_are_stable
    drain(changes.apply())
    assert slots == slots_of(index, rows)


@pytest.mark.parametrize("other", [unreadable("a"), unreadable(None), row("b"), row("b", name="changed")], ids=str)
def test_rows_that_the_index_will_not_all_have_get_no_slots(other: Listed) -> None:
    index = index_of(row("a"), row("b"))
    assert ListDiff(index).add_rows([row("b"), other]) is None


def test_a_known_slice_with_a_row_that_came_before_is_refused() -> None:
    index = index_of(row("a"), row("b"))
    slots = slots_of(index, [row("a"), row("b")])
    diff = ListDiff(index)
    assert diff.add_rows([row("b", disabled_at="2026")]) == slots[1:]
    assert not diff.add_known_slice(slots)
    assert diff.count == 1
    assert diff.add_rows([row("a"), row("b")]) is None
    changes = drain(diff.finish())
    drain(changes.apply())
    assert changes.duplicate_ids == {"b"}
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
def test_slots_are_unstable_if_a_later_row_of_an_id_wins_or_loses(later: Listed) -> None:
    index = index_of(row("a"), row("b"))
    diff = ListDiff(index)
    assert diff.add_rows([row("a"), row("b"), row("new")]) is not None
    diff.add_rows([later])
    assert not drain(diff.finish()).slots_are_stable


@pytest.mark.parametrize("later", [row("a"), row("c"), unreadable("a"), unreadable("new"), unreadable("c", "2026")], ids=str)
def test_slots_are_stable_while_every_earlier_row_wins(later: Listed) -> None:
    index = index_of(row("a"), row("b"))
    diff = ListDiff(index)
    assert diff.add_rows([row("a"), row("b"), row("new")]) is not None
    diff.add_rows([later])
    assert drain(diff.finish()).slots_are_stable


@pytest.mark.parametrize(
    "others",
    [
        [unreadable("b", "2026")],
        [unreadable("b")],
        [row("b", OTHER)],
        [row("b", OTHER), unreadable("b")],
        [row("new")],
        [],
    ],
    ids=["revoked", "retained", "moved", "moved and unreadable", "new", "removed"],
)
def test_slots_stay_stable_when_keys_without_them_change(others: list[Listed]) -> None:
    index = index_of(row("a"), row("b", SECOND))
    diff = ListDiff(index)
    slots = diff.add_rows([row("a")])
    assert slots is not None
    diff.add_rows(others)
    changes = drain(diff.finish())
    assert changes.slots_are_stable
    drain(changes.apply())
    assert slots_of(index, [row("a")]) == slots


# Any lists.

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


def expected(
    before: dict[str, WidgetKey], listed: Iterable[Listed], expired_ids: Collection[str] = ()
) -> dict[str, WidgetKey]:
    """The keys after a list, worked out id by id."""
    rows = list(listed)
    after = {}
    for row_id in {*before, *(each.id for each in rows if isinstance(each, WidgetKey))}:
        readable = [each for each in rows if isinstance(each, WidgetKey) and each.id == row_id and not is_too_large(each)]
        others = [each for each in rows if row_id == (each.row_id if isinstance(each, InvalidRow) else each.id)]
        revocations = [each.disabled_at for each in others if each not in readable and each.disabled_at is not None]
        winner: WidgetKey | None
        if readable:
            winner = next((each for each in readable if each.disabled), readable[0])
        elif others and row_id in before and (row_id not in expired_ids or revocations or before[row_id].disabled):
            winner = before[row_id]
        else:
            winner = None
        if winner is not None:
            is_revoked = revocations and not winner.disabled
            after[row_id] = msgspec.structs.replace(winner, disabled_at=revocations[0]) if is_revoked else winner
    return after


def is_too_large(each: WidgetKey) -> bool:
    return each.name is not None and len(each.name) >= MAX_ROW


def stored(keys: dict[str, WidgetKey]) -> dict[str, WidgetKey]:
    """The keys as an index returns them, which cannot store 10**30."""
    return {
        row_id: msgspec.structs.replace(each, disabled_at=True) if each.disabled_at == 10**30 else each
        for row_id, each in keys.items()
    }


@pytest.mark.slow
@MANY
@given(
    lists=LISTS,
    account=st.sampled_from([None, "acme"]),
    https_only=st.booleans(),
    counted_from=st.integers(0, 6),
    expired_ids=st.sets(st.sampled_from("abcde")),
)
def test_an_updated_index_decides_like_a_new_one(
    *, lists: list[list[Listed]], account: str | None, https_only: bool, counted_from: int, expired_ids: set[str]
) -> None:
    index = KeyIndex(account=account, https_only=https_only)
    keys: dict[str, WidgetKey] = {}
    for number, rows in enumerate(lists):
        if number == counted_from:
            index.enabled_origins()
        keys = stored(expected(keys, rows, expired_ids))
        drain(compare(index, rows, expired_ids=expired_ids).apply())
        assert by_id(index) == keys
        if number + 1 == len(lists) or number >= counted_from:
            assert decisions(index) == decisions(index_of(*keys.values(), account=account, https_only=https_only))


@pytest.mark.slow
@MANY
@given(LISTS)
def test_a_change_set_is_the_difference_between_two_lists(lists: list[list[Listed]]) -> None:
    index = index_of()
    for rows in lists:
        before = by_id(index)
        diff = ListDiff(index)
        diff.add_rows(rows)
        assert diff.count == len(rows)
        changes = drain(diff.finish())
        index.replaced.clear()
        drain(changes.apply())
        after = by_id(index)
        staying = {row_id for row_id in before.keys() & after.keys() if before[row_id].last8 == after[row_id].last8}
        assert (changes.added_count, changes.removed_count) == (len(after.keys() - staying), len(before.keys() - staying))
        # Compared by repr, because a key with disabled_at=0 equals one with disabled_at=False.
        replaced = {row_id for row_id in staying if repr(before[row_id]) != repr(after[row_id])}
        used_only = {row_id for row_id in replaced if without_use(before[row_id]) == without_use(after[row_id])}
        assert (changes.changed_count, sorted(index.replaced)) == (len(replaced - used_only), sorted(replaced))
        assert changes.is_empty == ({*map(without_use, before.values())} == {*map(without_use, after.values())})
        readable = [each.id for each in rows if isinstance(each, WidgetKey) and not is_too_large(each)]
        assert changes.duplicate_ids == {row_id for row_id in readable if readable.count(row_id) > 1}
        assert sorted(changes.retained) == sorted(after.keys() - set(readable))
        assert compare(index, rows).is_empty


def without_use(each: WidgetKey) -> str:
    return repr(msgspec.structs.replace(each, last_used_at=None))


@pytest.mark.slow
@MANY
@given(
    lists=st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=2, max_size=6),
    slices=st.lists(st.lists(ROWS | UNREADABLE, max_size=4), min_size=6, max_size=6),
)
def test_skipping_known_slices_changes_no_result(*, lists: list[list[int]], slices: list[list[Listed]]) -> None:
    """A refresh skips known slices as long as slots are stable."""
    index = KeyIndex()
    keys: dict[str, WidgetKey] = {}
    known: dict[int, array[int]] = {}
    for numbers in lists:
        diff = ListDiff(index)
        now_known: dict[int, array[int]] = {}
        for number in numbers:
            slots = known.get(number)
            if slots is None or not diff.add_known_slice(slots):
                slots = diff.add_rows(slices[number])
            if slots is not None:
                now_known[number] = slots
        changes = drain(diff.finish())
        keys = stored(expected(keys, [each for number in numbers for each in slices[number]]))
        known = now_known if changes.slots_are_stable else {}
        drain(changes.apply())
        assert by_id(index) == keys
