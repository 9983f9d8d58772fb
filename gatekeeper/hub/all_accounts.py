"""AllAccounts: the revision of the list of all accounts.

The list has a revision of its own. Those who change keys do not advance it, as they would have to wait for each other. Those
who read the list do: before each read they take a step. It compares the revision of every account with the one at the last
step. If some differ, it notes them, and gives the list its next revision.

Accounts commit in any order. A transaction that commits after a step makes a difference for the next one, whatever its time
or number, so none is missed. A list may already have rows that its revision does not know of. The next step notes their
account, so that they are sent once more.

The events of the accounts say which keys have changed, and the log of steps from which revision of which account to read
them.
"""

import time
from collections.abc import Callable, Collection, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    Insert,
    String,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from gatekeeper.hub.accounts import ALL_ACCOUNTS, Revision, advance_revision, lock_account
from gatekeeper.hub.database import Database
from gatekeeper.hub.events import DELETED_LAST8, UnknownBase
from gatekeeper.hub.rows import AccountRemovedRow
from gatekeeper.hub.shared_reads import SharedReads
from gatekeeper.hub.tables import accounts, events, list_steps, listed_accounts

__all__ = ("AllAccounts", "read_changed_anywhere")

# Accounts in the condition of a statement. SQLite takes 1,000 (https://www.sqlite.org/limits.html, SQLITE_MAX_EXPR_DEPTH).
_ACCOUNTS: Final = 100

_COMPARED_AT: Final = "gatekeeper: version without a difference"  # of the file, in the `info` of a connection

_ANY: Final = ""  # Stands for a mark that is not known, or need not be looked at.

_FEW: Final = 100  # Accounts that a step compares one by one. With more, it compares all.
_PRUNED_AFTER: Final = 100  # Steps, after which the oldest ones are deleted.

# An account without a key has the revision 1, and makes no difference until it has one.
_LISTED: Final = func.coalesce(listed_accounts.c.revision, 1)
_DIFFERS: Final = and_(
    accounts.c.name != ALL_ACCOUNTS,
    or_(accounts.c.revision != _LISTED, listed_accounts.c.revision_mark != accounts.c.revision_mark),
)
_COMPARED: Final = accounts.outerjoin(listed_accounts, listed_accounts.c.account == accounts.c.name)
# PostgreSQL would look up each account for the first difference, which takes three times as long as joining the tables.
_COUNT: Final = select(func.count()).select_from(_COMPARED).where(_DIFFERS)

_DIFFERENCES: Final = (
    select(
        bindparam("step", type_=BigInteger),
        accounts.c.name,
        bindparam("base", type_=String),
        _LISTED,
        listed_accounts.c.revision_mark,
        accounts.c.revision,
        accounts.c.revision_mark,
    )
    .select_from(_COMPARED)
    .where(_DIFFERS)
)
_SOME: Final = _DIFFERENCES.where(accounts.c.name.in_(bindparam("named", expanding=True)))
_NOTE, _NOTE_SOME = (
    insert(list_steps).from_select(list(list_steps.c), found).execution_options(preserve_rowcount=True)
    for found in (_DIFFERENCES, _SOME)
)
_NOTED: Final = select(list_steps.c.account, list_steps.c.to_revision, list_steps.c.to_mark).where(
    list_steps.c.revision == bindparam("step")
)


def _put(into: sqlite.Insert | postgresql.Insert) -> Insert:
    new = {name: into.excluded[name] for name in ("revision", "revision_mark")}
    listing = into.from_select(list(listed_accounts.c), _NOTED)
    return listing.on_conflict_do_update(index_elements=listed_accounts.primary_key, set_=new)


# Lists accounts as a step has found them.
_PUT: Final = {
    "sqlite": _put(sqlite.insert(listed_accounts)),
    "postgresql": _put(postgresql.insert(listed_accounts)),
}
_PRUNE: Final = delete(list_steps).where(list_steps.c.revision <= bindparam("oldest"))

