"""Decider: the decision for one key and one page, from the index. No IO, no memory."""

from collections.abc import Callable

import msgspec

from gatekeeper.errors import InvalidClientKey
from gatekeeper.gate.decisions import CONFLICT, Conflict, Decision, Reason
from gatekeeper.gate.grants import Grant, digest_holds
from gatekeeper.gate.page import BEHIND_FRAME, NOT_FRAMED, Page
from gatekeeper.index.enabled_origins import IndexedKey
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.keys.client_key import ClientKey
from gatekeeper.matching.origins import Origin
from gatekeeper.sync.status import State

__all__ = ("Decider",)

RETRY_AFTER_NOT_READY = 2  # seconds: the refresher's own ceiling while there is no list
RETRY_AFTER_EXPIRED = 30  # seconds: its ceiling with one

_UNRESOLVED = {"unknown": Reason.KEY_UNKNOWN, "ambiguous": Reason.KEY_AMBIGUOUS}


class Decider:
    """Checks the reasons in order; the first that applies decides.

    Args:
        index: the keys.
        state: tells how fresh they are.
        key_prefix: the beginning of every client key.
    """

    def __init__(self, index: KeyIndex, state: Callable[[], State], key_prefix: str) -> None:
        self._index = index
        self._state = state
        self._key_prefix = key_prefix

    def decide(self, key: bytes | Conflict | None, page: Page) -> Decision:
        """Decide whether a page may use a key.

        Args:
            key: the key that the request names; None where it names none.
            page: the page that it comes from.

        Returns:
            The decision; nothing is raised.
        """
        if (undecided := self._undecided(page)) is not None:
            return undecided
        if page is NOT_FRAMED:
            return Decision(page.reason)
        if not key:
            return Decision(Reason.KEY_MISSING, origin=page.seen)
        client_key = self._read(key, page)
        if isinstance(client_key, Decision):
            return client_key
        known = self._index.resolve(client_key)
        if isinstance(known, str):
            return Decision(_UNRESOLVED[known], last8=client_key.last8, origin=page.seen)
        return _decide_page(known, page)

    def decide_grant(self, grant: Grant | None, key: bytes | Conflict | None, page: Page | None, *, ended: bool) -> Decision:
        """Decide whether a frame may use a key by its grant.

        Args:
            grant: the grant that the request sends; None if it is not signed by this service.
            key: the key that the request names besides; None where it names none.
            page: the page that the request comes from; None if it comes from the widget's own frame.
            ended: whether the time of the grant is over.

        Returns:
            The decision; nothing is raised.
        """
        asking = page or BEHIND_FRAME
        if (undecided := self._undecided(asking)) is not None:
            return undecided
        client_key = self._read(key, asking) if key else None
        if isinstance(client_key, Decision):
            return client_key
        if page is not None:
            return Decision(Reason.GRANT_FOREIGN, origin=page.seen)
        if grant is None:
            return Decision(Reason.GRANT_INVALID)
        if client_key is not None and not self._is_of(client_key, grant):
            return Decision(Reason.KEY_CONFLICT, origin=grant.page)
        if ended:
            return Decision(Reason.GRANT_EXPIRED, last8=grant.last8, origin=grant.page)
        known = self._index.get(grant.last8, grant.key_id)
        if known is None:
            return Decision(Reason.KEY_UNKNOWN, last8=grant.last8, origin=grant.page)
        return _decide_granted(known, grant)

    def may_become_known(self, key: bytes | Conflict | None) -> bool:
        """Whether a fresher list can have an unknown key.

        No list has another account's key, so such keys must not use up the fetches that new keys need.

        Args:
            key: a key that was found to be unknown.
        """
        if not isinstance(key, bytes):
            return False
        account = self._index.account
        return account is None or ClientKey.parse(key, prefix=self._key_prefix).may_be_of(account)

    def _is_of(self, client_key: ClientKey, grant: Grant) -> bool:
        known = self._index.resolve(client_key)
        return not isinstance(known, str) and known.widget_key.id == grant.key_id

    def _undecided(self, page: Page) -> Decision | None:
        """The decision while there is no list to decide by."""
        state = self._state()
        if state == "never_loaded":
            return Decision(Reason.NOT_READY, origin=page.seen, retry_after=RETRY_AFTER_NOT_READY)
        if state == "expired":
            return Decision(Reason.EXPIRED, origin=page.seen, retry_after=RETRY_AFTER_EXPIRED)
        return None

    def _read(self, key: bytes | Conflict, page: Page) -> ClientKey | Decision:
        """The client key; the decision if it is none."""
        if key is CONFLICT:
            return Decision(Reason.KEY_CONFLICT, origin=page.seen)
        try:
            return ClientKey.parse(key, prefix=self._key_prefix)
        except InvalidClientKey as error:
            return Decision(Reason.KEY_MALFORMED, origin=page.seen, problem=str(error))


def _decide_granted(known: IndexedKey, grant: Grant) -> Decision:
    if grant.page is not None:
        return _decide_page(known, Page(Origin.parse(grant.page), grant.page, via="grant"))
    decision = _decide_page(known, Page(None, None, via="grant"))
    if decision.allowed and not digest_holds(grant, known.allowlist):
        return msgspec.structs.replace(decision, reason=Reason.GRANT_EXPIRED)
    return decision


def _decide_page(known: IndexedKey, page: Page) -> Decision:
    key, allowlist = known.widget_key, known.allowlist
    last8 = key.last8
    if key.disabled:
        return Decision(Reason.KEY_DISABLED, key, last8, page.seen)
    if not allowlist:
        return Decision(Reason.ALLOWLIST_EMPTY, key, last8, page.seen, add=allowlist.entry_that_would_allow(page.origin))
    if page.origin is None:
        return Decision(page.reason, key, last8, page.seen, problem=page.problem, via=page.via)
    matched = allowlist.match(page.origin)
    if matched is None:
        add = allowlist.entry_that_would_allow(page.origin)
        return Decision(Reason.ORIGIN_NOT_ALLOWED, key, last8, page.seen, add=add, via=page.via)
    return Decision(Reason.ALLOWED, key, last8, page.seen, matched, via=page.via)
