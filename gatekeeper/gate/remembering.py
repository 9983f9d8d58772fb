"""RememberingDecider: decides on requests, and remembers the decisions."""

from collections.abc import Callable

from gatekeeper.gate.decider import Decider
from gatekeeper.gate.decisions import Decision
from gatekeeper.gate.granting import Granting
from gatekeeper.gate.memo import Memo, Remembered, may_be_remembered
from gatekeeper.gate.page import RequestIdentity, read_page

__all__ = ("RememberingDecider", "has_grant")

NO_REFERER = 2  # parts of the identity of a request without a Referer that counts
GRANT_PARTS = 4  # of one that sends a grant


class RememberingDecider:
    """Decides on what a request sends, by the memo or the lists.

    Args:
        decider: decides by keys and pages.
        granting: decides by grants.
        memo: where decisions are remembered.
        clock: gives the seconds by which they are.
    """

    def __init__(self, decider: Decider, granting: Granting, memo: Memo, clock: Callable[[], float]) -> None:
        self._decider = decider
        self._granting = granting
        self._memo = memo
        self._clock = clock

    def decide(self, identity: RequestIdentity) -> Remembered:
        """The decision on a request.

        Args:
            identity: what it sends.
        """
        may_be_kept, now = may_be_remembered(identity), self._clock()
        if may_be_kept and (found := self._memo.find(identity, now)) is not None:
            return found
        remembered = self._granting.decide(identity) if has_grant(identity) else self._decide_key(identity)
        # Remember only decisions about known keys: unknown ones could fill the memo.
        if may_be_kept and remembered.decision.key is not None and remembered.holds(now):
            self._memo.remember(identity, remembered)
        return remembered

    def decide_again(self, identity: RequestIdentity) -> Decision:
        """Decide without the memo.

        Args:
            identity: what the request sent; its grant may have ended since.
        """
        return self._granting.decide_again(identity) if has_grant(identity) else self._decide_key(identity).decision

    def _decide_key(self, identity: RequestIdentity) -> Remembered:
        referer = identity[2] if len(identity) > NO_REFERER else None
        return self._decider.decide(identity[0], read_page(identity[1], referer))


def has_grant(identity: RequestIdentity) -> bool:
    """Whether a request sends a grant."""
    return len(identity) == GRANT_PARTS
