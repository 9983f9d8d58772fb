"""TokenStore: the bearer tokens of accounts, kept as keyed hashes."""

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import Final, Literal, get_args
from uuid import uuid4

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, outerjoin, select

from gatekeeper.errors import ConfigError
from gatekeeper.hub.accounts import ACCOUNT_NAME, ALL_ACCOUNTS, MAX_NAMED, Revision, add_account
from gatekeeper.hub.database import Database
from gatekeeper.hub.minting import ALL_ACCOUNTS_PREFIX, TOKEN_PREFIX, Mint
from gatekeeper.hub.shared_reads import SharedReads
from gatekeeper.hub.tables import accounts, tokens

__all__ = ("Bearer", "TokenRow", "TokenScope", "TokenStore", "needs_account", "read_revision_and_valid", "read_valid")

MAX_NAME_LENGTH = 200

TokenScope = Literal["gate", "admin"]
"""What a token may do: `gate` lists keys and reports on them, `admin` does everything in its account."""


class Bearer(msgspec.Struct, frozen=True):
    """The sender of an authenticated request.

    Attributes:
        account: the account whose keys it may read and, with the scope admin, change; ALL_ACCOUNTS if it may read the keys
            of every account, and change none.
        token_name: the name that the operator gave the token.
        scope: what the token may do.
        token_id: the id of the token.
    """

    account: str
    token_name: str
    scope: TokenScope
    token_id: str = ""

    @property
    def is_for_all(self) -> bool:
        """Whether the token is for all accounts."""
        return self.account == ALL_ACCOUNTS


class TokenRow(msgspec.Struct, frozen=True):
    """A bearer token without its plaintext.

    Attributes:
        id: the id of the token, for `revoke`.
        account: the account whose keys it may read and, with the scope admin, change; "*" for all accounts.
        name: the name that the operator gave it.
        scope: what it may do.
        created_at: the time of minting.
    """

    id: str
    account: str
    name: str
    scope: TokenScope
    created_at: datetime


_COLUMNS: Final = tuple(tokens.c[field] for field in TokenRow.__struct_fields__)
_BEARERS: Final = select(tokens.c.keyed_hash, tokens.c.account, tokens.c.name, tokens.c.scope, tokens.c.id).where(
    tokens.c.keyed_hash.in_(bindparam("hashes", expanding=True))
)
_IS_NAMED: Final = tokens.c.id.in_(bindparam("ids", expanding=True))
_VALID: Final = select(tokens.c.id).where(_IS_NAMED)
_REVISION_AND_VALID: Final = (
    select(accounts.c.revision, accounts.c.revision_mark, tokens.c.id)
    .select_from(outerjoin(accounts, tokens, _IS_NAMED))
    .where(accounts.c.name == bindparam("its_account"))
)


