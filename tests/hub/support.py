"""A hub in this process with its clock and dice, and clients."""

import asyncio
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, Executable, event, insert
from sqlalchemy.pool import QueuePool
from starlette.applications import Starlette
from starlette.types import Message, Send

from gatekeeper.hub import Hub
from gatekeeper.hub.app import build_app
from gatekeeper.hub.database import Database, parse_location
from gatekeeper.hub.listing import LIST_DEADLINE
from gatekeeper.hub.minting import Mint, random_text
from gatekeeper.hub.tables import widget_keys
from gatekeeper.hub.tokens import TokenScope
from tests.support.postgres import dump

PATH = "/api/v1/widget-keys"
PEPPER = "the pepper of these tests"
USE = ("last_used_at", "use_count")  # fields of which an older list may have other values
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


Row = dict[str, Any]

SERVE = """
import socket, sys, uvicorn
from gatekeeper.hub import create_hub

app = create_hub(sys.argv[1], pepper=sys.argv[2])
uvicorn.Server(uvicorn.Config(app, lifespan="on", log_level="error")).run([socket.socket(fileno=int(sys.argv[3]))])
"""


class Clock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """Tell the time."""
        return self.now

    def advance(self, seconds: float) -> str:
        """Advance by seconds, and return the new time in the hub's format."""
        self.now += timedelta(seconds=seconds)
        return written(self.now)


class Dice:
    """The hub's random letters and digits; a test can choose the next.

    Attributes:
        next: the results of the next draws.
        before: a function that is called before each draw.
    """

    def __init__(self) -> None:
        self.next: list[str] = []
        self.before: Callable[[], None] = lambda: None

    def __call__(self, length: int) -> str:
        """Draw."""
        self.before()
        return self.next.pop(0) if self.next else random_text(length)


class RunningHub:
    """A hub whose lifespan is running, with what tests need."""

    def __init__(self, app: Starlette, database: Database, clients: AsyncExitStack, clock: Clock, dice: Dice) -> None:
        self.app = app
        self.database = database
        self.clock = clock
        self.dice = dice
        self._clients = clients

    @property
    def hub(self) -> Hub:
        """The stores behind the app."""
        hub: Hub = self.app.state.hub
        return hub

    async def client(self, account: str, scope: TokenScope = "admin") -> httpx.AsyncClient:
        """Open a client with a token of an account."""
        token = await self.hub.tokens.mint(account, name="tests", scope=scope)
        return await self.client_with({"Authorization": f"Bearer {token}"})

    async def client_of_all(self) -> httpx.AsyncClient:
        """Open a client with a token for all accounts."""
        token = await self.hub.tokens.mint_for_all(name="tests")
        return await self.client_with({"Authorization": f"Bearer {token}"})

    async def client_with(self, headers: dict[str, str]) -> httpx.AsyncClient:
        """Open a client that sends these headers. A crash becomes a 500, as over a socket."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://hub.test", headers=headers)
        return await self._clients.enter_async_context(client)


@asynccontextmanager
async def running_hub(
    database: str | Path | Database, *, pepper: str = PEPPER, list_deadline: float = LIST_DEADLINE
) -> AsyncIterator[RunningHub]:
    """Run a hub over a database."""
    opened = database if isinstance(database, Database) else Database(parse_location(database))
    clock, dice = Clock(), Dice()
    app = build_app(opened, Mint(pepper, dice), clock, list_deadline=list_deadline)
    async with app.router.lifespan_context(app), AsyncExitStack() as clients:
        yield RunningHub(app, opened, clients, clock, dice)


def listen() -> socket.socket:
    """Listen on a free port of this machine."""
    return socket.create_server(("127.0.0.1", 0), backlog=100)


@asynccontextmanager
async def hub_process(database: str | Path, listener: socket.socket | None = None) -> AsyncIterator[tuple[str, Process]]:
    """Serve a hub in a process of its own, on a listener of the test or a new one. Requests wait for its start."""
    with listen() if listener is None else listener.dup() as shared:
        arguments = [str(database), PEPPER, str(shared.fileno())]
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVE, *arguments, pass_fds=[shared.fileno()])
        url = "http://{}:{}".format(*shared.getsockname())
    try:
        yield url, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def stored_bytes(database: str | Path) -> bytes:
    """Read all bytes of a database."""
    if isinstance(database, Path):
        return b"".join(file.read_bytes() for file in sorted(database.parent.iterdir()))
    return dump(database)


def written(moment: datetime) -> str:
    """Format a time like the hub: whole seconds, UTC, "Z"."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


