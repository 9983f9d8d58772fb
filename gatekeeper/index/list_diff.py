"""ListDiff: compares a complete list with an index, row by row."""

from array import array
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from typing import Any

from gatekeeper.errors import InvalidRow, RowReason
from gatekeeper.index.change_set import ChangeSet
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.new_rows import BUCKETS, NewRows
from gatekeeper.index.packed import (
    drain,
    has_row,
    id_of,
    pack,
    row_of,
    slot_of,
    steps_of,
    unpack,
    winning_row,
    with_revocation,
)
from gatekeeper.index.precedence import Precedence
from gatekeeper.index.replacements import PendingRows
from gatekeeper.keys.widget_key import WidgetKey

__all__ = ("LISTED_UNLESS_OLDER", "MAX_ROW", "MAX_SHOWN", "ListDiff", "load", "too_long")

MAX_SHOWN = 10  # rejected rows that are kept
MAX_ROW = 64 * 1024  # bytes of a packed row; 100 entries of the usual length take 3 KB
LISTED_UNLESS_OLDER = Precedence()


def load(index: KeyIndex, rows: Iterable[WidgetKey]) -> None:
    """Apply a complete list to an index, without steps.

    Args:
        index: the index.
        rows: the list.
    """
    diff = ListDiff(index)
    diff.add_rows(rows)
    drain(drain(diff.finish()).apply())


