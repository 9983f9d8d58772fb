"""Apps served by a real uvicorn on loopback, in a thread."""

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp

from gatekeeper import Gatekeeper
from tests.support.client_keys import KEY

PAGE = "https://shop.acme.com"
STRANGE_PAGE = "https://evil.test"
ROW: dict[str, Any] = {
    "id": "1",
    "name": "shop",
    "last8": KEY[-8:],
    "domain_allowlist": [PAGE],
    "agent_id": "agent_7",
    "disabled_at": None,
}
ALLOWED = {"Data-Client-Key": KEY, "Origin": PAGE}
DEADLINE = 20.0
GRACE = 5.0  # seconds in which clients may close their connections

Http = Literal["httptools", "h11"]
WebSockets = Literal["none", "websockets-sansio", "wsproto"]


class Served:
    """A served app, and a client for it."""

    def __init__(self, port: int, client: httpx.Client) -> None:
        self.port = port
        self.client = client
        self.get = client.get
        self.request = client.request

    def connect(self) -> socket.socket:
        """Open a raw connection, for bytes that no client would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)


Serve = Callable[[ASGIApp], Served]


class Server(uvicorn.Server):
    """A uvicorn that signals when it has started, and waits for requests only when it stops."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and signal it."""
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop. uvicorn alone waits for each connection that a browser holds, also for one without a request."""
        asyncio.get_running_loop().call_later(GRACE, self._hang_up)
        await super().shutdown(sockets)

    def _hang_up(self) -> None:
        if not self.server_state.tasks:
            for connection in tuple(self.server_state.connections):
                connection.transport.abort()


@contextmanager
def serving(
    app: ASGIApp, *, http: Http = "httptools", ws: WebSockets = "none", tls: ssl.SSLContext | None = None
) -> Iterator[Served]:
    """Serve an app until the end of the block."""
    config = uvicorn.Config(app, http=http, ws=ws, loop="asyncio", lifespan="on", log_config=None, access_log=False)
    config.load()
    config.ssl = tls
    server = Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],), name="uvicorn")
        thread.start()
        try:
            assert server.settled.wait(DEADLINE)
            assert server.started
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=DEADLINE) as client:
                yield Served(port, client)
        finally:
            server.should_exit = True
            thread.join(DEADLINE)
            assert not thread.is_alive()


@pytest.fixture(scope="module", params=["httptools", "h11"])
def http(request: pytest.FixtureRequest) -> Http:
    """Both HTTP parsers of uvicorn, in C and in Python."""
    reader: Http = request.param
    return reader


@pytest.fixture
def serve(http: Http) -> Iterator[Serve]:
    """Serve apps until the end of the test."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(serving(app, http=http))


@pytest.fixture
def gate() -> Gatekeeper:
    """Make a gate with one key, which allows one page."""
    return Gatekeeper.from_rows([ROW])


def write_rows(path: Path, *rows: dict[str, Any]) -> None:
    """Replace a file of rows atomically."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(rows))
    fresh.rename(path)


def names(value: str) -> set[str]:
    """Read a list header, ignoring order and letter case."""
    return {name.strip().lower() for name in value.split(",")}