async def create(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """Create a widget key, and return its row without the plaintext."""
    answer = await client.post(PATH, json={"name": "shop", **fields})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    row: dict[str, Any] = answer.json()
    del row["public_key"], row["warnings"]
    return row


async def use(client: httpx.AsyncClient, row: dict[str, Any], at: datetime, *, count: int = 1) -> None:
    """Report the use of a widget key."""
    answer = await client.post(f"{PATH}/usage", json={row["id"]: {"count": count, "last_used_at": at.isoformat()}})
    assert answer.status_code == httpx.codes.NO_CONTENT, answer.text


async def list_rows(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """List the widget keys of a client's account."""
    answer = await client.get(PATH)
    assert answer.status_code == httpx.codes.OK, answer.text
    rows: list[dict[str, Any]] = answer.json()
    return rows


def applied(rows: list[Row], elements: list[Row]) -> list[Row]:
    """Apply a delta to a list."""
    result = {row["id"]: row for row in rows}
    for element in elements:
        if "removed" in element:
            result.pop(element["id"], None)
        else:
            result[element["id"]] = element
    return list(result.values())


def without_use(rows: list[Row]) -> list[Row]:
    """Leave out what usage reports change."""
    return [{field: value for field, value in row.items() if field not in USE} for row in rows]


async def fill(hub: RunningHub, account: str, count: int) -> None:
    """Add many keys to an account in one transaction."""
    rows = [
        {
            "id": f"00000000-0000-4000-8000-{number:012}",
            "account": account,
            "name": f"shop {number}",
            "last8": f"{number:08}",
            "domain_allowlist": ["acme.com", "*.acme.com", f"shop{number}.example"],
            "created_at": START,
            "updated_at": START,
            "key_sha256": f"{number:064x}",
            "keyed_hash": f"{number:064x}",
        }
        for number in range(count)
    ]
    await execute(hub, insert(widget_keys), rows)


async def execute(hub: RunningHub, statement: Executable, rows: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Change the database, as an operator may."""
    await hub.database.write(lambda connection: connection.execute(statement, rows))


def connections_in_use(hub: RunningHub) -> int:
    """Count the connections that lists hold."""
    engines = hub.database._engines
    assert engines is not None
    assert isinstance(engines.streamer.engine.pool, QueuePool)
    return engines.streamer.engine.pool.checkedout()


@contextmanager
def collected_statements() -> Iterator[list[str]]:
    """Collect the SQL that runs, with COMMIT and ROLLBACK."""
    collected: list[str] = []

    def collect(*arguments: Any) -> None:
        collected.append(arguments[2])

    def collect_commit(_connection: Any) -> None:
        collected.append("COMMIT")

    def collect_rollback(_connection: Any) -> None:
        collected.append("ROLLBACK")

    listeners = [("before_cursor_execute", collect), ("commit", collect_commit), ("rollback", collect_rollback)]
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    try:
        yield collected
    finally:
        for name, listener in listeners:
            event.remove(Engine, name, listener)


async def eventually(condition: Callable[[], bool]) -> None:
    """Let other tasks and threads run until a condition is true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the hub signals none of what tests look at
            await asyncio.sleep(0.001)


async def ask(
    hub: RunningHub, client: httpx.AsyncClient, send: Send, left: asyncio.Event | None = None, spec_version: str = "2.3"
) -> None:
    """Request the uncompressed list through ASGI; disconnect when the event is set."""
    asgi = {"version": "3.0", "spec_version": spec_version}

    async def receive() -> Message:
        await (left or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    headers = [(b"authorization", client.headers["Authorization"].encode())]
    scope = {"type": "http", "asgi": asgi, "method": "GET", "path": PATH, "query_string": b"", "headers": headers}
    await hub.app(scope, receive, send)


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert that an answer is a problem, and return its body."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    body: dict[str, Any] = answer.json()
    assert set(body) - {"errors"} == {"type", "title", "status", "detail", "code"}
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:gatekeeper:hub:{code}")
    assert body["title"]
    assert body["detail"]
    return body