class ListDiff:
    """Compares a complete list with an index, without changing it.

    Add all rows, then call `finish`. Duplicate ids: the first disabled row wins, otherwise the first row. An unreadable row
    that sets disabled_at still revokes its key.

    Args:
        index: the index, which must not change before the change set is applied.
        expired_ids: the ids of keys that an unreadable row no longer retains, unless they are disabled.
        precedence: chooses between the held and the listed row of a key.

    Attributes:
        count: the number of rows added so far.
        rejected: the first 10 unreadable rows.
        rejected_reasons: the number of unreadable rows, by reason.
    """

    def __init__(
        self, index: KeyIndex, *, expired_ids: Collection[str] = (), precedence: Precedence = LISTED_UNLESS_OLDER
    ) -> None:
        self.count = 0
        self.rejected: list[InvalidRow] = []
        self.rejected_reasons: Counter[RowReason] = Counter()
        self._index = index
        self._expired_ids = expired_ids
        self._precedence = precedence
        self._overruled_count = 0  # rows of the list that the held row overrules
        # By slot, the `count` at which the winning row of the key came; 0 if none has come.
        self._seen_at = array("I", bytes(array("I").itemsize * index.slots))
        self._seen_count = 0  # of known keys
        self._new = NewRows(index)
        self._pending = PendingRows()
        self._rejected_ids: dict[str, object] = {}  # the first disabled_at that is set, by id
        self._duplicate_ids: set[str] = set()
        self._slots_are_stable = True

    @property
    def rejected_count(self) -> int:
        """The number of unreadable rows."""
        return self.rejected_reasons.total()

    def add_rows(self, rows: Iterable[Any]) -> "array[int] | None":
        """Compare the next rows of the list.

        Args:
            rows: objects with the attributes of a WidgetKey, in the same order, or InvalidRows.

        Returns:
            The slots of the rows' keys, for `add_known_slice`; None if the index will not have all of these rows unchanged.
        """
        candidate, seen_at, new, pending = self._index.candidate, self._seen_at, self._new, self._pending
        slots = array("I")
        before = self.count
        for row in rows:
            self.count += 1
            if isinstance(row, InvalidRow):
                self._reject(row)
                continue
            packed_row = pack(row)
            if len(packed_row) > MAX_ROW:
                self._reject(too_long(row, self.count - 1, len(packed_row)))
                continue
            known = candidate(row.last8, row.id)
            is_same = known is not None and has_row(known, packed_row)
            if known is None or not (is_same or id_of(known) == row.id):
                slot = new.append(row, packed_row)
                if slot < len(seen_at):
                    seen_at[slot] = self.count
                else:
                    seen_at.append(self.count)
                slots.append(slot)
            elif seen_at[slot := slot_of(known)]:
                self._repeat(known, row.id, packed_row)
            else:
                seen_at[slot] = self.count
                self._seen_count += 1
                if is_same:
                    slots.append(slot)
                    continue
                chosen, kind = self._precedence.choose(row_of(known), packed_row)
                if chosen is packed_row:
                    slots.append(slot)
                else:
                    self._overruled_count += 1
                if kind != "none":
                    pending.add(known, chosen, self.count, kind)
        pending.compress()
        return slots if len(slots) == self.count - before else None

    def add_known_slice(self, slots: "array[int]") -> bool:
        """Take the next rows as seen, because the index has them unchanged.

        Args:
            slots: the slots that `add_rows` returned for these rows in the list applied last, if its slots are stable.

        Returns:
            False if one of the rows has come before; then none is taken as seen.
        """
        seen_at = self._seen_at
        if any(map(seen_at.__getitem__, slots)):
            return False
        for number, slot in enumerate(slots, start=self.count + 1):
            seen_at[slot] = number
        self.count += len(slots)
        self._seen_count += len(slots)
        return True

    def finish(self) -> Generator[None, None, ChangeSet]:
        """Find removed keys and duplicate ids, once all rows are added.

        Returns:
            The change set. It takes over the rows, so no more can be added.
        """
        repeated = yield from self._new.repeated_hashes()
        known, removed = yield from self._compare_known()
        retained: list[str] = []
        if repeated or known or self._rejected_ids:
            new = yield from self._compare_new(repeated, known)
            yield from self._reconcile_known(known, new, removed, retained)
            yield from self._reconcile_new(new)
        if not self._precedence.may_loosen:
            self._overruled_count += len(self._new) + len(removed)
            self._new.drop_all()
            removed.clear()
        self._seen_at = array("I")  # frees memory before the change set is applied
        return ChangeSet(
            self._index,
            new=self._new,
            pending=self._pending,
            removed=removed,
            retained=retained,
            duplicate_ids=self._duplicate_ids,
            slots_are_stable=self._slots_are_stable,
            overruled_count=self._overruled_count,
        )

    def _repeat(self, known: bytes, row_id: str, row: bytes) -> None:
        """Compare another row of a known key that has come before."""
        self._duplicate_ids.add(row_id)
        slot = slot_of(known)
        if winning_row(self._latest_row(known), row) is row:
            self._pending.override(known, row, self._seen_at[slot])
            self._seen_at[slot] = self.count
            self._slots_are_stable = False

    def _latest_row(self, known: bytes) -> bytes:
        return self._pending.latest_row(known, self._seen_at[slot_of(known)])

    def _drop(self, place: int) -> None:
        self._new.drop(place)
        self._slots_are_stable = False

    def _reject(self, row: InvalidRow) -> None:
        self.rejected_reasons[row.reason] += 1
        if len(self.rejected) < MAX_SHOWN:
            self.rejected.append(row)
        if row.row_id is not None and self._rejected_ids.get(row.row_id) is None:
            self._rejected_ids[row.row_id] = row.disabled_at

    def _compare_known(self) -> Generator[None, None, tuple[dict[str, tuple[str, bytes]], list[tuple[str, bytes]]]]:
        """Find known keys whose id other rows have, and those without rows."""
        shared: dict[str, tuple[str, bytes]] = {}
        removed: list[tuple[str, bytes]] = []
        is_plain = not self._new and not self._rejected_ids
        if is_plain and self._seen_count == len(self._index):
            return shared, removed
        new_ids = yield from self._new.hash_sets()
        for step in self._index.walk():
            for last8, packed in step:
                seen = self._seen_at[slot_of(packed)]
                if seen and is_plain:
                    continue
                row_id = id_of(packed)
                if row_id in self._rejected_ids or hash(row_id) in new_ids[hash(row_id) % BUCKETS]:
                    shared[row_id] = (last8, packed)
                elif not seen:
                    removed.append((last8, packed))
            yield
        return shared, removed

    def _compare_new(self, repeated: set[int], known: Collection[str]) -> Generator[None, None, dict[str, int]]:
        """Find new rows whose id other rows have, and drop losing ones."""
        places: dict[str, int] = {}
        for step in self._new.steps():
            for place, packed in step:
                row_id = id_of(packed)
                if hash(row_id) not in repeated and row_id not in known and row_id not in self._rejected_ids:
                    continue
                first = places.setdefault(row_id, place)
                if first == place:
                    continue
                self._duplicate_ids.add(row_id)
                row = row_of(packed)
                if winning_row(row_of(self._new[first]), row) is row:
                    places[row_id] = place
                    self._drop(first)
                else:
                    self._drop(place)
            yield
        return places

    def _reconcile_known(
        self,
        known: Mapping[str, tuple[str, bytes]],
        new: dict[str, int],
        removed: list[tuple[str, bytes]],
        retained: list[str],
    ) -> Iterator[None]:
        """Choose between known keys and new rows with their ids.

        Rejected rows are applied to the known keys that stay.
        """
        for step in steps_of(known.items()):
            for row_id, (last8, packed) in step:
                place = new.get(row_id)
                seen, disabled_at = self._seen_at[slot_of(packed)], self._rejected_ids.get(row_id)
                if seen and place is not None:
                    self._duplicate_ids.add(row_id)
                if not self._stays(packed, place) or (not seen and place is None and self._expires(packed, disabled_at)):
                    removed.append((last8, packed))
                    if seen:
                        self._pending.override(packed, None, seen)
                        self._slots_are_stable = False
                    continue
                if place is not None:
                    if not seen:
                        self._overruled_count += 1
                        disabled_at = unpack(self._new[place]).disabled_at if disabled_at is None else disabled_at
                    self._drop(place)
                    del new[row_id]
                elif not seen:
                    retained.append(row_id)
                row = self._latest_row(packed)
                after = with_revocation(row, disabled_at)
                if after is not row:
                    self._pending.override(packed, after, seen)
                    self._slots_are_stable = self._slots_are_stable and not seen
            yield

    def _expires(self, packed: bytes, disabled_at: object) -> bool:
        """Whether an unreadable row no longer retains its key. A disabled key always stays."""
        return disabled_at is None and id_of(packed) in self._expired_ids and not unpack(packed).disabled

    def _stays(self, packed: bytes, place: int | None) -> bool:
        """Whether a known key wins over a new row with its id."""
        if place is None:
            return True
        seen_at = self._seen_at[slot_of(packed)]
        row, new = self._latest_row(packed), row_of(self._new[place])
        if not seen_at:
            return self._precedence.choose(row, new)[0] is not new
        is_first = seen_at < self._seen_at[slot_of(self._new[place])]
        return (winning_row(row, new) if is_first else winning_row(new, row)) is row

    def _reconcile_new(self, new: Mapping[str, int]) -> Iterator[None]:
        """Apply rejected rows to new keys."""
        for step in steps_of(new.items()):
            for row_id, place in step:
                row = row_of(self._new[place])
                after = with_revocation(row, self._rejected_ids.get(row_id))
                if after is not row:
                    self._new.replace(place, after)
                    self._slots_are_stable = False
            yield


def too_long(row: Any, index: int, size: int) -> InvalidRow:
    """Make the error for a row that is too long.

    Args:
        row: an object with the attributes of a WidgetKey.
        index: its index in its list, from 0.
        size: bytes that it takes when packed.
    """
    problem = f"Expected at most {MAX_ROW} bytes in a row, got {size}"
    return InvalidRow(index, problem, row_id=row.id, last8=row.last8, disabled_at=row.disabled_at, reason="too_long")
