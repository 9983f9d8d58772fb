"""AllAccounts: the revision of the list of all accounts, and what has changed since one.

The list has a revision of its own. Those who change keys do not advance it, as they would have to wait for each other. Those
who read the list do: before each read they take a step. It compares the revision of every account with the one at the last
step. If some differ, it notes them, and gives the list its next revision.

Accounts commit in any order. A transaction that commits after a step makes a difference for the next one, whatever its time
or number, so none is missed. A list may already have rows that its revision does not know of. The next step notes their
account, so that they are sent once more.

The events of the accounts say which keys have changed, and the log of steps from which revision of which account to read
them.
"""

from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Insert,
    Select,
    String,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gatekeeper.hub.accounts import ALL_ACCOUNTS, Revision, advance_revision, lock_account
from gatekeeper.hub.database import Database
from gatekeeper.hub.events import DELETED_LAST8
from gatekeeper.hub.rows import AccountRemovedRow
from gatekeeper.hub.shared_reads import SharedReads
from gatekeeper.hub.tables import accounts, events, list_steps, listed_accounts

__all__ = ("AllAccounts", "read_changed_anywhere")

# Accounts in the condition of a statement. SQLite takes 1,000 (https://www.sqlite.org/limits.html, SQLITE_MAX_EXPR_DEPTH).
_ACCOUNTS: Final = 100

_ANY: Final = ""  # Stands for a mark that is not known, or need not be looked at.

# An account without a key has the revision 1, and makes no difference until it has one.
_LISTED: Final = func.coalesce(listed_accounts.c.revision, 1)
_DIFFERS: Final = and_(
    accounts.c.name != ALL_ACCOUNTS,
    or_(accounts.c.revision != _LISTED, listed_accounts.c.revision_mark != accounts.c.revision_mark),
)
_COMPARED: Final = accounts.outerjoin(listed_accounts, listed_accounts.c.account == accounts.c.name)
_DIFFERENT: Final = select(accounts.c.name).select_from(_COMPARED).where(_DIFFERS).limit(1)


class _Way(NamedTuple):
    """The changes of an account.

    Attributes:
        begin: its revision before them.
        end: the number of its revision after them.
    """

    begin: Revision
    end: int


class AllAccounts:
    """The list of all accounts.

    Args:
        database: the database of the keys.
        max_revisions: the steps that are kept.
    """

    def __init__(self, database: Database, *, max_revisions: int) -> None:
        self._database = database
        self._max_revisions = max_revisions
        # Requests that come together share a step. It begins after all of them.
        self._steps = SharedReads(self._take)

    async def step(self) -> None:
        """Advance the revision of the list if an account has changed since the last step.

        Every change that was committed before the call is in the list of this revision.

        Raises:
            DatabaseDown: the database does not answer, or cannot note a change.
            HubOverloaded: others keep it busy.
        """
        await self._steps.get(ALL_ACCOUNTS)

    async def close(self) -> None:
        """Wait for a step that is being taken."""
        await self._steps.close()

    async def _take(self, _names: Collection[str]) -> dict[str, None]:
        async with self._database.reading(ALL_ACCOUNTS) as connection:
            differs = await connection.scalar(_DIFFERENT) is not None
        if differs:
            async with self._database.writing(ALL_ACCOUNTS) as connection:
                await self._note(connection)
        return {}

    async def _note(self, connection: AsyncConnection) -> None:
        if connection.dialect.name == "postgresql":
            # A step that is lost in a crash makes an ETag unknown, and a client gets the whole list.
            await connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        base = await lock_account(connection, ALL_ACCOUNTS)
        following = base.number + 1
        # In one statement, as PostgreSQL lets each one see all that was committed before it.
        note = insert(list_steps).from_select(list(list_steps.c), _differences(base))
        noted = await connection.execute(note.execution_options(preserve_rowcount=True))
        if not noted.rowcount:
            return  # Another worker was faster.
        await connection.execute(_put(connection.dialect.name, following))
        await connection.execute(delete(list_steps).where(list_steps.c.revision <= following - self._max_revisions))
        await advance_revision(connection, ALL_ACCOUNTS, base)


