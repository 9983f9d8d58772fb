"""PostgresServer: a database that several workers and machines can share."""

from collections.abc import Awaitable, Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError

from gatekeeper.errors import ConfigError
from gatekeeper.hub.engines import CONNECTIONS, OPTIONS, PATIENCE, READERS_EACH, Engines
from gatekeeper.hub.pools import Pool
from gatekeeper.hub.turns import Turns

if TYPE_CHECKING:
    from gatekeeper.hub.postgres_changes import PostgresChanges
    from gatekeeper.hub.postgres_connections import AsyncConnection
    from gatekeeper.hub.postgres_connections import Connection as DriverConnection

__all__ = ("SCHEMES", "PostgresServer")

SCHEMES: Final = ("postgresql://", "postgres://")  # libpq accepts both (PostgreSQL documentation, section 34.1.1.2).

STATEMENT_DEADLINE: Final = 5.0  # Seconds; with 5 s for a new connection, a client with a timeout of 10 s gets the 503.
MIGRATION_DEADLINE: Final = 60.0  # Seconds for one statement of a migration, which may build an index over all keys.

# Seconds for connecting, and milliseconds until the server acknowledges sent data. Without them, a server whose packets are
# dropped would block requests for minutes. The URL can override both.
_TIMEOUTS: Final = {"connect_timeout": "5", "tcp_user_timeout": "10000"}

# Of the deadline of a statement: its longest wait for a lock. A row takes two, one for the place in its queue
# (PostgreSQL's README.tuplock), and the server ends the statement after 0.8.
LOCK_SHARE: Final = 0.3
IDLE_TIMEOUT: Final = 10.0  # Seconds; a worker that is frozen in a transaction keeps its locks no longer.

WRITERS_EACH: Final = 2  # of an account at once: one has the lock of the account while the other one begins.

_MIGRATION_LOCK_TIMEOUT: Final = 10.0  # Seconds; statements on a table wait behind a migration that waits for its lock.

# The id of the advisory lock that serialises the migrations of workers that start together; it spells "gatekeep".
_MIGRATION_LOCK: Final = int.from_bytes(b"gatekeep")

_EXPECTED: Final = "expected postgresql://user:password@host:port/database"
_NO_SERVER: Final = "/nonexistent/gatekeeper"  # A directory of sockets; nothing can listen there.


