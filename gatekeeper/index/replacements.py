"""Changes: packed rows that will take the place of others, compressed until then.

Where all of a million keys have changed, they would take as much memory as the index; so they take a fifth of it.
"""

import zlib
from bisect import bisect_right
from collections.abc import Iterator

import msgspec

from gatekeeper.index.packed import STEP, slot_of, steps_of

__all__ = ("Changes",)


class Changes:
    """Packed rows that will take the place of others, by slot: add all rows, settle some otherwise, and then take them."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._begins: list[int] = []
        self._rows: list[bytes] = []
        self._settled: dict[int, bytes | None] = {}

    def add(self, packed: bytes, seen_at: int) -> None:
        """Take a key's row, the first one that comes for it; `seen_at` grows from row to row."""
        if not self._rows:
            self._begins.append(seen_at)
        self._rows.append(packed)
        if len(self._rows) == STEP:
            self.end_piece()

    def end_piece(self) -> None:
        """Compress what was added last."""
        if self._rows:
            self._pieces.append(zlib.compress(msgspec.msgpack.encode(self._rows), zlib.Z_BEST_SPEED))
            self._rows = []

    def settle(self, slot: int, packed: bytes | None) -> None:
        """Let a key have another row than was added for it, or none."""
        self._settled[slot] = packed

    def get(self, slot: int, seen_at: int) -> bytes | None:
        """The row of a key, if it has one; it was added with this `seen_at`."""
        if slot in self._settled:
            return self._settled[slot]
        place = bisect_right(self._begins, seen_at) - 1
        if place < 0:
            return None
        rows = self._rows if place == len(self._pieces) else _unzipped(self._pieces[place])
        return next((packed for packed in rows if slot_of(packed) == slot), None)

    def take(self) -> Iterator[list[bytes]]:
        """All of them, some at a time, of which none is left."""
        settled, self._settled = self._settled, {}
        while self._pieces:
            yield [packed for packed in _unzipped(self._pieces.pop()) if slot_of(packed) not in settled]
        self._begins.clear()
        yield from steps_of(filter(None, settled.values()))


def _unzipped(piece: bytes) -> list[bytes]:
    return msgspec.msgpack.decode(zlib.decompress(piece), type=list[bytes])
