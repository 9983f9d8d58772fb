"""Applier: applies a list to the index that event loops share.

A list is applied in place, in steps. The task that begins it finishes it, even when cancelled. A list that lacks more than
half of 10 keys or more may be a mistake: its removals are held until two more lists lack as many, or for 60 s. The rest of
it is applied immediately. A list undoes a revocation only if it was asked for after the list that brought it.

Changes apply to the list that they name, so their order is that of the lists' names. They name what is removed, and nothing
of that is held. The list that they lead to gets its name only once all of them are applied.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import anyio.lowlevel
import msgspec

from gatekeeper.index.change_set import ChangeSet
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.sync.clock import Clock
from gatekeeper.sync.freshness import Freshness
from gatekeeper.sync.loading import ListBasis, Loaded
from gatekeeper.sync.log import RefreshLog
from gatekeeper.sync.status import RefreshReport

__all__ = ("Applier", "Asked", "OvertakenError", "RemovalGuard", "SharedList")

HELD_FROM = 10  # keys; of fewer, any number may go at once
HELD_LISTS = 2
HELD_FOR = 60.0  # seconds


class OvertakenError(Exception):
    """The refresher of another event loop has changed the index meanwhile."""


class Asked(NamedTuple):
    """A question to the source.

    Attributes:
        at: when it was asked, by the clock.
        generation: that of the list held then.
        validator: that of the list held then.
    """

    at: float
    generation: int
    validator: str | None


class SharedList:
    """What the refreshers of all event loops share about the list.

    The lock is held for moments only: to begin applying a list, and to end it.

    Attributes:
        generation: how many lists have changed something.
        basis: what is known of the last list.
        held: how many keys the last list lacks that are not dropped yet.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.basis = ListBasis()
        self.held = 0
        self._retained_since: dict[str, float] = {}
        self._is_applying = False
        self._lock = Lock()

    def is_overtaken(self, generation: int) -> bool:
        """Whether another list was applied since this generation."""
        return self._is_applying or self.generation != generation

    @contextmanager
    def applying(self, generation: int) -> Iterator[None]:
        """Exclude other event loops; raise OvertakenError if one was faster."""
        with self._lock:
            if self.is_overtaken(generation):
                raise OvertakenError
            self._is_applying = True
        try:
            yield
        finally:
            with self._lock:
                self._is_applying = False

    def begin(self, held: int) -> None:
        """Forget the last list, because the index is about to change."""
        self.held = held
        # A child that is forked before the end has to ask for the whole list.
        self.basis = ListBasis(dated_at=self.basis.dated_at)

    def end(self, basis: ListBasis, changes: ChangeSet, asked_at: float, changed_ids: Collection[str] | None = None) -> None:
        """Note what is known of a list that was applied.

        Args:
            basis: what is known of it.
            changes: what it has changed.
            asked_at: when it was asked for.
            changed_ids: the ids of the rows of which changes have told; None for a whole list.
        """
        if self.held or changes.overruled_count:
            basis = ListBasis(dated_at=basis.dated_at)
        elif not changes.slots_are_stable:
            basis = msgspec.structs.replace(basis, slices={})
        self.basis = basis
        before = self._retained_since
        self._retained_since = {row_id: before.get(row_id, asked_at) for row_id in changes.retained}
        if changed_ids is not None:
            self._retained_since = {row_id: since for row_id, since in before.items() if row_id not in changed_ids}

    def rename(self, basis: ListBasis, generation: int) -> None:
        """Note another validator for the list, unless it was overtaken."""
        with self._lock:
            if not self.is_overtaken(generation):
                self.basis = basis

    def forget_validator(self) -> None:
        """Ask for the whole list next time, unless one is being applied."""
        with self._lock:
            if not self._is_applying:
                self.basis = msgspec.structs.replace(self.basis, validator=None)

    def expired_ids(self, before: float) -> Collection[str]:
        """The ids of keys retained for unreadable rows since this moment."""
        return frozenset(row_id for row_id, since in self._retained_since.items() if since <= before)

    def after_fork(self) -> None:
        """Release what another thread of the parent process may have held."""
        self._lock = Lock()
        self._is_applying = False


