"""Engines: the connection pools of a database."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, TypedDict

import msgspec
from sqlalchemy import Connection

from gatekeeper.hub.changes import Changes
from gatekeeper.hub.pools import Pool

__all__ = ("CONNECTIONS", "OPTIONS", "PATIENCE", "READERS_EACH", "DatabaseLocation", "Engines")

# For each of three pools; the reports have one more, and waiting for changes two. Five workers fit into PostgreSQL's 100.
CONNECTIONS: Final = 5

# Of those that read, for each account: a delta of 10,000 rows holds one for half a second.
READERS_EACH: Final = 2

# Seconds. Clients have a timeout too (gatekeeper's own: 10 s), so it is no use to let them wait longer.
PATIENCE: Final = 8.0


class EngineOptions(TypedDict):
    """Options of create_engine."""

    max_overflow: int
    hide_parameters: bool
    json_serializer: Callable[[Any], str]
    json_deserializer: Callable[[str | bytes], Any]


def _write_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# Error messages end up in logs, so they must not contain parameters. msgspec reads JSON in a fifth of json's time.
OPTIONS: Final = EngineOptions(
    max_overflow=0,
    hide_parameters=True,
    json_serializer=_write_json,
    json_deserializer=msgspec.json.decode,
)


class Engines(NamedTuple):
    """The engines of an open database.

    Each has a pool of its own, so that none starves the others.

    Attributes:
        reader: transactions that see one state of the database.
        streamer: the same, for whole lists.
        writer: transactions that see all commits before each statement (PostgreSQL) or exclude other writers (SQLite).
        reporter: the same, for the reports of gates. It is the writer where a database has one writer at a time.
    """

    reader: Pool
    streamer: Pool
    writer: Pool
    reporter: Pool


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

    def changes(self) -> Changes:
        """Make what tells of changes by other processes, without connecting."""
        ...
