"""Memo: the decisions since keys last changed, and their counts."""

import math
from collections import Counter
from itertools import chain, islice
from threading import Lock

from gatekeeper.gate.decisions import Decision, Reason
from gatekeeper.gate.grants import MAX_GRANT_LENGTH
from gatekeeper.gate.page import RequestIdentity
from gatekeeper.matching.origins import MAX_ORIGIN_LENGTH

__all__ = ("Memo", "Memos", "Remembered", "Tally", "may_be_remembered")

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
        until: the moment, by the gate's clock, from which on it does not hold; for a grant, which changes with time.

    Attributes:
        decision, until: as given.
        uses: the requests that are not counted in a tally yet.
        is_kept: whether a memo holds it, and counts its uses later.
    """

    __slots__ = ("decision", "is_kept", "until", "uses")

    def __init__(self, decision: Decision, until: float = math.inf) -> None:
        self.decision = decision
        self.until = until
        self.uses = 0
        self.is_kept = False


class Tally:
    """Counts requests by the reason of their decision, and uses by key.

    Attributes:
        reasons: requests by the reason of their decision, since the start.
        keys: allowed requests by the id of their key, since `take_keys` was last called.
    """

    def __init__(self) -> None:
        self.reasons: Counter[Reason] = Counter()
        self.keys: Counter[str] = Counter()

    def add(self, remembered: Remembered) -> None:
        """Count the uses of a decision, and reset them."""
        uses, remembered.uses = remembered.uses, 0
        if uses:
            decision = remembered.decision
            self.reasons[decision.reason] += uses
            if decision.allowed and decision.key is not None:
                self.keys[decision.key.id] += uses

    def take_keys(self) -> Counter[str]:
        """The allowed requests by key since the last call."""
        taken, self.keys = self.keys, Counter()
        return taken


class Memo:
    """Decisions by the identity of the request, the oldest evicted first.

    Args:
        tally: where the uses of a decision are counted when it is forgotten.
        deadline: see below.
        most_allowed, most_refused: how many decisions it holds.
        room: how many decisions make room for a new one.

    Attributes:
        deadline: the moment, by the gate's clock, from which on each decision here has to be made again.
        allowed: those that let a request in. A dict, because nearly every request is one hit in it: cachetools' FIFOCache
            takes 50 ns longer for a hit, and 1.2 µs longer for a first sight.
        refused: those that do not.
    """

    def __init__(
        self,
        tally: Tally,
        deadline: float,
        *,
        most_allowed: int = MOST_ALLOWED,
        most_refused: int = MOST_REFUSED,
        room: int = ROOM,
    ) -> None:
        self.deadline = deadline
        self.allowed: dict[RequestIdentity, Remembered] = {}
        self.refused: dict[RequestIdentity, Remembered] = {}
        self._tally = tally
        self._most_allowed = most_allowed
        self._most_refused = most_refused
        self._room = room
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.allowed) + len(self.refused)

    def find(self, identity: RequestIdentity, now: float) -> Remembered | None:
        """The decision about such a request, if one holds now."""
        found = self.allowed.get(identity) or self.refused.get(identity)
        return found if found is not None and now < found.until else None

    def find_allowed(self, identity: RequestIdentity, now: float) -> Remembered | None:
        """The decision that allows such a request, if one holds now."""
        found = self.allowed.get(identity)
        return found if found is not None and now < found.until else None

    def remember(self, identity: RequestIdentity, remembered: Remembered) -> None:
        """Keep a decision: best effort."""
        is_allowed = remembered.decision.allowed
        kept, most = (self.allowed, self._most_allowed) if is_allowed else (self.refused, self._most_refused)
        # Tools decide in threads, and eviction is not atomic. Never block here: if the lock is held (a fork can leave it
        # held for good), skip remembering.
        if self._lock.acquire(blocking=False):
            try:
                if len(kept) >= most:
                    for oldest in list(islice(kept, self._room)):
                        self._tally.add(kept.pop(oldest))
                if (replaced := kept.get(identity)) is not None:  # it does not hold any more
                    self._tally.add(replaced)
                kept[identity] = remembered
                remembered.is_kept = True
            finally:
                self._lock.release()

    def flush_uses(self) -> None:
        """Count the uses of every decision in the tally."""
        # Another thread that wants to remember a decision meanwhile skips it.
        with self._lock:
            for remembered in chain(self.allowed.values(), self.refused.values()):
                self._tally.add(remembered)


class Memos:
    """The current memo, and the counts since the start.

    A decision is remembered in the memo that was current when it began, so one that races with a change is dropped.

    Attributes:
        current: the memo; a new one whenever keys have changed.
    """

    def __init__(self) -> None:
        self._tally = Tally()
        self.current = Memo(self._tally, -math.inf)

    @property
    def reasons(self) -> Counter[Reason]:
        """How many requests were decided for which reason, since the start."""
        self.current.flush_uses()
        return Counter(self._tally.reasons)

    def take_used_keys(self) -> Counter[str]:
        """The allowed requests by key id since this was last called."""
        self.current.flush_uses()
        return self._tally.take_keys()

    def use(self, remembered: Remembered) -> Decision:
        """Count a request by its decision."""
        remembered.uses += 1
        if not remembered.is_kept:
            self._tally.add(remembered)
        return remembered.decision

    def renew(self, deadline: float) -> None:
        """Set the deadline of the current memo, by the gate's clock."""
        self.current.deadline = deadline
        if deadline == -math.inf:  # no refresher runs
            self.forget()

    def forget(self) -> None:
        """Drop the memo, because keys have changed."""
        forgotten, self.current = self.current, Memo(self._tally, self.current.deadline)
        forgotten.flush_uses()

    def after_fork(self) -> None:
        """Start afresh: a thread of the parent may hold the lock."""
        self._tally = Tally()
        self.current = Memo(self._tally, -math.inf)


def may_be_remembered(identity: RequestIdentity) -> bool:
    """Whether a request has bounded values and no conflicts."""
    key, origin, *rest = identity
    grant = rest[1] if len(rest) > 1 else None
    if grant is not None:
        return isinstance(grant, bytes) and len(grant) <= MAX_GRANT_LENGTH and key is None and origin is None
    page = rest[0] if origin is None and rest else origin
    return isinstance(key, bytes) and isinstance(page, bytes) and len(page) <= MAX_ORIGIN_LENGTH
