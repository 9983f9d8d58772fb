"""Memo: what was decided since keys last changed, by what the request sent, and how often it came."""

import math
from collections import Counter
from itertools import chain, islice
from threading import Lock

from gatekeeper.gate.decisions import Conflict, Decision, Reason
from gatekeeper.matching.origins import MAX_ORIGIN_LENGTH

__all__ = ("Memo", "MemoKey", "Memos", "Remembered", "Tally", "memo_key")

# An entry takes about 0.5 KB, and strangers can fill the memo: 5 MB is what it may grow by (benchmarks.floods). Pages that
# are let in are apart from those that are not, so that a flood of foreign pages takes no room from them.
MOST_ALLOWED = 7_000
MOST_REFUSED = 2_000
# Decisions that go at once: a dict passes over all that went before its first item each time that it is asked for it.
ROOM = 64

# (client key, origin), or (client key, None, referer)
MemoKey = tuple[bytes | Conflict | None, bytes | Conflict | None] | tuple[bytes, None, bytes]


class Remembered:
    """A decision, and how many requests it was good for since somebody last counted them.

    Attributes:
        decision: the decision.
        uses: the requests.
        is_kept: whether a memo keeps it, and will have its uses counted.
    """

    __slots__ = ("decision", "is_kept", "uses")

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.uses = 0
        self.is_kept = False


class Tally:
    """How many requests were decided how, and which keys they used.

    Attributes:
        reasons: requests by the reason of their decision, since the start.
        keys: allowed requests by the id of their key, since `take_keys` was last called.
    """

    def __init__(self) -> None:
        self.reasons: Counter[Reason] = Counter()
        self.keys: Counter[str] = Counter()

    def add(self, remembered: Remembered) -> None:
        """Count the uses of a decision, which count for nothing afterwards."""
        uses, remembered.uses = remembered.uses, 0
        if uses:
            decision = remembered.decision
            self.reasons[decision.reason] += uses
            if decision.allowed and decision.key is not None:
                self.keys[decision.key.id] += uses

    def take_keys(self) -> Counter[str]:
        """The allowed requests by key, which begin anew."""
        taken, self.keys = self.keys, Counter()
        return taken


class Memo:
    """Decisions by what the request sent; the oldest ones make room for a new one.

    Args:
        tally: where the uses of a decision are counted when it is forgotten.
        deadline: see below.
        most_allowed, most_refused: how many decisions it holds.
        room: how many decisions make room for a new one.

    Attributes:
        deadline: the moment from which on nothing here counts without another look, in seconds by the gate's clock.
        allowed: those that let a request in. A dict, for nearly every request is one hit in it, and a first sight one more
            item: a FIFOCache of cachetools takes 50 ns and 1.2 µs longer.
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
        self.allowed: dict[MemoKey, Remembered] = {}
        self.refused: dict[MemoKey, Remembered] = {}
        self._tally = tally
        self._most_allowed = most_allowed
        self._most_refused = most_refused
        self._room = room
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.allowed) + len(self.refused)

    def find(self, key: MemoKey) -> Remembered | None:
        """What was decided about such a request; None if that is not known."""
        return self.allowed.get(key) or self.refused.get(key)

    def remember(self, key: MemoKey, remembered: Remembered) -> None:
        """Keep a decision, if nobody else is at it."""
        is_allowed = remembered.decision.allowed
        kept, most = (self.allowed, self._most_allowed) if is_allowed else (self.refused, self._most_refused)
        # Tools decide in threads, and to make room is not atomic. Whoever would have to wait does without: a fork may have
        # left the lock taken for ever.
        if self._lock.acquire(blocking=False):
            try:
                if len(kept) >= most:
                    for oldest in list(islice(kept, self._room)):
                        self._tally.add(kept.pop(oldest))
                kept[key] = remembered
                remembered.is_kept = True
            finally:
                self._lock.release()

    def count(self) -> None:
        """Count the uses of every decision in the tally."""
        # Whoever wants to remember something meanwhile, in another thread, does without.
        with self._lock:
            for remembered in chain(self.allowed.values(), self.refused.values()):
                self._tally.add(remembered)


class Memos:
    """What was decided since keys last changed, and how often since the start.

    A decision in the making remembers into the memo that it began with, so one that is overtaken by a change is forgotten.

    Attributes:
        current: a new memo whenever keys have changed.
    """

    def __init__(self) -> None:
        self._tally = Tally()
        self.current = Memo(self._tally, -math.inf)

    @property
    def reasons(self) -> Counter[Reason]:
        """How many requests were decided for which reason, since the start."""
        self.current.count()
        return Counter(self._tally.reasons)

    def take_used_keys(self) -> Counter[str]:
        """The allowed requests by key id since this was last called."""
        self.current.count()
        return self._tally.take_keys()

    def use(self, remembered: Remembered) -> Decision:
        """Count a request by its decision."""
        remembered.uses += 1
        if not remembered.is_kept:
            self._tally.add(remembered)
        return remembered.decision

    def renew(self, deadline: float) -> None:
        """Let what is remembered count up to another moment.

        Args:
            deadline: the moment, by the gate's clock.
        """
        self.current.deadline = deadline
        if deadline == -math.inf:  # no refresher runs
            self.forget()

    def forget(self) -> None:
        """Drop the memo, because what was decided may not hold any more."""
        forgotten, self.current = self.current, Memo(self._tally, self.current.deadline)
        forgotten.count()

    def after_fork(self) -> None:
        """Begin anew: the parent's counts are the parent's to report, and one of its threads may hold the memo's lock."""
        self._tally = Tally()
        self.current = Memo(self._tally, -math.inf)


def memo_key(
    key: bytes | Conflict | None, origin: bytes | Conflict | None, referer: bytes | Conflict | None
) -> MemoKey | None:
    """What to remember a decision by; None for what is too long, or too odd, to be worth it."""
    if not isinstance(key, bytes):
        return None
    if isinstance(origin, bytes):
        return (key, origin) if len(origin) <= MAX_ORIGIN_LENGTH else None
    if origin is None and isinstance(referer, bytes):
        return (key, None, referer) if len(referer) <= MAX_ORIGIN_LENGTH else None
    return None
