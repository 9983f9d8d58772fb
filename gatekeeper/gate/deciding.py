"""Deciding: the parts that decide without waiting."""

from gatekeeper.gate.decider import Decider
from gatekeeper.gate.granting import Granting
from gatekeeper.gate.grants import Grants
from gatekeeper.gate.memo import Memo
from gatekeeper.gate.remembering import RememberingDecider
from gatekeeper.gate.resolving import KeyLists, KeyResolver
from gatekeeper.sync.clock import Clock

__all__ = ("Deciding",)


class Deciding:
    """The parts of a gate that decide.

    Args:
        lists: the keys.
        key_prefix: the beginning of every client key.
        grants: reads and issues grants; None if there is no secret to sign them with.
        memo: where decisions are remembered.
        clock: gives the seconds by which they are.
        wall_clock: gives seconds since 1970.

    Attributes:
        keys: finds the list of a client key.
        decider: decides by keys and pages.
        granting: decides by grants.
        requests: decides on requests, and remembers that.
    """

    def __init__(
        self, lists: KeyLists, key_prefix: str, grants: Grants | None, memo: Memo, *, clock: Clock, wall_clock: Clock
    ) -> None:
        self.keys = KeyResolver(lists, key_prefix)
        self.decider = Decider(self.keys)
        self.granting = Granting(grants, self.decider, lists, clock=clock, wall_clock=wall_clock)
        self.requests = RememberingDecider(self.decider, self.granting, memo, clock)