async def read_changed_anywhere(
    connection: AsyncConnection, base: Revision, present: Revision, *, at_most: int
) -> dict[str, AccountRemovedRow | None] | None:
    """Read which keys of all accounts have changed since a revision of their list.

    Args:
        connection: a connection in a transaction whose reads all see one state of the database.
        base: the revision.
        present: the revision of the list in this state.
        at_most: the most changes.

    Returns:
        The ids of the changed keys. A deleted key has its row for the delta, if its event names its last 8 characters;
        another one has None. None instead if there are too many changes, or the logs do not lead from the base to the
        present, as for `read_changed`.
    """
    if base.number == present.number:
        return {} if base == present else None
    ways = await _read_ways(connection, base, present, at_most)
    if ways is None:
        return None
    reached = {account: way.begin for account, way in ways.items()}
    changed: dict[str, AccountRemovedRow | None] = {}
    for account, revision, base_mark, key_id, last8 in await _read_events(connection, reached):
        former = reached[account]
        if revision > former.number and former.mark not in {_ANY, base_mark}:
            return None
        if revision > former.number + 1:
            return None
        reached[account] = Revision(revision, _ANY)
        changed[key_id] = None if last8 is None else AccountRemovedRow(key_id, last8, removed=True, account=account)
    return changed if all(reached[account].number == way.end for account, way in ways.items()) else None


def _differences(base: Revision) -> Select[Any]:
    """The rows of the step after this revision of the list."""
    columns: Sequence[ColumnElement[Any]] = (
        literal(base.number + 1, BigInteger),
        accounts.c.name,
        literal(base.mark, String),
        _LISTED,
        listed_accounts.c.revision_mark,
        accounts.c.revision,
        accounts.c.revision_mark,
    )
    return select(*columns).select_from(_COMPARED).where(_DIFFERS)


def _put(dialect: str, revision: int) -> Insert:
    """The statement that lists accounts as the step to this revision found them."""
    insert = sqlite.insert(listed_accounts) if dialect == "sqlite" else postgresql.insert(listed_accounts)
    found = select(list_steps.c.account, list_steps.c.to_revision, list_steps.c.to_mark).where(
        list_steps.c.revision == revision
    )
    new = {name: insert.excluded[name] for name in ("revision", "revision_mark")}
    return insert.from_select(list(listed_accounts.c), found).on_conflict_do_update(
        index_elements=listed_accounts.primary_key, set_=new
    )


async def _read_ways(connection: AsyncConnection, base: Revision, present: Revision, at_most: int) -> dict[str, _Way] | None:
    """Read where the changes of each account since a revision begin and end, if they are not too many."""
    # Found by the index first, so that a base of another history costs no read of the log.
    is_known = exists().where(list_steps.c.revision == base.number + 1, list_steps.c.base_mark == base.mark)
    begin = (list_steps.c.from_revision, func.coalesce(list_steps.c.from_mark, _ANY))
    log = select(list_steps.c.revision, list_steps.c.account, *begin, accounts.c.revision, accounts.c.revision_mark)
    log = log.select_from(list_steps.outerjoin(accounts, accounts.c.name == list_steps.c.account))
    log = log.where(list_steps.c.revision > base.number, is_known).order_by(list_steps.c.revision).limit(at_most + 1)
    reached = base.number
    ways: dict[str, _Way] = {}
    changes = steps = 0
    for revision, account, number, mark, end, end_mark in await connection.execute(log):
        steps += 1
        if revision > reached + 1 or end is None or (number == end and mark != end_mark):
            return None
        reached = revision
        if account not in ways:
            ways[account] = _Way(Revision(number, mark), end)
            changes += end - number
    return ways if reached == present.number and max(changes, steps) <= at_most else None


async def _read_events(connection: AsyncConnection, begins: Mapping[str, Revision]) -> list[tuple[Any, ...]]:
    """Read the events of accounts after these revisions of them."""
    columns = select(events.c.account, events.c.revision, events.c.base_mark, events.c.key_id, DELETED_LAST8)
    ordered, found = tuple(begins.items()), list[tuple[Any, ...]]()
    for start in range(0, len(ordered), _ACCOUNTS):
        later = (
            and_(events.c.account == account, events.c.revision > begin.number)
            for account, begin in ordered[start : start + _ACCOUNTS]
        )
        found += (tuple(row) for row in await connection.execute(columns.where(or_(*later))))
    # The databases sort slower, or read the whole index in its order.
    return sorted(found, key=itemgetter(0, 1))
