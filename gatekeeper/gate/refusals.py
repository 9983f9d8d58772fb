"""Refusals: the pages that were refused most often, in bounded memory. No IO, no clock.

Each key has a summary by the algorithm Space-Saving: Metwally, Agrawal and El Abbadi, "Efficient Computation of Frequent and
Top-k Elements in Data Streams", ICDT 2005. A new page replaces the rarest one, and its estimate goes on from there. Of a key
with k pages here and n refused requests, each page with more than n/k requests is here.

Client keys are public, so any client can flood a gate with pages that it makes up. Therefore all keys have equal shares.
Once there is no room, a new page replaces one of its own key; if its key has less than its share, it replaces one of the key
with the most pages. With more keys than pages, each key here has one page, and the rarest key is replaced.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from threading import Lock

from gatekeeper.gate.decisions import Decision, Reason
from gatekeeper.keys.refused_page import RefusedPage

__all__ = ("MOST_PAGES", "Refusals")

MOST_PAGES = 500  # 0.3 MB with common origins and 0.7 MB with the longest ones (tracemalloc)

_Name = tuple[str | None, Reason]  # the origin of a page, and why it is refused
_Key = tuple[str | None, str]  # the account and the id of a key: two accounts may have keys with one id


class Refusals:
    """The pages that were refused most often with known keys.

    Args:
        most: how many pages it holds, of all keys.
    """

    def __init__(self, most: int = MOST_PAGES) -> None:
        self._most = most
        self._keys: dict[_Key, _Summary] = {}
        self._size = 0
        self._floor = 0  # the largest estimate of a page that was dropped with its key
        self._ticks = count()
        self._order: list[tuple[int, int, _Key]] = []  # a heap of the keys, once each of them has one page
        self._lock = Lock()

    def __len__(self) -> int:
        return self._size

    def note(self, decision: Decision, now: float) -> bool:
        """Count a refused request: best effort.

        Args:
            decision: the decision that refuses it. One without a known key is not counted.
            now: seconds since 1970.

        Returns:
            Whether its page is new here.
        """
        if decision.key is None:
            return False
        name, whose = (decision.origin, decision.reason), (decision.account, decision.key.id)
        key = self._keys.get(whose)
        page = None if key is None else key.pages.get(name)
        if page is not None:
            page.note(decision.add, now)
            return False
        # Never block a request: if another thread holds the lock, the next request of the page counts.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._add(whose, name).note(decision.add, now)
        finally:
            self._lock.release()
        return True

    def pages(self) -> tuple[RefusedPage, ...]:
        """The pages with all of their requests, the most frequent first."""
        with self._lock:
            pages = [page.whole(key_id, *name) for (_, key_id), name, page in self._all()]
        return tuple(sorted(pages, key=lambda page: (-page.count, page.key_id, page.origin or "", page.reason)))

    def take_new(self, *accounts: str | None) -> list[RefusedPage]:
        """The pages with their requests since they were last taken.

        Args:
            accounts: those of their keys; by default all.
        """
        with self._lock:
            pages = [each for each in self._all() if not accounts or each[0][0] in accounts]
            taken = [page.take_new(key_id, *name) for (_, key_id), name, page in pages]
        return [page for page in taken if page is not None]

    def _all(self) -> Iterator[tuple[_Key, _Name, "_Page"]]:
        for whose, key in self._keys.items():
            for name, page in key.pages.items():
                yield whose, name, page

    def _add(self, whose: _Key, name: _Name) -> "_Page":
        if self._size >= self._most:
            self._drop_one(whose)
        key = self._keys.get(whose)
        if key is None:
            key = self._keys[whose] = _Summary(self._floor, self._ticks)
            if self._order:
                heappush(self._order, (self._floor, next(self._ticks), whose))
        self._size += 1
        return key.add(name)

    def _drop_one(self, whose: _Key) -> None:
        """Make room for one more page of a key."""
        own = self._keys.get(whose)
        share = self._most // (len(self._keys) + (own is None))
        if own is not None and len(own.pages) >= share:
            own.drop_rarest()
        else:
            dropped = self._largest_key() if share else self._rarest_key()
            key = self._keys[dropped]
            key.drop_rarest()
            if not key.pages:
                self._floor = max(self._floor, key.floor)
                del self._keys[dropped]
        self._size -= 1

    def _largest_key(self) -> _Key:
        """The key with the most pages; of several, the one with the rarest page."""
        # This takes 0.2 ms with 500 keys, but it is rare: each key soon has its share.
        return max(self._keys, key=lambda whose: (len(self._keys[whose].pages), -self._keys[whose].rarest()))

    def _rarest_key(self) -> _Key:
        """Take the key whose page is the rarest out of the order."""
        if not self._order:
            self._order = [(key.rarest(), next(self._ticks), whose) for whose, key in self._keys.items()]
            heapify(self._order)
        while True:
            known, tick, whose = self._order[0]
            estimate = self._keys[whose].rarest()
            if estimate == known:
                heappop(self._order)
                return whose
            heapreplace(self._order, (estimate, tick, whose))


class _Summary:
    """The pages of one key.

    Args:
        floor: the estimate from which its pages begin.
        ticks: numbers of pages, by which the older one of two is dropped.

    Attributes:
        pages: the pages.
        floor: the largest estimate of a page that was dropped: no page that is not here had more requests.
    """

    __slots__ = ("_order", "_ticks", "floor", "pages")

    def __init__(self, floor: int, ticks: Iterator[int]) -> None:
        self.floor = floor
        self.pages: dict[_Name, _Page] = {}
        # A heap with one item for each page. Its estimate is brought up to date when it comes to the top.
        self._order: list[tuple[int, int, _Name]] = []
        self._ticks = ticks

    def add(self, name: _Name) -> "_Page":
        page = self.pages[name] = _Page(self.floor)
        heappush(self._order, (self.floor, next(self._ticks), name))
        return page

    def rarest(self) -> int:
        """The least estimate of its pages."""
        while True:
            known, tick, name = self._order[0]
            estimate = self.pages[name].estimate
            if estimate == known:
                return estimate
            heapreplace(self._order, (estimate, tick, name))

    def drop_rarest(self) -> None:
        self.floor = self.rarest()
        del self.pages[heappop(self._order)[2]]


class _Page:
    """The requests of one page."""

    __slots__ = ("_beginning", "_count", "_entry", "_first_at", "_last_at", "_new", "_new_at")

    def __init__(self, beginning: int) -> None:
        self._beginning = beginning
        self._count = 0
        self._new = 0
        self._first_at = self._new_at = self._last_at = 0.0
        self._entry: str | None = None

    @property
    def estimate(self) -> int:
        """The most requests that it can have had, those before it was dropped included."""
        return self._beginning + self._count

    def note(self, entry: str | None, now: float) -> None:
        if not self._count:
            self._first_at = now
        if not self._new:
            self._new_at = now
        self._last_at = max(self._last_at, now)
        self._entry = entry
        self._count += 1
        self._new += 1

    def whole(self, key_id: str, origin: str | None, reason: Reason) -> RefusedPage:
        """All requests since it is here."""
        return RefusedPage(
            key_id, origin, reason.value, self._count, _moment(self._first_at), _moment(self._last_at), self._entry
        )

    def take_new(self, key_id: str, origin: str | None, reason: Reason) -> RefusedPage | None:
        """The requests since the last call; None if there are none."""
        new, self._new = self._new, 0
        if not new:
            return None
        return RefusedPage(key_id, origin, reason.value, new, _moment(self._new_at), _moment(self._last_at), self._entry)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