class RemovalGuard:
    """Holds the removals of a list that lacks most of the keys.

    Attributes:
        lists: how many lists in a row have lacked as many.
    """

    def __init__(self) -> None:
        self.lists = 0
        self._since = 0.0

    def holds(self, missing: int, total: int, asked_at: float) -> bool:
        """Whether the keys that a list lacks stay for now."""
        if total < HELD_FROM or 2 * missing <= total:
            self.lists = 0
            return False
        if not self.lists:
            self._since = asked_at
        self.lists += 1
        if self.lists > HELD_LISTS or asked_at - self._since >= HELD_FOR:
            self.lists = 0
            return False
        return True


@dataclass(eq=False)
class Applier:
    """Applies lists to an index."""

    index: KeyIndex
    shared: SharedList
    freshness: Freshness
    guard: RemovalGuard
    log: RefreshLog
    on_change: Callable[[], None]  # called after decisions may have changed
    clock: Clock
    work: float = 0.0  # seconds that applying the last list took, without the turns of other tasks

    async def apply(self, loaded: Loaded, changes: ChangeSet, asked: Asked, *, as_of: float) -> RefreshReport:
        """Apply a list, or changes of one.

        Args:
            loaded: what was read.
            changes: what it changes.
            asked: the question that it answers.
            as_of: when a source that has held its answer gave it.

        Returns:
            The outcome.

        Raises:
            OvertakenError: another event loop has changed the index, or given the list another name.
        """
        rejected = sum(loaded.rejected_reasons.values())
        with self.shared.applying(asked.generation):
            if loaded.changed_ids is not None:
                if self.shared.basis.validator != asked.validator:
                    raise OvertakenError
            elif self.freshness.is_superseded(asked.at):
                if as_of > asked.at:
                    raise OvertakenError  # it is older than its answer
                return RefreshReport("unchanged", rejected=rejected)
            self.shared.begin(self._hold(loaded, changes, asked.at))
            report = RefreshReport(
                "unchanged" if changes.is_empty else "changed",
                changes.added_count,
                changes.changed_count,
                changes.removed_count,
                self.shared.held,
                rejected,
            )
            await self._change(loaded, changes, asked.at, as_of=as_of)
        self.log.list_applied(loaded, changes, self.index.ambiguous())
        return report

    async def _change(self, loaded: Loaded, changes: ChangeSet, asked_at: float, *, as_of: float) -> None:
        is_change, steps = not changes.is_empty, changes.apply()
        self.work, began = 0.0, self.clock()
        try:
            for _ in steps:
                if is_change:
                    self.on_change()
                self.work += self.clock() - began
                await anyio.lowlevel.checkpoint()
                began = self.clock()
            self.work += self.clock() - began  # few changes take no step
        finally:
            # Even when cancelled, or when the event loop is gone: no list stays half applied.
            for _ in steps:
                pass
            if loaded.problem is None:
                self.freshness.record_success(asked_at, as_of=as_of)
            else:
                self.freshness.record_applied(asked_at)
            self.shared.end(loaded.basis, changes, asked_at, loaded.changed_ids)
            if is_change or loaded.changed_ids is not None or as_of > asked_at:
                # What changes nothing here counts, too: another event loop may wait for a list that is older than it.
                self.shared.generation += 1
            if is_change:
                self.on_change()

    def _hold(self, loaded: Loaded, changes: ChangeSet, asked_at: float) -> int:
        if loaded.problem is not None:
            return self.shared.held
        if loaded.changed_ids is not None:
            return 0  # with removals held, the list has no name, and no changes apply
        total, missing = len(self.index), 0 if loaded.is_trusted else changes.removed_count
        if not self.guard.holds(missing, total, asked_at):
            return 0
        self.log.removals_held(missing, total, is_first=self.guard.lists == 1)
        return changes.hold_removals()
