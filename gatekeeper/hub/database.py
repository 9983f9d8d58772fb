"""Database: the SQLite file, its connections and its transactions."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from gatekeeper.hub.tables import metadata

__all__ = ("Database",)

BUSY_TIMEOUT: Final = 10.0  # Seconds to wait for another process's transaction; sqlite3's own default is 5.


class Database:
    """The SQLite file of a hub.

    SQLite lets one writer in at a time and makes the others poll for their turn, in no order. So this process writes
    over one connection, for which its writers queue; BEGIN IMMEDIATE and the busy timeout settle it with others.

    Args:
        path: the file; it is made by `open` where it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engines: tuple[AsyncEngine, AsyncEngine] | None = None

    async def open(self) -> None:
        """Connect, switch the file to write-ahead logging, and make the tables that are missing.

        Raises:
            sqlite3.DatabaseError: the file cannot be opened or is not a database.
        """
        # Not left to aiosqlite: where that cannot open a file, its thread outlives the error, and then the event loop.
        await asyncio.to_thread(_prepare_file, self._path)
        url = URL.create("sqlite+aiosqlite", database=str(self._path))
        # Without an isolation level the driver begins no transaction of its own accord. Parameters stay out of error
        # messages, because those end up in logs.
        arguments = {"isolation_level": None, "timeout": BUSY_TIMEOUT}
        reader = create_async_engine(url, connect_args=arguments, hide_parameters=True)
        writer = create_async_engine(url, connect_args=arguments, hide_parameters=True, pool_size=1, max_overflow=0)
        for engine in (reader, writer):
            event.listen(engine.sync_engine, "connect", _enforce_foreign_keys)
        event.listen(reader.sync_engine, "begin", _begin)
        event.listen(writer.sync_engine, "begin", _begin_immediate)
        self._engines = reader, writer
        async with self.writing() as connection:
            await connection.run_sync(metadata.create_all)

    async def close(self) -> None:
        """Close what is open; the last connection to go also folds the write-ahead log into the file."""
        engines, self._engines = self._engines or (), None
        for engine in engines:
            await engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Run reads that all see the same state of the database.

        Yields:
            The connection, in a transaction that ends with the block.
        """
        async with self._opened[0].begin() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Run reads and writes that happen all together, or not at all where the block raises.

        Yields:
            The connection, in a transaction that no other writer overlaps.
        """
        async with self._opened[1].begin() as connection:
            yield connection

    @property
    def _opened(self) -> tuple[AsyncEngine, AsyncEngine]:
        if self._engines is None:
            problem = "gatekeeper: the hub has not been started; a server runs its lifespan, a mount or a test has to"
            raise RuntimeError(problem)
        return self._engines


def _prepare_file(path: Path) -> None:
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.DatabaseError as error:
        error.add_note(f"gatekeeper: the hub's database is {path}")
        raise


def _enforce_foreign_keys(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_immediate(connection: Connection) -> None:
    # A plain BEGIN takes the lock at its first write, and fails at once where somebody wrote since its first read.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
