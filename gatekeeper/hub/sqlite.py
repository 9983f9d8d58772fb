"""SqliteFile: a database in a file on this machine."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from gatekeeper.hub.engines import CONNECTIONS, OPTIONS, PATIENCE, READERS_EACH, Engines
from gatekeeper.hub.files import create_private
from gatekeeper.hub.pools import Pool
from gatekeeper.hub.sqlite_changes import SqliteChanges
from gatekeeper.hub.turns import Turns

__all__ = ("PRIMARY_CODE", "SqliteFile", "blames_statement", "is_unavailable")

BUSY_TIMEOUT: Final = 10.0  # Seconds; sqlite3's own default is 5.

BUSY_PAUSE: Final = 0.02  # Seconds between two attempts, for a statement that ignores the busy timeout.
PRIMARY_CODE: Final = 0xFF  # The low byte of an extended error code of SQLite is its primary code.

# Files that are locked, on a full disk, or on one that fails or is read-only (https://www.sqlite.org/rescode.html).
_UNAVAILABLE: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}
)


class SqliteFile:
    """A SQLite file with a write-ahead log.

    SQLite has one writer at a time, and the others poll for the lock in no order. So this process writes over a single
    connection, at which its writers take turns. BEGIN IMMEDIATE and the busy timeout arbitrate between processes.

    Args:
        path: the file; `migrate` creates it if it does not exist, with mode 0600.
        busy_timeout: the longest wait for another process's transaction, in seconds.
        patience: the longest wait for the turn of a request in this process, in seconds.
    """

    # Nothing else uses this number. SQLite writes its page at each commit, also if the number stays.
    write_check = ("PRAGMA user_version = 0",)

    def __init__(self, path: Path, *, busy_timeout: float = BUSY_TIMEOUT, patience: float = PATIENCE) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._patience = patience

    def migrate(self, upgrade: Callable[[Connection], None]) -> None:
        """Create the file if necessary, and upgrade it.

        Args:
            upgrade: a function that is called in a transaction, which excludes other writers and rolls back if it raises.

        Raises:
            sqlite3.DatabaseError: the file cannot be opened, is not a database, or `is_unavailable`.
            sqlalchemy.exc.DBAPIError: the same, during the upgrade.
        """
        # SQLite would create the file with the mode of the umask. It gives the log the mode of the file.
        with suppress(OSError):
            create_private(self._path)
        with self._connected() as connection:
            connection.execute("PRAGMA schema_version")
        engine = create_engine(self._url(), connect_args=self._arguments, hide_parameters=True)
        event.listen(engine, "begin", _begin_immediate)
        try:
            with engine.begin() as transaction:
                upgrade(transaction)
        finally:
            engine.dispose()
        # Not before the upgrade, which refuses the databases of other programs.
        with self._connected() as connection:
            _switch_to_log(connection, self._busy_timeout)

    def engines(self) -> Engines:
        """Make the engines, without connecting."""
        reader = self._pool(CONNECTIONS, "to read", _begin, each=READERS_EACH)
        streamer = self._pool(CONNECTIONS, "to read", _begin)
        writer = self._pool(1, "to write", _begin_immediate)
        event.listen(writer.engine, "connect", _prepare_writer)
        return Engines(reader, streamer, writer, reporter=writer)

    def _pool(self, size: int, purpose: str, begin: Callable[[Connection], None], *, each: int | None = None) -> Pool:
        # The last one has the most in its cache.
        engine = create_engine(self._url(), connect_args=self._arguments, pool_size=size, pool_use_lifo=True, **OPTIONS)
        event.listen(engine, "begin", begin)
        return Pool(engine, Turns(size, purpose, patience=self._patience, each=each))

    def changes(self) -> SqliteChanges:
        """Make what tells of changes by other processes, without connecting."""
        return SqliteChanges(self._path)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=self._busy_timeout)) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            error.add_note(f"gatekeeper: the hub's database is {self._path}")
            raise

    @property
    def _arguments(self) -> dict[str, object]:
        # Without an isolation level, the driver does not begin transactions by itself.
        return {"isolation_level": None, "timeout": self._busy_timeout}

    def _url(self) -> URL:
        return URL.create("sqlite", database=str(self._path))


def _switch_to_log(connection: sqlite3.Connection, timeout: float) -> None:
    # SQLite ignores its busy timeout for this statement. Migrations run in a thread, never in the event loop.
    retrying = Retrying(
        retry=retry_if_exception(_is_busy), stop=stop_after_delay(timeout), wait=wait_fixed(BUSY_PAUSE), reraise=True
    )
    retrying(connection.execute, "PRAGMA journal_mode = WAL")


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & PRIMARY_CODE == sqlite3.SQLITE_BUSY


def blames_statement(error: Exception) -> bool:
    """Whether SQLite refused a statement, not a locked, full or missing file.

    Args:
        error: an error; sqlite3 raises OperationalError for both.
    """
    return getattr(getattr(error, "orig", None), "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


def is_unavailable(error: sqlite3.DatabaseError) -> bool:
    """Whether a file is locked, full, failing or read-only. A retry may succeed.

    Args:
        error: an error of sqlite3.
    """
    return error.sqlite_errorcode & PRIMARY_CODE in _UNAVAILABLE


def _prepare_writer(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    # FULL syncs the log at every commit, so acknowledged writes survive a power cut as well as a kill. NORMAL may lose the
    # last ones in a power cut (https://www.sqlite.org/pragma.html#pragma_synchronous).
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_immediate(connection: Connection) -> None:
    # A plain BEGIN locks at its first write, and fails immediately if another connection wrote since its first read.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
