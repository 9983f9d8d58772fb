"""An app of Quart."""

from collections.abc import AsyncIterator
from typing import Any

from quart import Response, request, websocket

from tests.frameworks.serving import CRASH, EVENTS, Outer, background, events, names_of, pieces, seen


async def see() -> dict[str, str | None]:
    return seen(request.scope)


async def stream() -> AsyncIterator[bytes]:
    return pieces()


async def watch() -> Response:
    response = Response(events(), content_type=EVENTS)
    response.timeout = None
    return response


async def crash() -> str:
    raise ValueError(CRASH)


async def later() -> str:
    quart.add_background_task(background)
    return "later"


async def echo() -> None:
    while True:
        await websocket.send(await websocket.receive())


names = names_of("Quart")
quart = names["quart"]
handlers: dict[str, Any] = {"seen": see, "stream": stream, "events": watch, "crash": crash, "background": later}
for path, handler in handlers.items():
    quart.add_url_rule(f"/{path}", path, handler)
quart.add_websocket("/echo", "echo", echo)
app = Outer(names["app"], names["gate"])
