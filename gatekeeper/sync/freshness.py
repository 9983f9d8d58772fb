"""Freshness: how old the list is, and what follows from its age."""

import math

from gatekeeper.sync.clock import Clock
from gatekeeper.sync.status import State

__all__ = ("Freshness",)


class Freshness:
    """The age of the list, for the refreshers of all event loops.

    A list is `never_loaded` until the first one was accepted, then `fresh`. It is `degraded` once the last accepted list
    is older than `soft_stale`, and while it comes from the snapshot on disk: every decision still stands. It is `expired`
    once that list is older than `hard_stale`: no key is trusted any more. The next accepted list makes it fresh again.

    Args:
        soft_stale: seconds after which the list is degraded.
        hard_stale: seconds after which it is expired; 0 for never.
        clock: seconds; see `boot_clock`.

    Attributes:
        hard_stale: as given.
        from_snapshot: whether the list comes from the disk, and none from the source has been accepted yet.
    """

    def __init__(self, *, soft_stale: float, hard_stale: float, clock: Clock) -> None:
        self.hard_stale = hard_stale
        self.from_snapshot = False
        self._soft_stale = soft_stale
        self._clock = clock
        self._accepted_at: float | None = None
        self._applied_at = -math.inf  # when the last list that changed the index was asked for

    @property
    def has_list(self) -> bool:
        """Whether there is a list, however old."""
        return self._accepted_at is not None

    @property
    def has_live_list(self) -> bool:
        """Whether there is a list that came from the source, however old."""
        return self.has_list and not self.from_snapshot

    @property
    def age(self) -> float | None:
        """Seconds since the last list was asked for; None without one."""
        return None if self._accepted_at is None else max(0.0, self._clock() - self._accepted_at)

    @property
    def state(self) -> State:
        """How fresh the list is now."""
        if self._accepted_at is None:
            return "never_loaded"
        age = self._clock() - self._accepted_at
        if self.hard_stale and age >= self.hard_stale:
            return "expired"
        return "degraded" if age >= self._soft_stale or self.from_snapshot else "fresh"

    @property
    def degrades_at(self) -> float | None:
        """The moment at which a fresh list is degraded, else None."""
        return None if self._accepted_at is None or self.state != "fresh" else self._accepted_at + self._soft_stale

    @property
    def expires_at(self) -> float:
        """The moment at which the list expires; infinite if it never does."""
        return math.inf if self._accepted_at is None or not self.hard_stale else self._accepted_at + self.hard_stale

    def is_superseded(self, asked_at: float) -> bool:
        """Whether another event loop has accepted a list asked for later."""
        return asked_at < self._applied_at

    def record_applied(self, asked_at: float) -> None:
        """Note that a list was applied, so that no earlier one follows."""
        self._applied_at = max(self._applied_at, asked_at)

    def record_success(self, asked_at: float, *, as_of: float = -math.inf) -> None:
        """Note that a list was accepted, or has not changed.

        Args:
            asked_at: when it was asked for.
            as_of: when a source that has held its answer gave it.
        """
        self.record_applied(asked_at)
        before, accepted_at = self._accepted_at, max(self._applied_at, as_of)
        # Another event loop may have asked before a source gave the answer that it had held.
        self._accepted_at = accepted_at if before is None or self.from_snapshot else max(accepted_at, before)
        self.from_snapshot = False

    def record_restored(self, age: float) -> None:
        """Note that the list comes from the disk, with its age."""
        self._accepted_at = self._clock() - age
        self.from_snapshot = True
