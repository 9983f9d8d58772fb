"""DeltaDiff: comparing what has changed in a list with an index."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import InvalidRow, WidgetKey
from gatekeeper.index.change_set import ChangeSet
from gatekeeper.index.delta_diff import DeltaDiff
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.list_diff import MAX_ROW
from gatekeeper.index.packed import STEP, drain
from gatekeeper.index.precedence import Precedence
from gatekeeper.keys.delta import Removal
from tests.support.indexes import (
    CLIENT_KEYS,
    ENTRIES,
    FIRST,
    LAST8,
    OTHER,
    SECOND,
    WatchedIndex,
    by_id,
    decisions,
    index_of,
    nested,
    resolved,
    row,
    unreadable,
    used,
)

Element = WidgetKey | Removal | InvalidRow

ENABLED, ENABLED_TOO = row("a", FIRST, "first.test"), row("a", FIRST, "second.test")
REVOKED, REVOKED_TOO = row("a", FIRST, "third.test", disabled_at="2026"), row("a", FIRST, "fourth.test", disabled_at=0)
GONE = Removal("a", LAST8)


def compare(index: KeyIndex, elements: Iterable[Element], **options: Any) -> ChangeSet:
    """Compare a delta with an index."""
    diff = DeltaDiff(index, **options)
    diff.add_rows(elements)
    return drain(diff.finish())


def apply(index: KeyIndex, *elements: Element, **options: Any) -> ChangeSet:
    """Apply a delta to an index."""
    changes = compare(index, elements, **options)
    drain(changes.apply())
    return changes


# Rows and removals.


def test_a_delta_adds_changes_and_removes_what_it_names() -> None:
    index = index_of(row("a"), row("b", OTHER), row("c", SECOND))
    changes = apply(index, row("a", name="Shop"), row("d"), Removal("b", OTHER.last8))
    assert (changes.added_count, changes.changed_count, changes.removed_count) == (1, 1, 1)
    assert by_id(index) == {"a": row("a", name="Shop"), "c": row("c", SECOND), "d": row("d")}
    assert (changes.retained, changes.duplicate_ids, changes.overruled_count) == ([], set(), 0)
    assert not changes.slots_are_stable


def test_a_revocation_is_told_by_its_time() -> None:
    changes = apply(index := index_of(ENABLED), REVOKED)
    assert (list(index), changes.revoked_at) == ([REVOKED], ["2026"])


def test_an_empty_delta_and_known_rows_change_nothing() -> None:
    index = index_of(row("a"), row("b", OTHER))
    assert compare(index, []).is_empty
    assert compare(index, [row("a"), row("b", OTHER)]).is_empty
    assert apply(index, used(row("a"))).is_empty
    assert by_id(index)["a"] == used(row("a"))


@pytest.mark.parametrize(
    "removal",
    [Removal("unknown", LAST8), Removal("a", OTHER.last8), Removal("a", "00000000"), Removal("b", LAST8), Removal("", "")],
    ids=str,
)
def test_a_removal_of_no_known_key_is_harmless(removal: Removal) -> None:
    index = index_of(row("a"), row("b", OTHER))
    assert apply(index, removal).is_empty
    assert by_id(index) == {"a": row("a"), "b": row("b", OTHER)}


def test_everything_may_be_removed() -> None:
    index = index_of(row("a"), row("b"), row("c", OTHER))
    changes = apply(index, GONE, Removal("b", LAST8), Removal("c", OTHER.last8), GONE)
    assert (changes.removed_count, list(index), index.ambiguous()) == (3, [], ())


def test_of_several_keys_with_one_suffix_only_the_named_one_is_removed() -> None:
    index = index_of(row("a"), row("b"), row("c"))
    assert index.ambiguous() == (LAST8,)
    apply(index, GONE, Removal("c", LAST8))
    assert (resolved(index, FIRST), list(index)) == ("b", [row("b")])


def test_a_key_with_a_new_suffix_is_found_by_that_one_only() -> None:
    deltas: list[list[Element]] = [[row("a", OTHER), GONE], [GONE, row("a", OTHER)]]
    for delta in deltas:
        index = index_of(row("a"))
        changes = apply(index, *delta)
        assert (changes.added_count, changes.removed_count) == (1, 1)
        assert [resolved(index, key) for key in (FIRST, OTHER)] == ["unknown", "a"]


def test_two_keys_may_swap_suffixes() -> None:
    index = index_of(row("a"), row("b", OTHER))
    apply(index, row("a", OTHER), row("b"), GONE, Removal("b", OTHER.last8))
    assert [resolved(index, key) for key in (FIRST, OTHER)] == ["b", "a"]
    assert len(index) == 2


@pytest.mark.parametrize(
    "disabled_at", [10**30, {1, 2}, [[]] * 3, b"2026", nested()], ids=lambda value: type(value).__name__
)
def test_any_disabled_at_disables_a_key(disabled_at: object) -> None:
    apply(index := index_of(row("a")), row("a", disabled_at=disabled_at))
    assert [each.disabled for each in index] == [True]
    apply(index := index_of(row("a")), unreadable_row("a", disabled_at))
    assert [each.disabled for each in index] == [True]


# Repeated ids.


@pytest.mark.parametrize(
    ("rows", "winner"),
    [
        pytest.param([ENABLED, ENABLED_TOO], ENABLED, id="two enabled: the first"),
        pytest.param([ENABLED, REVOKED], REVOKED, id="enabled, disabled: the disabled one"),
        pytest.param([REVOKED, ENABLED], REVOKED, id="disabled, enabled: the disabled one"),
        pytest.param([REVOKED, REVOKED_TOO], REVOKED, id="two disabled: the first"),
        pytest.param([ENABLED, REVOKED, ENABLED_TOO, REVOKED_TOO], REVOKED, id="the first disabled one"),
        pytest.param([ENABLED, ENABLED], ENABLED, id="twice the same"),
    ],
)
@pytest.mark.parametrize("known", [None, ENABLED, ENABLED_TOO, REVOKED, REVOKED_TOO], ids=str)
def test_the_first_disabled_row_of_an_id_wins_otherwise_the_first(
    rows: list[WidgetKey], winner: WidgetKey, known: WidgetKey | None
) -> None:
    index = index_of(*([] if known is None else [known]))
    changes = apply(index, *rows)
    assert (list(index), changes.duplicate_ids, changes.is_empty) == ([winner], {"a"}, known == winner)


def test_the_key_of_a_row_that_loses_is_removed() -> None:
    """As a whole list with both rows would have it."""
    elsewhere = row("a", OTHER, disabled_at="2026")
    for known in (ENABLED, elsewhere):
        index = index_of(known)
        apply(index, ENABLED, elsewhere)
        assert list(index) == [elsewhere]


@pytest.mark.parametrize("known", [None, ENABLED, REVOKED], ids=str)
def test_a_removal_wins_over_an_enabled_row_of_its_key(known: WidgetKey | None) -> None:
    for delta in ([GONE, ENABLED_TOO], [ENABLED_TOO, GONE], [ENABLED_TOO, GONE, ENABLED]):
        index = index_of(*([] if known is None else [known]))
        diff = DeltaDiff(index)
        diff.add_rows(delta)
        changes = drain(diff.finish())
        drain(changes.apply())
        assert (list(index), diff.contradiction_count, changes.duplicate_ids) == ([], 1, {"a"})


@pytest.mark.parametrize("known", [None, ENABLED, REVOKED], ids=str)
def test_a_disabled_row_wins_over_a_removal_of_its_key(known: WidgetKey | None) -> None:
    """Another key with the same last 8 characters stays ambiguous then."""
    for delta in ([GONE, REVOKED_TOO], [REVOKED_TOO, GONE], [ENABLED, GONE, REVOKED_TOO]):
        index = index_of(*([] if known is None else [known]), row("b"))
        diff = DeltaDiff(index)
        diff.add_rows(delta)
        drain(drain(diff.finish()).apply())
        assert (by_id(index), diff.contradiction_count) == ({"a": REVOKED_TOO, "b": row("b")}, 1)
        assert resolved(index, FIRST) == "ambiguous"


# Unreadable rows.


def unreadable_row(row_id: str | None, disabled_at: object = None, last8: str | None = LAST8) -> InvalidRow:
    """Make an unreadable row with its last 8 characters."""
    return InvalidRow(0, "unreadable", row_id=row_id, disabled_at=disabled_at, last8=last8, reason="agent")


def test_unreadable_rows_are_counted_and_the_first_ten_kept() -> None:
    diff = DeltaDiff(index_of(row("a")))
    rows = [unreadable(str(number)) for number in range(12)]
    diff.add_rows([row("a", name="Shop"), *rows])
    assert (diff.count, diff.rejected_count, diff.rejected_reasons) == (13, 12, {"other": 12})
    assert diff.rejected == rows[:10]
    assert drain(diff.finish()).changed_count == 1


def test_an_unreadable_row_keeps_its_key_as_it_is() -> None:
    index = index_of(row("a"), row("b", OTHER))
    assert apply(index, unreadable_row("a"), unreadable(None)).is_empty
    assert by_id(index) == {"a": row("a"), "b": row("b", OTHER)}


@pytest.mark.parametrize("disabled_at", ["2026-11-01T00:00:00Z", False, 0, "", [], 10**30])
def test_an_unreadable_row_with_disabled_at_revokes_its_key(disabled_at: object) -> None:
    index = index_of(row("a", name="Shop"), row("b"))
    changes = apply(index, unreadable_row("a", disabled_at), unreadable_row("a", "later"), unreadable_row("a"))
    assert sorted((each.id, each.name, each.disabled) for each in index) == [("a", "Shop", True), ("b", None, False)]
    assert changes.revoked_at == [True if disabled_at == 10**30 else disabled_at]


@pytest.mark.parametrize(
    "rejected",
    [
        unreadable("a", "2026"),
        unreadable_row("a", "2026", OTHER.last8),
        unreadable_row("b", "2026"),
        unreadable_row(None, 1),
    ],
    ids=["no last 8", "other last 8", "other id", "no id"],
)
def test_an_unreadable_row_that_names_no_known_key_revokes_none(rejected: InvalidRow) -> None:
    index = index_of(row("a"), row("b", OTHER))
    assert apply(index, rejected).is_empty


@pytest.mark.parametrize("known", [None, ENABLED, REVOKED], ids=str)
def test_an_unreadable_row_revokes_the_row_with_its_id(known: WidgetKey | None) -> None:
    rejected = unreadable("a", "2030")
    deltas: list[list[Element]] = [[ENABLED_TOO, rejected], [rejected, ENABLED_TOO]]
    for delta in deltas:
        index = index_of(*([] if known is None else [known]))
        apply(index, *delta)
        assert list(index) == [msgspec.structs.replace(ENABLED_TOO, disabled_at="2030")]


def test_an_unreadable_row_beside_others_of_its_key_counts_once() -> None:
    changes = apply(index := index_of(ENABLED), ENABLED_TOO, unreadable_row("a", "2030"))
    assert (list(index), changes.revoked_at) == ([msgspec.structs.replace(ENABLED_TOO, disabled_at="2030")], ["2030"])
    changes = apply(index := index_of(ENABLED), GONE, unreadable_row("a", "2030"))
    assert (list(index), changes.changed_count, changes.removed_count) == ([], 0, 1)


def test_a_row_of_more_than_64_kib_is_rejected_and_still_revokes() -> None:
    index = index_of(row("a"), row("b", OTHER))
    diff = DeltaDiff(index)
    diff.add_rows([row("b", OTHER, name="x" * MAX_ROW), row("a", name="x" * MAX_ROW, disabled_at="2026")])
    drain(drain(diff.finish()).apply())
    assert [(each.index, each.row_id, each.last8) for each in diff.rejected] == [(0, "b", OTHER.last8), (1, "a", LAST8)]
    assert by_id(index) == {"a": row("a", disabled_at="2026"), "b": row("b", OTHER)}


# Older rows.


def stamped(row_id: str, updated_at: str, last8: str = LAST8, **fields: Any) -> WidgetKey:
    """A row that was changed at a time."""
    return WidgetKey(row_id, None, last8, ("acme.com",), updated_at=updated_at, **fields)


HELD = stamped("a", "2026-11-01T00:00:02Z")


def test_an_older_row_never_loosens() -> None:
    index = index_of(HELD, stamped("b", "2026-11-01T00:00:02Z", OTHER.last8))
    changes = apply(index, stamped("a", "2026-11-01T00:00:01Z", agent_id="x"))
    assert (changes.overruled_count, changes.is_empty, by_id(index)["a"]) == (1, True, HELD)
    changes = apply(index, stamped("a", "2026-11-01T00:00:01Z", agent_id="x", disabled_at="2026"))
    assert (changes.overruled_count, by_id(index)["a"]) == (1, msgspec.structs.replace(HELD, disabled_at="2026"))


def test_an_older_row_counts_if_the_delta_is_trusted() -> None:
    older = stamped("a", "2026-11-01T00:00:01Z")
    assert apply(index := index_of(HELD), older, precedence=Precedence(is_trusted=True)).overruled_count == 0
    assert list(index) == [older]


def test_an_older_row_gives_its_key_no_other_suffix() -> None:
    changes = apply(index := index_of(HELD), stamped("a", "2026-11-01T00:00:01Z", OTHER.last8), GONE)
    assert (changes.overruled_count, list(index)) == (1, [])


def test_of_a_delta_that_may_not_loosen_only_revocations_count() -> None:
    index = index_of(row("a"), row("b", OTHER))
    delta: list[Element] = [row("a", disabled_at="2026"), row("c"), Removal("b", OTHER.last8)]
    assert apply(index, *delta, precedence=Precedence(may_loosen=False)).overruled_count == 3
    assert by_id(index) == {"a": row("a", disabled_at="2026"), "b": row("b", OTHER)}


# The work.


class UnwalkedIndex(WatchedIndex):
    """An index that tells what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_up = 0

    def candidate(self, last8: str, row_id: str) -> bytes | None:
        """Count the question, then answer it."""
        self.looked_up += 1
        return super().candidate(last8, row_id)


