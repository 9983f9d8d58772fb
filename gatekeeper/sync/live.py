"""LiveWait, Lead: how long to wait for changes, and where. Pure: no IO, no waits."""

import math
from collections.abc import Callable
from threading import Lock

from gatekeeper.sync.clock import Clock

__all__ = ("CUT_FROM", "MOST_VAIN", "Lead", "LiveWait")

LONGEST = 60.0  # seconds
SHARE = 0.8  # of the longest wait: the shortest one, so that gates that start together drift apart
CUT_FROM = 1.0  # seconds that a wait lasted; one that ends earlier has met a hub that restarts, and no limit on idle time
MOST_VAIN = 10  # early answers in a row that change nothing, such as those on keys that were made and deleted meanwhile
MOST_FAILED = 3  # waits that fail in a row, though other questions are answered
ALIKE = 0.15  # of the time after which a wait was cut off: how much the next one may differ to meet the same limit
RENEWED_AFTER = 600.0  # seconds ± 20 % for which a live connection is kept: its name may lead elsewhere by then


class LiveWait:
    """How long a source may hold its answer.

    What became of earlier waits decides.

    A proxy on the way may end connections that are idle for some seconds. Once two waits have ended after the same time
    without an answer, waits are shorter than that, until the connection is renewed.

    Args:
        interval: seconds between two fetches of a list that is polled.
        jitter: gives a number from 0 to 1.

    Attributes:
        is_granted: whether the source has held its answer to the last wait, or would have.
        is_untried: whether there was no wait yet.
    """

    def __init__(self, interval: float, jitter: Callable[[], float]) -> None:
        self.is_granted = False
        self._longest = self._limit = min(interval, LONGEST)
        self.is_untried = self.may_wait
        self._cut_after: float | None = None
        self._vain = 0  # answers in a row
        self._failed = 0  # waits in a row
        self._kept_for = RENEWED_AFTER
        self._jitter = jitter

    @property
    def may_wait(self) -> bool:
        """Whether a wait can last a second."""
        return self._limit >= 1

    def seconds(self) -> int:
        """Whole seconds of the next wait."""
        longest = math.floor(self._limit)
        shortest = min(longest, math.ceil(SHARE * self._limit))
        return min(longest, shortest + int(self._jitter() * (longest - shortest + 1)))

    def note_answer(self, *, is_granted: bool, is_vain: bool = False) -> None:
        """Note the answer to a wait.

        Args:
            is_granted: whether the source honours waits.
            is_vain: whether it has ended this one early, and has changed nothing. One that always does so holds nothing.
        """
        self._vain = self._vain + 1 if is_vain else 0
        self._failed = 0
        self.is_granted = is_granted and self._vain < MOST_VAIN
        self.is_untried = False
        self._cut_after = None

    def note_failure(self) -> None:
        """Note a wait that has failed. After three in a row, the list is polled."""
        self.is_untried = False
        self._failed += 1
        self.is_granted = self.is_granted and self._failed < MOST_FAILED

    def note_cut(self, wait: int, after: float) -> None:
        """Note a wait that has failed, because it ended without an answer.

        Args:
            wait: its seconds, as asked.
            after: seconds after which it has ended.
        """
        self.note_failure()
        if after < CUT_FROM:
            return
        before, self._cut_after = self._cut_after, after
        if before is not None and abs(before - after) <= ALIKE * max(before, after):
            self._limit = SHARE * min(before, after, wait)
            self._cut_after = None
            self.is_granted = self.is_granted and self.may_wait

    def renew(self) -> None:
        """Forget what limited the waits over the last connection."""
        self._limit = self._longest
        self._cut_after = None
        self._kept_for = RENEWED_AFTER * (1 + 0.2 * (2 * self._jitter() - 1))

    def is_over(self, age: float) -> bool:
        """Whether a connection of so many seconds is to be renewed."""
        return age >= self._kept_for and (self.is_granted or self._limit < self._longest)


class Lead:
    """Which event loop of a process waits for its source.

    The others share its index, and neither wait nor poll while the list is live and the promise of that loop holds. It
    renews the promise as it renews its heartbeat.

    Args:
        ahead: seconds from a renewal to the end of the promise.
        clock: seconds; see `boot_clock`.

    Attributes:
        is_live: whether the source has held its answer to the last wait, or would have.
    """

    def __init__(self, ahead: float, clock: Clock) -> None:
        self.is_live = False
        self._was_live = False  # as last noted, by any event loop
        self._ahead = ahead
        self._clock = clock
        self._loop: object | None = None
        self._ends_at = -math.inf
        self._lock = Lock()

    def take(self, loop: object) -> bool:
        """Become the event loop that waits; False while another one is.

        Args:
            loop: stands for the event loop.
        """
        with self._lock:
            if self._loop is not loop and self._clock() < self._ends_at:
                return False
            self.is_live = self.is_live and self._loop is loop
            self._loop = loop
            self._ends_at = self._clock() + self._ahead
            return True

    def renew(self, loop: object) -> None:
        """Renew the promise, if it is of this event loop."""
        if self._loop is loop:
            self._ends_at = self._clock() + self._ahead

    def note(self, loop: object, *, is_live: bool) -> bool:
        """Note whether the list is live, if this loop waits.

        Returns:
            Whether that has changed.
        """
        if self._loop is not loop:
            return False
        was_live, self.is_live, self._was_live = self._was_live, is_live, is_live
        return was_live != is_live

    def followed_until(self, loop: object) -> float:
        """The moment until which another event loop keeps the list live."""
        return self._ends_at if self.is_live and self._loop is not loop else -math.inf

    def leave(self, loop: object) -> None:
        """Wait no longer, if this event loop does."""
        if self._loop is loop:
            self._forget()

    def after_fork(self) -> None:
        """Forget the event loop of the parent process."""
        self._lock = Lock()
        self._forget()

    def _forget(self) -> None:
        self.is_live = False
        self._loop = None
        self._ends_at = -math.inf
