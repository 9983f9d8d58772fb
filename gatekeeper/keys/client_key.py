"""ClientKey: the key that a widget sends.

The hub lists only the last 8 characters of a client key. The index matches the two.
"""

import hashlib
import string
from typing import Any, Self

import msgspec

from gatekeeper.errors import InvalidClientKey

__all__ = ("SUFFIX_LENGTH", "ClientKey", "mask", "share_keys")

MAX_CLIENT_KEY_LENGTH = 128
SUFFIX_LENGTH = 8

_CLIENT_KEY_CHARACTERS = (string.ascii_letters + string.digits + "_-").encode()


class ClientKey(msgspec.Struct, frozen=True, gc=False):
    """The key in a page's HTML, such as pk_live_acme_Zb3….

    Attributes:
        value: the whole key.
        prefix: the prefix of every client key of the hub.
    """

    value: str
    prefix: str

    @classmethod
    def parse(cls, value: str | bytes, *, prefix: str = "pk_live_") -> Self:
        """Parse a client key.

        Args:
            value: the key, as text or as raw bytes.
            prefix: the prefix of every client key of this hub.

        Returns:
            The key.

        Raises:
            InvalidClientKey: with a message that does not show the key.
        """
        # Check the length first, so that a long key costs no more than a short one.
        if len(value) > MAX_CLIENT_KEY_LENGTH:
            raise InvalidClientKey(f"it has {len(value)} characters; a client key has at most {MAX_CLIENT_KEY_LENGTH}")
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not text.startswith(prefix):
            raise InvalidClientKey(f"it does not begin with {prefix!r}")
        if not text.isascii() or text.encode().translate(None, _CLIENT_KEY_CHARACTERS):
            raise InvalidClientKey("it has characters other than letters, digits, '_' and '-'")
        if "_" not in text[len(prefix) + 1 : -1] or len(text) < SUFFIX_LENGTH:
            raise InvalidClientKey(f"it is not of the form {prefix}<account>_<random>")
        return cls(text, prefix)

    @property
    def last8(self) -> str:
        """The last 8 characters, which the hub lists."""
        return self.value[-SUFFIX_LENGTH:]

    def may_be_of(self, account: str) -> bool:
        """Whether the key may belong to an account.

        Accounts and random parts can both hold "_", so one key may belong to several accounts.
        """
        beginning = f"{self.prefix}{account}_"
        return self.value.startswith(beginning) and len(self.value) > len(beginning)

    def sha256(self) -> str:
        """The hexadecimal SHA-256 of the whole key."""
        return hashlib.sha256(self.value.encode("ascii")).hexdigest()

    def __repr__(self) -> str:
        return f"ClientKey({mask(self.last8)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The fields for rich's tracebacks. msgspec would show the whole key."""
        return [("last8", mask(self.last8))]


def share_keys(account: str | None, other: str | None) -> bool:
    """Whether one client key may be of both accounts.

    pk_live_acme_shop_… may be of acme and of acme_shop.

    Args:
        account: an account; None if it is not known.
        other: another one.
    """
    if account is None or other is None:
        return True
    one, two = f"{account}_", f"{other}_"
    return one.startswith(two) or two.startswith(one)


def mask(last8: str) -> str:
    """Format a key for messages: "…" and its last 8 characters."""
    return f"…{last8}"
