"""RefusalLog: one line for the first refusal of each page."""

import logging
from collections.abc import Callable
from math import inf
from threading import Lock
from typing import Final

from cachetools import TTLCache

from gatekeeper.gate.decisions import Decision
from gatekeeper.keys.client_key import mask

__all__ = ("RefusalLog",)

# Any client can make up pages, so the lines are bounded: 1,000 in an hour at most.
LINES: Final = 10  # of one key
KEYS: Final = 100
PERIOD: Final = 3600.0  # seconds

logger = logging.getLogger("gatekeeper")

_Key = tuple[str | None, str]  # its account and its id


class RefusalLog:
    """Logs pages that are refused for the first time.

    Args:
        clock: gives seconds that never run backwards.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lines: TTLCache[_Key, int] = TTLCache(KEYS, PERIOD, timer=clock)
        # When the next lines of a key come that has none left. A flood finds this 1.3 µs faster than TTLCache.
        self._next_at: dict[_Key, float] = {}
        self._lock = Lock()

    def first(self, decision: Decision, *, enforce: bool) -> None:
        """Log the first refusal of a page, if a line is left.

        Args:
            decision: the decision that refuses it.
            enforce: whether the request is refused; otherwise it is let through.
        """
        key = decision.key
        if key is None:
            return
        whose = decision.account, key.id
        if self._clock() < self._next_at.get(whose, -inf) or (left := self._take(whose)) is None:
            return
        advice = "" if decision.add is None else f"; to allow it, add {decision.add!r} to the key's allowed domains"
        more = "" if left else f"; further pages of this key are not logged for {PERIOD / 3600:.0f} h"
        logger.warning(
            "gatekeeper: %s the key %s%s on %s: %s%s%s",
            "refused" if enforce else "let through, though it would be refused,",
            mask(key.last8),
            "" if decision.account is None else f" of the account {decision.account}",
            decision.origin or "a page without an origin",
            decision.reason,
            advice,
            more,
        )

    def _take(self, whose: _Key) -> int | None:
        """Take one line of a key; the lines that are left, or None."""
        # Requests never wait for each other here. If another thread holds the lock, there is no line.
        if not self._lock.acquire(blocking=False):
            return None
        try:
            used = self._lines.get(whose, 0)
            if used >= LINES or (not used and len(self._lines) >= KEYS):
                return None
            self._lines[whose] = used + 1
            if used + 1 == LINES:
                now = self._clock()
                self._next_at = {each: at for each, at in self._next_at.items() if now < at} | {whose: now + PERIOD}
            return LINES - used - 1
        finally:
            self._lock.release()
