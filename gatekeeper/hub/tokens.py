"""TokenStore: the bearer tokens of accounts, kept as keyed hashes."""

from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import uuid4

import msgspec
from sqlalchemy import delete, insert, select

from gatekeeper.errors import ConfigError
from gatekeeper.hub.accounts import ACCOUNT_NAME, add_account
from gatekeeper.hub.database import Database
from gatekeeper.hub.minting import TOKEN_PREFIX, Mint
from gatekeeper.hub.tables import tokens

__all__ = ("Bearer", "TokenRow", "TokenStore", "carries_account")

MAX_NAME_LENGTH = 200


class Bearer(msgspec.Struct, frozen=True):
    """Who sent a request.

    Attributes:
        account: whose keys it may touch.
        token_name: what the operator called the token.
    """

    account: str
    token_name: str


class TokenRow(msgspec.Struct, frozen=True):
    """A bearer token as the operator sees it.

    Attributes:
        id: names the token where it is revoked.
        account: whose keys it may touch.
        name: what the operator called it.
        created_at: when it was minted.
    """

    id: str
    account: str
    name: str
    created_at: datetime


_COLUMNS: Final = tuple(tokens.c[field] for field in TokenRow.__struct_fields__)


class TokenStore:
    """The bearer tokens of a hub.

    Its methods raise DatabaseDown while the database does not answer, and RuntimeError unless the app's lifespan is running.

    Args:
        database: where they are kept.
        mint: makes and hashes them.
        clock: the present, in UTC.
    """

    def __init__(self, database: Database, mint: Mint, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._mint = mint
        self._clock = clock

    async def mint(self, account: str, *, name: str) -> str:
        """Make a token, and the account where it is new.

        Args:
            account: matches `^[a-z0-9][a-z0-9_-]{0,62}$`.
            name: what to call the token, 1 to 200 characters.

        Returns:
            The plaintext, `sk_live_<account>_<random>`, which is not kept and cannot be had again.

        Raises:
            ConfigError: the account or the name is not of that form.
        """
        problems = []
        if not ACCOUNT_NAME.fullmatch(account):
            problems.append(f"account {account!r} does not match ^[a-z0-9][a-z0-9_-]{{0,62}}$")
        if "\0" in name:
            problems.append("a token's name has no NUL, which PostgreSQL cannot keep")
        if not 1 <= len(name) <= MAX_NAME_LENGTH:
            problems.append(f"a token's name has 1 to {MAX_NAME_LENGTH} characters, not {len(name)}")
        if problems:
            raise ConfigError(problems)
        plaintext = self._mint.token(account)
        now = self._clock()
        row = {
            "id": str(uuid4()),
            "account": account,
            "name": name,
            "keyed_hash": self._mint.keyed_hash(plaintext),
            "created_at": now,
        }
        async with self._database.writing() as connection:
            await add_account(connection, account, now)
            await connection.execute(insert(tokens).values(row))
        return plaintext

    async def list(self, account: str | None = None) -> list[TokenRow]:
        """List tokens, without their plaintexts.

        Args:
            account: the account; None for all accounts.

        Returns:
            The tokens, oldest first.
        """
        rows = select(*_COLUMNS).order_by(tokens.c.created_at, tokens.c.id)
        if account is not None:
            rows = rows.where(tokens.c.account == account)
        async with self._database.reading() as connection:
            return [TokenRow(*row) for row in await connection.execute(rows)]

    async def revoke(self, token_id: str) -> TokenRow | None:
        """Delete a token. The next request with it is refused.

        Args:
            token_id: the id that `list` gives.

        Returns:
            The deleted token; None if no token has this id.
        """
        async with self._database.writing() as connection:
            found = (await connection.execute(select(*_COLUMNS).where(tokens.c.id == token_id))).one_or_none()
            await connection.execute(delete(tokens).where(tokens.c.id == token_id))
        return None if found is None else TokenRow(*found)

    async def find(self, plaintext: str) -> Bearer | None:
        """Look a token up.

        Args:
            plaintext: as the Authorization header has it.

        Returns:
            Whose it is, or None for a token that this hub has not minted.
        """
        # The pepper is what makes an ordinary comparison safe: who does not have it cannot choose what is compared.
        wanted = tokens.c.keyed_hash == self._mint.keyed_hash(plaintext)
        async with self._database.reading() as connection:
            found = (await connection.execute(select(tokens.c.account, tokens.c.name).where(wanted))).one_or_none()
        return None if found is None else Bearer(found.account, found.name)


def carries_account(plaintext: str) -> bool:
    """Whether a token says whose it is.

    Args:
        plaintext: as the Authorization header has it.

    Returns:
        True for `sk_live_<account>_<random>`, whether or not this hub has minted it.
    """
    account, separator, random = plaintext.removeprefix(TOKEN_PREFIX).rpartition("_")
    return plaintext.startswith(TOKEN_PREFIX) and bool(separator and random) and bool(ACCOUNT_NAME.fullmatch(account))
