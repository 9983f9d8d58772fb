"""Difference: what a complete list changes in an index, worked out row by row before anything is changed."""

from array import array
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from typing import Any

from gatekeeper.errors import InvalidRow, RowReason
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.packed import (
    SLOT,
    STEP,
    ChangeKind,
    classify_change,
    has_row,
    id_of,
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
from gatekeeper.index.replacements import Changes
from gatekeeper.keys.widget_key import WidgetKey

__all__ = ("Difference", "load")

SHOWN = 10  # rows that cannot be read, and are told about
BUCKETS = 256  # of ids, each small enough to be looked through in one step
MAX_ROW = 64 * 1024  # bytes of a packed row; 100 entries of the usual length take 3 KB


def load(index: KeyIndex, rows: Iterable[WidgetKey]) -> None:
    """Put a complete list into an index, all at once.

    Args:
        index: the index.
        rows: the list.
    """
    difference = Difference(index)
    difference.see(rows)
    for steps in (difference.finish(), difference.apply()):
        for _ in steps:
            pass


class Difference:
    """What a list changes in an index.

    See all rows, then finish, and then apply it. Of rows with one id the first disabled one stands, else the first; if one
    that cannot be read says that the key is disabled, then it is, whatever stands.

    Args:
        index: the index that the list will be applied to, and that does not change before.
        lapsed: ids of keys that are not kept any longer for a row that cannot be read, unless they are disabled.

    Attributes:
        new: the keys that the index lacks, packed, among them some that count for nothing after all.
        removed: the last 8 characters and packed row of the keys that the list no longer has; known when it is finished.
        kept: the ids of keys that stay as they are because the list has a row for them that cannot be read.
        duplicate_ids: the ids that came more than once.
        revoked_at: what the rows say that newly revoke a key.
        rejected: what is wrong with the first of the rows that cannot be read.
        rejected_reasons: how many such rows there were, by what is wrong with them.
        count: how many rows there were.
        slots_hold: whether what `see` returned is true once this list is applied: no later row has touched a key of those.
    """

    def __init__(self, index: KeyIndex, *, lapsed: Collection[str] = ()) -> None:
        self._index = index
        self._lapsed = lapsed
        # What `count` was when the row came that stands, by slot, where one has come.
        self._seen_at = array("I", bytes(array("I").itemsize * index.slots))
        self._seen_count = 0
        self._free_slots = index.free_slots()
        self._new_ids = [array("q") for _ in range(BUCKETS)]
        self._new_last8: list[str] = []
        self._dropped: set[int] = set()  # by place in `new`
        self._changes = Changes()
        self._news: Counter[ChangeKind] = Counter()
        self._spoiled: dict[str, object] = {}
        self.new: list[bytes] = []
        self.removed: list[tuple[str, bytes]] = []
        self.kept: list[str] = []
        self.duplicate_ids: set[str] = set()
        self.revoked_at: list[object] = []
        self.rejected: list[InvalidRow] = []
        self.rejected_reasons: Counter[RowReason] = Counter()
        self.count = 0
        self.slots_hold = True

    @property
    def rejected_count(self) -> int:
        """How many rows cannot be read."""
        return self.rejected_reasons.total()

    @property
    def changed_count(self) -> int:
        """How many keys there are of which something is new, but for when they were used."""
        return self._news["change"] + self._news["revocation"]

    @property
    def added_count(self) -> int:
        """How many keys are new."""
        return len(self.new) - len(self._dropped)

    @property
    def is_empty(self) -> bool:
        """Whether to apply it would change no decision."""
        return not (self.added_count or self.changed_count or self.removed)

    def see(self, rows: Iterable[Any]) -> "array[int] | None":
        """Take the next rows into account.

        Args:
            rows: objects with the attributes of a WidgetKey in its order, or InvalidRows.

        Returns:
            The slots that the rows' keys will have, for `see_slots`; None if the index will not have all of these rows just
            as they are.
        """
        candidate, seen_at = self._index.candidate, self._seen_at
        slots = array("I")
        before = self.count
        for row in rows:
            self.count += 1
            if isinstance(row, InvalidRow):
                self._spoil(row)
                continue
            packed_row = pack(row)
            if len(packed_row) > MAX_ROW:
                self._spoil(_too_long(row, self.count - 1, len(packed_row)))
                continue
            known = candidate(row.last8, row.id)
            is_same = known is not None and has_row(known, packed_row)
            if known is None or not (is_same or id_of(known) == row.id):
                slots.append(self._add(row, packed_row))
            elif seen_at[slot := slot_of(known)]:
                self._repeat(known, row.id, packed_row)
            else:
                seen_at[slot] = self.count
                self._seen_count += 1
                slots.append(slot)
                if not is_same:
                    self._changes.add(with_slot(slot, packed_row), self.count)
                    self._note(classify_change(row_of(known), packed_row), packed_row)
        self._changes.end_piece()
        return slots if len(slots) == self.count - before else None

    def see_slots(self, slots: "array[int]") -> bool:
        """Take rows into account of which it is known that the index has them just as they are.

        Args:
            slots: what `see` returned for them when the list was seen that was applied last, and whose `slots_hold`.

        Returns:
            False, and nothing is taken into account, if one of them has come before.
        """
        seen_at = self._seen_at
        if any(seen_at[slot] for slot in slots):
            return False
        for number, slot in enumerate(slots, start=self.count + 1):
            seen_at[slot] = number
        self.count += len(slots)
        self._seen_count += len(slots)
        return True

    def finish(self) -> Iterator[None]:
        """Find out what the list no longer has, and which ids it has twice, once all of it was seen.

        Returns:
            Steps, to be taken while the index does not change.
        """
        repeated = yield from self._find_repeated()
        known = yield from self._compare_known()
        if repeated or known or self._spoiled:
            new = yield from self._compare_new(repeated, known)
            yield from self._settle_known(known, new)
            yield from self._settle_new(new)

    def apply(self) -> Iterator[None]:
        """Change in the index what the list changes, and touch nothing else; nothing is left of the difference then.

        Returns:
            Steps. Whoever begins has to take them all, for between two of them part of the list is applied.
        """
        index = self._index
        self._seen_at = array("I")  # makes room for what comes
        index.allocate_slots(len(self.new))
        for rows in self._changes.take():
            for packed in rows:
                index.replace(packed)
            yield
        self._news.clear()
        # Each is let go of when it has been added, and not all of them at once.
        while self.new:
            first = max(0, len(self.new) - STEP)
            keys: Iterable[tuple[str, bytes]] = zip(self._new_last8[first:], self.new[first:], strict=True)
            if self._dropped:
                keys = self._without_dropped(keys, first)
            index.add(keys)
            del self._new_last8[first:], self.new[first:]
            yield
        self._dropped.clear()
        # At last, so that of several keys that cannot be told apart none stands alone until its own change is there.
        while self.removed:
            for _ in range(min(STEP, len(self.removed))):
                index.remove(*self.removed.pop())
            yield

    def _add(self, row: Any, packed_row: bytes) -> int:
        slot = next(self._free_slots)
        if slot < len(self._seen_at):
            self._seen_at[slot] = self.count
        else:
            self._seen_at.append(self.count)
        hashed = hash(row.id)
        self._new_ids[hashed % BUCKETS].append(hashed)
        self._new_last8.append(row.last8)
        self.new.append(with_slot(slot, packed_row))
        return slot

    def _without_dropped(self, keys: Iterable[tuple[str, bytes]], first: int) -> Iterator[tuple[str, bytes]]:
        """New keys from a place on, but for those that count for nothing, whose slots are given back."""
        for place, (last8, packed) in enumerate(keys, start=first):
            if place in self._dropped:
                self._index.release_slot(slot_of(packed))
            else:
                yield last8, packed

    def _drop(self, place: int) -> None:
        """Let a new row count for nothing."""
        self._dropped.add(place)
        self.slots_hold = False

    def _repeat(self, known: bytes, row_id: str, packed_row: bytes) -> None:
        """Take one more row of a known key into account."""
        self.duplicate_ids.add(row_id)
        if winning_row(self._row_by_now(known), packed_row) is packed_row:
            self._change(known, packed_row)
            self._seen_at[slot_of(known)] = self.count
            self.slots_hold = False

    def _row_by_now(self, known: bytes) -> bytes:
        """The row that a known key will have, as far as the list was seen."""
        changed = self._changes.get(slot_of(known), self._seen_at[slot_of(known)])
        return row_of(known if changed is None else changed)

    def _change(self, known: bytes, row: bytes | None) -> None:
        """Let a known key have a row, whatever the list said before; None if it goes."""
        slot, before = slot_of(known), row_of(known)
        self._news[classify_change(before, self._row_by_now(known))] -= 1
        self._changes.settle(slot, None if row is None or row == before else with_slot(slot, row))
        if row is not None:
            self._note(classify_change(before, row), row)

    def _note(self, what: ChangeKind, row: bytes) -> None:
        self._news[what] += 1
        if what == "revocation":
            self.revoked_at.append(unpack_row(row).disabled_at)

    def _spoil(self, row: InvalidRow) -> None:
        self.rejected_reasons[row.reason] += 1
        if len(self.rejected) < SHOWN:
            self.rejected.append(row)
        if row.row_id is not None and self._spoiled.get(row.row_id) is None:
            self._spoiled[row.row_id] = row.disabled_at

    def _find_repeated(self) -> Generator[None, None, set[int]]:
        """The hashes that several new ids have."""
        repeated: set[int] = set()
        for ids in self._new_ids:
            if len(set(ids)) < len(ids):
                repeated.update(each for each, times in Counter(ids).items() if times > 1)
            yield
        return repeated

    def _compare_known(self) -> Generator[None, None, dict[str, tuple[str, bytes]]]:
        """The known keys whose id another row of the list has, too, by that id; the others are seen or removed."""
        known: dict[str, tuple[str, bytes]] = {}
        is_plain = not self.new and not self._spoiled
        if is_plain and self._seen_count == len(self._index):
            return known
        new_ids: list[set[int]] = []
        for ids in self._new_ids if self._seen_count else ():
            new_ids.append(set(ids))
            yield
        for step in self._index.walk():
            for last8, packed in step:
                seen = self._seen_at[slot_of(packed)]
                if seen and is_plain:
                    continue
                row_id = id_of(packed)
                if row_id in self._spoiled or (seen and hash(row_id) in new_ids[hash(row_id) % BUCKETS]):
                    known[row_id] = (last8, packed)
                elif not seen:
                    self.removed.append((last8, packed))
            yield
        return known

    def _compare_new(self, repeated: set[int], known: Collection[str]) -> Generator[None, None, dict[str, int]]:
        """The places of the new rows whose id another row of the list has, too; of several, the one that stands."""
        places: dict[str, int] = {}
        for step in steps_of(enumerate(self.new)):
            for place, packed in step:
                row_id = id_of(packed)
                if hash(row_id) not in repeated and row_id not in known and row_id not in self._spoiled:
                    continue
                first = places.setdefault(row_id, place)
                if first == place:
                    continue
                self.duplicate_ids.add(row_id)
                row = row_of(packed)
                if winning_row(row_of(self.new[first]), row) is row:
                    places[row_id] = place
                    self._drop(first)
                else:
                    self._drop(place)
            yield
        return places

    def _settle_known(self, known: Mapping[str, tuple[str, bytes]], new: dict[str, int]) -> Iterator[None]:
        for step in steps_of(known.items()):
            for row_id, (last8, packed) in step:
                place = new.get(row_id)
                seen, disabled_at = self._seen_at[slot_of(packed)], self._spoiled.get(row_id)
                if seen and place is not None:
                    self.duplicate_ids.add(row_id)
                if not self._stays(packed, place) or (not seen and place is None and self._lapses(packed, disabled_at)):
                    self.removed.append((last8, packed))
                    if seen:
                        self._change(packed, None)
                        self.slots_hold = False
                    continue
                if place is not None:
                    self._drop(place)
                    del new[row_id]
                if not seen:
                    self.kept.append(row_id)
                row = self._row_by_now(packed)
                after = with_revocation(row, disabled_at)
                if after is not row:
                    self._change(packed, after)
                    self.slots_hold = self.slots_hold and not seen
            yield

    def _lapses(self, packed: bytes, disabled_at: object) -> bool:
        """Whether a known key is kept no longer for a row that cannot be read; a revoked one always is."""
        return disabled_at is None and id_of(packed) in self._lapsed and not unpack(packed).disabled

    def _stays(self, packed: bytes, place: int | None) -> bool:
        """Whether a known key does, and not the new row with its id and other last characters."""
        if place is None:
            return True
        seen_at = self._seen_at[slot_of(packed)]
        if not seen_at:
            return False
        row, new = self._row_by_now(packed), row_of(self.new[place])
        is_first = seen_at < self._seen_at[slot_of(self.new[place])]
        return (winning_row(row, new) if is_first else winning_row(new, row)) is row

    def _settle_new(self, new: Mapping[str, int]) -> Iterator[None]:
        for step in steps_of(new.items()):
            for row_id, place in step:
                packed = self.new[place]
                row = row_of(packed)
                after = with_revocation(row, self._spoiled.get(row_id))
                if after is not row:
                    self.new[place] = packed[:SLOT] + after
                    self.slots_hold = False
            yield


def _too_long(row: Any, index: int, size: int) -> InvalidRow:
    problem = f"Expected at most {MAX_ROW} bytes in a row, got {size}"
    return InvalidRow(index, problem, row_id=row.id, disabled_at=row.disabled_at, reason="too_long")
