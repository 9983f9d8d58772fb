"""PostgresServer: a database that several workers and machines can share."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Final

from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine

from gatekeeper.errors import ConfigError
from gatekeeper.hub.engines import OPTIONS, Engines

__all__ = ("SCHEMES", "PostgresServer")

SCHEMES: Final = ("postgresql://", "postgres://")  # libpq accepts both (PostgreSQL documentation, section 34.1.1.2).

# Seconds for connecting, and milliseconds until the server acknowledges sent data. Without them, a server whose packets are
# dropped would block requests for minutes. The URL can override both.
_TIMEOUTS: Final = {"connect_timeout": "5", "tcp_user_timeout": "10000"}

# The id of the advisory lock that serialises the migrations of workers that start together; it spells "gatekeep".
_MIGRATION_LOCK: Final = int.from_bytes(b"gatekeep")


class PostgresServer:
    """A database on a PostgreSQL server.

    Args:
        url: postgresql://user:password@host:port/database, with libpq's parameters in the query.

    Raises:
        ConfigError: an invalid URL; the message does not contain it, because of the password.
        ImportError: the extra `postgres` is not installed.
    """

    def __init__(self, url: str) -> None:
        if find_spec("psycopg") is None:
            problem = "a PostgreSQL database needs the extra `postgres`: pip install 'widget-gatekeeper[hub,postgres]'"
            raise ImportError(problem)
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            raise ConfigError(
                ["database is an invalid URL: expected postgresql://user:password@host:port/database"]
            ) from None
        kept = {name: value for name, value in _TIMEOUTS.items() if name not in parsed.query}
        self._url = parsed.set(drivername="postgresql+psycopg").update_query_dict(kept)

    def migrate(self, upgrade: Callable[[Connection], None]) -> None:
        """Upgrade the database.

        Args:
            upgrade: a function that is called in a transaction, which excludes other migrations and rolls back if it raises.

        Raises:
            sqlalchemy.exc.OperationalError: the server cannot be reached, or refuses the connection.
        """
        engine = create_engine(self._url, hide_parameters=True)
        try:
            with engine.begin() as transaction:
                transaction.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
                upgrade(transaction)
        finally:
            engine.dispose()

    def engines(self) -> Engines:
        """Make the engines, without connecting."""
        # pool_pre_ping replaces connections that a restarted server has closed, before a request uses one.
        # use_native_hstore would make every new connection look up a type that the tables do not have.
        make = partial(create_async_engine, self._url, pool_pre_ping=True, use_native_hstore=False, **OPTIONS)
        reader, streamer = (
            make(isolation_level="REPEATABLE READ", execution_options={"postgresql_readonly": True}) for _ in range(2)
        )
        return Engines(reader, streamer, make(isolation_level="READ COMMITTED"))