def test_the_work_depends_on_the_delta_alone() -> None:
    index = UnwalkedIndex()
    drain(compare(index, [row(str(number)) for number in range(3 * STEP)]).apply())
    index.looked_up = 0
    apply(index, row("1", name="Shop"), Removal("2", LAST8), row("new"))
    assert (index.walks, index.looked_up, index.replaced) == (0, 3, ["1"])


def test_a_short_delta_takes_no_step() -> None:
    diff = DeltaDiff(index := index_of(row("1"), row("2")))
    diff.add_rows([row("1", name="Shop"), Removal("2", LAST8), row("new")])
    with pytest.raises(StopIteration) as end:
        next(diff.finish())
    changes = end.value.value
    assert list(changes.apply()) == []
    assert {each.id: each.name for each in index} == {"1": "Shop", "new": row("new").name}


def test_a_long_delta_takes_many_steps() -> None:
    diff = DeltaDiff(index := index_of(*(row(str(number)) for number in range(3 * STEP))))
    diff.add_rows([row(str(number), name="Shop") for number in range(2 * STEP)])
    diff.add_rows([Removal(str(number), LAST8) for number in range(2 * STEP, 3 * STEP)])
    steps = diff.finish()
    assert [next(steps) for _ in range(3)] == [None] * 3
    assert len(list(drain(steps).apply())) == 3
    assert {each.name for each in index} == {"Shop"}


