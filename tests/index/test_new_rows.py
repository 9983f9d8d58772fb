"""NewRows: rows of keys that an index does not have yet."""

from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.new_rows import BUCKETS, NewRows
from gatekeeper.index.packed import STEP, drain, id_of, pack, row_of, slot_of
from tests.support.indexes import FIRST, OTHER, by_id, index_of, row


def test_rows_get_the_free_slots_of_the_index_and_are_added_with_them() -> None:
    index = index_of(row("known"))
    rows = [row("a"), row("b", OTHER), row("c", OTHER)]
    new = NewRows(index)
    assert [new.append(each, pack(each)) for each in rows] == [1, 2, 3]
    assert [(place, id_of(packed), slot_of(packed)) for step in new.steps() for place, packed in step] == [
        (0, "a", 1),
        (1, "b", 2),
        (2, "c", 3),
    ]
    assert (len(new), len(index)) == (3, 1)
    assert list(new.add_to_index()) == [None]
    assert by_id(index) == {each.id: each for each in [row("known"), *rows]}
    assert (len(new), index.slots) == (0, 4)


def test_a_replaced_row_keeps_its_slot() -> None:
    index = KeyIndex()
    new = NewRows(index)
    slot = new.append(row("a"), pack(row("a")))
    new.replace(0, pack(row("a", name="Shop")))
    assert (slot_of(new[0]), row_of(new[0])) == (slot, pack(row("a", name="Shop")))


def test_a_dropped_row_is_not_added_and_its_slot_is_released() -> None:
    index = KeyIndex()
    new = NewRows(index)
    for each in (row("a"), row("b"), row("c")):
        new.append(each, pack(each))
    new.drop(1)
    assert (len(new), new.row_count) == (2, 3)
    assert list(new.add_to_index()) == [None]
    assert set(by_id(index)) == {"a", "c"}
    assert next(index.free_slots()) == 1


def test_rows_are_added_in_steps() -> None:
    index = KeyIndex()
    new = NewRows(index)
    for number in range(2 * STEP + 1):
        new.append(row(str(number)), pack(row(str(number))))
    assert [len(index) for _ in new.add_to_index()] == [STEP, 2 * STEP, 2 * STEP + 1]


def test_hashes_that_ids_share_are_found() -> None:
    new = NewRows(KeyIndex())
    for row_id in ("a", "b", "a", "c", "b", "a"):
        new.append(row(row_id, FIRST), b"")
    assert drain(new.repeated_hashes()) == {hash("a"), hash("b")}
    sets = drain(new.hash_sets())
    assert set().union(*sets) == {hash("a"), hash("b"), hash("c")}
    assert all(each % BUCKETS == bucket for bucket, hashes in enumerate(sets) for each in hashes)