class PostgresServer:
    """A database on a PostgreSQL server, perhaps behind PgBouncer.

    In transaction mode, PgBouncer gives each transaction another connection to the server. So nothing is prepared, and
    settings hold for one transaction (https://www.pgbouncer.org/features.html).

    Args:
        url: postgresql://user:password@host:port/database, with libpq's parameters in the query.
        listen_url: the same, for a connection that hears of changes. PgBouncer's hears none. None for the same URL.
        statement_deadline: the longest silence of the server during a statement, in seconds. The server ends a statement
            after 0.8 times as long.
        idle_timeout: the longest time between two statements of a transaction that can write, in seconds.

    Raises:
        ConfigError: an invalid URL, or a parameter that libpq refuses; the message does not contain the password.
        ImportError: the extra `postgres` is not installed.
    """

    # A write that leaves nothing behind and waits for no other. The first statement fails on a standby, in a read-only
    # session and without the privilege. The last one takes a transaction id, so that the commit is written to the log, and
    # fails on a full disk: rows that exceed work_mem go to a temporary file.
    write_check = (
        "UPDATE widget_keys SET name = name WHERE false",
        "SET LOCAL work_mem = '64kB'",
        "SELECT txid_current(), count(*) FROM generate_series(1, 20000)",
    )

    def __init__(
        self,
        url: str,
        listen_url: str | None = None,
        *,
        statement_deadline: float = STATEMENT_DEADLINE,
        idle_timeout: float = IDLE_TIMEOUT,
    ) -> None:
        if find_spec("psycopg") is None:
            problem = "a PostgreSQL database needs the extra `postgres`: pip install 'widget-gatekeeper[hub,postgres]'"
            raise ImportError(problem)
        self._url = _parse(url, "database")
        self._listen_url = self._url if listen_url is None else _parse(listen_url, "listen_database")
        self._statement_deadline = statement_deadline
        self._idle_timeout = idle_timeout

    def migrate(self, upgrade: Callable[[Connection], None]) -> None:
        """Upgrade the database.

        Args:
            upgrade: a function that is called in a transaction, which excludes other migrations and rolls back if it raises.

        Raises:
            sqlalchemy.exc.DBAPIError: the server cannot be reached, or refuses the connection or the upgrade.
        """
        from gatekeeper.hub.postgres_connections import Connection as DriverConnection  # noqa: PLC0415 - an extra of its own

        engine = create_engine(self._url, connect_args={"prepare_threshold": None}, hide_parameters=True)
        event.listen(engine, "do_connect", lambda *arguments: DriverConnection.connect(**arguments[-1]))
        settings = _set_local(MIGRATION_DEADLINE, MIGRATION_DEADLINE, lock_timeout=_MIGRATION_LOCK_TIMEOUT)
        event.listen(engine, "begin", partial(_begin, settings))
        try:
            with engine.begin() as transaction:
                # The server answers: it was not silent until now.
                connection = transaction.connection.driver_connection
                if isinstance(connection, DriverConnection):
                    connection.deadline = MIGRATION_DEADLINE
                transaction.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
                upgrade(transaction)
        finally:
            engine.dispose()

    def engines(self) -> Engines:
        """Make the engines, without connecting."""
        reading, writing = "ISOLATION LEVEL REPEATABLE READ READ ONLY", "ISOLATION LEVEL READ COMMITTED"
        return Engines(
            reader=self._pool(Turns(CONNECTIONS, "to read", patience=PATIENCE, each=READERS_EACH), reading),
            streamer=self._pool(Turns(CONNECTIONS, "to read", patience=PATIENCE), reading),
            writer=self._pool(Turns(CONNECTIONS, "to write", patience=PATIENCE, each=WRITERS_EACH), writing),
            reporter=self._pool(Turns(1, "to write a report", patience=PATIENCE), writing),
        )

    def changes(self) -> "PostgresChanges":
        """Make what tells of changes by other workers, without connecting."""
        from gatekeeper.hub.postgres_changes import PostgresChanges  # noqa: PLC0415 - an extra of its own

        def connecting(url: URL) -> Callable[[], Awaitable["AsyncConnection"]]:
            _, arguments = url.get_dialect()().create_connect_args(url)
            return partial(self._connect_to_wait, **arguments, autocommit=True, prepare_threshold=None)

        return PostgresChanges(connecting(self._listen_url), connecting(self._url))

    def _pool(self, turns: Turns, mode: str) -> Pool:
        engine = create_engine(
            self._url,
            connect_args={"prepare_threshold": None},
            isolation_level="AUTOCOMMIT",  # The statement below begins each transaction, in the round trip of its settings.
            use_native_hstore=False,  # Otherwise every new connection looks up a type that the tables do not have.
            pool_size=turns.places,
            **OPTIONS,
        )
        # A statement that waits for a lock says so before it counts as too slow.
        settings = _set_local(
            self._statement_deadline, self._idle_timeout, lock_timeout=LOCK_SHARE * self._statement_deadline
        )
        event.listen(engine, "do_connect", lambda *arguments: self._connect(**arguments[-1]))
        event.listen(engine, "begin", partial(_begin, f"BEGIN {mode}; {settings}"))
        return Pool(engine, turns)

    def _connect(self, **options: Any) -> "DriverConnection":
        from gatekeeper.hub.postgres_connections import Connection as DriverConnection  # noqa: PLC0415 - an extra of its own

        connection = DriverConnection.connect(**options)
        connection.deadline = self._statement_deadline
        return connection

    async def _connect_to_wait(self, **options: Any) -> "AsyncConnection":
        from gatekeeper.hub.postgres_connections import AsyncConnection  # noqa: PLC0415 - an extra of its own

        connection = await AsyncConnection.connect(**options)
        connection.deadline = self._statement_deadline
        return connection


def _parse(url: str, name: str) -> URL:
    # Otherwise the rest of the password is taken for a host, which error messages name.
    if "@" in url.partition("@")[2].partition("=")[0]:
        raise ConfigError([f"{name} is a URL with @ in its user or password: write it as %40; {_EXPECTED}"])
    try:
        parsed = make_url(url).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError):
        raise ConfigError([f"{name} is an invalid URL: {_EXPECTED}"]) from None
    import psycopg  # noqa: PLC0415 - an extra of its own

    try:
        _, arguments = parsed.get_dialect()().create_connect_args(parsed)
        # libpq checks the values of parameters only when it connects.
        nowhere = {"host": _NO_SERVER, "hostaddr": None, "port": None, "gssencmode": "disable"}
        psycopg.connect(psycopg.conninfo.make_conninfo(**{**arguments, **nowhere})).close()
    except (ArgumentError, psycopg.Error) as error:
        if _NO_SERVER not in str(error):
            raise ConfigError([f"{name} is a URL with a wrong parameter: {' '.join(str(error).split())}"]) from None
    kept = {name: value for name, value in _TIMEOUTS.items() if name not in parsed.query}
    # The encoding of the database is the default, but psycopg reads text of SQL_ASCII as bytes.
    return parsed.update_query_dict({**kept, "client_encoding": "utf8"})


def _set_local(deadline: float, idle: float, **others: float) -> str:
    """Write the statement that sets parameters until the end of a transaction.

    Args:
        deadline: the longest time for one statement, in seconds.
        idle: the longest time between two statements, in seconds.
        others: further parameters that are times, in seconds.
    """
    times = {
        # The server gives up first, if it is able to: it says why, and the connection stays.
        "statement_timeout": deadline * 0.8,
        "idle_in_transaction_session_timeout": idle,
        **others,
    }
    # psycopg reads dates only in the format ISO.
    settings = {name: f"{seconds * 1000:.0f}" for name, seconds in times.items()} | {"datestyle": "ISO", "timezone": "UTC"}
    calls = [f"set_config('{name}', '{value}', true)" for name, value in settings.items()]
    return f"SELECT {', '.join(calls)}"


def _begin(statement: str, connection: Connection) -> None:
    connection.exec_driver_sql(statement).close()
