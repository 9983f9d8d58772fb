"""Accounts: their names, and a revision that every write advances."""

import re
import secrets
from contextlib import suppress
from datetime import datetime
from typing import Final

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gatekeeper.hub.tables import accounts

__all__ = ("ACCOUNT_NAME", "add_account", "advance_revision", "lock_account", "read_etag")

ACCOUNT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


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


async def lock_account(connection: AsyncConnection, name: str) -> None:
    """Block other writers of an account until the transaction ends.

    SQLite ignores this: it has one writer at a time anyway.

    Args:
        connection: a connection in a writing transaction.
        name: the account.
    """
    await connection.execute(select(accounts.c.name).where(accounts.c.name == name).with_for_update())


async def advance_revision(connection: AsyncConnection, account: str) -> None:
    """Give an account's list a new ETag, and lock the account.

    Args:
        connection: a connection in a writing transaction.
        account: the account whose keys change.
    """
    await connection.execute(
        update(accounts)
        .where(accounts.c.name == account)
        .values(revision=accounts.c.revision + 1, revision_mark=_new_mark())
    )


async def read_etag(connection: AsyncConnection, account: str) -> str:
    """Read the ETag of an account's list.

    Args:
        connection: a connection in a transaction.
        account: an account that exists.

    Returns:
        A strong ETag, with its quotes.
    """
    revision = select(accounts.c.revision, accounts.c.revision_mark).where(accounts.c.name == account)
    number, mark = (await connection.execute(revision)).one()
    return f'"{number}-{mark}"'


def _new_mark() -> str:
    return secrets.token_hex(8)