# Any lists and deltas.

MANY = settings(max_examples=100, deadline=None)
ROWS = st.builds(
    lambda row_id, key, entries, digest, disabled_at, name: row(
        row_id, key, *entries, digest=digest, disabled_at=disabled_at, name=name
    ),
    st.sampled_from("abcdef"),
    st.sampled_from(CLIENT_KEYS),
    st.lists(st.sampled_from(ENTRIES), max_size=2),
    st.booleans(),
    st.sampled_from([None, None, None, "2026", False, ""]),
    st.sampled_from([None, "Shop"]),
)
LISTS = st.lists(st.lists(ROWS, max_size=8), min_size=2, max_size=5)
REMOVALS = st.builds(Removal, st.sampled_from("abcdefg"), st.sampled_from([LAST8, OTHER.last8, "00000000"]))
UNREADABLE = st.builds(
    unreadable_row,
    st.sampled_from([*"abcdef", None]),
    st.sampled_from([None, None, "2028", 0]),
    st.sampled_from([LAST8, OTHER.last8, None]),
)


def winners(rows: Iterable[WidgetKey]) -> dict[str, WidgetKey]:
    """The row that counts of each id in a whole list."""
    found: dict[str, WidgetKey] = {}
    for each in rows:
        if each.id not in found or (each.disabled and not found[each.id].disabled):
            found[each.id] = each
    return found


