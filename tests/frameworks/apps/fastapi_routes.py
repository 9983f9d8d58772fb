"""The handlers for FastAPI, which those of Starlette without a response fit."""

from fastapi import APIRouter, BackgroundTasks, Request, WebSocket
from fastapi.responses import StreamingResponse

from tests.frameworks.serving import CRASH, EVENTS, background, events, pieces, seen

__all__ = ("add_routes",)


async def see(request: Request) -> dict[str, str | None]:
    return seen(request.scope)


async def stream() -> StreamingResponse:
    return StreamingResponse(pieces())


async def watch() -> StreamingResponse:
    return StreamingResponse(events(), media_type=EVENTS)


async def crash() -> None:
    raise ValueError(CRASH)


async def later(tasks: BackgroundTasks) -> str:
    tasks.add_task(background)
    return "later"


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def add_routes(router: APIRouter) -> None:
    """Add the handlers to a router."""
    router.add_api_route("/seen", see)
    router.add_api_route("/stream", stream)
    router.add_api_route("/events", watch)
    router.add_api_route("/crash", crash)
    router.add_api_route("/background", later)
    router.add_api_websocket_route("/echo", echo)
