"""Changes: rows that will take the place of others, found again by their slots, and taken some at a time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.index.packed import STEP, slot_of, with_slot
from gatekeeper.index.replacements import Changes

ROWS = st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=40, unique_by=lambda each: each[0])


def row(slot: int, text: str = "row") -> bytes:
    """A packed row for a slot."""
    return with_slot(slot, f"{text} {slot}".encode())


def taken(changes: Changes) -> dict[int, bytes]:
    """All that is left to be taken, by slot."""
    steps = list(changes.take())
    assert all(len(step) <= STEP for step in steps)
    rows = [packed for step in steps for packed in step]
    assert len({slot_of(packed) for packed in rows}) == len(rows)
    return {slot_of(packed): packed for packed in rows}


@settings(deadline=None)
@given(added=ROWS, settled=st.dictionaries(st.integers(0, 40), st.sampled_from(["other", None])))
def test_each_key_has_the_row_that_was_settled_else_the_one_that_was_added(
    added: list[tuple[int, bool]], settled: dict[int, str | None]
) -> None:
    changes = Changes()
    seen_at = {}
    for number, (slot, ends_piece) in enumerate(added, start=1):
        seen_at[slot] = 10 * number  # other rows, which have not changed, come in between
        changes.add(row(slot), seen_at[slot])
        if ends_piece:
            changes.end_piece()
    due = {slot: row(slot) for slot in seen_at}
    assert all(changes.get(slot, at) == due[slot] for slot, at in seen_at.items())
    assert changes.get(99, 5) is None
    assert changes.get(99, 500) is None
    for slot, text in settled.items():
        changes.settle(slot, None if text is None else row(slot, text))
        due.pop(slot, None)
        if text is not None:
            due[slot] = row(slot, text)
        assert changes.get(slot, seen_at.get(slot, 0)) == due.get(slot)
    changes.end_piece()
    assert taken(changes) == due
    assert taken(changes) == {}
    assert all(changes.get(slot, at) is None for slot, at in seen_at.items())


def test_many_rows_take_a_fraction_of_their_size_and_are_taken_in_steps() -> None:
    changes = Changes()
    rows = [row(slot, "the widget of a shop with a name that is as long as names are, number") for slot in range(5 * STEP)]
    for number, packed in enumerate(rows, start=1):
        changes.add(packed, number)
    assert sum(map(len, changes._pieces)) < sum(map(len, rows)) / 4
    assert taken(changes) == dict(enumerate(rows))
