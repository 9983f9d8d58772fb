"""The served app, with a guard chosen by the environment."""

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

import httpx
from redis.asyncio import Redis
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks import keys
from benchmarks.asgi import widget_app
from benchmarks.contenders import Floor
from gatekeeper import Basis, Delta, FullList, Gatekeeper, GatekeeperMiddleware, HubSource, Unchanged, Updates

__all__ = ("DECIDES", "GUARDS", "VARIABLE", "create")

VARIABLE = "GATEKEEPER_BENCHMARK"
DECIDES = "/decides/"
TURNS = 20  # of the event loop; few changes are applied in the first two after they were read
LATER = 0.02  # seconds until a gate tells that it decides in another way, so that this delays no other gate
GUARDS = ("bare", "floor", "CORSMiddleware", "gatekeeper", "Redis GET", "hub by httpx")


class ServedFloor(Floor):
    """The floor for a server, which also sends lifespan events."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class LookedUp:
    """An alternative guard that looks up the key each time."""

    def __init__(self, app: ASGIApp, look_up: Callable[[str], Awaitable[bytes | str | None]]) -> None:
        self.app = app
        self.look_up = look_up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"")
        allow = [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
        if scope["method"] == "OPTIONS":
            allow += [(b"access-control-allow-headers", b"data-client-key"), (b"access-control-allow-methods", b"GET")]
            await _answer(send, 204, allow)
            return
        found = await self.look_up(headers.get(b"data-client-key", b"").decode("latin-1")[-8:])
        row = json.loads(found) if found else None
        host = origin.decode("latin-1").partition("://")[2]
        if not row or row["disabled_at"] is not None or host not in row["domain_allowlist"]:
            await _answer(send, 403, [])
            return

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *allow]
            await send(message)

        await self.app(scope, receive, send_allowed)


class Stamped:
    """Add the process id to each answer, and when it begins."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                stamp = [(b"x-process", b"%d" % os.getpid()), (b"x-at", b"%r" % time.monotonic())]
                message["headers"] = [*message["headers"], *stamp]
            await send(message)

        await self.app(scope, receive, send_stamped)


class WatchedSource(HubSource):
    """The hub's list, which tells when an answer has been read.

    Attributes:
        next_read: is set when the next answer has been read, and replaced.
    """

    def __init__(self, base_url: str, token: str) -> None:
        super().__init__(base_url, token)
        self.next_read = asyncio.Event()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """See HubSource."""
        async with super().connect() as updates:

            @asynccontextmanager
            async def watched(basis: Basis) -> AsyncIterator[FullList | Unchanged | Delta]:
                async with updates(basis) as answer:
                    yield answer
                self.next_read.set()
                self.next_read = asyncio.Event()

            yield watched


class Watched:
    """Tell when the gate decides in another way, at /decides/200 and /decides/403.

    A client that asked for that would need a request each millisecond, which takes a third of a processor.
    """

    def __init__(self, app: ASGIApp, gate: Gatekeeper, source: WatchedSource) -> None:
        self.app = app
        self.gate = gate
        self.source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(DECIDES):
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        pair = headers[b"data-client-key"], headers[b"origin"]
        is_wanted = scope["path"] == f"{DECIDES}{HTTPStatus.OK.value}"
        next_read = self.source.next_read
        while not await self._decides(pair, is_wanted=is_wanted):
            await next_read.wait()
            next_read = self.source.next_read
        decided_at = time.monotonic()
        await asyncio.sleep(LATER)
        await _answer(send, HTTPStatus.OK, [(b"x-decided-at", b"%r" % decided_at), (b"content-length", b"0")])

    async def _decides(self, pair: tuple[str, str], *, is_wanted: bool) -> bool:
        """Whether the gate decides in this way within some turns of the event loop, in which it applies an answer."""
        for _ in range(TURNS):
            if self.gate.decide(*pair).allowed == is_wanted:
                return True
            await asyncio.sleep(0)
        return False


def create(
    guard: str,
    *,
    hub: str = "",
    token: str = keys.TOKEN,
    redis: int = 0,
    cors: str = "",
    stamped: bool = False,
    interval: float = 10.0,
) -> ASGIApp:
    """Make the app behind a guard.

    Args:
        guard: one of GUARDS.
        hub: the URL of the hub.
        token: the gate's token for the hub.
        redis: the port of Redis.
        cors: the regex or the one origin that CORSMiddleware allows.
        stamped: whether answers contain their process id.
        interval: the seconds between two fetches of the list.
    """
    if guard == "gatekeeper":
        source = WatchedSource(hub, token)
        gate = Gatekeeper(source, start_timeout=60.0, refresh_interval=interval)
        guarded: ASGIApp = Watched(GatekeeperMiddleware(widget_app(gate.lifespan), gate), gate, source)
    elif guard == "floor":
        guarded = ServedFloor(widget_app())
    elif guard == "CORSMiddleware" and "\\" in cors:
        guarded = CORSMiddleware(widget_app(), allow_origin_regex=cors, allow_headers=["data-client-key"])
    elif guard == "CORSMiddleware":
        guarded = CORSMiddleware(widget_app(), allow_origins=[cors], allow_headers=["data-client-key"])
    elif guard == "Redis GET":
        guarded = LookedUp(widget_app(), Redis(port=redis).get)
    elif guard == "hub by httpx":
        guarded = LookedUp(widget_app(), partial(_ask, httpx.AsyncClient(base_url=hub)))
    else:
        guarded = widget_app()
    return Stamped(guarded) if stamped else guarded


async def _ask(client: httpx.AsyncClient, last8: str) -> bytes:
    return (await client.get(f"/lookup/{last8}")).content


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


if VARIABLE in os.environ:
    logging.getLogger("gatekeeper").setLevel(logging.ERROR)  # the outages of the hub are intended
    app = create(**json.loads(os.environ[VARIABLE]))
