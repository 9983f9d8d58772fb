"""PostgresServer: a hub's database on a PostgreSQL server, which several workers and machines may share."""

from functools import partial
from importlib.util import find_spec
from typing import Final

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine

from gatekeeper.errors import ConfigError
from gatekeeper.hub.engines import OPTIONS, Engines
from gatekeeper.hub.migrations import upgrade

__all__ = ("SCHEMES", "PostgresServer")

SCHEMES: Final = ("postgresql://", "postgres://")  # Both are libpq's (PostgreSQL documentation, section 34.1.1.2).

# Seconds to wait for a connection, and milliseconds for the server to acknowledge what was sent to it: without them, a
# server whose packets are dropped would hold requests for minutes. The URL may say otherwise.
_PATIENCE: Final = {"connect_timeout": "5", "tcp_user_timeout": "10000"}

# Names the lock under which workers that start at once migrate one after another; it spells "gatekeep".
_MIGRATION_LOCK: Final = int.from_bytes(b"gatekeep")


class PostgresServer:
    """A database of a PostgreSQL server.

    Args:
        url: postgresql://user:password@host:port/database, with libpq's parameters in its query.

    Raises:
        ConfigError: the URL cannot be read; the message has none of it, because of the password.
        ImportError: the extra `postgres` is not installed.
    """

    def __init__(self, url: str) -> None:
        if find_spec("psycopg") is None:
            problem = "a PostgreSQL database needs the extra `postgres`: pip install 'widget-gatekeeper[hub,postgres]'"
            raise ImportError(problem)
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            raise ConfigError(["database is not of the form postgresql://user:password@host:port/database"]) from None
        kept = {name: value for name, value in _PATIENCE.items() if name not in parsed.query}
        self._url = parsed.set(drivername="postgresql+psycopg").update_query_dict(kept)

    def migrate(self) -> None:
        """Bring the database to the newest schema.

        Raises:
            ConfigError: a newer gatekeeper has been at the database.
            sqlalchemy.exc.OperationalError: the server cannot be reached, or lets nobody in.
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
        # pool_pre_ping: a server that was restarted is noticed before a request meets a connection that it has closed.
        # use_native_hstore: with it, every new connection would ask for a type that the tables do not have.
        make = partial(create_async_engine, self._url, pool_pre_ping=True, use_native_hstore=False, **OPTIONS)
        reader, streamer = (
            make(isolation_level="REPEATABLE READ", execution_options={"postgresql_readonly": True}) for _ in range(2)
        )
        return Engines(reader, streamer, make(isolation_level="READ COMMITTED"))
