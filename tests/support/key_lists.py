"""The list of one source, for tests of what decides by it."""

from collections.abc import Sequence

from gatekeeper.gate.lease import Leases
from gatekeeper.gate.resolving import Candidate
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.keys.client_key import ClientKey
from gatekeeper.sync.status import State

__all__ = ("OnlyList",)


class OnlyList:
    """A list that decides about all keys, and the lists of a gate that has it alone.

    Args:
        index: its keys.
        state: how fresh they are.
    """

    def __init__(self, index: KeyIndex, state: State = "fresh") -> None:
        self.index = index
        self.state = state
        self.leases = Leases()
        self.are_several = False

    @property
    def all(self) -> Sequence["OnlyList"]:
        """Itself."""
        return (self,)

    def candidates(self, client_key: ClientKey) -> Sequence[Candidate]:  # noqa: ARG002 - whatever the key is
        """Itself."""
        return (Candidate(self, self.leases.current),)

    def of_grant(self, account: str | None) -> Candidate | None:
        """Itself, for grants of its own account."""
        return Candidate(self, self.leases.current) if account == self.index.account else None
