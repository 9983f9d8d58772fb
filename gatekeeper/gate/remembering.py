"""RememberingDecider: decides on requests, and remembers the decisions."""

from collections.abc import Callable

from gatekeeper.gate.decider import Decider
from gatekeeper.gate.decisions import Decision
from gatekeeper.gate.granting import Granting
from gatekeeper.gate.memo import Memos, Remembered, may_be_remembered
from gatekeeper.gate.page import RequestIdentity, read_page

__all__ = ("RememberingDecider",)

GRANT_PARTS = 4  # of the identity of a request that sends a grant


class RememberingDecider:
    """Decides on what a request sends, by the memo or the index.

    Args:
        decider: decides by keys and pages.
        granting: decides by grants.
        memos: where decisions are remembered.
        clock: gives the seconds by which they are.
    """

    def __init__(self, decider: Decider, granting: Granting, memos: Memos, clock: Callable[[], float]) -> None:
        self._decider = decider
        self._granting = granting
        self._memos = memos
        self._clock = clock

    def decide(self, identity: RequestIdentity) -> Remembered:
        """The decision on a request.

        Args:
            identity: what it sends.
        """
        memo, now = self._memos.current, self._clock()
        is_remembered = now < memo.deadline and may_be_remembered(identity)
        if is_remembered and (remembered := memo.find(identity, now)) is not None:
            return remembered
        remembered = self._granting.decide(identity) if _has_grant(identity) else Remembered(self.decide_again(identity))
        # Remember only decisions about known keys: unknown ones could fill the memo.
        if is_remembered and remembered.decision.key is not None:
            memo.remember(identity, remembered)
        return remembered

    def decide_again(self, identity: RequestIdentity) -> Decision:
        """Decide without the memo, which another event loop may be dropping.

        Args:
            identity: what the request sent; its grant may have ended since.
        """
        if _has_grant(identity):
            return self._granting.decide_again(identity)
        key, origin, *referer = identity
        return self._decider.decide(key, read_page(origin, *(referer or (None,))))


def _has_grant(identity: RequestIdentity) -> bool:
    return len(identity) == GRANT_PARTS
