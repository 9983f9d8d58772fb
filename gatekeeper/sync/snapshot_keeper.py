"""SnapshotKeeper: when the list is read from disk, and when it is written there."""

from gatekeeper.index.key_index import KeyIndex
from gatekeeper.sync.applying import OvertakenError, SharedList
from gatekeeper.sync.clock import Clock
from gatekeeper.sync.freshness import Freshness
from gatekeeper.sync.log import RefreshLog
from gatekeeper.sync.snapshot import Snapshot

__all__ = ("SnapshotKeeper",)

RENEWALS = 10  # of the snapshot in the time after which it would be too old
RETRY_AFTER = 60.0  # seconds from a failure to the next attempt


class SnapshotKeeper:
    """Keeps the list on disk, for the refreshers of all event loops.

    Args:
        snapshot: the file.
        index: the list.
        shared: what the refreshers of all event loops share.
        freshness: the age of the list.
        log: where the outcome is recorded.
        clock: seconds; see `boot_clock`.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        index: KeyIndex,
        shared: SharedList,
        freshness: Freshness,
        log: RefreshLog,
        *,
        clock: Clock,
        wall_clock: Clock,
    ) -> None:
        self._snapshot = snapshot
        self._index = index
        self._shared = shared
        self._freshness = freshness
        self._log = log
        self._clock = clock
        self._wall_clock = wall_clock
        self._saved_generation = 0
        self._not_before = clock()

    async def restore(self) -> bool:
        """Serve what the last process served, until the source gives a list; whether there was something."""
        if self._freshness.has_list:
            return False
        try:
            with self._shared.applying(self._shared.generation):
                age = await self._snapshot.load(self._index, max_age=self._freshness.hard_stale)
                if age is not None:
                    self._shared.generation += 1
                    self._saved_generation = self._shared.generation
        except OvertakenError:
            return False
        except Exception as error:  # noqa: BLE001 - logged with its traceback
            self._log.snapshot_failed(error)
            return False
        if age is None:
            return False
        self._freshness.record_restored(age)
        self._log.restored(self._freshness.state, age, len(self._index), self._index.ambiguous())
        return True

    async def save_if_due(self) -> None:
        """Write the list to disk if it has changed, or if what is there is getting old."""
        age, now = self._freshness.age, self._clock()
        if age is None or self._freshness.from_snapshot or now < self._not_before:
            return
        generation, saved_at, wall_now = self._shared.generation, self._snapshot.saved_at, self._wall_clock()
        renew_after = self._freshness.hard_stale / RENEWALS
        is_old = saved_at is None or (renew_after and wall_now - saved_at >= renew_after)
        if generation == self._saved_generation and not is_old:
            return
        before, self._saved_generation = self._saved_generation, generation
        try:
            await self._snapshot.save(self._index, wall_now - age)
        except Exception as error:  # noqa: BLE001 - logged with its traceback
            self._saved_generation = before
            self._not_before = now + RETRY_AFTER
            self._log.snapshot_failed(error)
        else:
            self._log.counters["snapshot_saved"] += 1
