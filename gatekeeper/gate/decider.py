"""Decider: the decision for one key and one page, from the index. No IO, no memory."""

from collections.abc import Callable

from gatekeeper.errors import InvalidClientKey
from gatekeeper.gate.decisions import CONFLICT, Conflict, Decision, Reason
from gatekeeper.gate.page import Page
from gatekeeper.index.enabled_origins import IndexedKey
from gatekeeper.index.key_index import KeyIndex
from gatekeeper.keys.client_key import ClientKey
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
        state = self._state()
        if state == "never_loaded":
            return Decision(Reason.NOT_READY, origin=page.seen, retry_after=RETRY_AFTER_NOT_READY)
        if state == "expired":
            return Decision(Reason.EXPIRED, origin=page.seen, retry_after=RETRY_AFTER_EXPIRED)
        if not key:
            return Decision(Reason.KEY_MISSING, origin=page.seen)
        if key is CONFLICT:
            return Decision(Reason.KEY_CONFLICT, origin=page.seen)
        try:
            client_key = ClientKey.parse(key, prefix=self._key_prefix)
        except InvalidClientKey as error:
            return Decision(Reason.KEY_MALFORMED, origin=page.seen, problem=str(error))
        known = self._index.resolve(client_key)
        if isinstance(known, str):
            return Decision(_UNRESOLVED[known], last8=client_key.last8, origin=page.seen)
        return _decide_page(known, page)

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


def _decide_page(known: IndexedKey, page: Page) -> Decision:
    key, allowlist = known.widget_key, known.allowlist
    last8 = key.last8
    if key.disabled:
        return Decision(Reason.KEY_DISABLED, key, last8, page.seen)
    if not allowlist:
        return Decision(Reason.ALLOWLIST_EMPTY, key, last8, page.seen, add=allowlist.entry_that_would_allow(page.origin))
    if page.origin is None:
        return Decision(page.reason, key, last8, page.seen, problem=page.problem)
    matched = allowlist.match(page.origin)
    if matched is None:
        add = allowlist.entry_that_would_allow(page.origin)
        return Decision(Reason.ORIGIN_NOT_ALLOWED, key, last8, page.seen, add=add)
    return Decision(Reason.ALLOWED, key, last8, page.seen, matched)
