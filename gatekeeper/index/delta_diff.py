"""DeltaDiff: compares what has changed in a list with an index.

Its work and memory depend on the delta alone. So it finds the keys of the index by id and last 8 characters, as the delta
names them. A key that gets other last 8 characters is a removal under the old ones and a row under the new ones: only a
whole list shows that a row without the removal has the id of another key.
"""

from collections import Counter
from collections.abc import Generator, Iterable
from typing import Any

import msgspec

from gatekeeper.errors import InvalidRow, RowReason
from gatekeeper.index.change_set import ChangeSet
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.list_diff import LISTED_UNLESS_OLDER, MAX_ROW, MAX_SHOWN, too_long
from gatekeeper.index.new_rows import NewRows
from gatekeeper.index.packed import STEP, id_of, pack, row_of, steps_of, unpack_row, winning_row, with_revocation
from gatekeeper.index.precedence import Precedence
from gatekeeper.index.replacements import PendingRows
from gatekeeper.keys.delta import Removal

__all__ = ("DeltaDiff",)


class DeltaDiff:
    """Compares a delta with an index, without changing it.

    Add all of its elements, then call `finish`.

    - Several rows of an id: the first disabled one wins, otherwise the first. Keys with the last 8 characters of the others
      are removed.
    - A removal counts only for the key with its id and its last 8 characters.
    - A row and a removal of one key contradict each other. A disabled row wins: it refuses the key as well, and does not
      make way for another key with these last 8 characters. Otherwise the removal wins.
    - An unreadable row that sets disabled_at revokes its key, and otherwise changes nothing.

    Args:
        index: the index, which must not change before the change set is applied.
        precedence: chooses between the held and the changed row of a key.

    Attributes:
        count: the number of elements added so far.
        rejected: the first 10 unreadable rows.
        rejected_reasons: the number of unreadable rows, by reason.
        contradiction_count: the number of keys with a row and a removal.
    """

    def __init__(self, index: KeyIndex, *, precedence: Precedence = LISTED_UNLESS_OLDER) -> None:
        self.count = 0
        self.rejected: list[InvalidRow] = []
        self.rejected_reasons: Counter[RowReason] = Counter()
        self.contradiction_count = 0
        self._index = index
        self._precedence = precedence
        self._overruled_count = 0
        self._by_id: dict[str, _Told] = {}
        self._new = NewRows(index)
        self._pending = PendingRows()
        self._removed: list[tuple[str, bytes]] = []
        self._duplicate_ids: set[str] = set()

    @property
    def rejected_count(self) -> int:
        """The number of unreadable rows. Only a whole list tells what they are."""
        return self.rejected_reasons.total()

    def add_rows(self, rows: Iterable[Any]) -> None:
        """Take the next elements of the delta.

        Args:
            rows: objects with the attributes of a WidgetKey, in the same order, Removals or InvalidRows.
        """
        for row in rows:
            self.count += 1
            if isinstance(row, InvalidRow):
                self._reject(row)
            elif isinstance(row, Removal):
                self._told(row.id).removed.add(row.last8)
            elif len(packed_row := pack(row)) > MAX_ROW:
                self._reject(too_long(row, self.count - 1, len(packed_row)))
            else:
                self._add(row, packed_row)

    def finish(self) -> Generator[None, None, ChangeSet]:
        """Compare the delta with the index, once all elements are added.

        Returns:
            The change set. It takes over the rows, so no more can be added.
        """
        for step in steps_of(self._by_id.items()):
            for row_id, told in step:
                self._compare(row_id, told)
            if len(step) == STEP:  # a short delta takes no turn of the event loop, so that it applies sooner
                yield
        self._by_id = {}
        if not self._precedence.may_loosen:
            self._overruled_count += len(self._new) + len(self._removed)
            self._new.drop_all()
            self._removed.clear()
        return ChangeSet(
            self._index,
            new=self._new,
            pending=self._pending,
            removed=self._removed,
            retained=[],
            duplicate_ids=self._duplicate_ids,
            slots_are_stable=False,
            overruled_count=self._overruled_count,
        )

    def _told(self, row_id: str) -> "_Told":
        return self._by_id.setdefault(row_id, _Told())

    def _add(self, row: Any, packed_row: bytes) -> None:
        told = self._told(row.id)
        if told.row is None:
            told.key, told.row = row, packed_row
            return
        self._duplicate_ids.add(row.id)
        loser = row
        if winning_row(told.row, packed_row) is packed_row:
            loser, told.key, told.row = told.key, row, packed_row
        told.lost.add(loser.last8)

    def _reject(self, row: InvalidRow) -> None:
        self.rejected_reasons[row.reason] += 1
        if len(self.rejected) < MAX_SHOWN:
            self.rejected.append(row)
        if row.row_id is None or row.disabled_at is None:
            return
        told = self._told(row.row_id)
        if told.disabled_at is None:
            told.disabled_at = row.disabled_at
        if row.last8 is not None:
            told.revoked.add(row.last8)

    def _compare(self, row_id: str, told: "_Told") -> None:
        row = None if told.row is None else with_revocation(told.row, told.disabled_at)
        if row is not None and told.key.last8 in told.removed:
            self.contradiction_count += 1
            self._duplicate_ids.add(row_id)
            row = row if unpack_row(row).disabled else None
        here = None if row is None else told.key.last8
        for last8 in (told.removed | told.lost) - {here}:
            if (known := self._known(last8, row_id)) is None:
                continue
            self._removed.append((last8, known))
            if row is not None and self._precedence.choose(row_of(known), row)[0] is not row:
                self._overruled_count += 1
                row = None
        for last8 in told.revoked - told.removed - told.lost - {here}:
            if (known := self._known(last8, row_id)) is not None:
                self._replace(known, with_revocation(row_of(known), told.disabled_at))
        if row is None:
            return
        known = self._known(told.key.last8, row_id)
        if known is None:
            self._new.append(told.key, row)
        elif not self._replace(known, row):
            self._overruled_count += 1

    def _known(self, last8: str, row_id: str) -> bytes | None:
        known = self._index.candidate(last8, row_id)
        return None if known is None or id_of(known) != row_id else known

    def _replace(self, known: bytes, row: bytes) -> bool:
        """Change the row of a known key, unless the held one overrules it."""
        chosen, kind = self._precedence.choose(row_of(known), row)
        if kind != "none":
            self._pending.add(known, chosen, self.count, kind)
        return chosen is row


class _Told(msgspec.Struct):
    """What a delta tells about an id.

    Attributes:
        key, row: its row that wins, as it came and packed.
        lost: the last 8 characters of its other rows.
        removed: those of its removals.
        revoked: those of its unreadable rows that set disabled_at.
        disabled_at: that of the first of them.
    """

    key: Any = None
    row: bytes | None = None
    lost: set[str] = msgspec.field(default_factory=set)
    removed: set[str] = msgspec.field(default_factory=set)
    revoked: set[str] = msgspec.field(default_factory=set)
    disabled_at: object = None