class TokenStore:
    """The bearer tokens of a hub.

    Its methods raise DatabaseDown if the database does not answer, HubOverloaded if others keep it busy, and RuntimeError if
    the app's lifespan is not running.

    Args:
        database: the database of the tokens.
        mint: the maker of tokens and their hashes.
        clock: a function that returns the current time in UTC.
    """

    def __init__(self, database: Database, mint: Mint, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._mint = mint
        self._clock = clock
        # When a list changes, all its gates ask at the same time.
        self._bearers = SharedReads(self._find)

    async def mint(self, account: str, *, name: str, scope: TokenScope = "admin") -> str:
        """Mint a token, and create its account if necessary.

        Args:
            account: a name that matches `^[a-z0-9][a-z0-9_-]{0,62}$`.
            name: the name of the token, of 1 to 200 characters.
            scope: what it may do: "gate" lists keys and reports on them, "admin" does everything. A gate needs only
                "gate"; the default is that of tokens from before there were scopes.

        Returns:
            The plaintext, `sk_live_<account>_<random>`, which is not stored and cannot be recovered.

        Raises:
            ConfigError: an invalid account, name or scope.
        """
        problems = []
        if not ACCOUNT_NAME.fullmatch(account):
            problems.append(f"account {account!r} does not match ^[a-z0-9][a-z0-9_-]{{0,62}}$")
        problems += _name_problems(name)
        if scope not in get_args(TokenScope):
            problems.append(f"a token's scope is {scope!r}: expected 'gate' or 'admin'")
        if problems:
            raise ConfigError(problems)
        return await self._add(self._mint.token(account), account, name, scope)

    async def mint_for_all(self, *, name: str) -> str:
        """Mint a token for all accounts.

        It reads their keys and reports on them, and changes none.

        Args:
            name: the name of the token, of 1 to 200 characters.

        Returns:
            The plaintext, `sk_all_<random>`, which is not stored and cannot be recovered.

        Raises:
            ConfigError: an invalid name.
        """
        if problems := tuple(_name_problems(name)):
            raise ConfigError(problems)
        return await self._add(self._mint.token_for_all(), ALL_ACCOUNTS, name, "gate")

    async def _add(self, plaintext: str, account: str, name: str, scope: TokenScope) -> str:
        now = self._clock()
        row = {
            "id": str(uuid4()),
            "account": account,
            "name": name,
            "scope": scope,
            "keyed_hash": self._mint.keyed_hash(plaintext),
            "created_at": now,
        }

        def insert_row(connection: Connection) -> None:
            add_account(connection, account, now)
            connection.execute(insert(tokens).values(row))

        await self._database.write(insert_row, account)
        return plaintext

    async def list(self, account: str | None = None) -> list[TokenRow]:
        """List tokens, without their plaintexts.

        Args:
            account: the account, or ALL_ACCOUNTS for those that are for all; None for every token.

        Returns:
            The tokens, oldest first.
        """
        rows = select(*_COLUMNS).order_by(tokens.c.created_at, tokens.c.id)
        if account is not None:
            rows = rows.where(tokens.c.account == account)
        return await self._database.read(lambda connection: [TokenRow(*row) for row in connection.execute(rows)])

    async def revoke(self, token_id: str) -> TokenRow | None:
        """Delete a token. The next request with it is refused.

        Args:
            token_id: the id that `list` gives.

        Returns:
            The deleted token; None if no token has this id.
        """

        def delete_row(connection: Connection) -> TokenRow | None:
            found = connection.execute(select(*_COLUMNS).where(tokens.c.id == token_id)).one_or_none()
            connection.execute(delete(tokens).where(tokens.c.id == token_id))
            return None if found is None else TokenRow(*found)

        return await self._database.write(delete_row)

    async def find(self, plaintext: str) -> Bearer | None:
        """Look up a token.

        Args:
            plaintext: the token of the Authorization header.

        Returns:
            The bearer, or None for a token that this hub has not minted.
        """
        return await self._bearers.get(self._mint.keyed_hash(plaintext))

    async def close(self) -> None:
        """Wait for a read that runs."""
        await self._bearers.close()

    async def valid(self, token_ids: Collection[str]) -> set[str]:
        """Read which tokens are still valid.

        Args:
            token_ids: ids of tokens.

        Returns:
            The ids of the tokens that have not been revoked.
        """
        return await self._database.read(lambda connection: read_valid(connection, token_ids))

    async def _find(self, keyed_hashes: Collection[str]) -> dict[str, Bearer]:
        # An ordinary comparison is safe against timing attacks: without the pepper, an attacker cannot choose the hash.
        wanted = tuple(keyed_hashes)

        def read(connection: Connection) -> dict[str, Bearer]:
            found = dict[str, Bearer]()
            for start in range(0, len(wanted), MAX_NAMED):
                rows = connection.execute(_BEARERS, {"hashes": wanted[start : start + MAX_NAMED]})
                found.update((keyed_hash, Bearer(*bearer)) for keyed_hash, *bearer in rows)
            return found

        return await self._database.read(read)


def read_valid(connection: Connection, token_ids: Collection[str]) -> set[str]:
    """Read which tokens are still valid.

    Args:
        connection: a connection in a transaction.
        token_ids: ids of tokens.

    Returns:
        The ids of the tokens that have not been revoked.
    """
    ids, found = tuple(token_ids), set[str]()
    for start in range(0, len(ids), MAX_NAMED):
        found.update(connection.scalars(_VALID, {"ids": ids[start : start + MAX_NAMED]}))
    return found


def read_revision_and_valid(connection: Connection, account: str, token_ids: Collection[str]) -> tuple[Revision, set[str]]:
    """Read the revision of an account and which tokens are still valid.

    Args:
        connection: a connection in a transaction whose reads all see one state of the database.
        account: an account that exists.
        token_ids: ids of tokens.

    Returns:
        The revision, and the ids of the tokens that have not been revoked.
    """
    ids = tuple(token_ids)
    rows = connection.execute(_REVISION_AND_VALID, {"its_account": account, "ids": ids[:MAX_NAMED]}).all()
    valid = {token_id for _, _, token_id in rows if token_id is not None}
    return Revision(*rows[0][:2]), valid | read_valid(connection, ids[MAX_NAMED:])


def needs_account(plaintext: str) -> bool:
    """Whether a token does not tell which account it is for.

    Args:
        plaintext: the token of the Authorization header.

    Returns:
        False for `sk_live_<account>_<random>` and `sk_all_<random>`, whether or not this hub minted it.
    """
    if plaintext.startswith(ALL_ACCOUNTS_PREFIX):
        return plaintext == ALL_ACCOUNTS_PREFIX
    account, separator, random = plaintext.removeprefix(TOKEN_PREFIX).rpartition("_")
    return not (plaintext.startswith(TOKEN_PREFIX) and separator and random and ACCOUNT_NAME.fullmatch(account))


def _name_problems(name: str) -> Iterator[str]:
    if "\0" in name:
        yield "a token's name must not contain NUL, which PostgreSQL cannot store"
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        yield f"a token's name has {len(name)} characters: expected 1 to {MAX_NAME_LENGTH}"
