"""NewRows: the rows of a list whose keys are new."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from typing import Any

from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.packed import SLOT, STEP, slot_of, steps_of, with_slot

__all__ = ("BUCKETS", "NewRows")

BUCKETS = 256  # of hashes of ids, each small enough to be searched in one step


class NewRows:
    """Rows whose keys will be added to an index, by place.

    Append all rows, replace or drop some of them, then add them to the index. Its length is the number of keys to add.

    Args:
        index: the index, which must not change until the rows are added.
    """

    def __init__(self, index: KeyIndex) -> None:
        self._index = index
        self._free_slots = index.free_slots()
        self._hashes: dict[int, array[int]] = defaultdict(partial(array, "q"))  # by bucket
        self._last8: list[str] = []
        self._packed: list[bytes] = []
        self._dropped: set[int] = set()  # places

    def __len__(self) -> int:
        return len(self._packed) - len(self._dropped)

    @property
    def row_count(self) -> int:
        """The number of rows, with those that are dropped."""
        return len(self._packed)

    def __getitem__(self, place: int) -> bytes:
        return self._packed[place]

    def steps(self) -> Iterator[list[tuple[int, bytes]]]:
        """Iterate over the place and packed key of every row in steps."""
        return steps_of(enumerate(self._packed))

    def append(self, key: Any, row: bytes) -> int:
        """Append a row.

        Args:
            key: an object with the id and last8 of the row.
            row: the row.

        Returns:
            The slot that the key will have.
        """
        slot = next(self._free_slots)
        hashed = hash(key.id)
        self._hashes[hashed % BUCKETS].append(hashed)
        self._last8.append(key.last8)
        self._packed.append(with_slot(slot, row))
        return slot

    def replace(self, place: int, row: bytes) -> None:
        """Replace the row at a place."""
        self._packed[place] = self._packed[place][:SLOT] + row

    def drop(self, place: int) -> None:
        """Do not add the row at a place."""
        self._dropped.add(place)

    def drop_all(self) -> None:
        """Do not add any row."""
        self._dropped.update(range(len(self._packed)))

    def repeated_hashes(self) -> Generator[None, None, set[int]]:
        """Find the hashes that several ids share."""
        repeated: set[int] = set()
        seen = 0  # since the last step: few new rows take one
        for hashes in self._hashes.values():
            if len(set(hashes)) < len(hashes):
                repeated.update(each for each, times in Counter(hashes).items() if times > 1)
            seen += len(hashes)
            if seen >= STEP:
                seen = 0
                yield
        return repeated

    def hash_sets(self) -> Generator[None, None, list[set[int]]]:
        """Collect the hashes of all ids, by their remainder modulo 256."""
        sets: list[set[int]] = []
        seen = 0  # since the last step
        for bucket in range(BUCKETS):
            hashes = self._hashes.get(bucket, ())
            sets.append(set(hashes))
            seen += len(hashes)
            if seen >= STEP:
                seen = 0
                yield
        return sets

    def add_to_index(self) -> Iterator[None]:
        """Add the rows to the index in steps, and forget them."""
        self._index.allocate_slots(len(self._packed))
        self._hashes.clear()
        # The rows are freed from the end, step by step, and not all at once.
        while self._packed:
            first = max(0, len(self._packed) - STEP)
            keys: Iterable[tuple[str, bytes]] = zip(self._last8[first:], self._packed[first:], strict=True)
            if self._dropped:
                keys = self._without_dropped(keys, first)
            self._index.add(keys)
            del self._last8[first:], self._packed[first:]
            yield
        self._dropped.clear()

    def _without_dropped(self, keys: Iterable[tuple[str, bytes]], first: int) -> Iterator[tuple[str, bytes]]:
        for place, (last8, packed) in enumerate(keys, start=first):
            if place in self._dropped:
                self._index.release_slot(slot_of(packed))
            else:
                yield last8, packed
