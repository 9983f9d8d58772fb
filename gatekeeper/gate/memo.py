"""Memo: the decisions that were made last, and their counts."""

import math
from collections import Counter
from itertools import chain, islice
from threading import Lock

from gatekeeper.gate.decisions import Decision, Reason
from gatekeeper.gate.grants import MAX_GRANT_LENGTH
from gatekeeper.gate.lease import Lease, UsedKeys
from gatekeeper.gate.page import RequestIdentity
from gatekeeper.matching.origins import MAX_ORIGIN_LENGTH

__all__ = ("Memo", "Remembered", "may_be_remembered")

# An entry takes about 0.5 KB (benchmarks.floods), one with a renewed grant 0.9 KB. Any client can fill the memo: 7,000 of
# the latter, with grants of 203 bytes, took 6.2 MB (tracemalloc). Allowed and refused decisions are kept apart, so that a
# flood of foreign pages evicts no allowed one.
MOST_ALLOWED = 7_000
MOST_REFUSED = 2_000
# Decisions that are evicted together: a dict skips all deleted entries each time that its first item is asked for.
ROOM = 64


class Remembered:
    """A decision, and the number of requests that it has answered.

    Args:
        decision: the decision.
        lease: the lease of the list that decided, from before it decided.
        until: the moment, by the gate's clock, from which on it does not hold; for a grant, which changes with time.

    Attributes:
        decision, lease, until: as given.
        uses: the requests that are not counted yet. A float, because CPython adds floats 30 ns faster.
        is_kept: whether a memo holds it, and counts its uses later.
    """

    __slots__ = ("decision", "is_kept", "lease", "until", "uses")

    def __init__(self, decision: Decision, lease: Lease, until: float = math.inf) -> None:
        self.decision = decision
        self.lease = lease
        self.until = until
        self.uses = 0.0
        self.is_kept = False

    def holds(self, now: float) -> bool:
        """Whether the decision still holds.

        Args:
            now: the moment, by the gate's clock.
        """
        return now < self.lease.ends_at and now < self.until


class Memo:
    """Decisions by the identity of the request, the oldest evicted first.

    Whether one holds is up to its lease. One that does not is replaced when it is made again, or evicted.

    Args:
        most_allowed, most_refused: how many decisions it holds.
        room: how many decisions make room for a new one.

    Attributes:
        allowed: those that let a request in. A dict, because nearly every request is one hit in it: cachetools' FIFOCache
            takes 50 ns longer for a hit, and 1.2 µs longer for a first sight. It is never replaced.
        refused: those that do not.
    """

    def __init__(self, *, most_allowed: int = MOST_ALLOWED, most_refused: int = MOST_REFUSED, room: int = ROOM) -> None:
        self.allowed: dict[RequestIdentity, Remembered] = {}
        self.refused: dict[RequestIdentity, Remembered] = {}
        self._reasons: Counter[Reason] = Counter()
        self._most_allowed = most_allowed
        self._most_refused = most_refused
        self._room = room
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.allowed) + len(self.refused)

    @property
    def reasons(self) -> Counter[Reason]:
        """How many requests were decided for which reason, since the start."""
        self.flush_uses()
        return Counter(self._reasons)

    def find(self, identity: RequestIdentity, now: float) -> Remembered | None:
        """The decision about such a request, if one holds now."""
        found = self.allowed.get(identity) or self.refused.get(identity)
        return found if found is not None and found.holds(now) else None

    def find_allowed(self, identity: RequestIdentity, now: float) -> Remembered | None:
        """The decision that allows such a request, if one holds now."""
        found = self.allowed.get(identity)
        return found if found is not None and found.holds(now) else None

    def remember(self, identity: RequestIdentity, remembered: Remembered) -> None:
        """Keep a decision: best effort."""
        is_allowed = remembered.decision.allowed
        kept, most = (self.allowed, self._most_allowed) if is_allowed else (self.refused, self._most_refused)
        # Tools decide in threads, and eviction is not atomic. Never block here: if the lock is held (a fork can leave it
        # held for good), skip remembering.
        if self._lock.acquire(blocking=False):
            try:
                for each in (self.allowed, self.refused):
                    if (replaced := each.pop(identity, None)) is not None:  # it does not hold any more
                        self._count(replaced)
                if len(kept) >= most:
                    for oldest in list(islice(kept, self._room)):
                        self._count(kept.pop(oldest))
                kept[identity] = remembered
                remembered.is_kept = True
            finally:
                self._lock.release()

    def use(self, remembered: Remembered) -> Decision:
        """Count a request by its decision."""
        remembered.uses += 1.0
        if not remembered.is_kept:
            self._count(remembered)
        return remembered.decision

    def flush_uses(self) -> None:
        """Count the uses of every decision, by reason and by key."""
        # Another thread that wants to remember a decision meanwhile skips it.
        with self._lock:
            for remembered in chain(self.allowed.values(), self.refused.values()):
                self._count(remembered)

    def take_used_keys(self, used: UsedKeys) -> Counter[str]:
        """The allowed requests of one list by key, since the last call.

        Args:
            used: the uses of its keys.
        """
        self.flush_uses()
        return used.take()

    def after_fork(self) -> None:
        """Start afresh: a thread of the parent may hold the lock."""
        self._lock = Lock()
        self._reasons = Counter()
        self.allowed.clear()
        self.refused.clear()

    def _count(self, remembered: Remembered) -> None:
        """Count the uses of a decision, and reset them."""
        # No call between the two: another thread could add a request there, which would be lost.
        taken, remembered.uses = remembered.uses, 0.0
        if uses := int(taken):
            decision = remembered.decision
            self._reasons[decision.reason] += uses
            if decision.allowed and decision.key is not None:
                remembered.lease.used.counts[decision.key.id] += uses


def may_be_remembered(identity: RequestIdentity) -> bool:
    """Whether a request has bounded values and no conflicts."""
    key, origin, *rest = identity
    grant = rest[1] if len(rest) > 1 else None
    if grant is not None:
        return isinstance(grant, bytes) and len(grant) <= MAX_GRANT_LENGTH and key is None and origin is None
    page = rest[0] if origin is None and rest else origin
    return isinstance(key, bytes) and isinstance(page, bytes) and len(page) <= MAX_ORIGIN_LENGTH
