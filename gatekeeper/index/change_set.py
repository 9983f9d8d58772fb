"""ChangeSet: what a list changes in an index, ready to be applied."""

from collections.abc import Generator
from typing import Final

from gatekeeper.index.key_index import KeyIndex
from gatekeeper.index.new_rows import NewRows
from gatekeeper.index.packed import STEP, drain
from gatekeeper.index.replacements import PendingRows

__all__ = ("ChangeSet",)


class ChangeSet:
    """The keys to add to an index, to change and to remove.

    It takes over the rows that it is given, and frees them while it is applied.

    Args:
        index: the index, which must not change before the change set is applied.
        new: the rows of the keys to add.
        pending: the new rows of known keys.
        removed: the last 8 characters and the packed key of each key to remove.
        retained: as the attribute.
        duplicate_ids: as the attribute.
        slots_are_stable: as the attribute.
        overruled_count: as the attribute.

    Attributes:
        added_count: the number of keys to add.
        changed_count: the number of keys with a changed field other than last_used_at.
        removed_count: the number of keys to remove.
        retained: the ids of the keys that stay because their row cannot be read.
        duplicate_ids: the ids that several rows have.
        revoked_at: the disabled_at values of the rows that revoke a known key.
        slots_are_stable: whether the slots that `ListDiff.add_rows` returned stay valid after `apply`, because no later row
            changed one of their keys.
        overruled_count: how many rows, or missing rows, of the list do not count, because what the index has is newer.
    """

    def __init__(
        self,
        index: KeyIndex,
        *,
        new: NewRows,
        pending: PendingRows,
        removed: list[tuple[str, bytes]],
        retained: list[str],
        duplicate_ids: set[str],
        slots_are_stable: bool,
        overruled_count: int = 0,
    ) -> None:
        self.added_count: Final = len(new)
        self.changed_count: Final = pending.changed_count
        self.removed_count = len(removed)
        self.retained = retained
        self.duplicate_ids = duplicate_ids
        self.revoked_at = pending.revoked_at
        self.slots_are_stable = slots_are_stable
        self.overruled_count = overruled_count
        self._index = index
        self._new = new
        self._pending = pending
        self._removed = removed

    @property
    def is_empty(self) -> bool:
        """Whether applying it changes no decision."""
        return not (self.added_count or self.changed_count or self.removed_count)

    def hold_removals(self) -> int:
        """Remove no key.

        Returns:
            The number of keys that would have been removed.
        """
        held, self.removed_count = self.removed_count, 0
        self._removed.clear()
        return held

    def apply(self) -> Generator[None, None, None]:
        """Apply the changes to the index, in steps; few changes at once.

        Once begun, all steps must be run: between two of them, only some of the changes are applied.
        """
        # Rows that change nothing take time, too.
        if self._new.row_count + self._pending.row_count + len(self._removed) <= STEP:
            drain(self._steps())
        else:
            yield from self._steps()

    def _steps(self) -> Generator[None, None, None]:
        for step in self._pending.drain():
            for packed in step:
                self._index.replace(packed)
            yield
        yield from self._new.add_to_index()
        # Remove last: otherwise a colliding key could briefly become unambiguous before its own change is applied.
        while self._removed:
            for _ in range(min(STEP, len(self._removed))):
                self._index.remove(*self._removed.pop())
            yield
