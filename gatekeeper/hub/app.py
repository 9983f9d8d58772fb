"""Hub: the parts of a hub, put together to a Starlette app."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect

from gatekeeper.errors import ConfigError, DatabaseDown
from gatekeeper.hub.database import Database, find_place
from gatekeeper.hub.endpoints import Endpoints
from gatekeeper.hub.health import health_routes
from gatekeeper.hub.listing import LIST_DEADLINE
from gatekeeper.hub.minting import Draw, Mint, random_text
from gatekeeper.hub.openapi import openapi_route
from gatekeeper.hub.problems import (
    Problem,
    answer_database_down,
    answer_nobody,
    answer_problem,
    answer_unknown_key,
    refuse_path,
    report_crash,
)
from gatekeeper.hub.store import KeyStore, UnknownKey
from gatekeeper.hub.tokens import TokenStore

__all__ = ("Hub", "build_app", "create_hub", "migrate")


class Hub(NamedTuple):
    """The stores of a hub; `app.state.hub` of the app that `create_hub` returns.

    Attributes:
        keys: its widget keys.
        tokens: its bearer tokens.
    """

    keys: KeyStore
    tokens: TokenStore


def create_hub(
    database: str | Path,
    *,
    pepper: str,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    draw: Draw = random_text,
) -> Starlette:
    """Make a hub over a SQLite file or a PostgreSQL database.

    Args:
        database: the path of a file, which is made when the app starts; or postgresql://user:password@host:port/database.
        pepper: the secret that keys the hashes of tokens and client keys. Tokens minted under another one are unknown.
        clock: the present, as an aware datetime of any time zone.
        draw: gives that many random letters and digits; everybody's secrets hang on it.

    Returns:
        The app, whose lifespan has to run: it brings the database to the newest schema, and closes it in the end. While
        a PostgreSQL server is down, the app starts nevertheless and answers 503. `app.state.hub` is the Hub.

    Raises:
        ConfigError: the database is neither of the two, or the pepper is empty.
        ImportError: the database is a PostgreSQL database, and the extra `postgres` is not installed.
    """
    problems: list[str] = []
    opened = None
    try:
        opened = Database(find_place(database))
    except ConfigError as error:
        problems.extend(error.problems)
    if not pepper:
        problems.append("pepper is empty; give it a secret, such as the output of `openssl rand -hex 32`")
    if problems or opened is None:
        raise ConfigError(problems)
    return build_app(opened, Mint(pepper, draw), clock)


def build_app(
    database: Database, mint: Mint, clock: Callable[[], datetime], *, list_deadline: float = LIST_DEADLINE
) -> Starlette:
    """Make a hub out of its parts.

    Args:
        database: where it keeps keys and tokens.
        mint: makes and hashes them.
        clock: the present, as an aware datetime of any time zone.
        list_deadline: seconds after which a client that still reads the list is cut off.

    Returns:
        The app, as `create_hub` does.
    """

    def now() -> datetime:
        return clock().astimezone(UTC)

    hub = Hub(KeyStore(database, mint, now), TokenStore(database, mint, now))
    endpoints = Endpoints(hub.keys, hub.tokens, list_deadline=list_deadline)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            await database.open()
            yield
        finally:
            await database.close()

    app = Starlette(
        routes=[*endpoints.routes, *health_routes(database), openapi_route()],
        exception_handlers={
            Problem: answer_problem,
            UnknownKey: answer_unknown_key,
            DatabaseDown: answer_database_down,
            ClientDisconnect: answer_nobody,
            HTTPStatus.NOT_FOUND: refuse_path,
            HTTPStatus.METHOD_NOT_ALLOWED: refuse_path,
            Exception: report_crash,
        },
        lifespan=lifespan,
    )
    # A redirect to the path without its last "/" would drop the body of a create and repeat the Host header.
    app.router.redirect_slashes = False
    app.state.hub = hub
    return app


def migrate(database: str | Path) -> None:
    """Bring a hub's database to the newest schema, as every start of a hub does; blocks until it is there.

    Args:
        database: as for `create_hub`.

    Raises:
        ConfigError: the database is of neither kind, or a newer gatekeeper has been at it.
        DatabaseDown: it does not answer, or lets nobody in.
        ImportError: it is a PostgreSQL database, and the extra `postgres` is not installed.
        sqlite3.DatabaseError: the file cannot be opened or is not a database.
    """
    Database(find_place(database)).migrate()
