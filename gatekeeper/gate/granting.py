"""Granting: decides by grants, and gives new ones."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from gatekeeper.gate.decider import Decider
from gatekeeper.gate.decisions import Conflict, Decision, Reason
from gatekeeper.gate.grants import LONGEST_LIFE, DerivedSecrets, Grant, Grants
from gatekeeper.gate.memo import Remembered
from gatekeeper.gate.page import RequestIdentity, read_page
from gatekeeper.gate.resolving import NO_LEASE, Candidate, KeyList, KeyLists
from gatekeeper.sync.sources import HoldsToken, Source

__all__ = ("Granting", "grant_problems", "grants_of")

SHORTEST_SECRET = 16  # characters


class Granting:
    """Decides by grants.

    Args:
        grants: reads and issues them; None if there is no secret to sign them with, so that every grant is invalid.
        decider: decides about their keys and pages.
        lists: the keys.
        clock: gives the seconds by which decisions are remembered.
        wall_clock: gives seconds since 1970, by which grants end.
    """

    def __init__(
        self,
        grants: Grants | None,
        decider: Decider,
        lists: KeyLists,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self.grants = grants
        self._decider = decider
        self._lists = lists
        self._clock = clock
        self._wall_clock = wall_clock

    def decide(self, identity: RequestIdentity) -> Remembered:
        """Decide on a request that sends a grant.

        Args:
            identity: what it sends.

        Returns:
            The decision, with a new grant if the old one is past half its life, and how long it holds.
        """
        key, origin, _, text = identity
        page = None if origin is None else read_page(origin, None)
        grants, now = self.grants, self._wall_clock()
        grant, by = self._read(text, now)
        if grants is None or grant is None:
            return Remembered(self._decider.decide_grant(None, None, key, page, ended=False), NO_LEASE)
        lease = NO_LEASE if by is None else by.lease
        decision = self._decider.decide_grant(grant, by, key, page, ended=grants.has_ended(grant, now))
        if not decision.allowed:
            return Remembered(decision, lease)
        renewed = grants.renewed(grant, now)
        until = grant.ends_at
        if renewed is not None:
            decision = msgspec.structs.replace(decision, grant=renewed)
        elif now < (half := grants.half_life(grant)):
            until = half
        return Remembered(decision, lease, self._clock() + until - now)

    def decide_again(self, identity: RequestIdentity) -> Decision:
        """Decide again on a stream that a grant has opened.

        It may outlive the grant, but not its revocation.

        Args:
            identity: what the request sent that opened the stream.
        """
        key, _, _, text = identity
        grant = self.grants.reread(text) if self.grants is not None and isinstance(text, bytes) else None
        by = None if grant is None else self._lists.of_grant(grant.account)
        return self._decider.decide_grant(grant, by, key, None, ended=False)

    def lists_of(self, identity: RequestIdentity) -> Sequence[KeyList]:
        """The lists that decide about a grant. There may be none.

        Args:
            identity: what a request sends, a grant among it.
        """
        _, by = self._read(identity[-1], self._wall_clock())
        return () if by is None else (by.keys,)

    def _read(self, text: bytes | Conflict | None, now: float) -> tuple[Grant | None, Candidate | None]:
        """Read a grant, and find its list. Of one source alone, those of another account are no grants."""
        grant = self.grants.read(text, now) if self.grants is not None and isinstance(text, bytes) else None
        by = None if grant is None else self._lists.of_grant(grant.account)
        return (grant, by) if by is not None or self._lists.are_several else (None, None)

    def give(self, decision: Decision, by: KeyList | None) -> Decision:
        """Add a grant to a decision, if it allows its page.

        Args:
            decision: a decision on a page that holds a frame.
            by: the list that has its key.

        Returns:
            The decision. It has a grant if it allows the page and there is a secret.
        """
        key = decision.key
        if self.grants is None or key is None or not decision.allowed:
            return decision
        known = None if by is None else by.index.get(key.last8, key.id)
        if known is None or by is None:  # another thread has removed it since
            return msgspec.structs.replace(decision, reason=Reason.KEY_UNKNOWN, key=None)
        grant = self.grants.issue(known, decision.origin, self._wall_clock(), account=by.index.account)
        return msgspec.structs.replace(decision, grant=grant)


def grants_of(source: Source | None, secrets: Sequence[str] | None, lifetime: float) -> Grants | None:
    """Make what signs the grants of a gate.

    Args:
        source: where its keys come from; None for several sources, which share no token.
        secrets: the secrets, the newest first; None to derive them from the source's token.
        lifetime: seconds for which a grant counts.

    Returns:
        The grants; None if there is no secret.
    """
    if secrets is not None:
        given = [secret.encode() for secret in secrets]
        return Grants(lambda _: given, lifetime)
    if source is not None and isinstance(source, HoldsToken):
        return Grants(DerivedSecrets(source.last_token, lifetime), lifetime)
    return None


def grant_problems(secrets: object, lifetime: object) -> Iterator[str]:
    """Yield one sentence for each mistake in the options about grants."""
    if secrets is not None:
        if isinstance(secrets, str | bytes) or not isinstance(secrets, Sequence) or not secrets:
            yield "grant_secrets is not a list of secrets: expected the newest first, such as ['…', '…']"
        elif not all(isinstance(secret, str) and len(secret) >= SHORTEST_SECRET and "…" not in secret for secret in secrets):
            yield (
                f"grant_secrets has a secret that is no text of {SHORTEST_SECRET} characters or more: "
                "expected the output of `openssl rand -hex 32`"
            )
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not 0 < lifetime <= LONGEST_LIFE:
        yield f"grant_lifetime is {lifetime!r}: expected seconds, more than 0 and at most {LONGEST_LIFE:,.0f}"
