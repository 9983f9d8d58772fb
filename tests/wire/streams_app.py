"""A guarded app with endless WebSockets and streaming responses, which it counts.

The keys are in the file named by the environment, and are refreshed twenty times a second.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from gatekeeper import FileSource, Gatekeeper, GatekeeperMiddleware

PIECES = 60
PACE = 0.02  # seconds between two pieces

gate = Gatekeeper(FileSource(os.environ["GATEKEEPER_TEST_KEYS"]), refresh_interval=0.05)
inside: list[str] = []


@contextmanager
def counted(name: str) -> Iterator[None]:
    inside.append(name)
    try:
        yield
    finally:
        inside.remove(name)


async def idle(_request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        with counted("idle"):
            yield b"data: first\n\n"
            await anyio.sleep_forever()

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def busy(_request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        with counted("busy"):
            while True:
                yield b"data: next\n\n"
                await anyio.sleep(PACE)

    return StreamingResponse(pieces(), media_type="text/event-stream")


class Bare:
    """An app without a framework, which waits for a disconnect."""

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        with counted("bare"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass


class Trailing:
    """An app that announces trailers, and sends a first piece only."""

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        with counted("trailers"):
            await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
            await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass


async def download(_request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(PIECES):
            yield b"0123456789"
            await anyio.sleep(PACE)

    return StreamingResponse(pieces(), headers={"content-length": str(10 * PIECES)})


async def upload(request: Request) -> JSONResponse:
    return JSONResponse({"length": len(await request.body())})


async def echo(websocket: WebSocket) -> None:
    with counted("echo"):
        await websocket.accept()
        await websocket.send_text("first")
        async for text in websocket.iter_text():
            await websocket.send_text(text)


async def push(websocket: WebSocket) -> None:
    with counted("push"):
        await websocket.accept()
        while True:
            await websocket.send_text("next")
            await anyio.sleep(PACE)


async def status(_request: Request) -> JSONResponse:
    counters = gate.status.counters
    tasks = len(asyncio.all_tasks())
    return JSONResponse({"inside": sorted(inside), "closed": counters.get("streams_closed", 0), "tasks": tasks})


routes = [
    Route("/idle", idle),
    Route("/busy", busy),
    Route("/bare", Bare()),
    Route("/trailers", Trailing()),
    Route("/download", download),
    Route("/upload", upload, methods=["POST"]),
    Route("/status", status),
    WebSocketRoute("/echo", echo),
    WebSocketRoute("/push", push),
]
app = GatekeeperMiddleware(Starlette(routes=routes), gate, exempt=("/status",))
