"""Mint: makes and hashes the plaintexts of client keys and tokens."""

import hmac
import secrets
import string
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from gatekeeper.keys.client_key import ClientKey

__all__ = ("ALL_ACCOUNTS_PREFIX", "KEY_PREFIX", "TOKEN_PREFIX", "Draw", "Mint", "random_text")

KEY_PREFIX: Final = "pk_live_"
TOKEN_PREFIX: Final = "sk_live_"  # noqa: S105 - the public part of every token of one account
ALL_ACCOUNTS_PREFIX: Final = "sk_all_"

# No "_", so that the account ends at the last one, and no "-", so that a double click selects the whole random part.
_ALPHABET: Final = string.ascii_letters + string.digits
_RANDOM_LENGTH: Final = 32  # log2(62) * 32 = 190 bits; GitHub's tokens carry 178 in 30 of the same characters.

# Neither a client key nor a token begins like this.
_CHECKED: Final = "gatekeeper: the check of the pepper"

Draw = Callable[[int], str]


def random_text(length: int) -> str:
    """Draw letters and digits from the system's secure random source.

    Args:
        length: the number of characters, each of 5.95 bits.

    Returns:
        The text.
    """
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


class Mint:
    """Makes plaintexts and hashes them.

    Args:
        pepper: the secret that keys the hashes; without it, a stolen database cannot even confirm a guess.
        draw: a function that returns the given number of random letters and digits.
    """

    def __init__(self, pepper: str, draw: Draw) -> None:
        self._pepper = pepper.encode()
        self._draw = draw

    def client_key(self, account: str) -> ClientKey:
        """Make a client key.

        Args:
            account: the owner.

        Returns:
            The key, `pk_live_<account>_<random>`; its `repr` hides the plaintext.
        """
        return ClientKey(f"{KEY_PREFIX}{account}_{self._draw(_RANDOM_LENGTH)}", KEY_PREFIX)

    def token(self, account: str) -> str:
        """Make a bearer token of one account.

        Args:
            account: the owner.

        Returns:
            The plaintext, `sk_live_<account>_<random>`.
        """
        return f"{TOKEN_PREFIX}{account}_{self._draw(_RANDOM_LENGTH)}"

    def token_for_all(self) -> str:
        """Make a bearer token for all accounts.

        Returns:
            The plaintext, `sk_all_<random>`.
        """
        return f"{ALL_ACCOUNTS_PREFIX}{self._draw(_RANDOM_LENGTH)}"

    def check_value(self) -> str:
        """Make the value by which a database recognises the pepper.

        Returns:
            The keyed hash of a constant.
        """
        return self.keyed_hash(_CHECKED)

    def keyed_hash(self, plaintext: str) -> str:
        """Hash a plaintext for the database.

        Args:
            plaintext: a client key or a token.

        Returns:
            HMAC-SHA256 with the pepper, in 64 hexadecimal digits.
        """
        return hmac.new(self._pepper, plaintext.encode(), sha256).hexdigest()
