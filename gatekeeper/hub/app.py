"""Hub: the parts of a hub, put together to a Starlette app."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from starlette.applications import Starlette

from gatekeeper.errors import ConfigError
from gatekeeper.hub.database import Database
from gatekeeper.hub.endpoints import Endpoints
from gatekeeper.hub.minting import Draw, Mint, random_text
from gatekeeper.hub.problems import refuse_path, report_crash
from gatekeeper.hub.store import KeyStore
from gatekeeper.hub.tokens import TokenStore

__all__ = ("Hub", "create_hub")


class Hub:
    """What a hub can do besides HTTP; `app.state.hub` of the app that `create_hub` returns.

    Attributes:
        keys: its widget keys.
        tokens: its bearer tokens.
    """

    def __init__(self, keys: KeyStore, tokens: TokenStore) -> None:
        self.keys = keys
        self.tokens = tokens

    async def mint_token(self, account: str, *, name: str) -> str:
        """Make a bearer token, and the account where it is new.

        Args:
            account: matches `^[a-z0-9][a-z0-9_-]{0,62}$`.
            name: what to call the token, 1 to 200 characters.

        Returns:
            The plaintext, `sk_live_<account>_<random>`, which is not kept and cannot be had again.

        Raises:
            ConfigError: the account or the name is not of that form.
            RuntimeError: the app's lifespan is not running.
        """
        return await self.tokens.mint(account, name=name)


def create_hub(
    database: str | Path,
    *,
    pepper: str,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    draw: Draw = random_text,
) -> Starlette:
    """Make a hub over a SQLite file.

    Args:
        database: the path of the file; it and its tables are made when the app starts.
        pepper: the secret that keys the hashes of tokens and client keys. Tokens minted under another one are unknown.
        clock: the present, as an aware datetime of any time zone.
        draw: gives that many random letters and digits; everybody's secrets hang on it.

    Returns:
        The app, whose lifespan has to run: it opens the database and closes it. `app.state.hub` is the Hub.

    Raises:
        ConfigError: the database is not the path of a file, or the pepper is empty.
    """
    problems = []
    if str(database) in {"", "."} or str(database).startswith(":memory:"):
        problems.append(f"database {str(database)!r} is not the path of a file")
    if not pepper:
        problems.append("pepper is empty; give it a secret, such as the output of `openssl rand -hex 32`")
    if problems:
        raise ConfigError(problems)
    file = Database(Path(database))
    mint = Mint(pepper, draw)

    def now() -> datetime:
        return clock().astimezone(UTC)

    hub = Hub(KeyStore(file, mint, now), TokenStore(file, mint, now))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            await file.open()
            yield
        finally:
            await file.close()

    app = Starlette(
        routes=Endpoints(hub.keys, hub.tokens).routes,
        exception_handlers={
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