_BASE: Final = bindparam("base", type_=BigInteger)
# Found by the index first, so that a base of another history costs no read of the log.
_IS_KNOWN: Final = exists().where(list_steps.c.revision == _BASE + 1, list_steps.c.base_mark == bindparam("its_mark"))
_LATER_STEPS: Final = (
    select(
        list_steps.c.revision,
        list_steps.c.account,
        list_steps.c.from_revision,
        func.coalesce(list_steps.c.from_mark, _ANY),
        accounts.c.revision,
        accounts.c.revision_mark,
    )
    .select_from(list_steps.outerjoin(accounts, accounts.c.name == list_steps.c.account))
    .where(list_steps.c.revision > _BASE, _IS_KNOWN)
    .order_by(list_steps.c.revision)
    .limit(bindparam("at_most"))
)
_EVENTS: Final = select(events.c.account, events.c.revision, events.c.base_mark, events.c.key_id, DELETED_LAST8)


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

    async def step(self, changed: Collection[str] = (ALL_ACCOUNTS,)) -> None:
        """Advance the revision of the list if an account has changed.

        Afterwards, the list of this revision has every change of these accounts that was committed before the call.

        Args:
            changed: the accounts that may have changed; ALL_ACCOUNTS for any. What a step for a few costs does not depend on
                the number of accounts.

        Raises:
            DatabaseDown: the database does not answer, or cannot note a change.
            HubOverloaded: others keep it busy.
        """
        if changed:
            await self._steps.get(frozenset(changed))

    async def close(self) -> None:
        """Wait for a step that is being taken."""
        await self._steps.close()

    async def _take(self, asked: Collection[frozenset[str]]) -> dict[frozenset[str], None]:
        named = frozenset().union(*asked)
        if ALL_ACCOUNTS in named or len(named) > _FEW:
            named = frozenset()
            # Most comparisons find nothing, and writers do not wait for them. A named account has changed most likely.
            if not await self._database.read(_differs, ALL_ACCOUNTS):
                return {}
        await self._database.write(lambda connection: self._note(connection, named), ALL_ACCOUNTS)
        return {}

    def _note(self, connection: Connection, named: Collection[str]) -> None:
        """Note what differs in these accounts, or in all if none is named."""
        if connection.dialect.name == "postgresql":
            # A step that is lost in a crash makes an ETag unknown, and a client gets the whole list.
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        base = lock_account(connection, ALL_ACCOUNTS)
        step = base.number + 1
        values = {"step": step, "base": base.mark} | ({"named": list(named)} if named else {})
        # In one statement, as PostgreSQL lets each one see all that was committed before it.
        noted = connection.execute(_NOTE_SOME if named else _NOTE, values)
        if not noted.rowcount:
            return  # Another worker was faster.
        connection.execute(_PUT[connection.dialect.name], {"step": step})
        if step % _PRUNED_AFTER == 0:
            connection.execute(_PRUNE, {"oldest": step - self._max_revisions})
        advance_revision(connection, ALL_ACCOUNTS, base)


def _differs(connection: Connection) -> bool:
    """Whether an account has changed since the last step."""
    # SQLite tells a connection whether another one has committed anything, in a hundredth of the time to compare 10,000
    # accounts (https://www.sqlite.org/pragma.html, section data_version).
    is_sqlite = connection.dialect.name == "sqlite"
    version = connection.exec_driver_sql("PRAGMA data_version").scalar() if is_sqlite else None
    if version is not None and connection.info.get(_COMPARED_AT) == version:
        return False
    if connection.scalar(_COUNT):
        return True
    connection.info[_COMPARED_AT] = version
    return False


def read_changed_anywhere(
    connection: Connection,
    base: Revision,
    present: Revision,
    *,
    at_most: int,
    defer: Callable[[float], None],
) -> dict[str, AccountRemovedRow | None]:
    """Read which keys of all accounts have changed since a revision.

    Args:
        connection: a connection in a transaction whose reads all see one state of the database.
        base: the revision of their list.
        present: its revision in this state.
        at_most: the most changes.
        defer: lets others go first. It is given the seconds that a piece of the work has taken.

    Returns:
        The ids of the changed keys. A deleted key has its row for the delta, if its event names its last 8 characters;
        another one has None.

    Raises:
        UnknownBase: there are too many changes, or the logs do not lead from the base to the present, as for `read_changed`.
    """
    if base.number == present.number and base != present:
        raise UnknownBase
    ways = _read_ways(connection, base, present, at_most)
    reached = {account: way.begin for account, way in ways.items()}
    changed: dict[str, AccountRemovedRow | None] = {}
    for account, revision, base_mark, key_id, last8 in _read_events(connection, reached, defer):
        former = reached[account]
        if revision > former.number + 1 or (revision > former.number and former.mark not in {_ANY, base_mark}):
            raise UnknownBase
        reached[account] = Revision(revision, _ANY)
        changed[key_id] = None if last8 is None else AccountRemovedRow(key_id, last8, removed=True, account=account)
    if any(reached[account].number != way.end for account, way in ways.items()):
        raise UnknownBase
    return changed


def _read_ways(connection: Connection, base: Revision, present: Revision, at_most: int) -> dict[str, _Way]:
    """Read where the changes of each account begin and end, if they are not too many."""
    wanted = {"base": base.number, "its_mark": base.mark, "at_most": at_most + 1}
    reached = base.number
    ways: dict[str, _Way] = {}
    changes = steps = 0
    for revision, account, number, mark, end, end_mark in connection.execute(_LATER_STEPS, wanted):
        steps += 1
        if revision > reached + 1 or end is None or (number == end and mark != end_mark):
            raise UnknownBase
        reached = revision
        if account not in ways:
            ways[account] = _Way(Revision(number, mark), end)
            changes += end - number
    if reached != present.number or max(changes, steps) > at_most:
        raise UnknownBase
    return ways


def _read_events(
    connection: Connection, begins: Mapping[str, Revision], defer: Callable[[float], None]
) -> list[tuple[Any, ...]]:
    """Read the events of accounts after these revisions of them."""
    ordered, found = tuple(begins.items()), list[tuple[Any, ...]]()
    for start in range(0, len(ordered), _ACCOUNTS):
        begun = time.monotonic()
        later = (
            and_(events.c.account == account, events.c.revision > begin.number)
            for account, begin in ordered[start : start + _ACCOUNTS]
        )
        found += (tuple(row) for row in connection.execute(_EVENTS.where(or_(*later))))
        if start + _ACCOUNTS < len(ordered):
            defer(time.monotonic() - begun)
    # The databases sort slower, or read the whole index in its order.
    return sorted(found, key=itemgetter(0, 1))
