"""Hub: the Starlette app of the hub, assembled from its parts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from sqlalchemy.exc import DataError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect

from gatekeeper.errors import ConfigError, DatabaseDown, HubOverloaded
from gatekeeper.hub.database import Database, parse_location
from gatekeeper.hub.deltas import DeltaReader
from gatekeeper.hub.endpoints import Endpoints, Reports
from gatekeeper.hub.gates import GateStore
from gatekeeper.hub.health import Readiness, health_routes
from gatekeeper.hub.list_bodies import ListBodies
from gatekeeper.hub.list_endpoint import ListEndpoint
from gatekeeper.hub.listing import LIST_DEADLINE
from gatekeeper.hub.load_log import LoadLog
from gatekeeper.hub.minting import Draw, Mint, random_text
from gatekeeper.hub.openapi import openapi_route
from gatekeeper.hub.problems import (
    Problem,
    answer_crash,
    answer_database_down,
    answer_disconnected,
    answer_problem,
    answer_row_changed,
    answer_unknown_key,
    answer_unrouted,
    answer_unstorable,
)
from gatekeeper.hub.refused import RefusedPageStore
from gatekeeper.hub.rows import RowChanged
from gatekeeper.hub.stop_signal import on_stop_signal
from gatekeeper.hub.store import KeyStore, UnknownKey
from gatekeeper.hub.tokens import TokenStore
from gatekeeper.hub.usage_writer import UsageWriter
from gatekeeper.hub.waiters import MAX_WAITING, Reads, Waiters
from gatekeeper.matching.suffixes import load_public_suffixes

__all__ = ("Hub", "build_app", "create_hub", "migrate")


class Hub(NamedTuple):
    """The stores of a hub; `app.state.hub` of the app that `create_hub` returns.

    Attributes:
        keys: its widget keys.
        tokens: its bearer tokens.
        waiters: the requests that wait. A program that stops its server in another way than by a signal calls
            `waiters.stop()` first, or waits for them.
    """

    keys: KeyStore
    tokens: TokenStore
    waiters: Waiters


def create_hub(
    database: str | Path,
    *,
    pepper: str,
    listen_database: str | None = None,
    max_waiting: int = MAX_WAITING,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    draw: Draw = random_text,
) -> Starlette:
    """Make a hub over a SQLite file or a PostgreSQL database.

    Args:
        database: the path of a file, created when the app starts, with mode 0600; or
            postgresql://user:password@host:port/database.
        pepper: the secret that keys the hashes of tokens and client keys. The first start of a hub on a database ties
            the database to its pepper.
        listen_database: the URL of the same PostgreSQL database for a connection that hears of changes, if that of
            `database` leads to PgBouncer, over which none is heard.
        max_waiting: the most requests that wait for a change, in this process. One takes up to 25 KB.
        clock: a function that returns the current time, as an aware datetime in any time zone. Several threads may call it
            at once.
        draw: a function that returns the given number of random letters and digits; all secrets depend on it. Several
            threads may call it at once.

    Returns:
        The app. Its lifespan has to run: it upgrades the database schema at the start and closes the database at the end.
        It raises ConfigError if the pepper is not that of the database, or the schema comes from a newer gatekeeper; and
        sqlite3.DatabaseError if the file cannot be opened or is not a database.
        If a PostgreSQL server is down, or a SQLite file is locked or full, the app starts all the same and answers 503, also
        when it is back with such a database. `app.state.hub` is the Hub.

    Raises:
        ConfigError: the database is neither a path nor a PostgreSQL URL, the second URL is not one or not needed, or the
            pepper is empty.
        ImportError: a PostgreSQL database without the extra `postgres` installed.
    """
    problems: list[str] = []
    opened = None
    try:
        opened = Database(parse_location(database, listen_database))
    except ConfigError as error:
        problems.extend(error.problems)
    if not pepper:
        problems.append("pepper is empty: expected a secret, such as the output of `openssl rand -hex 32`")
    if problems or opened is None:
        raise ConfigError(problems)
    return build_app(opened, Mint(pepper, draw), clock, max_waiting=max_waiting)


def build_app(
    database: Database,
    mint: Mint,
    clock: Callable[[], datetime],
    *,
    list_deadline: float = LIST_DEADLINE,
    max_waiting: int = MAX_WAITING,
) -> Starlette:
    """Make a hub from its parts.

    Args:
        database: the database for keys and tokens.
        mint: the maker of keys, tokens and their hashes.
        clock: a function that returns the current time, as an aware datetime in any time zone.
        list_deadline: the longest time for sending the list, in seconds.
        max_waiting: the most requests that wait for a change.

    Returns:
        The app, as from `create_hub`.
    """

    def now() -> datetime:
        return clock().astimezone(UTC)

    tokens, deltas = TokenStore(database, mint, now), DeltaReader(database)
    reads = Reads(deltas.revisions, tokens.valid, deltas.look)
    waiters = Waiters(reads, database.changes(), bound=max_waiting)
    hub = Hub(KeyStore(database, mint, now, waiters.tell), tokens, waiters)
    readiness = Readiness(database)
    reports = Reports(UsageWriter(database, now), RefusedPageStore(database, now), GateStore(database, now))
    bodies = ListBodies(hub.keys)
    listing = ListEndpoint(bodies, deltas, waiters, deadline=list_deadline)
    endpoints = Endpoints(hub.keys, listing, reports, hub.tokens)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as closing:
            closing.push_async_callback(database.close)
            closing.push_async_callback(readiness.close)
            closing.push_async_callback(bodies.close)
            closing.push_async_callback(reports.usage.close)
            closing.push_async_callback(reports.refused.close)
            closing.push_async_callback(reports.gates.close)
            closing.push_async_callback(tokens.close)
            closing.push_async_callback(deltas.close)
            await database.open(mint.check_value())
            # The first entry with a wildcard needs them, and must not stop the event loop until they are there.
            await asyncio.to_thread(load_public_suffixes)
            await closing.enter_async_context(waiters.open())
            closing.enter_context(on_stop_signal(waiters.stop))
            yield

    app = Starlette(
        routes=[*endpoints.routes, *health_routes(readiness), openapi_route()],
        exception_handlers={
            Problem: answer_problem,
            UnknownKey: answer_unknown_key,
            RowChanged: answer_row_changed,
            DatabaseDown: answer_database_down,
            HubOverloaded: LoadLog().answer,
            DataError: answer_unstorable,
            ClientDisconnect: answer_disconnected,
            HTTPStatus.NOT_FOUND: answer_unrouted,
            HTTPStatus.METHOD_NOT_ALLOWED: answer_unrouted,
            Exception: answer_crash,
        },
        lifespan=lifespan,
    )
    # A redirect to the path without its trailing slash would lose the body of a create and reflect the Host header.
    app.router.redirect_slashes = False
    app.state.hub = hub
    return app


def migrate(database: str | Path) -> None:
    """Upgrade a hub's database to the newest schema. This blocks.

    Every start of a hub does the same.

    Args:
        database: as for `create_hub`.

    Raises:
        ConfigError: the database is neither a path nor a PostgreSQL URL, its schema comes from a newer gatekeeper, or it
            refuses the upgrade.
        DatabaseDown: the database does not answer, refuses the connection, or is read-only, full or locked.
        ImportError: a PostgreSQL database without the extra `postgres` installed.
        sqlite3.DatabaseError: the file cannot be opened or is not a database.
    """
    Database(parse_location(database)).migrate()
