"""Database: the transactions of a hub, on SQLite or PostgreSQL.

What a transaction does is a plain function of its connection, which may block: it runs in a thread.

The database may be down when the hub starts, or later. A transaction first migrates the database if that has not succeeded
yet. It raises DatabaseDown if the database does not answer, or cannot do its work; the next transaction tries again. It
raises HubOverloaded if the database works, but the transaction has waited too long for others.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Literal, TypeVar

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from gatekeeper.errors import ConfigError, DatabaseDown, HubOverloaded
from gatekeeper.hub.changes import Changes
from gatekeeper.hub.engines import DatabaseLocation, Engines
from gatekeeper.hub.migrations import upgrade
from gatekeeper.hub.pepper import check_pepper
from gatekeeper.hub.pools import Pool, Transaction
from gatekeeper.hub.postgres import SCHEMES, PostgresServer
from gatekeeper.hub.sqlite import SqliteFile, blames_statement, is_unavailable
from gatekeeper.hub.tables import accounts

__all__ = ("Database", "PoolName", "parse_location")

RETRY_PAUSE: Final = 1.0  # Seconds; without a pause, requests would queue up while the database is down.

# Drivers raise these if the database cannot be reached, shuts down, is full or locked. PostgreSQL raises other classes for a
# bad statement, SQLite the same one with another code.
_MAYBE_DOWN: Final = (OperationalError, InterfaceError)

# What PostgreSQL raises as other classes (PostgreSQL documentation, appendix A).
_READ_ONLY: Final = "25006"
_SESSION_ENDED: Final = "25P03"  # the transaction was idle for too long
_PRIVILEGE_MISSING: Final = "42501"
_LOCK_TIMEOUT: Final = "55P03"

# What a start raises. A retry does not help: another pepper, a newer schema, a file that is not a database.
_REFUSALS: Final = (ConfigError, sqlite3.DatabaseError)

Result = TypeVar("Result")

Purpose = Literal["read", "write"]
PoolName = Literal["reader", "streamer", "writer", "reporter"]

_log = logging.getLogger(__name__)


def parse_location(database: str | Path, listen_database: str | None = None) -> DatabaseLocation:
    """Parse the path or the URL of a database.

    Args:
        database: the path of a SQLite file, or the URL of a PostgreSQL database.
        listen_database: the URL of the same PostgreSQL database that leads to the server itself; None if that of the
            database does.

    Returns:
        The location; nothing has connected to it yet.

    Raises:
        ConfigError: neither a path nor a PostgreSQL URL, or a second URL that is not PostgreSQL's or not needed.
        ImportError: a PostgreSQL URL without the extra `postgres` installed.
    """
    named = str(database)
    if isinstance(database, str) and named.startswith(SCHEMES):
        if listen_database is not None and not listen_database.startswith(SCHEMES):
            raise ConfigError(
                ["listen_database is no PostgreSQL URL: expected postgresql://user:password@host:port/database"]
            )
        return PostgresServer(named, listen_database)
    if listen_database is not None:
        raise ConfigError(["listen_database is for PostgreSQL, and database is none: a SQLite file needs no second one"])
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
        self._reason = ""
        self._failing: set[Purpose] = set()
        self._turn_ended = threading.Condition()

    def migrate(self, check_value: str | None = None) -> None:
        """Upgrade the database to the newest schema, and check its pepper. This blocks.

        Args:
            check_value: the check value of the pepper, from `Mint.check_value`; None to check no pepper.

        Raises:
            ConfigError: the schema comes from a newer gatekeeper, the pepper is another one, there are no tables, or the
                database refuses the upgrade.
            DatabaseDown: the database does not answer, or is read-only, full or locked.
            sqlite3.DatabaseError: the file cannot be opened or is not a database.
        """

        def prepare(connection: Connection) -> None:
            upgrade(connection, create=self._create)
            if check_value is not None:
                check_pepper(connection, check_value)

        try:
            self._location.migrate(prepare)
        except DBAPIError as error:
            if not _is_outage(error, _READ_ONLY):
                problem = f"the database refuses the upgrade of its schema: {_reason(error)}"
                expected = "expected tables of the hub alone, and a role that may create and alter them"
                raise ConfigError([f"{problem}; {expected}"]) from error
            raise DatabaseDown(_reason(error)) from error
        except sqlite3.DatabaseError as error:
            if not is_unavailable(error):
                raise
            raise DatabaseDown(_reason(error)) from error

    async def open(self, check_value: str) -> None:
        """Upgrade the schema and check the pepper. If the database is down, the first transaction does it.

        Args:
            check_value: the check value of the pepper, from `Mint.check_value`.

        Raises:
            ConfigError: the schema comes from a newer gatekeeper, the pepper is another one, there are no tables, or the
                database refuses the upgrade.
            sqlite3.DatabaseError: the file cannot be opened or is not a database.
        """
        self._migrating = asyncio.Lock()
        self._check_value = check_value
        self._next_attempt = 0.0
        try:
            await self._migrated()
            # A restore refuses a SQLite file to which a connection is open, and a connection opens it at its first read.
            await self.read(lambda connection: connection.execute(select(accounts.c.name).limit(1)).all())
        except DatabaseDown:
            # Already logged. Requests answer 503 until it is up.
            return

    async def close(self) -> None:
        """Close all connections. The last one to a SQLite file merges its write-ahead log into it."""
        engines, self._engines, self._migrating = self._engines, None, None
        for pool in set(engines or ()):
            await pool.close()

    async def read(self, work: Callable[[Connection], Result], account: str = "") -> Result:
        """Run a transaction whose reads all see one state of the database.

        A thread cannot be stopped, so a cancelled transaction goes on to its end, for which its task waits.

        Args:
            work: what it does. It runs in a thread.
            account: the account, which takes turns with others.

        Returns:
            What the work returns.

        Raises:
            DatabaseDown: the database does not answer.
            HubOverloaded: others keep it busy.
        """
        return await self._run("reader", work, account)

    async def write(self, work: Callable[[Connection], Result], account: str = "") -> Result:
        """Run a transaction like `read`, for writes too. An exception of the work rolls it back.

        Args:
            work: as for `read`.
            account: the account, which takes turns with others.
        """
        return await self._run("writer", work, account)

    @asynccontextmanager
    async def transaction(self, pool_name: PoolName, account: str = "") -> AsyncIterator[Transaction]:
        """Open a transaction of several functions.

        Args:
            pool_name: the pool of its connection, as of Engines. A transaction of the reporter lets other writes go first.
            account: the account, which takes turns with others.

        Yields:
            The transaction. An exception rolls it back.

        Raises:
            DatabaseDown: the database does not answer.
            HubOverloaded: others keep it busy.
        """
        async with self._turn(pool_name, account) as pool:
            transaction = Transaction(pool)
            try:
                await pool.run(transaction.begin)
                yield transaction
                await pool.run(transaction.commit)
            finally:
                await pool.run(transaction.close)

    def defer(self, at_most: float, *, held: int = 0) -> None:
        """Wait while other requests read or write. A list is less urgent, and so is a long delta.

        This blocks: it is for the thread of a transaction.

        Args:
            at_most: the longest wait, in seconds.
            held: the turns to read or write that the caller holds itself.
        """
        with self._turn_ended:
            self._turn_ended.wait_for(lambda: self._turns_held <= held, at_most)

    @property
    def _turns_held(self) -> int:
        engines = self._engines
        return 0 if engines is None else engines.reader.turns.held + engines.writer.turns.held

    def changes(self) -> Changes:
        """Make what tells of changes by other processes, without connecting."""
        return self._location.changes()

    async def check(self, *, write: bool) -> None:
        """Check that the database works.

        Args:
            write: whether to write as well. Nothing is left of this write, and no other waits for it.

        Raises:
            DatabaseDown: it does not answer, or refuses the write: it is read-only, full or locked, for example.
            HubOverloaded: others keep it busy.
        """
        statements = self._location.write_check if write else ("SELECT 1",)

        def run_all(connection: Connection) -> None:
            for statement in statements:
                connection.exec_driver_sql(statement)

        await (self.write if write else self.read)(run_all)

    async def _run(self, pool_name: PoolName, work: Callable[[Connection], Result], account: str) -> Result:
        async with self._turn(pool_name, account) as pool:

            def transact() -> Result:
                with pool.begun() as connection:
                    result = work(connection)
                    connection.commit()
                    return result

            return await pool.run(transact)

    @asynccontextmanager
    async def _turn(self, pool_name: PoolName, account: str) -> AsyncIterator[Pool]:
        """Wait for a turn at a pool, and hold it."""
        purpose: Purpose = "write" if pool_name in {"writer", "reporter"} else "read"
        try:
            pool: Pool = getattr(await self._migrated(), pool_name)
        except _REFUSALS as error:
            # Only the start raises it. Later, the operator reads the log, and requests get a 503.
            raise DatabaseDown(_reason(error)) from error
        try:
            async with pool.turns.taking(account, late=pool_name == "reporter"):
                with self._explained(purpose):
                    yield pool
        except HubOverloaded as error:
            # While the database is down, the transactions of others take as long as their deadlines.
            if self._failing & {purpose, "read"}:
                raise DatabaseDown(self._reason) from error
            raise
        finally:
            with self._turn_ended:
                self._turn_ended.notify_all()

    @contextmanager
    def _explained(self, purpose: Purpose) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if _has_sqlstate(error, _LOCK_TIMEOUT):
                raise HubOverloaded("a statement has waited too long for a lock") from error
            if not _is_outage(error, _READ_ONLY, _SESSION_ENDED, _PRIVILEGE_MISSING):
                raise
            self._fails(purpose, error)
            raise DatabaseDown(_reason(error)) from error
        self._succeeds(purpose)

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
                raise DatabaseDown(self._reason)
            if self._engines is None:
                try:
                    # Alembic is synchronous, and connecting may take seconds.
                    await asyncio.to_thread(self.migrate, self._check_value)
                except (*_REFUSALS, DatabaseDown) as error:
                    self._fails("read", error)
                    self._next_attempt = asyncio.get_running_loop().time() + self._retry_pause
                    raise
                self._succeeds("read")
                self._engines = self._location.engines()
            return self._engines

    def _fails(self, purpose: Purpose, error: Exception) -> None:
        reason = _reason(error)
        # If reads fail, writes fail too. A database that was down may be back with another pepper.
        is_known = bool(self._failing & {purpose, "read"}) and not (isinstance(error, _REFUSALS) and reason != self._reason)
        if not is_known:
            _log.warning("the hub's database does not answer as it should: %s", reason)
        self._reason = reason
        self._failing.add(purpose)

    def _succeeds(self, purpose: Purpose) -> None:
        if purpose in self._failing:
            # If writes succeed, reads do too. Reads do not end the outage of a read-only database.
            self._failing -= {purpose, "read"}
            if not self._failing:
                _log.warning("the hub's database answers again")


def _is_outage(error: Exception, *sqlstates: str) -> bool:
    if isinstance(error, _MAYBE_DOWN):
        return not blames_statement(error)
    return _has_sqlstate(error, *sqlstates)


def _has_sqlstate(error: Exception, *sqlstates: str) -> bool:
    return getattr(getattr(error, "orig", None), "sqlstate", None) in sqlstates


def _reason(error: Exception) -> str:
    """What the database or the driver said, in one line, without the statement."""
    if isinstance(error, DatabaseDown):
        return error.reason
    said = getattr(error, "orig", error)
    primary = getattr(getattr(said, "diag", None), "message_primary", None)
    return primary or " ".join(str(said).removeprefix("gatekeeper: ").split())
