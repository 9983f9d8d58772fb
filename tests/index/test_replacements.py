"""PendingRows: new rows of known keys, by slot."""

import tracemalloc
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import WidgetKey
from gatekeeper.index.packed import STEP, classify_change, pack, slot_of, with_slot
from gatekeeper.index.replacements import PendingRows

Kind = Literal["as known", "used", "renamed", "revoked", "removed"]

SLOTS = st.integers(0, 40)
KINDS: st.SearchStrategy[Kind] = st.sampled_from(["used", "renamed", "revoked"])
OVERRIDES: st.SearchStrategy[Kind] = st.sampled_from(["as known", "used", "renamed", "revoked", "removed"])


def row(slot: int, kind: Kind = "as known") -> bytes:
    """A row of the key with this slot."""
    return pack(
        WidgetKey(
            str(slot),
            "another name" if kind == "renamed" else None,
            "abcdefgh",
            (),
            disabled_at="2026" if kind == "revoked" else None,
            last_used_at="2026" if kind == "used" else None,
        )
    )


def known(slot: int) -> bytes:
    """The key with this slot as the index has it."""
    return with_slot(slot, row(slot))


def drained(pending: PendingRows) -> dict[int, bytes]:
    """All pending rows, by slot."""
    steps = list(pending.drain())
    assert all(len(step) <= STEP for step in steps)
    keys = [packed for step in steps for packed in step]
    assert len({slot_of(packed) for packed in keys}) == len(keys)
    return {slot_of(packed): packed for packed in keys}


@settings(deadline=None)
@given(added=st.dictionaries(SLOTS, st.tuples(KINDS, st.booleans())), overrides=st.dictionaries(SLOTS, OVERRIDES))
def test_each_key_has_its_override_or_the_row_that_was_added(
    added: dict[int, tuple[Kind, bool]], overrides: dict[int, Kind]
) -> None:
    pending = PendingRows()
    seen_at = {}
    for number, (slot, (kind, ends_block)) in enumerate(added.items(), start=1):
        seen_at[slot] = 10 * number  # rows that have not changed come in between
        new = row(slot, kind)
        pending.add(known(slot), new, seen_at[slot], classify_change(row(slot), new))
        if ends_block:
            pending.compress()
    due = {slot: row(slot, kind) for slot, (kind, _) in added.items()}
    for slot, at in seen_at.items():
        assert pending.latest_row(known(slot), at) == due[slot]
    assert pending.latest_row(known(99), 0) == row(99)
    for slot, kind in overrides.items():
        at = seen_at.get(slot, 0)
        if kind == "removed":
            pending.override(known(slot), None, at)
        else:
            pending.override(known(slot), row(slot, kind), at)
        due[slot] = row(slot) if kind == "removed" else row(slot, kind)
        assert pending.latest_row(known(slot), at) == due[slot]
    changed = [slot for slot, each in due.items() if each in {row(slot, "renamed"), row(slot, "revoked")}]
    assert pending.changed_count == len(changed)
    assert pending.row_count == len(added) + len(overrides)
    assert drained(pending) == {slot: with_slot(slot, each) for slot, each in due.items() if each != row(slot)}
    assert drained(pending) == {}
    assert all(pending.latest_row(known(slot), at) == row(slot) for slot, at in seen_at.items())


def test_revocations_are_noted_as_they_are_added_or_override() -> None:
    pending = PendingRows()
    pending.add(known(1), row(1, "renamed"), 1, "change")
    pending.add(known(2), row(2, "revoked"), 2, "revocation")
    pending.override(known(1), row(1, "revoked"), 1)
    pending.override(known(3), row(3, "used"), 0)
    assert pending.revoked_at == ["2026", "2026"]


def test_many_rows_take_a_fraction_of_their_size_and_are_drained_in_steps() -> None:
    name = "the widget of a shop, with a name of the usual length"
    rows = [pack(WidgetKey(str(slot), name, "abcdefgh", ())) for slot in range(5 * STEP)]
    keys = [known(slot) for slot in range(len(rows))]
    tracemalloc.start()
    pending = PendingRows()
    for number, (packed, new) in enumerate(zip(keys, rows, strict=True), start=1):
        pending.add(packed, new, number, "change")
    pending.compress()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < sum(map(len, rows)) / 4
    assert drained(pending) == {slot: with_slot(slot, new) for slot, new in enumerate(rows)}
