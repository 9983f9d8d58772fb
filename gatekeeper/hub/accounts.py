"""Accounts: their names, and the revisions of their keys."""

import re
import secrets
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from typing import Final, NamedTuple, Self

from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from gatekeeper.hub.tables import accounts

__all__ = (
    "ACCOUNT_NAME",
    "ALL_ACCOUNTS",
    "CHANNEL",
    "MAX_NAMED",
    "Revision",
    "add_account",
    "advance_revision",
    "described",
    "lock_account",
    "read_revision",
    "read_revisions",
)

ACCOUNT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

# What concerns all accounts together is kept under this name, which no account can have.
ALL_ACCOUNTS: Final = "*"

CHANNEL: Final = "gatekeeper_hub"  # of PostgreSQL's notifications, whose payload is the name of an account that has changed

# Values in the condition of a statement. SQLite takes 32,766 (https://www.sqlite.org/limits.html), PostgreSQL twice as many.
MAX_NAMED: Final = 1000

# A number of 18 digits fits into a BIGINT.
_TAG: Final = re.compile(r'(?:W/)?"([1-9][0-9]{0,17})-([0-9a-f]{16})"')


# A statement that is made at each use takes five times as long.
_REVISION: Final = select(accounts.c.revision, accounts.c.revision_mark).where(accounts.c.name == bindparam("account"))
_LOCKED_REVISION: Final = _REVISION.with_for_update()
_REVISIONS: Final = select(accounts.c.name, accounts.c.revision, accounts.c.revision_mark).where(
    accounts.c.name.in_(bindparam("names", expanding=True))
)
_REVISIONS_OF_PRIMARY: Final = _REVISIONS.where(~func.pg_is_in_recovery())
_ADVANCE: Final = (
    update(accounts)
    .where(accounts.c.name == bindparam("account"))
    .values(revision=bindparam("following"), revision_mark=bindparam("its_mark"))
)
_ADVANCE_AND_NOTIFY: Final = _ADVANCE.returning(func.pg_notify(CHANNEL, accounts.c.name))


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


def add_account(connection: Connection, name: str, now: datetime) -> None:
    """Add an account unless it exists.

    Args:
        connection: a connection in a writing transaction.
        name: a full match of ACCOUNT_NAME; or ALL_ACCOUNTS.
        now: the time of creation.
    """
    row = {"name": name, "revision": 1, "revision_mark": _new_mark(), "created_at": now}
    # Insert without looking first: another worker may add the same account at the same time.
    with suppress(IntegrityError), connection.begin_nested():
        connection.execute(insert(accounts).values(row))


def lock_account(connection: Connection, account: str) -> Revision:
    """Block other writers of an account until the transaction ends.

    SQLite ignores the lock: it has one writer at a time anyway.

    Args:
        connection: a connection in a writing transaction.
        account: an account that exists.

    Returns:
        Its revision, which no one else can advance meanwhile.
    """
    return Revision._make(connection.execute(_LOCKED_REVISION, {"account": account}).one())


def advance_revision(connection: Connection, account: str, base: Revision) -> None:
    """Give an account its next revision, in the transaction of the change.

    PostgreSQL tells all that listen when the transaction is committed. It tells nothing of ALL_ACCOUNTS, as the changes of
    the accounts themselves have been told already.

    Args:
        connection: a connection in a transaction that has locked the account.
        account: the account whose keys change; or ALL_ACCOUNTS.
        base: its revision before the change.
    """
    notifies = connection.dialect.name == "postgresql" and account != ALL_ACCOUNTS
    following = {"account": account, "following": base.number + 1, "its_mark": _new_mark()}
    connection.execute(_ADVANCE_AND_NOTIFY if notifies else _ADVANCE, following)


def read_revision(connection: Connection, account: str) -> Revision:
    """Read the revision of an account.

    Args:
        connection: a connection in a transaction.
        account: an account that exists.

    Returns:
        The revision.
    """
    return Revision._make(connection.execute(_REVISION, {"account": account}).one())


def read_revisions(connection: Connection, names: Collection[str]) -> dict[str, Revision]:
    """Read the revisions of several accounts.

    A standby is not asked, because it sees changes late.

    Args:
        connection: a connection in a transaction.
        names: their names.

    Returns:
        The revisions of those that exist. It is empty if the server is a standby.
    """
    statement = _REVISIONS_OF_PRIMARY if connection.dialect.name == "postgresql" else _REVISIONS
    ordered, found = tuple(names), dict[str, Revision]()
    for start in range(0, len(ordered), MAX_NAMED):
        rows = connection.execute(statement, {"names": ordered[start : start + MAX_NAMED]})
        found.update((name, Revision(number, mark)) for name, number, mark in rows)
    return found


def described(account: str) -> str:
    """Say whose requests are meant, in a sentence of the log.

    Args:
        account: the account; or ALL_ACCOUNTS.

    Returns:
        Such as "the account acme", or "the tokens for all accounts".
    """
    return "the tokens for all accounts" if account == ALL_ACCOUNTS else f"the account {account}"


def _new_mark() -> str:
    return secrets.token_hex(8)