def delta_of(before: dict[str, WidgetKey], rows: list[WidgetKey]) -> list[Element]:
    """What a hub sends about the change from one list to another."""
    after = winners(rows)
    changed = {row_id for row_id in before | after if repr(before.get(row_id)) != repr(after.get(row_id))}
    kept = {(each.id, each.last8) for each in rows}
    removed = [Removal(row_id, each.last8) for row_id, each in before.items() if (row_id, each.last8) not in kept]
    return [*(each for each in rows if each.id in changed), *removed]


@MANY
@given(
    lists=LISTS, noise=st.lists(REMOVALS, max_size=3), first=st.booleans(), https_only=st.booleans(), counted=st.booleans()
)
def test_deltas_lead_to_the_index_of_the_last_list(
    *, lists: list[list[WidgetKey]], noise: list[Removal], first: bool, https_only: bool, counted: bool
) -> None:
    index = index_of(*lists[0], https_only=https_only)
    before = winners(lists[0])
    if counted:
        index.enabled_origins()
    for rows in lists[1:]:
        known = {(each.id, each.last8) for each in (*before.values(), *rows)}
        unknown = [each for each in noise if (each.id, each.last8) not in known]
        delta = delta_of(before, rows)
        apply(index, *(unknown if first else ()), *delta, *(() if first else unknown))
        before = winners(rows)
        assert {row_id: repr(each) for row_id, each in by_id(index).items()} == {
            row_id: repr(each) for row_id, each in before.items()
        }
    assert decisions(index) == decisions(index_of(*lists[-1], https_only=https_only))


