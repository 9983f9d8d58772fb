"""Database: the transactions of a hub, on whichever database it has.

The database may be down when the hub starts, and later. Until it has been migrated, every transaction tries that first;
whatever transaction fails because nobody answers says so as DatabaseDown, and the next one tries again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gatekeeper.errors import ConfigError, DatabaseDown
from gatekeeper.hub.engines import Engines, Place
from gatekeeper.hub.postgres import SCHEMES, PostgresServer
from gatekeeper.hub.sqlite import SqliteFile, blames_statement

__all__ = ("Database", "find_place")

RETRY_PAUSE: Final = 1.0  # Seconds; without a pause, requests would queue for attempts to reach a database that is down.

# What drivers raise where the database cannot be reached, shuts down, is full or locked, and SQLAlchemy where all of its
# connections are taken for long. PostgreSQL's complaints about a statement are of other classes; SQLite has a code for them.
_MAYBE_DOWN: Final = (OperationalError, InterfaceError, PoolTimeoutError)

_log = logging.getLogger(__name__)


def find_place(database: str | Path) -> Place:
    """Read where a database is.

    Args:
        database: the path of a SQLite file, or the URL of a PostgreSQL database.

    Returns:
        The place, to which nobody has connected yet.

    Raises:
        ConfigError: it is neither.
        ImportError: it is a PostgreSQL database, and the extra `postgres` is not installed.
    """
    named = str(database)
    if isinstance(database, str) and named.startswith(SCHEMES):
        return PostgresServer(named)
    if isinstance(database, str) and "://" in named:
        scheme = named.partition("://")[0]
        raise ConfigError([f"database is a URL of the scheme {scheme!r}, and neither postgresql:// nor the path of a file"])
    if named in {"", "."} or named.startswith(":memory:"):
        raise ConfigError([f"database {named!r} is not the path of a file"])
    return SqliteFile(Path(database))


class Database:
    """The database of a hub.

    Args:
        place: where it is.
        retry_pause: seconds between two attempts to migrate a database that is down.
    """

    def __init__(self, place: Place, *, retry_pause: float = RETRY_PAUSE) -> None:
        self._place = place
        self._retry_pause = retry_pause
        self._engines: Engines | None = None
        self._migrating: asyncio.Lock | None = None
        self._next_attempt = 0.0
        self._down = False

    def migrate(self) -> None:
        """Bring the database to the newest schema; blocks.

        Raises:
            ConfigError: a newer gatekeeper has been at the database.
            DatabaseDown: nobody answers.
            sqlite3.DatabaseError: the file cannot be opened or is not a database.
        """
        try:
            self._place.migrate()
        except _MAYBE_DOWN as error:
            if blames_statement(error):
                raise
            raise self._is_down(error) from error

    async def open(self) -> None:
        """Bring the database to the newest schema, or leave that to the first transaction where it is down.

        Raises:
            ConfigError: a newer gatekeeper has been at the database.
            sqlite3.DatabaseError: the file cannot be opened or is not a database.
        """
        self._migrating = asyncio.Lock()
        self._next_attempt = 0.0
        try:
            await self._migrated()
        except DatabaseDown:
            # It is in the log, and every request says so.
            return

    async def close(self) -> None:
        """Close all connections; the last one to a SQLite file also folds its write-ahead log into it."""
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
        """Open a transaction as `reading` does, for reads as slow as a client downloads."""
        return self._transaction(lambda engines: engines.streamer)

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction for reads and writes, as `reading` does; an exception rolls it back."""
        return self._transaction(lambda engines: engines.writer)

    @asynccontextmanager
    async def _transaction(self, choose: Callable[[Engines], AsyncEngine]) -> AsyncIterator[AsyncConnection]:
        engine = choose(await self._migrated())
        try:
            async with engine.begin() as connection:
                yield connection
        except _MAYBE_DOWN as error:
            if blames_statement(error):
                raise
            raise self._is_down(error) from error
        if self._down:
            self._down = False
            _log.warning("the hub's database answers again")

    async def _migrated(self) -> Engines:
        if self._migrating is None:
            problem = "gatekeeper: the hub has not been started; a server runs its lifespan, a mount or a test has to"
            raise RuntimeError(problem)
        if self._engines is not None:
            return self._engines
        async with self._migrating:
            now = asyncio.get_running_loop().time()
            if self._engines is None and now < self._next_attempt:
                raise DatabaseDown
            if self._engines is None:
                try:
                    # In a thread, because Alembic is not asynchronous and connecting may take its time.
                    await asyncio.to_thread(self.migrate)
                except DatabaseDown:
                    self._next_attempt = asyncio.get_running_loop().time() + self._retry_pause
                    raise
                self._engines = self._place.engines()
            return self._engines

    def _is_down(self, error: Exception) -> DatabaseDown:
        if not self._down:
            self._down = True
            reason = str(error).partition("\n")[0]
            _log.warning("the hub's database does not answer: %s", reason)
        return DatabaseDown()
