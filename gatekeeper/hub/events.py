"""Events: the append-only history of widget keys, which outlives the keys.

It is the log of changes as well. An event has the account's revision after its change, and the mark of the one before, so
that `read_changed` can follow the log from one revision to another. The hub removes no event, and so forgets no deleted key.
An operator who deletes the oldest events loses only the way from the revisions before them.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec
from sqlalchemy import BigInteger, Connection, bindparam, case, exists, func, insert, outerjoin, select

from gatekeeper.hub.accounts import Revision
from gatekeeper.hub.rows import KeyRow, row_columns
from gatekeeper.hub.tables import events, widget_keys
from gatekeeper.hub.tokens import Bearer

__all__ = (
    "DELETED_LAST8",
    "Action",
    "Change",
    "ChangedKey",
    "EventRow",
    "UnknownBase",
    "add_event",
    "find_deleted",
    "read_changed",
    "read_events",
)

Action = Literal["created", "updated", "disabled", "enabled", "deleted"]

# The last 8 characters of a deleted key in its last event; NULL in all other events, and in the deletions by older hubs.
DELETED_LAST8: Final = case((events.c.action == "deleted", events.c.changes["last8", "before"].as_string()))

_PAGE: Final = 1000  # Events per query. One with its row has half a kilobyte, usually.

_ADD: Final = insert(events).values(
    id=select(func.count() + 1).where(events.c.key_id == bindparam("its_key")).scalar_subquery()
)

_MINE: Final = events.c.account == bindparam("its_account")
_BASE: Final = bindparam("base", type_=BigInteger)
# Found by the index first, so that a base of another history costs no read of the log.
_IS_KNOWN: Final = exists().where(_MINE, events.c.revision == _BASE + 1, events.c.base_mark == bindparam("its_mark"))
# With the rows as they are now, because a statement of their own would take another round trip.
_LATER: Final = (
    select(events.c.revision, events.c.key_id, DELETED_LAST8, widget_keys.c.sequence, *row_columns(KeyRow))
    .select_from(outerjoin(events, widget_keys, widget_keys.c.id == events.c.key_id))
    .where(_MINE, events.c.revision > bindparam("reached", type_=BigInteger), _IS_KNOWN)
    .order_by(events.c.revision)
    .limit(_PAGE)
)


class Change(msgspec.Struct, frozen=True):
    """The old and the new value of a field; null for none.

    Attributes:
        before: the old value.
        after: the new value.
    """

    before: Any
    after: Any


class EventRow(msgspec.Struct, frozen=True):
    """An event in the life of a widget key.

    Attributes:
        id: the number of the event in the history of the key, from 1.
        key_id: the key's id.
        action: what happened.
        token_name: the name of the bearer token that was used.
        at: when.
        changes: the fields that changed.
    """

    id: int
    key_id: str
    action: Action
    token_name: str
    at: datetime
    changes: dict[str, Change]


class ChangedKey(NamedTuple):
    """A key that has changed.

    Attributes:
        id: the key's id.
        last8: the last 8 characters of a deleted key, if this change is its deletion and the event names them.
        row: its place in the list and its row, as they are now; None if the key was deleted.
    """

    id: str
    last8: str | None
    row: tuple[int, KeyRow] | None


class UnknownBase(Exception):
    """The log does not lead from a revision to the present."""


def add_event(
    connection: Connection,
    bearer: Bearer,
    base: Revision,
    key_id: str,
    action: Action,
    at: datetime,
    changes: Mapping[str, Change],
) -> None:
    """Add an event in the transaction of the change itself.

    Args:
        connection: a connection in a transaction that has locked the account.
        bearer: the bearer who made the change.
        base: the account's revision before the change.
        key_id: the key's id.
        action: what happened.
        at: when.
        changes: the fields that changed.
    """
    row = {
        "its_key": key_id,
        "key_id": key_id,
        "account": bearer.account,
        "action": action,
        "token_name": bearer.token_name,
        "at": at,
        "changes": msgspec.to_builtins(changes),
        "revision": base.number + 1,
        "base_mark": base.mark,
    }
    connection.execute(_ADD, row)


def read_events(connection: Connection, account: str, key_id: str) -> list[EventRow]:
    """Read the events of a key, oldest first.

    Args:
        connection: a connection in a transaction.
        account: the account that has or had the key.
        key_id: the key's id.

    Returns:
        The events; empty if the account has never had this key.
    """
    columns = [events.c[field] for field in EventRow.__struct_fields__]
    mine = select(*columns).where(events.c.key_id == key_id, events.c.account == account).order_by(events.c.id)
    return [
        EventRow(number, key, action, token_name, at, msgspec.convert(changes, dict[str, Change]))
        for number, key, action, token_name, at, changes in connection.execute(mine)
    ]


def find_deleted(connection: Connection, account: str, last8: str) -> str | None:
    """Find a deleted key by its last 8 characters.

    Args:
        connection: a connection in a transaction.
        account: the account that had the key.
        last8: the last 8 characters of the key.

    Returns:
        The key's id; None if no such deletion is known. Deletions by older versions of the hub have no last 8 characters.
    """
    had = events.c.changes["last8", "before"].as_string() == last8
    deleted = select(events.c.key_id).where(events.c.account == account, events.c.action == "deleted", had)
    return connection.scalar(deleted.order_by(events.c.at.desc()).limit(1))


def read_changed(
    connection: Connection, account: str, base: Revision, present: Revision, defer: Callable[[float], None]
) -> Iterator[list[ChangedKey]]:
    """Read in pages which keys of an account have changed.

    Args:
        connection: a connection in a transaction whose reads all see one state of the database.
        account: an account that exists.
        base: the revision.
        present: the revision of the account in this state.
        defer: lets others go first, between two pages. It is given the seconds that a page has taken.

    Yields:
        The changed keys, in the order of their changes. A key comes once if it exists, and once a change if it was deleted.

    Raises:
        UnknownBase: the log does not lead from the base to the present: the base is of another history of the database, or
            events are missing since a restore or an older hub.
    """
    reached = base.number
    if reached >= present.number and base != present:
        raise UnknownBase
    found = set[str]()
    while reached < present.number:
        begun = time.monotonic()
        page: list[ChangedKey] = []
        wanted = {"its_account": account, "base": base.number, "its_mark": base.mark, "reached": reached}
        events_and_rows = connection.execute(_LATER, wanted).all()
        for revision, key_id, last8, sequence, *fields in events_and_rows:
            if revision > reached + 1:
                raise UnknownBase
            reached = revision
            if sequence is None:
                page.append(ChangedKey(key_id, last8, None))
            elif key_id not in found:
                found.add(key_id)
                page.append(ChangedKey(key_id, None, (sequence, KeyRow(*fields))))
        if not events_and_rows or reached > present.number:
            raise UnknownBase
        yield page
        if reached < present.number:
            defer(time.monotonic() - begun)