def expected(known: dict[tuple[str, str], WidgetKey], delta: list[Element]) -> dict[tuple[str, str], WidgetKey]:
    """The keys by id and last 8 after any delta, worked out rule by rule."""
    after = dict(known)
    for row_id in "abcdefg":
        rows = [each for each in delta if isinstance(each, WidgetKey) and each.id == row_id]
        removed = {each.last8 for each in delta if isinstance(each, Removal) and each.id == row_id}
        bad = [each for each in delta if isinstance(each, InvalidRow) and each.row_id == row_id]
        revocations = [each for each in bad if each.disabled_at is not None]
        winner = winners(rows).get(row_id)
        if winner and revocations and not winner.disabled:
            winner = msgspec.structs.replace(winner, disabled_at=revocations[0].disabled_at)
        if winner and winner.last8 in removed and not winner.disabled:
            winner = None
        for each in revocations:
            held = after.get((row_id, each.last8 or ""))
            if held and not held.disabled:
                after[row_id, held.last8] = msgspec.structs.replace(held, disabled_at=revocations[0].disabled_at)
        for last8 in removed | {each.last8 for each in rows}:
            after.pop((row_id, last8), None)
        if winner:
            after[row_id, winner.last8] = winner
    return after


@MANY
@given(rows=st.lists(ROWS, max_size=8), delta=st.lists(ROWS | REMOVALS | UNREADABLE, max_size=10))
def test_any_delta_is_applied_rule_by_rule(*, rows: list[WidgetKey], delta: list[Element]) -> None:
    index = index_of(*rows)
    known = {(each.id, each.last8): each for each in index}
    changes = compare(index, delta)
    assert {(each.id, each.last8): repr(each) for each in index} == {name: repr(each) for name, each in known.items()}
    after = expected(known, delta)
    drain(changes.apply())
    assert {(each.id, each.last8): repr(each) for each in index} == {name: repr(each) for name, each in after.items()}
    assert len(index) == len(after)
    assert (changes.added_count, changes.removed_count) == (len(after.keys() - known), len(known.keys() - after))
    assert len({packed[:4] for step in index.walk() for _, packed in step}) == len(after)
