"""PendingRows: rows that will replace those of known keys.

If all of a million keys have changed, their new rows would take as much memory as the index. Compressed, they take a fifth.
"""

import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator

import msgspec

from gatekeeper.index.packed import SLOT, STEP, ChangeKind, classify_change, row_of, slot_of, steps_of, unpack_row, with_slot

__all__ = ("PendingRows",)


class PendingRows:
    """Rows that will replace those of known keys, by slot.

    Add all rows, override some of them, then drain.

    Attributes:
        revoked_at: the disabled_at values of the rows that revoke a key.
    """

    def __init__(self) -> None:
        self.revoked_at: list[object] = []
        self._kinds: Counter[ChangeKind] = Counter()
        self._compressed: list[bytes] = []
        self._first_seen_at: list[int] = []  # of each compressed block, and of the rows after them
        self._rows: list[bytes] = []
        self._added = 0
        self._overrides: dict[int, bytes | None] = {}

    @property
    def row_count(self) -> int:
        """The number of rows, with those that are overridden."""
        return self._added + len(self._overrides)

    @property
    def changed_count(self) -> int:
        """The number of keys with a changed field other than last_used_at."""
        return self._kinds["change"] + self._kinds["revocation"]

    def add(self, known: bytes, row: bytes, seen_at: int, kind: ChangeKind) -> None:
        """Add the first row for a known key.

        Args:
            known: the packed key as the index has it.
            row: its new row, which differs from the known one.
            seen_at: the number of the row in the list, higher than in the call before.
            kind: how the row differs from the known one.
        """
        if not self._rows:
            self._first_seen_at.append(seen_at)
        self._rows.append(known[:SLOT] + row)
        self._added += 1
        if len(self._rows) == STEP:
            self.compress()
        self._count(row, kind)

    def compress(self) -> None:
        """Compress the rows added since the last block."""
        if self._rows:
            self._compressed.append(zlib.compress(msgspec.msgpack.encode(self._rows), zlib.Z_BEST_SPEED))
            self._rows = []

    def override(self, known: bytes, row: bytes | None, seen_at: int) -> None:
        """Replace what was added for a known key.

        Args:
            known: the packed key as the index has it.
            row: its new row, which may be the known one; None if the key is removed.
            seen_at: the number under which a row was added for the key, 0 if none was.
        """
        before = row_of(known)
        self._kinds[classify_change(before, self.latest_row(known, seen_at))] -= 1
        slot = slot_of(known)
        self._overrides[slot] = None if row is None or row == before else with_slot(slot, row)
        if row is not None:
            self._count(row, classify_change(before, row))

    def latest_row(self, known: bytes, seen_at: int) -> bytes:
        """Return the pending row of a key, otherwise its known row.

        Args:
            known: the packed key as the index has it.
            seen_at: the number under which a row was added for the key, 0 if none was.
        """
        pending = self._find(slot_of(known), seen_at)
        return row_of(known if pending is None else pending)

    def drain(self) -> Iterator[list[bytes]]:
        """Yield the changed keys in steps, and forget them."""
        overrides, self._overrides = self._overrides, {}
        rows, self._rows, self._added = self._rows, [], 0
        while rows or self._compressed:
            rows = rows or _decompress(self._compressed.pop())
            yield [packed for packed in rows if slot_of(packed) not in overrides]
            rows = []
        self._first_seen_at.clear()
        yield from steps_of(filter(None, overrides.values()))

    def _count(self, row: bytes, kind: ChangeKind) -> None:
        self._kinds[kind] += 1
        if kind == "revocation":
            self.revoked_at.append(unpack_row(row).disabled_at)

    def _find(self, slot: int, seen_at: int) -> bytes | None:
        if slot in self._overrides:
            return self._overrides[slot]
        place = bisect_right(self._first_seen_at, seen_at) - 1
        if place < 0:
            return None
        rows = self._rows if place == len(self._compressed) else _decompress(self._compressed[place])
        return next((packed for packed in rows if slot_of(packed) == slot), None)


def _decompress(block: bytes) -> list[bytes]:
    return msgspec.msgpack.decode(zlib.decompress(block), type=list[bytes])
