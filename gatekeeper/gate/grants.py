"""Grants: sent by a frame's own requests, in place of a key. No IO, no clock."""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode

from gatekeeper.index.enabled_origins import IndexedKey
from gatekeeper.matching.allowlist import Allowlist

__all__ = ("LONGEST_LIFE", "MAX_GRANT_LENGTH", "DerivedSecrets", "Grant", "Grants", "digest_holds")

LONGEST_LIFE: Final = 43_200.0  # seconds, 12 hours: from then on a grant is not renewed
FARTHEST_END: Final = 2 * LONGEST_LIFE  # seconds from now
MAX_GRANT_LENGTH: Final = 2048  # bytes; one with a page and an id of 100 characters has about 400
_SALT: Final = b"gatekeeper.grant"
_DIGEST_SIZE: Final = 12  # bytes


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """The right of a frame to use a key.

    The order of the fields is fixed: frame.js finds the page by its place.

    Attributes:
        key_id: the id of the widget key.
        last8: the last 8 characters of the client key.
        account: the account of the list that has the key.
        page: the origin of the page that holds the frame; None if it is not known.
        allowlist: a digest of the key's allowlist, where the page is not known.
        issued_at: when the frame's document was served, in seconds since 1970. A renewed grant keeps it.
        ends_at: the moment from which on it does not count, in seconds since 1970.
    """

    key_id: str
    last8: str
    account: str | None
    page: str | None
    allowlist: str | None
    issued_at: float
    ends_at: float


class Grants:
    """Issues grants and reads them.

    Args:
        secrets: gives the secrets for a moment, in seconds since 1970. The first one signs, and all of them are accepted.
        lifetime: seconds for which a grant counts.

    Attributes:
        lifetime: as given.
    """

    def __init__(self, secrets: Callable[[float], Sequence[bytes]], lifetime: float) -> None:
        self.lifetime = lifetime
        self._secrets = secrets

    def issue(self, key: IndexedKey, page: str | None, now: float, *, account: str | None) -> str:
        """Make a grant for a frame.

        Args:
            key: the key that the frame may use.
            page: the origin of the page that holds the frame; None if it is not known.
            now: seconds since 1970.
            account: the account of the list that has the key.

        Returns:
            The grant, in characters that headers and URLs may contain.
        """
        allowlist = _digest(key.allowlist) if page is None else None
        row = key.widget_key
        return self._sign(Grant(row.id, row.last8, account, page, allowlist, now, now + self.lifetime), now)

    def read(self, text: bytes, now: float) -> Grant | None:
        """Read a grant that a request sent.

        Args:
            text: the grant.
            now: seconds since 1970.

        Returns:
            The grant, which may have ended, or be another account's; None if it is not signed with one of the secrets.
        """
        if len(text) > MAX_GRANT_LENGTH:
            return None
        _, _, signature = text.rpartition(b".")
        try:
            # Decoding skips foreign characters and spare bits. A grant with many spellings could fill a memo.
            if base64_encode(base64_decode(signature)) != signature:
                return None
            return _decoded(self._signer(now).unsign(text))
        except (BadData, msgspec.DecodeError):  # the latter: signed by a version with other fields
            return None

    def has_ended(self, grant: Grant, now: float) -> bool:
        """Whether the time of a grant is over.

        Args:
            grant: the grant.
            now: seconds since 1970. One that ends over a day later comes from a clock that ran ahead, and does not count.
        """
        return now >= grant.ends_at or grant.ends_at > now + FARTHEST_END

    def reread(self, text: bytes) -> Grant:
        """Read a grant that `read` accepted before.

        Its secret may be gone by now.

        Args:
            text: the grant.
        """
        payload, _, _ = text.rpartition(b".")
        return _decoded(payload)

    def renewed(self, grant: Grant, now: float) -> str | None:
        """Make a new grant where one is past half its life.

        It differs in its end only: a digest of the present allowlist could be one that has changed since the decision.

        Args:
            grant: the grant that a request sent.
            now: seconds since 1970.

        Returns:
            The new grant; None if it is too early, or more than 12 hours after the first one.
        """
        if now < self.half_life(grant) or grant.ends_at >= grant.issued_at + LONGEST_LIFE:
            return None
        ends_at = min(now + self.lifetime, grant.issued_at + LONGEST_LIFE)
        return self._sign(msgspec.structs.replace(grant, ends_at=ends_at), now)

    def half_life(self, grant: Grant) -> float:
        """When a grant is renewed, in seconds since 1970."""
        return grant.ends_at - self.lifetime / 2

    def _sign(self, grant: Grant, now: float) -> str:
        return self._signer(now).sign(base64_encode(msgspec.json.encode(grant))).decode("ascii")

    def _signer(self, now: float) -> Signer:
        # itsdangerous signs with the last of several secrets.
        return Signer(list(reversed(self._secrets(now))), salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256)


class DerivedSecrets:
    """Secrets that are derived from the token of a source.

    All gates with the same token accept each other's grants.

    Args:
        token: gives the present token.
        lifetime: seconds for which the secret of a replaced token is accepted.
    """

    def __init__(self, token: Callable[[], str], lifetime: float) -> None:
        self._token = token
        self._lifetime = lifetime
        self._present = token()
        self._replaced: tuple[tuple[str, float], ...] = ()

    def __call__(self, now: float) -> Sequence[bytes]:
        """The secrets for a moment, the newest first.

        Args:
            now: seconds since 1970.
        """
        token = self._token()
        if token != self._present:
            self._replaced = ((self._present, now + self._lifetime), *self._replaced)
            self._present = token
        if self._replaced:
            self._replaced = tuple(each for each in self._replaced if now < each[1])
        return [_derive(token), *(_derive(replaced) for replaced, _ in self._replaced)]


def digest_holds(grant: Grant, allowlist: Allowlist) -> bool:
    """Whether a grant without a page was issued for this allowlist."""
    return grant.allowlist == _digest(allowlist)


def _digest(allowlist: Allowlist) -> str:
    text = "\n".join((str(allowlist.https_only), *sorted(allowlist.patterns)))
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_SIZE).hexdigest()


def _decoded(payload: bytes) -> Grant:
    return msgspec.json.decode(base64_decode(payload), type=Grant)


def _derive(token: str) -> bytes:
    return hmac.digest(token.encode(), _SALT, "sha256")
