"""ChangeSet: what a list changes, and how that is applied."""

import msgspec
import pytest

from gatekeeper.index.enabled_origins import IndexedKey
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.packed import SLOT, STEP, drain
from gatekeeper.index.precedence import Precedence
from gatekeeper.keys.client_key import ClientKey
from tests.support.indexes import (
    CLIENT_KEYS,
    FIRST,
    OTHER,
    Listed,
    apply,
    by_id,
    compare,
    index_of,
    known_as,
    resolved,
    row,
    unreadable,
    used,
)

# What a list changes.


def test_a_change_set_counts_its_changes_and_applies_them_later() -> None:
    index = index_of(row("same"), row("changed"), row("used"), row("gone"))
    rows = [row("same"), row("changed", FIRST, "shop.test"), used(row("used")), row("new", OTHER)]
    same, before = known_as(index, "same"), known_as(index, "changed")
    changes = compare(index, rows)
    assert (changes.added_count, changes.changed_count, changes.removed_count) == (1, 1, 1)
    assert (changes.duplicate_ids, changes.retained, changes.revoked_at) == (set(), [], [])
    assert (changes.is_empty, changes.slots_are_stable) == (False, True)
    assert known_as(index, "changed") is before
    assert set(by_id(index)) == {"same", "changed", "used", "gone"}
    drain(changes.apply())
    assert by_id(index) == {each.id: each for each in rows}
    assert known_as(index, "same") is same
    assert sorted(index.replaced) == ["changed", "used"]
    assert (changes.added_count, changes.changed_count, changes.removed_count) == (1, 1, 1)


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
def test_a_row_with_any_field_changed_is_a_change(change: dict[str, object]) -> None:
    before = row("a")
    after = msgspec.structs.replace(before, **change)
    index = index_of(before)
    assert compare(index, [row("a")]).is_empty
    changes = compare(index, [after])
    assert (changes.is_empty, changes.changed_count + changes.added_count) == (False, 1)
    drain(changes.apply())
    assert list(index) == [after]


def test_a_row_that_was_only_used_is_applied_but_changes_no_decision() -> None:
    index = index_of(row("a"), row("b", OTHER))
    for rows in ([used(row("a")), row("b", OTHER)], [row("a"), row("b", OTHER)]):
        changes = compare(index, rows)
        assert (changes.is_empty, changes.changed_count) == (True, 0)
        index.replaced.clear()
        drain(changes.apply())
        assert index.replaced == ["a"]
        assert sorted(index, key=lambda each: each.id) == rows


@pytest.mark.parametrize("client_key", [FIRST, OTHER], ids=["the same suffix", "another suffix"])
def test_only_the_winning_row_of_a_key_is_applied(client_key: ClientKey) -> None:
    index = index_of(row("a"))
    changes = compare(index, [used(row("a")), row("a", client_key, disabled_at="2026")])
    drain(changes.apply())
    assert list(index) == [row("a", client_key, disabled_at="2026")]
    assert len(index.replaced) == (client_key is FIRST)


def test_only_rows_that_newly_revoke_a_known_key_are_revocations() -> None:
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


# Applying it.


def test_colliding_keys_stay_ambiguous_between_two_steps() -> None:
    """If one key were removed first, the other would briefly work."""
    index = index_of(row("a"), row("b"))
    many = [row(str(n), OTHER) for n in range(STEP)]
    found = [index.resolve(FIRST) for _ in compare(index, [row("a", disabled_at="2026"), *many]).apply()]
    assert len(found) == 3
    assert all(each == "ambiguous" or (isinstance(each, IndexedKey) and each.widget_key.disabled) for each in found)
    index = index_of(row("a"), row("b"))
    between = [resolved(index, FIRST) for _ in compare(index, [row("a"), row("c"), *many]).apply()]
    assert between == ["ambiguous"] * 3


def test_each_step_changes_at_most_512_keys() -> None:
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
        changes = compare(index, rows)
        touched = changes.added_count + changes.changed_count + changes.removed_count
        steps = list(changes.apply())
        assert len(steps) * STEP == touched


def test_few_changes_are_applied_at_once() -> None:
    index = index_of(*(row(str(n)) for n in range(STEP)))
    assert list(compare(index, [row(str(n), name="changed") for n in range(4, STEP)]).apply()) == []
    assert [each.name for each in index] == ["changed"] * (STEP - 4)
    assert len(list(compare(index, [row(f"new-{n}") for n in range(5)]).apply())) == 2


def test_many_rows_that_change_nothing_are_gone_through_in_steps() -> None:
    rows, revoked = ([row(str(n), disabled_at=each) for n in range(STEP + 1)] for each in (None, "2026"))
    older = compare(index_of(), rows, precedence=Precedence(may_loosen=False))
    twice = compare(index_of(*revoked), [*rows, *revoked])
    for changes in (older, twice):
        assert changes.is_empty
        assert len(list(changes.apply())) == 2


def test_held_removals_remove_no_key() -> None:
    index = index_of(row("a"), row("b"), row("c"))
    changes = compare(index, [row("a", name="changed"), row("new", OTHER)])
    assert changes.removed_count == 2
    assert changes.hold_removals() == 2
    assert (changes.removed_count, changes.is_empty) == (0, False)
    drain(changes.apply())
    rows = [row("a", name="changed"), row("b"), row("c"), row("new", OTHER)]
    assert by_id(index) == {each.id: each for each in rows}


def test_a_change_set_without_its_removals_may_be_empty() -> None:
    index = index_of(row("a"), row("b"))
    changes = compare(index, [row("a")])
    assert not changes.is_empty
    changes.hold_removals()
    assert changes.is_empty


def test_slots_of_removed_keys_are_reused() -> None:
    index = index_of(*(row(str(number)) for number in range(10)))
    assert index.slots == 10
    apply(index, [row("0")])
    apply(index, [row(str(number), OTHER) for number in range(10)])
    assert index.slots == 10 + 1
    assert len({packed[:SLOT] for step in index.walk() for _, packed in step}) == len(index) == 10


def test_the_slot_of_a_losing_row_is_reused() -> None:
    index = index_of()
    apply(index, [row("a"), row("a", name="again"), row("b")])
    assert (len(index), index.slots) == (2, 3)
    apply(index, [row("a"), row("b"), row("c")])
    assert (len(index), index.slots) == (3, 3)
    assert len({packed[:SLOT] for step in index.walk() for _, packed in step}) == 3


def test_an_empty_list_removes_every_key() -> None:
    index = index_of(row("a"), row("b", OTHER))
    changes = apply(index, [])
    assert len(index) == 0
    assert (changes.added_count, changes.removed_count, index.replaced) == (0, 2, [])
    assert index.ambiguous() == ()
    assert [resolved(index, key) for key in CLIENT_KEYS] == ["unknown"] * len(CLIENT_KEYS)
