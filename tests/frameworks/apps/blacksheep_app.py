"""An app of BlackSheep, which has no background tasks of its own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from blacksheep import Content, Request, Response, StreamedContent, WebSocket, WebSocketDisconnectError, json
from blacksheep.server.sse import ServerSentEvent, ServerSentEventsResponse, TextServerSentEvent

from tests.frameworks.serving import CRASH, Outer, background, events, names_of, pieces, seen

tasks: set[asyncio.Task[None]] = set()


async def see(request: Request) -> Response:
    return json(seen(request.scope))


async def stream() -> Response:
    return Response(200, content=StreamedContent(b"text/plain", pieces))


async def watch() -> Response:
    return ServerSentEventsResponse(sent_events)


async def sent_events() -> AsyncIterator[ServerSentEvent]:
    async for _ in events():
        yield TextServerSentEvent("next")


async def crash() -> Response:
    raise ValueError(CRASH)


async def later() -> Response:
    task = asyncio.create_task(background())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return Response(200, content=Content(b"text/plain", b"later"))


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnectError:
        return


names = names_of("BlackSheep")
blacksheep = names["blacksheep"]
handlers: dict[str, Any] = {"seen": see, "stream": stream, "events": watch, "crash": crash, "background": later}
for path, handler in handlers.items():
    blacksheep.router.add_get(f"/{path}", handler)
blacksheep.router.add_ws("/echo", echo)
app = Outer(names["app"], names["gate"])
