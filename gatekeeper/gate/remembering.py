"""RememberingDecider: decides on requests, and remembers the decisions."""

from collections.abc import Callable

from gatekeeper.gate.decider import Decider
from gatekeeper.gate.decisions import Decision
from gatekeeper.gate.granting import Granting
from gatekeeper.gate.lease import Leases
from gatekeeper.gate.memo import Memo, Remembered, may_be_remembered
from gatekeeper.gate.page import RequestIdentity, read_page

__all__ = ("RememberingDecider",)

GRANT_PARTS = 4  # of the identity of a request that sends a grant


class RememberingDecider:
    """Decides on what a request sends, by the memo or the index.

    Args:
        decider: decides by keys and pages.
        granting: decides by grants.
        memo: where decisions are remembered.
        leases: those of the list.
        clock: gives the seconds by which they are.

    Attributes:
        leases: as given.
    """

    def __init__(self, decider: Decider, granting: Granting, memo: Memo, leases: Leases, clock: Callable[[], float]) -> None:
        self._decider = decider
        self._granting = granting
        self._memo = memo
        self.leases = leases
        self._clock = clock

    def decide(self, identity: RequestIdentity) -> Remembered:
        """The decision on a request.

        Args:
            identity: what it sends.
        """
        may_be_kept = may_be_remembered(identity)
        if may_be_kept and (found := self._memo.find(identity, self._clock())) is not None:
            return found
        lease = self.leases.current
        if _has_grant(identity):
            remembered = self._granting.decide(identity, lease)
        else:
            remembered = Remembered(self.decide_again(identity), lease)
        # Remember only decisions about known keys: unknown ones could fill the memo.
        if may_be_kept and remembered.decision.key is not None and remembered.holds(self._clock()):
            self._memo.remember(identity, remembered)
        return remembered

    def decide_again(self, identity: RequestIdentity) -> Decision:
        """Decide without the memo.

        Args:
            identity: what the request sent; its grant may have ended since.
        """
        if _has_grant(identity):
            return self._granting.decide_again(identity)
        key, origin, *referer = identity
        return self._decider.decide(key, read_page(origin, *(referer or (None,))))


def _has_grant(identity: RequestIdentity) -> bool:
    return len(identity) == GRANT_PARTS
