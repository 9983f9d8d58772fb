"""Lease: how long the remembered decisions of one list hold."""

import math
from collections import Counter
from threading import Lock

__all__ = ("Lease", "Leases", "UsedKeys")


class UsedKeys:
    """The allowed requests of the keys of one list.

    Attributes:
        counts: requests by the id of their key, since `take` was last called.
    """

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def take(self) -> Counter[str]:
        """The requests by key since the last call."""
        taken, self.counts = self.counts, Counter()
        return taken


class Lease:
    """How long decisions hold that began under it.

    Args:
        used: where the uses of keys that they allow are counted.
        ends_at: see below.

    Attributes:
        ends_at: the moment, by the gate's clock, from which on each of them has to be made again.
        used: as given.
    """

    __slots__ = ("ends_at", "used")

    def __init__(self, used: UsedKeys, ends_at: float = -math.inf) -> None:
        self.ends_at = ends_at
        self.used = used


class Leases:
    """The leases of a list: a new one whenever keys change.

    A decision is remembered under the lease from before it began, so one that races with a change is stale.

    Attributes:
        current: the lease of decisions that begin now.
        ended: a lease that has ended, of decisions that are not to be remembered.
        used: the uses of the list's keys.
    """

    def __init__(self) -> None:
        self.used = UsedKeys()
        self.ended = Lease(self.used)
        self.current = Lease(self.used)
        self._is_closed = False
        self._lock = Lock()

    def renew(self, ends_at: float) -> None:
        """Set the end of the current lease, by the gate's clock."""
        # An event loop renews while that of another thread ends: without the lock, it could revive the lease that has ended.
        with self._lock:
            if ends_at == -math.inf:  # no refresher runs
                self._replace(ends_at)
            elif not self._is_closed:
                self.current.ends_at = ends_at

    def end(self) -> None:
        """End the current lease, because keys have changed."""
        with self._lock:
            self._replace(self.current.ends_at)

    def close(self) -> None:
        """End the current lease, and let no other one begin."""
        with self._lock:
            self._is_closed = True
            self._replace(-math.inf)

    def after_fork(self) -> None:
        """Start afresh: a thread of the parent may hold the lock."""
        self._lock = Lock()
        self.used.take()
        self._replace(-math.inf)

    def _replace(self, ends_at: float) -> None:
        before, self.current = self.current, Lease(self.used, ends_at)
        before.ends_at = -math.inf
