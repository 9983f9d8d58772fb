"""Events: who did what to a widget key, and when. They are only ever added, and outlive the key."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gatekeeper.hub.tables import events
from gatekeeper.hub.tokens import Bearer

__all__ = ("Action", "Change", "EventRow", "add_event", "read_events")

Action = Literal["created", "updated", "disabled", "enabled", "deleted"]


class Change(msgspec.Struct, frozen=True):
    """What a field of a widget key was and became; None where the key was not there, or the field is empty.

    Attributes:
        before: the value until then.
        after: the value from then on.
    """

    before: Any
    after: Any


class EventRow(msgspec.Struct, frozen=True):
    """An event in the life of a widget key.

    Attributes:
        id: the event's number among those of the key, from 1.
        key_id: the key's id.
        action: what happened.
        token_name: the name of the bearer token with which it was done.
        at: when.
        changes: the fields that changed.
    """

    id: int
    key_id: str
    action: Action
    token_name: str
    at: datetime
    changes: dict[str, Change]


async def add_event(
    connection: AsyncConnection, bearer: Bearer, key_id: str, action: Action, at: datetime, changes: Mapping[str, Change]
) -> None:
    """Add an event, in the transaction of what it tells about.

    Args:
        connection: in a transaction that the account's other writers wait for.
        bearer: who did it.
        key_id: to which key.
        action: what.
        at: when.
        changes: the fields that changed.
    """
    earlier = select(func.count() + 1).where(events.c.key_id == key_id).scalar_subquery()
    row = {
        "id": earlier,
        "key_id": key_id,
        "account": bearer.account,
        "action": action,
        "token_name": bearer.token_name,
        "at": at,
        "changes": msgspec.to_builtins(changes),
    }
    await connection.execute(insert(events).values(row))


async def read_events(connection: AsyncConnection, account: str, key_id: str) -> list[EventRow]:
    """Read the events of a key, oldest first.

    Args:
        connection: in any transaction.
        account: whose key it is.
        key_id: its id.

    Returns:
        The events; none where the account has never had such a key.
    """
    columns = [events.c[field] for field in EventRow.__struct_fields__]
    mine = select(*columns).where(events.c.key_id == key_id, events.c.account == account).order_by(events.c.id)
    return [
        EventRow(number, key, action, token_name, at, msgspec.convert(changes, dict[str, Change]))
        for number, key, action, token_name, at, changes in await connection.execute(mine)
    ]
