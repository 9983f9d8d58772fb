"""SnapshotKeeper: when the snapshot is read and written."""

import math
from dataclasses import dataclass

import anyio

from gatekeeper.index.key_index import KeyIndex
from gatekeeper.sync.applying import OvertakenError, SharedList
from gatekeeper.sync.clock import Clock
from gatekeeper.sync.freshness import Freshness
from gatekeeper.sync.loading import ListBasis
from gatekeeper.sync.log import RefreshLog
from gatekeeper.sync.snapshot import Snapshot

__all__ = ("SnapshotKeeper",)

RENEWALS = 10  # of the snapshot in the time after which it would be too old
RETRY_AFTER = 60.0  # seconds from a failure to the next attempt
LAST_WITHIN = 0.4  # seconds for the last writing: a stop may take 1 s, with 0.5 s for the last reports
PAUSE_PER_WORK = 5  # seconds between two writings for every second that one takes: a live list may change all the time


@dataclass(eq=False)
class SnapshotKeeper:
    """Keeps the list on disk, for the refreshers of all event loops."""

    snapshot: Snapshot
    index: KeyIndex
    shared: SharedList
    freshness: Freshness
    log: RefreshLog
    clock: Clock
    wall_clock: Clock
    _saved_generation: int = 0
    _not_before: float = -math.inf

    async def restore(self) -> bool:
        """Serve the list of the last process, if there is one."""
        if self.freshness.has_list:
            return False
        try:
            with self.shared.applying(self.shared.generation):
                saved = await self.snapshot.load(self.index, max_age=self.freshness.hard_stale)
                if saved is not None:
                    self.shared.basis = ListBasis(saved.validator, is_exact=saved.validator is not None)
                    self.shared.generation += 1
                    self._saved_generation = self.shared.generation
        except OvertakenError:
            return False
        except Exception as error:  # noqa: BLE001 - logged with its traceback
            self.log.snapshot_failed(error)
            return False
        if saved is None:
            return False
        self.freshness.record_restored(saved.age)
        self.log.restored(self.freshness.state, saved.age, len(self.index), self.index.ambiguous())
        return True

    @property
    def due_in(self) -> float | None:
        """Seconds until a changed list may be written; None without one."""
        if not self.freshness.has_live_list or self.shared.generation == self._saved_generation:
            return None
        return max(0.0, self._not_before - self.clock())

    async def save_if_due(self) -> None:
        """Write the list if it has changed, or the file is old."""
        age, now = self.freshness.age, self.clock()
        if age is None or self.freshness.from_snapshot or now < self._not_before:
            return
        generation, saved_at, wall_now = self.shared.generation, self.snapshot.saved_at, self.wall_clock()
        renew_after = self.freshness.hard_stale / RENEWALS
        is_old = saved_at is None or (renew_after and wall_now - saved_at >= renew_after)
        if generation == self._saved_generation and not is_old:
            return
        before, self._saved_generation = self._saved_generation, generation
        basis, is_saved = self.shared.basis, False
        try:
            await self.snapshot.save(self.index, wall_now - age, basis.validator if basis.is_exact else None)
            is_saved = True
        except Exception as error:  # noqa: BLE001 - logged with its traceback
            self._not_before = now + RETRY_AFTER
            self.log.snapshot_failed(error)
        else:
            self.log.counters["snapshot_saved"] += 1
            ended_at = self.clock()
            self._not_before = ended_at + PAUSE_PER_WORK * (ended_at - now)
        finally:
            if not is_saved:
                self._saved_generation = before

    async def save_last(self) -> None:
        """Write a list that has changed, as its refresher is cancelled."""
        if self.due_in is not None:
            self._not_before = -math.inf
            with anyio.move_on_after(LAST_WITHIN, shield=True):
                await self.save_if_due()
