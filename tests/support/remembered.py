"""The decisions that a gate remembers."""

from gatekeeper import Gatekeeper
from gatekeeper.gate.lease import Leases
from gatekeeper.gate.memo import Remembered

__all__ = ("leases_of", "remembered_by")


def remembered_by(gate: Gatekeeper) -> list[Remembered]:
    """The decisions of its memo that hold now, the allowed ones first."""
    now = gate.clock()
    return [each for kept in (gate.memo.allowed, gate.memo.refused) for each in kept.values() if each.holds(now)]


def leases_of(gate: Gatekeeper) -> Leases:
    """The leases of the list of a gate of one source."""
    return gate._lists.all[0].leases
