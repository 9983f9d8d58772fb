"""Engines: the connection pools of a database."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple, Protocol, TypedDict

import msgspec
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gatekeeper.hub.changes import Changes

__all__ = ("OPTIONS", "DatabaseLocation", "Engines")


class EngineOptions(TypedDict):
    """Options of create_async_engine."""

    pool_size: int
    max_overflow: int
    pool_timeout: float
    hide_parameters: bool
    json_serializer: Callable[[Any], str]
    json_deserializer: Callable[[str | bytes], Any]


def _write_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# Five connections for each of three pools: six workers fit into PostgreSQL's default of 100. Clients have a timeout too
# (gatekeeper's own: 10 s), so it is no use to wait longer for a connection. Error messages end up in logs, so they must not
# contain parameters. msgspec reads JSON in a fifth of json's time.
OPTIONS: Final = EngineOptions(
    pool_size=5,
    max_overflow=0,
    pool_timeout=10.0,
    hide_parameters=True,
    json_serializer=_write_json,
    json_deserializer=msgspec.json.decode,
)


class Engines(NamedTuple):
    """The engines of an open database.

    Each has a pool of its own, so that none starves the others.

    Attributes:
        reader: transactions that see one state of the database.
        streamer: the same, for answers that are sent as fast as the client reads them.
        writer: transactions that see all commits before each statement (PostgreSQL) or exclude other writers (SQLite).
    """

    reader: AsyncEngine
    streamer: AsyncEngine
    writer: AsyncEngine


class DatabaseLocation(Protocol):
    """A database file or server, before any connection.

    Attributes:
        write_check: the statements of a transaction that fails if the database cannot be written.
    """

    @property
    def write_check(self) -> tuple[str, ...]: ...  # noqa: D102 - an attribute

    def migrate(self, upgrade: Callable[[Connection], None]) -> None:
        """Upgrade the database. This blocks; concurrent calls are safe.

        Args:
            upgrade: a function that is called in a transaction, which excludes other migrations and rolls back if it raises.

        Raises:
            sqlalchemy.exc.DBAPIError: the database does not answer, or refuses the upgrade.
            sqlite3.DatabaseError: a file cannot be opened, is not a database, or `is_unavailable`.
        """
        ...

    def engines(self) -> Engines:
        """Make the engines, without connecting."""
        ...

    def changes(self, writing: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> Changes:
        """Make what tells of changes by other processes, without connecting.

        Args:
            writing: opens a transaction that can write; it raises DatabaseDown if the database does not answer.
        """
        ...
