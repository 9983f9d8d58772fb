"""An app of Litestar."""

from typing import Any

from litestar import Request, WebSocket, get, websocket
from litestar.background_tasks import BackgroundTask
from litestar.response import Response, Stream

from tests.frameworks.serving import CRASH, EVENTS, Outer, background, events, names_of, pieces, seen


async def see(request: Request[Any, Any, Any]) -> dict[str, str | None]:
    return seen(request.scope)


async def stream() -> Stream:
    return Stream(pieces())


async def watch() -> Stream:
    return Stream(events(), media_type=EVENTS)


async def crash() -> None:
    raise ValueError(CRASH)


async def later() -> Response[str]:
    return Response("later", background=BackgroundTask(background))


async def echo(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    async for text in socket.iter_data("text"):
        await socket.send_text(text)


names = names_of("Litestar")
handlers: dict[str, Any] = {"seen": see, "stream": stream, "events": watch, "crash": crash, "background": later}
for path, handler in handlers.items():
    names["litestar"].register(get(f"/{path}")(handler))
names["litestar"].register(websocket("/echo")(echo))
app = Outer(names["app"], names["gate"])
