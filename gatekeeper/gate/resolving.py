"""KeyResolver: whose key a client key is. No IO.

Accounts and random parts can both hold "_". So the lists of several accounts may have a key: each account that it begins
with. The list decides that has the digest of the whole key, whatever the others say and however old they are. Without a
digest, all of these lists have to be there, and the only one that has the key decides.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import msgspec

from gatekeeper.errors import InvalidClientKey
from gatekeeper.gate.decisions import Conflict, Reason
from gatekeeper.gate.lease import Lease, Leases, UsedKeys
from gatekeeper.index.enabled_origins import IndexedKey
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.keys.client_key import ClientKey
from gatekeeper.sync.status import State

__all__ = ("NO_LEASE", "Candidate", "KeyList", "KeyLists", "KeyResolver", "Resolved", "late", "prefix_problems")

NO_LEASE: Final = Lease(UsedKeys())  # of decisions that are no list's; they are not remembered

_LATE: Final[dict[State, Reason]] = {"never_loaded": Reason.NOT_READY, "expired": Reason.EXPIRED}
_UNRESOLVED: Final = {"unknown": Reason.KEY_UNKNOWN, "ambiguous": Reason.KEY_AMBIGUOUS}


class KeyList(Protocol):
    """The keys of one source."""

    @property
    def index(self) -> KeyIndex:
        """The keys."""
        ...

    @property
    def leases(self) -> Leases:
        """How long decisions by them are remembered."""
        ...

    @property
    def state(self) -> State:
        """How fresh they are."""
        ...


class Candidate(msgspec.Struct, frozen=True):
    """A list that may have a key.

    Attributes:
        keys: the list.
        lease: its lease, from before the decision.
    """

    keys: KeyList
    lease: Lease


class KeyLists(Protocol):
    """The keys of all sources of a gate.

    Attributes:
        are_several: whether the gate may have several sources. The list of a single one decides about all keys.
    """

    are_several: bool

    @property
    def all(self) -> Sequence[KeyList]:
        """Every list."""
        ...

    def candidates(self, client_key: ClientKey) -> Sequence[Candidate]:
        """The lists that may have a client key, the longest account first."""
        ...

    def of_grant(self, account: str | None) -> Candidate | None:
        """The list that grants of an account belong to, if any."""
        ...


class Resolved(msgspec.Struct, frozen=True):
    """Whose key a client key is.

    Attributes:
        known: the key; the reason if there is none.
        keys: the list that has it.
        lease: the one under which that may be remembered.
    """

    known: IndexedKey | Reason
    keys: KeyList | None = None
    lease: Lease = NO_LEASE


class KeyResolver:
    """Finds the list that has a client key.

    Args:
        lists: the lists of the gate.
        key_prefix: the beginning of every client key.

    Attributes:
        lists: as given.
    """

    def __init__(self, lists: KeyLists, key_prefix: str) -> None:
        self.lists = lists
        self._key_prefix = key_prefix

    def read(self, key: bytes) -> ClientKey:
        """Read a client key; raises InvalidClientKey."""
        return ClientKey.parse(key, prefix=self._key_prefix)

    def resolve(self, client_key: ClientKey, candidates: Sequence[Candidate]) -> Resolved:
        """Find the row of a client key.

        Args:
            client_key: the key.
            candidates: the lists that may have it.
        """
        if len(candidates) == 1:
            keys, lease = candidates[0].keys, candidates[0].lease
            if (reason := _LATE.get(keys.state)) is not None:
                return Resolved(reason)
            known = keys.index.resolve(client_key)
            return Resolved(_UNRESOLVED[known] if isinstance(known, str) else known, keys, lease)
        unready: Reason | None = None
        hits: list[Resolved] = []
        for candidate in candidates:
            keys = candidate.keys
            if (reason := _LATE.get(keys.state)) is not None:
                unready = unready or reason
                continue
            known = keys.index.resolve(client_key)
            if isinstance(known, str):
                if known == "ambiguous":
                    hits += [Resolved(Reason.KEY_AMBIGUOUS)] * 2
            elif known.widget_key.key_sha256 is not None:  # it is the digest of this key
                # Before another list it decides only as long as that has no such digest.
                return Resolved(known, keys, candidate.lease if candidate is candidates[0] else keys.leases.ended)
            else:
                # It depends on all of these lists, and would be remembered by the lease of one.
                hits.append(Resolved(known, keys, keys.leases.ended))
        if unready is not None:
            return Resolved(unready)
        if len(hits) == 1:
            return hits[0]
        return Resolved(Reason.KEY_AMBIGUOUS if hits else Reason.KEY_UNKNOWN)

    def lists_of(self, key: bytes | Conflict | None) -> Sequence[KeyList]:
        """The lists that decide about a key. There may be none.

        Args:
            key: the key that a request names.
        """
        client_key = self._readable(key)
        return () if client_key is None else [each.keys for each in self.lists.candidates(client_key)]

    def lists_to_come(self, key: bytes | Conflict | None) -> Sequence[KeyList]:
        """The lists that can have an unknown key once they are fresher.

        No list has another account's key, so such keys must not use up the fetches that new keys need.

        Args:
            key: a key that was found to be unknown.
        """
        client_key = self._readable(key)
        if client_key is None:
            return ()
        lists = [each.keys for each in self.lists.candidates(client_key)]
        return tuple(each for each in lists if each.index.account is None or client_key.may_be_of(each.index.account))

    def _readable(self, key: bytes | Conflict | None) -> ClientKey | None:
        try:
            return self.read(key) if isinstance(key, bytes) else None
        except InvalidClientKey:
            return None


def late(lists: Sequence[KeyList]) -> Reason | None:
    """Why none of these lists can decide; None if one can.

    Without any list it is None, too.
    """
    reason: Reason | None = None
    for keys in lists:
        state = _LATE.get(keys.state)
        if state is None:
            return None
        if reason is not Reason.NOT_READY:
            reason = state
    return reason


def prefix_problems(key_prefix: object) -> Iterator[str]:
    """Say what is wrong with the option `key_prefix`."""
    if not isinstance(key_prefix, str) or not key_prefix.isascii():
        yield f"key_prefix is {key_prefix!r}: expected ASCII text such as 'pk_live_'"
