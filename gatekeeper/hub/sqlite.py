"""SqliteFile: a hub's database in one file of this machine."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from gatekeeper.hub.engines import OPTIONS, Engines
from gatekeeper.hub.migrations import upgrade

__all__ = ("SqliteFile", "blames_statement")

BUSY_TIMEOUT: Final = 10.0  # Seconds; sqlite3's own default is 5.

BUSY_PAUSE: Final = 0.02  # Seconds between two attempts where SQLite does not wait by itself.
_PRIMARY_CODE: Final = 0xFF  # The part of SQLite's error codes that all kinds of an error share.


class SqliteFile:
    """A file, written ahead to a log beside it.

    SQLite lets one writer in at a time and makes the others poll for their turn, in no order. So this process writes
    over one connection, for which its writers queue; BEGIN IMMEDIATE and the busy timeout settle it with others.

    Args:
        path: the file; it is made by `migrate` where it does not exist.
        busy_timeout: seconds to wait for another process's transaction.
    """

    def __init__(self, path: Path, *, busy_timeout: float = BUSY_TIMEOUT) -> None:
        self._path = path
        self._busy_timeout = busy_timeout

    def migrate(self) -> None:
        """Make the file where it is missing, switch it to write-ahead logging, and bring it to the newest schema.

        Raises:
            ConfigError: a newer gatekeeper has been at the file.
            sqlite3.DatabaseError: the file cannot be opened or is not a database.
            sqlalchemy.exc.OperationalError: somebody else keeps the file locked.
        """
        try:
            with closing(sqlite3.connect(self._path, timeout=self._busy_timeout)) as connection:
                _switch_to_log(connection, self._busy_timeout)
        except sqlite3.DatabaseError as error:
            error.add_note(f"gatekeeper: the hub's database is {self._path}")
            raise
        engine = create_engine(self._url("sqlite"), connect_args=self._arguments, hide_parameters=True)
        event.listen(engine, "begin", _begin_immediate)
        try:
            with engine.begin() as transaction:
                upgrade(transaction)
        finally:
            engine.dispose()

    def engines(self) -> Engines:
        """Make the engines, without connecting."""
        url = self._url("sqlite+aiosqlite")
        reader, streamer = (create_async_engine(url, connect_args=self._arguments, **OPTIONS) for _ in range(2))
        writer = create_async_engine(url, connect_args=self._arguments, **{**OPTIONS, "pool_size": 1})
        for engine in (reader, streamer):
            event.listen(engine.sync_engine, "begin", _begin)
        event.listen(writer.sync_engine, "begin", _begin_immediate)
        event.listen(writer.sync_engine, "connect", _prepare_writer)
        return Engines(reader, streamer, writer)

    @property
    def _arguments(self) -> dict[str, object]:
        # Without an isolation level the driver begins no transaction of its own accord.
        return {"isolation_level": None, "timeout": self._busy_timeout}

    def _url(self, driver: str) -> URL:
        return URL.create(driver, database=str(self._path))


def _switch_to_log(connection: sqlite3.Connection, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # SQLite does not wait for others here, whatever its timeout is; whoever starts at the same time is soon done.
            if error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE)  # in the migrations' own thread or process, where nobody else waits
        else:
            return


def blames_statement(error: Exception) -> bool:
    """Whether an error is SQLite's about a statement, and not about a file that is locked, full or gone.

    Args:
        error: of the class OperationalError, which sqlite3 raises for both.
    """
    return getattr(getattr(error, "orig", None), "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


def _prepare_writer(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    # FULL syncs the log at every commit, so that an acknowledged write survives a power cut as well as a kill; NORMAL
    # would lose the last of them to the former (https://www.sqlite.org/pragma.html#pragma_synchronous).
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_immediate(connection: Connection) -> None:
    # A plain BEGIN takes the lock at its first write, and fails at once where somebody wrote since its first read.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
