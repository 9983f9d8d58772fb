"""Requests and handshakes by hand: a scope, a receive and a send."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatekeeper import CorsPolicy, Gatekeeper, GatekeeperMiddleware
from tests.support.client_keys import KEY

__all__ = ("KEY", "App", "Header", "Response", "ask", "gate_for", "guard", "handshake", "send_to")

KEYED = (b"data-client-key", KEY.encode())

Header = tuple[bytes, bytes]


class App:
    """An app that answers every request with given headers, and records the paths."""

    BODY = b"the app's own body"

    def __init__(self, headers: Iterable[Header] = ()) -> None:
        self.headers = list(headers)
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the body stays unread
        """Answer."""
        self.paths.append(scope["path"])
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.BODY})


class Response(NamedTuple):
    """The answer."""

    status: int
    headers: list[Header]
    body: bytes

    def values(self, name: str) -> list[bytes]:
        """The values of all header fields with this name, in any letter case."""
        return [value for field, value in self.headers if field.lower() == name.encode()]

    @property
    def reason(self) -> str:
        """The reason of a refusal; "allowed" where the app answered."""
        return "allowed" if self.body == App.BODY else str(json.loads(self.body)["reason"])


def gate_for(*entries: Any, https_only: bool = False) -> Gatekeeper:
    """Make a gate for one key with these entries."""
    row = {"id": "1", "name": "shop", "last8": KEY[-8:], "domain_allowlist": list(entries)}
    return Gatekeeper.from_rows([row], https_only=https_only)


def guard(app: ASGIApp, *entries: str, cors: CorsPolicy | None = None, exempt: Iterable[str] = ()) -> GatekeeperMiddleware:
    """Guard an app by such a gate."""
    return GatekeeperMiddleware(app, gate_for(*entries), cors=cors, exempt=tuple(exempt))


def send_to(app: ASGIApp, scope: Scope) -> list[Message]:
    """Call an app with a scope; return what it sends."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    async def call() -> None:
        await app(scope, receive, send)

    asyncio.run(call())
    return sent


def ask(app: ASGIApp, *headers: Header, method: str = "GET", path: str = "/", keyed: bool = True) -> Response:
    """Make a request with the client key in its header."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [*headers, KEYED] if keyed else [*headers],
    }
    start, body = send_to(app, scope)
    assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
    return Response(start["status"], start["headers"], body["body"])


def handshake(app: ASGIApp, *headers: Header, path: str = "/", extension: bool = False) -> list[Message]:
    """Begin a WebSocket connection with the client key in its query, at a server that can answer by HTTP or not."""
    scope = {
        "type": "websocket",
        "path": path,
        "query_string": b"client_key=" + KEY.encode(),
        "headers": list(headers),
        "extensions": {"websocket.http.response": {}} if extension else {},
    }
    return send_to(app, scope)
