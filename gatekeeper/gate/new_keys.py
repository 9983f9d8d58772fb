"""NewKeys: waits for a list that has an unknown key.

A hub that tells of each change tells of a new key, too, some milliseconds after it was made. So where the list is live, a
request with an unknown key waits a moment for that. Only then, or where the list is polled, it asks for a fetch, of which
unknown keys may cause few.
"""

from collections.abc import Callable

from gatekeeper.gate.decisions import Reason
from gatekeeper.gate.memo import Remembered
from gatekeeper.sync.clock import Clock
from gatekeeper.sync.refresher import Refresher
from gatekeeper.sync.waking import Wakers

__all__ = ("NewKeys",)

MOMENT = 0.25  # seconds; a gate is told of a new key within milliseconds, on a busy machine within some tens of them
MOST = 100  # requests that wait such a moment at a time, so that a flood of unknown keys is refused at once


class NewKeys:
    """Waits for lists of one source that have unknown keys.

    Args:
        wait: seconds that a request waits at most; 0 for not at all.
        is_live: tells whether the hub tells of each change.
        wakers: wake it when keys may have changed.
        clock: gives seconds.

    Attributes:
        wait: as given.
    """

    def __init__(self, wait: float, *, is_live: Callable[[], bool], wakers: Wakers, clock: Clock) -> None:
        self.wait = wait
        self._is_live = is_live
        self._wakers = wakers
        self._clock = clock
        self._waiting = 0

    async def may_have_come(self, decide: Callable[[], Remembered], refresher: Refresher | None) -> bool:
        """Wait for a list that has a key.

        Args:
            decide: decides on a request with an unknown key, by the keys as they are now.
            refresher: that of this event loop.

        Returns:
            Whether it is worth deciding again.
        """
        if refresher is None or not self.wait:
            return False
        began_at = self._clock()
        # The first answer that a hub holds may be the one that brings the key.
        is_told = self._is_live() or refresher.schedule.is_held
        if is_told and self._waiting < MOST and await self._is_told(decide, began_at + min(MOMENT, self.wait)):
            return True
        return await refresher.refresh_for_unknown_key(self.wait - (self._clock() - began_at))

    def after_fork(self) -> None:
        """Forget the requests that wait in the parent process."""
        self._waiting = 0

    async def _is_told(self, decide: Callable[[], Remembered], end: float) -> bool:
        self._waiting += 1
        try:
            with self._wakers.here() as waker:
                while decide().decision.reason is Reason.KEY_UNKNOWN:
                    left = end - self._clock()
                    if left <= 0:
                        return False
                    await waker.sleep(left)
        finally:
            self._waiting -= 1
        return True
