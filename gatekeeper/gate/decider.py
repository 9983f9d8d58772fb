"""Decider: the decision for one key and one page, from the lists. No IO, no memory."""

import msgspec

from gatekeeper.errors import InvalidClientKey
from gatekeeper.gate.decisions import CONFLICT, Conflict, Decision, Reason
from gatekeeper.gate.grants import Grant, digest_holds
from gatekeeper.gate.memo import Remembered
from gatekeeper.gate.page import BEHIND_FRAME, NOT_FRAMED, Page
from gatekeeper.gate.resolving import NO_LEASE, Candidate, KeyList, KeyResolver, late
from gatekeeper.index.enabled_origins import IndexedKey
from gatekeeper.keys.client_key import ClientKey
from gatekeeper.matching.origins import Origin

__all__ = ("Decider",)

# Seconds: the refresher's own ceilings while there is no list, and with one.
RETRY_AFTER = {Reason.NOT_READY: 2, Reason.EXPIRED: 30}


class Decider:
    """Checks the reasons in order; the first that applies decides.

    Args:
        keys: finds the rows of client keys.
    """

    def __init__(self, keys: KeyResolver) -> None:
        self._keys = keys

    def decide(self, key: bytes | Conflict | None, page: Page) -> Remembered:
        """Decide whether a page may use a key.

        Args:
            key: the key that the request names; None where it names none.
            page: the page that it comes from.

        Returns:
            The decision, under the lease of the list that decides; nothing is raised.
        """
        client_key = self._read(key, page)
        if isinstance(client_key, Decision):
            if (reason := late(self._keys.lists.all)) is not None:
                return Remembered(_late(reason, page), NO_LEASE)
            return Remembered(Decision(page.reason) if page is NOT_FRAMED else client_key, NO_LEASE)
        candidates = self._keys.lists.candidates(client_key)
        if page is NOT_FRAMED:
            reason = late([candidate.keys for candidate in candidates])
            return Remembered(Decision(page.reason) if reason is None else _late(reason, page), NO_LEASE)
        resolved = self._keys.resolve(client_key, candidates)
        known = resolved.known
        if not isinstance(known, Reason):
            return Remembered(_decide_page(known, resolved.keys, page), resolved.lease)
        if known in RETRY_AFTER:
            return Remembered(_late(known, page), resolved.lease)
        return Remembered(Decision(known, last8=client_key.last8, origin=page.seen), resolved.lease)

    def decide_grant(
        self, grant: Grant | None, by: Candidate | None, key: bytes | Conflict | None, page: Page | None, *, ended: bool
    ) -> Decision:
        """Decide whether a frame may use a key by its grant.

        Args:
            grant: the grant that the request sends; None if it is not signed by this service.
            by: the list that it belongs to; None if there is none.
            key: the key that the request names besides; None where it names none.
            page: the page that the request comes from; None if it comes from the widget's own frame.
            ended: whether the time of the grant is over.

        Returns:
            The decision; nothing is raised.
        """
        asking = page or BEHIND_FRAME
        if (reason := late(self._keys.lists.all if by is None else (by.keys,))) is not None:
            return _late(reason, asking)
        client_key = self._read(key, asking) if key else None
        if isinstance(client_key, Decision):
            return client_key
        if page is not None:
            return Decision(Reason.GRANT_FOREIGN, origin=page.seen)
        if grant is None:
            return Decision(Reason.GRANT_INVALID)
        if client_key is not None and not self._is_of(client_key, grant, by):
            return Decision(Reason.KEY_CONFLICT, origin=grant.page)
        if ended:
            return Decision(Reason.GRANT_EXPIRED, last8=grant.last8, origin=grant.page)
        known = None if by is None else by.keys.index.get(grant.last8, grant.key_id)
        if known is None or by is None:
            return Decision(Reason.KEY_UNKNOWN, last8=grant.last8, origin=grant.page)
        return _decide_granted(known, by.keys, grant)

    def _is_of(self, client_key: ClientKey, grant: Grant, by: Candidate | None) -> bool:
        resolved = self._keys.resolve(client_key, self._keys.lists.candidates(client_key))
        known = resolved.known
        is_same_list = by is not None and resolved.keys is by.keys
        return not isinstance(known, Reason) and is_same_list and known.widget_key.id == grant.key_id

    def _read(self, key: bytes | Conflict | None, page: Page) -> ClientKey | Decision:
        """The client key; the decision if it is none."""
        if not key:
            return Decision(Reason.KEY_MISSING, origin=page.seen)
        if key is CONFLICT:
            return Decision(Reason.KEY_CONFLICT, origin=page.seen)
        try:
            return self._keys.read(key)
        except InvalidClientKey as error:
            return Decision(Reason.KEY_MALFORMED, origin=page.seen, problem=str(error))


def _late(reason: Reason, page: Page) -> Decision:
    return Decision(reason, origin=page.seen, retry_after=RETRY_AFTER[reason])


def _decide_granted(known: IndexedKey, by: KeyList, grant: Grant) -> Decision:
    if grant.page is not None:
        return _decide_page(known, by, Page(Origin.parse(grant.page), grant.page, via="grant"))
    decision = _decide_page(known, by, Page(None, None, via="grant"))
    if decision.allowed and not digest_holds(grant, known.allowlist):
        return msgspec.structs.replace(decision, reason=Reason.GRANT_EXPIRED)
    return decision


def _decide_page(known: IndexedKey, by: KeyList | None, page: Page) -> Decision:
    key, allowlist = known.widget_key, known.allowlist
    account = key.account if by is None or by.index.account is None else by.index.account
    last8 = key.last8
    if key.disabled:
        return Decision(Reason.KEY_DISABLED, key, last8, page.seen, account=account)
    if not allowlist:
        add = allowlist.entry_that_would_allow(page.origin)
        return Decision(Reason.ALLOWLIST_EMPTY, key, last8, page.seen, add=add, account=account)
    if page.origin is None:
        return Decision(page.reason, key, last8, page.seen, problem=page.problem, via=page.via, account=account)
    matched = allowlist.match(page.origin)
    if matched is None:
        add = allowlist.entry_that_would_allow(page.origin)
        return Decision(Reason.ORIGIN_NOT_ALLOWED, key, last8, page.seen, add=add, via=page.via, account=account)
    return Decision(Reason.ALLOWED, key, last8, page.seen, matched, via=page.via, account=account)
