"""The handlers for Starlette and FastAPI."""

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.frameworks.serving import CRASH, EVENTS, background, events, pieces, seen

__all__ = ("ROUTES",)


async def see(request: Request) -> JSONResponse:
    return JSONResponse(seen(request.scope))


async def stream(_request: Request) -> StreamingResponse:
    return StreamingResponse(pieces())


async def watch(_request: Request) -> StreamingResponse:
    return StreamingResponse(events(), media_type=EVENTS)


async def crash(_request: Request) -> None:
    raise ValueError(CRASH)


async def later(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("later", background=BackgroundTask(background))


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


ROUTES: list[BaseRoute] = [
    Route("/seen", see),
    Route("/stream", stream),
    Route("/events", watch),
    Route("/crash", crash),
    Route("/background", later),
    WebSocketRoute("/echo", echo),
]
