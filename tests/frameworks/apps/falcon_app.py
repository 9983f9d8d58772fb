"""An app of Falcon."""

from collections.abc import Awaitable, Callable

from falcon import WebSocketDisconnected
from falcon.asgi import Request, Response, SSEvent, WebSocket

from tests.frameworks.serving import CRASH, Outer, background, events, names_of, pieces, seen

Handler = Callable[[Request, Response], Awaitable[None]]


class Resource:
    """Answers GET with a function."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._handler(req, resp)


class Echo:
    """Sends the messages of a WebSocket back."""

    async def on_websocket(self, _req: Request, socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_text(await socket.receive_text())
        except WebSocketDisconnected:
            return


async def see(req: Request, resp: Response) -> None:
    resp.media = seen(req.scope)


async def stream(_req: Request, resp: Response) -> None:
    resp.stream = pieces()


async def watch(_req: Request, resp: Response) -> None:
    resp.sse = (SSEvent(text="next") async for _ in events())


async def crash(_req: Request, _resp: Response) -> None:
    raise ValueError(CRASH)


async def later(_req: Request, resp: Response) -> None:
    resp.text = "later"
    resp.schedule(background)


names = names_of("Falcon")
falcon = names["inner"]
handlers: dict[str, Handler] = {"seen": see, "stream": stream, "events": watch, "crash": crash, "background": later}
for path, handler in handlers.items():
    falcon.add_route(f"/{path}", Resource(handler))
falcon.add_route("/echo", Echo())
app = Outer(names["app"], names["gate"])
