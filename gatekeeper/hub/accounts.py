"""Accounts: their names, and the revisions of their keys."""

import re
import secrets
from contextlib import suppress
from datetime import datetime
from typing import Final, NamedTuple, Self

from sqlalchemy import Select, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gatekeeper.hub.tables import accounts

__all__ = ("ACCOUNT_NAME", "Revision", "add_account", "advance_revision", "lock_account", "read_revision")

ACCOUNT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

# A number of 18 digits fits into a BIGINT.
_TAG: Final = re.compile(r'(?:W/)?"([1-9][0-9]{0,17})-([0-9a-f]{16})"')


class Revision(NamedTuple):
    """A state of an account's keys, apart from their use.

    Attributes:
        number: counts the changes of the account.
        mark: random for every revision. A restored or recreated database repeats numbers, but no marks.
    """

    number: int
    mark: str

    @property
    def etag(self) -> str:
        """The ETag of the list, with its quotes. It is weak, as it leaves out the use of the keys."""
        return f'W/"{self.number}-{self.mark}"'

    @classmethod
    def parse(cls, tag: str) -> Self | None:
        """Parse an entity tag, weak or strong.

        Args:
            tag: the tag, with its quotes.

        Returns:
            The revision with this ETag; None if no revision has it.
        """
        matched = _TAG.fullmatch(tag)
        return None if matched is None else cls(int(matched[1]), matched[2])


async def add_account(connection: AsyncConnection, name: str, now: datetime) -> None:
    """Add an account unless it exists.

    Args:
        connection: a connection in a writing transaction.
        name: a full match of ACCOUNT_NAME.
        now: the time of creation.
    """
    row = {"name": name, "revision": 1, "revision_mark": _new_mark(), "created_at": now}
    # Insert without looking first: another worker may add the same account at the same time.
    with suppress(IntegrityError):
        async with connection.begin_nested():
            await connection.execute(insert(accounts).values(row))


async def lock_account(connection: AsyncConnection, account: str) -> Revision:
    """Block other writers of an account until the transaction ends.

    SQLite ignores the lock: it has one writer at a time anyway.

    Args:
        connection: a connection in a writing transaction.
        account: an account that exists.

    Returns:
        Its revision, which no one else can advance meanwhile.
    """
    return Revision._make((await connection.execute(_revision_of(account).with_for_update())).one())


async def advance_revision(connection: AsyncConnection, account: str, base: Revision) -> None:
    """Give an account its next revision, in the transaction of the change.

    Args:
        connection: a connection in a transaction that has locked the account.
        account: the account whose keys change.
        base: its revision before the change.
    """
    following = {"revision": base.number + 1, "revision_mark": _new_mark()}
    await connection.execute(update(accounts).where(accounts.c.name == account).values(following))


async def read_revision(connection: AsyncConnection, account: str) -> Revision:
    """Read the revision of an account.

    Args:
        connection: a connection in a transaction.
        account: an account that exists.

    Returns:
        The revision.
    """
    return Revision._make((await connection.execute(_revision_of(account))).one())


def _revision_of(account: str) -> Select[tuple[int, str]]:
    return select(accounts.c.revision, accounts.c.revision_mark).where(accounts.c.name == account)


def _new_mark() -> str:
    return secrets.token_hex(8)
