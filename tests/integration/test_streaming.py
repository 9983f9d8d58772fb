"""The guard passes on each piece of a response immediately."""

import threading
from collections.abc import AsyncIterator, Callable

import anyio.to_thread
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gatekeeper import Gatekeeper, GatekeeperMiddleware
from tests.integration.conftest import DEADLINE, PAGE, Serve
from tests.support.client_keys import KEY


class Valve:
    """Holds back the second piece of a response until it is opened."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def open(self) -> None:
        """Release the second piece."""
        self._opened.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the first piece immediately, and the second one later."""
        yield b"data: first\n\n"
        assert await anyio.to_thread.run_sync(self._opened.wait, DEADLINE)
        yield b"data: second\n\n"

    async def respond(self, _request: Request) -> StreamingResponse:
        """Send events."""
        return StreamingResponse(self.pieces(), media_type="text/event-stream")

    async def send_raw(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send events without a framework."""
        assert scope["type"] == "http"
        fields = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        async for piece in self.pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})


def without_framework(valve: Valve, gate: Gatekeeper) -> ASGIApp:
    """Guard a bare app, which has no lifespan."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await Starlette()(scope, receive, send)
        else:
            await valve.send_raw(scope, receive, send)

    return GatekeeperMiddleware(app, gate, frame_ancestors=True)


def wrapped_starlette(valve: Valve, gate: Gatekeeper) -> ASGIApp:
    """Wrap a Starlette app."""
    return GatekeeperMiddleware(Starlette(routes=[Route("/", valve.respond)]), gate)


def added_to_fastapi(valve: Valve, gate: Gatekeeper) -> ASGIApp:
    """Add the middleware to a FastAPI app."""
    app = FastAPI(routes=[Route("/", valve.respond)])
    app.add_middleware(GatekeeperMiddleware, gatekeeper=gate)
    return app


@pytest.mark.parametrize("make", [without_framework, wrapped_starlette, added_to_fastapi])
def test_the_first_piece_arrives_before_the_second_is_sent(
    serve: Serve, gate: Gatekeeper, make: Callable[[Valve, Gatekeeper], ASGIApp]
) -> None:
    valve = Valve()
    served = serve(make(valve, gate))
    # Like an EventSource, which cannot set a header: the key is in the URL.
    with served.client.stream("GET", f"/?client_key={KEY}", headers={"Origin": PAGE}) as response:
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, PAGE)
        pieces = response.iter_raw()
        assert next(pieces) == b"data: first\n\n"
        valve.open()
        assert b"".join(pieces) == b"data: second\n\n"
