"""ClientKey: the key that a widget sends.

The hub never lists a client key, only its last 8 characters, so the two meet in the index.
"""

import hashlib
import string
from typing import Any, Self

import msgspec

from gatekeeper.errors import InvalidClientKey

__all__ = ("SUFFIX_LENGTH", "ClientKey", "mask")

MAX_CLIENT_KEY_LENGTH = 128
SUFFIX_LENGTH = 8

_CLIENT_KEY_CHARACTERS = (string.ascii_letters + string.digits + "_-").encode()


class ClientKey(msgspec.Struct, frozen=True, gc=False):
    """The key that a page carries, such as pk_live_acme_Zb3….

    Attributes:
        value: the whole key.
        account: what stands between the prefix and the last underscore.
    """

    value: str
    account: str

    @classmethod
    def parse(cls, value: str | bytes, *, prefix: str = "pk_live_") -> Self:
        """Read a client key.

        Args:
            value: the key; bytes as they came.
            prefix: what every client key of this hub begins with.

        Returns:
            The key and the account that it names.

        Raises:
            InvalidClientKey: saying what is wrong, without the key.
        """
        # The length comes first, so that a long key costs no more than a short one.
        if len(value) > MAX_CLIENT_KEY_LENGTH:
            raise InvalidClientKey(f"it has {len(value)} characters, and a client key at most {MAX_CLIENT_KEY_LENGTH}")
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not text.startswith(prefix):
            raise InvalidClientKey(f"it does not begin with {prefix!r}")
        if not text.isascii() or text.encode().translate(None, _CLIENT_KEY_CHARACTERS):
            raise InvalidClientKey("it holds characters other than letters, digits, '_' and '-'")
        account, _, random = text[len(prefix) :].rpartition("_")
        if not account or not random or len(text) < SUFFIX_LENGTH:
            raise InvalidClientKey(f"it is not of the form {prefix}<account>_<random>")
        return cls(text, account)

    @property
    def last8(self) -> str:
        """The last 8 characters, by which the hub lists the key."""
        return self.value[-SUFFIX_LENGTH:]

    def sha256(self) -> str:
        """The hexadecimal SHA-256 of the whole key."""
        return hashlib.sha256(self.value.encode("ascii")).hexdigest()

    def __repr__(self) -> str:
        return f"ClientKey({mask(self.last8)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """As `repr`, for tracebacks by rich: msgspec would show every field."""
        return [("last8", mask(self.last8))]


def mask(last8: str) -> str:
    """A client key as people may see it: "…" and its last 8 characters."""
    return f"…{last8}"
