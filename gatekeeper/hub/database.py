"""Database: the transactions of a hub, on SQLite or PostgreSQL.

The database may be down when the hub starts, or later. A transaction first migrates the database if that has not succeeded
yet. It raises DatabaseDown if the database does not answer or cannot be used; the next transaction tries again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
from sqlalchemy import Connection, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gatekeeper.errors import ConfigError, DatabaseDown
from gatekeeper.hub.engines import DatabaseLocation, Engines
from gatekeeper.hub.migrations import upgrade
from gatekeeper.hub.pepper import check_pepper
from gatekeeper.hub.postgres import SCHEMES, PostgresServer
from gatekeeper.hub.sqlite import SqliteFile, blames_statement
from gatekeeper.hub.tables import accounts

__all__ = ("Database", "parse_location")

RETRY_PAUSE: Final = 1.0  # Seconds; without a pause, requests would queue up while the database is down.

# Drivers raise the first two if the database cannot be reached, shuts down, is full or locked; SQLAlchemy raises the third
# if no connection of the pool becomes free. PostgreSQL raises other classes for a bad statement, SQLite the same one with
# another code.
_MAYBE_DOWN: Final = (OperationalError, InterfaceError, PoolTimeoutError)

_log = logging.getLogger(__name__)


def parse_location(database: str | Path) -> DatabaseLocation:
    """Parse the path or the URL of a database.

    Args:
        database: the path of a SQLite file, or the URL of a PostgreSQL database.

    Returns:
        The location; nothing has connected to it yet.

    Raises:
        ConfigError: neither a path nor a PostgreSQL URL.
        ImportError: a PostgreSQL URL without the extra `postgres` installed.
    """
    named = str(database)
    if isinstance(database, str) and named.startswith(SCHEMES):
        return PostgresServer(named)
    if isinstance(database, str) and "://" in named:
        scheme = named.partition("://")[0]
        raise ConfigError([f"database is a URL with the scheme {scheme!r}: expected postgresql:// or the path of a file"])
    if named in {"", "."} or named.startswith(":memory:"):
        raise ConfigError([f"database is {named!r}: expected the path of a file"])
    return SqliteFile(Path(database))


class Database:
    """The database of a hub.

    Args:
        location: the file or the server.
        create: whether to create the tables of a hub in a database without them.
        retry_pause: seconds between two attempts to migrate a database that is down.
    """

    def __init__(self, location: DatabaseLocation, *, create: bool = True, retry_pause: float = RETRY_PAUSE) -> None:
        self._location = location
        self._create = create
        self._retry_pause = retry_pause
        self._engines: Engines | None = None
        self._migrating: asyncio.Lock | None = None
        self._check_value: str | None = None
        self._next_attempt = 0.0
        self._problem: str | None = None

    def migrate(self, check_value: str | None = None) -> None:
        """Upgrade the database to the newest schema, and check its pepper. This blocks.

        Args:
            check_value: the check value of the pepper, from `Mint.check_value`; None to check no pepper.

        Raises:
            ConfigError: the schema comes from a newer gatekeeper, the pepper is another one, or there are no tables.
            DatabaseDown: the database does not answer.
            sqlite3.DatabaseError: the file cannot be opened or is not a database.
        """

        def prepare(connection: Connection) -> None:
            upgrade(connection, create=self._create)
            if check_value is not None:
                check_pepper(connection, check_value)

        try:
            self._location.migrate(prepare)
        except _MAYBE_DOWN as error:
            if blames_statement(error):
                raise
            raise self._is_down("does not answer", error) from error

    async def open(self, check_value: str) -> None:
        """Upgrade the schema and check the pepper. If the database is down, the first transaction does it.

        Args:
            check_value: the check value of the pepper, from `Mint.check_value`.

        Raises:
            ConfigError: the schema comes from a newer gatekeeper, the pepper is another one, or there are no tables.
            sqlite3.DatabaseError: the file cannot be opened or is not a database.
        """
        self._migrating = asyncio.Lock()
        self._check_value = check_value
        self._next_attempt = 0.0
        try:
            await self._migrated()
            # A restore refuses a SQLite file to which a connection is open, and a connection opens it at its first read.
            async with self.reading() as connection:
                await connection.execute(select(accounts.c.name).limit(1))
        except DatabaseDown:
            # Already logged. Requests answer 503 until it is up.
            return

    async def close(self) -> None:
        """Close all connections. The last one to a SQLite file merges its write-ahead log into it."""
        engines, self._engines, self._migrating = self._engines, None, None
        for engine in engines or ():
            await engine.dispose()

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction whose reads all see one state of the database.

        Returns:
            A context manager that gives the connection and raises DatabaseDown if the database does not answer.
        """
        return self._transaction(lambda engines: engines.reader)

    def streaming(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction like `reading`, for reads as slow as a download."""
        return self._transaction(lambda engines: engines.streamer)

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction like `reading`, for writes too. An exception rolls it back."""
        return self._transaction(lambda engines: engines.writer)

    @asynccontextmanager
    async def _transaction(self, choose: Callable[[Engines], AsyncEngine]) -> AsyncIterator[AsyncConnection]:
        try:
            engine = choose(await self._migrated())
        except ConfigError as error:
            # The database was down when the hub started.
            raise self._is_down("cannot be used", error) from error
        try:
            # SQLAlchemy closes a connection gracefully after one cancellation, but anyio cancels again at every await. With
            # aiosqlite 0.22, a task is left that waits forever for its thread, even when the event loop closes.
            with anyio.CancelScope(shield=True) as connecting_or_closing:
                async with engine.begin() as connection:
                    connecting_or_closing.shield = False
                    try:
                        yield connection
                    finally:
                        connecting_or_closing.shield = True
        except _MAYBE_DOWN as error:
            if blames_statement(error):
                raise
            raise self._is_down("does not answer", error) from error
        if self._problem is not None:
            self._problem = None
            _log.warning("the hub's database answers again")

    async def _migrated(self) -> Engines:
        if self._migrating is None:
            problem = (
                "gatekeeper: the hub is not running; run the lifespan of its app (servers do; mounts and tests have to)"
            )
            raise RuntimeError(problem)
        if self._engines is not None:
            return self._engines
        async with self._migrating:
            now = asyncio.get_running_loop().time()
            if self._engines is None and now < self._next_attempt:
                raise DatabaseDown
            if self._engines is None:
                try:
                    # Alembic is synchronous, and connecting may take seconds.
                    await asyncio.to_thread(self.migrate, self._check_value)
                except (ConfigError, DatabaseDown):
                    self._next_attempt = asyncio.get_running_loop().time() + self._retry_pause
                    raise
                self._engines = self._location.engines()
            return self._engines

    def _is_down(self, problem: str, error: Exception) -> DatabaseDown:
        if problem != self._problem:
            self._problem = problem
            reason = str(error).partition("\n")[0].removeprefix("gatekeeper: ")
            _log.warning("the hub's database %s: %s", problem, reason)
        return DatabaseDown()
