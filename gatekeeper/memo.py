"""Memo: what was decided since keys last changed, by what the request sent, and how often it came.

A dict, for nearly every request is one hit in it, and a first sight one more item: a FIFOCache of cachetools takes 50 ns and
1.2 µs longer.
"""

from collections import Counter
from itertools import islice
from threading import Lock

from gatekeeper.decisions import Conflict, Decision, Reason
from gatekeeper.origins import MAX_ORIGIN_LENGTH

__all__ = ("Memo", "MemoKey", "Remembered", "Tally", "memo_key")

# An entry takes about 0.7 KB, and a flood of origins fills the memo: 5 MB is what it may grow by (benchmarks.floods).
MEMO_SIZE = 6144
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


class Memo(dict[MemoKey, Remembered]):
    """Decisions by what the request sent; the oldest ones make room for a new one.

    Args:
        tally: where the uses of a decision are counted when it is forgotten.
    """

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally
        self._lock = Lock()

    def remember(self, key: MemoKey, remembered: Remembered) -> None:
        """Keep a decision, if nobody else is at it."""
        # Tools decide in threads, and to make room is not atomic. Whoever would have to wait does without: a fork may have
        # left the lock taken for ever.
        if self._lock.acquire(blocking=False):
            try:
                if len(self) >= MEMO_SIZE:
                    self._make_room()
                self[key] = remembered
                remembered.is_kept = True
            finally:
                self._lock.release()

    def _make_room(self) -> None:
        for key in list(islice(self, ROOM)):
            self._tally.add(self.pop(key))

    def count(self) -> None:
        """Count the uses of every decision in the tally."""
        # Whoever wants to remember something meanwhile, in another thread, does without.
        with self._lock:
            for remembered in self.values():
                self._tally.add(remembered)


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
