"""ASGI requests as a server makes them, for the benchmarks in process."""

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

__all__ = (
    "BATCH",
    "HEADERS",
    "PATH",
    "answer",
    "get",
    "get_in_frame",
    "headerless_app",
    "mere_app",
    "preflight",
    "receive",
    "send",
    "widget_app",
)

PATH = "/api/v1/widget/config"
BATCH = 50  # requests made before each timed run: few enough to stay in the processor's cache, as with a server

# A cross-origin GET with one custom header by Chromium 156, in its order. Each request sets key, origin and referer.
HEADERS = (
    (b"host", b"widgets.example"),
    (b"connection", b"keep-alive"),
    (b"sec-ch-ua-platform", b'"Linux"'),
    (
        b"user-agent",
        b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
    ),
    (b"sec-ch-ua", b'"Chromium";v="156", "Not)A;Brand";v="24"'),
    (b"data-client-key", b""),
    (b"sec-ch-ua-mobile", b"?0"),
    (b"accept", b"*/*"),
    (b"origin", b""),
    (b"sec-fetch-site", b"cross-site"),
    (b"sec-fetch-mode", b"cors"),
    (b"sec-fetch-dest", b"empty"),
    (b"referer", b""),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-US,en;q=0.9"),
)


def get(
    *, key: bytes | None = None, origin: bytes | None = None, referer: bytes | None = None, query: bytes = b""
) -> dict[str, Any]:
    """The scope of a GET. Like a server, it makes new bytes each time."""
    own = {b"data-client-key": key, b"origin": origin, b"referer": referer}
    headers = [(name, own.get(name, value)) for name, value in HEADERS]
    return _scope("GET", query, [(name, value) for name, value in headers if value is not None])


def get_in_frame(grant: bytes) -> dict[str, Any]:
    """The scope of that GET by the widget's own frame."""
    names = {b"data-client-key": (b"data-client-grant", grant), b"sec-fetch-site": (b"sec-fetch-site", b"same-origin")}
    headers = [names.get(name, (name, value)) for name, value in HEADERS if name != b"origin"]
    return _scope("GET", b"", headers)


def preflight(origin: bytes) -> dict[str, Any]:
    """The scope of the preflight of that GET."""
    asks = [
        (b"origin", origin),
        (b"access-control-request-method", b"GET"),
        (b"access-control-request-headers", b"data-client-key"),
    ]
    absent = {b"data-client-key", b"origin", b"referer"}
    return _scope("OPTIONS", b"", [*(header for header in HEADERS if header[0] not in absent), *asks])


def widget_app(lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """The guarded app: one route with a small JSON answer."""
    return Starlette(routes=[Route(PATH, _config)], lifespan=lifespan)


async def mere_app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - as ASGI has it
    """An app that takes almost no time."""
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), (b"x-request-id", b"7f3c2d")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


async def headerless_app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - as ASGI has it
    """An app whose response has no headers of its own."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"{}"})


async def receive() -> Message:
    """Receive the empty body of a request."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    """Discard a message."""


async def answer(app: ASGIApp, scope: Scope) -> tuple[int, dict[bytes, bytes]]:
    """The status and headers of an answer."""
    seen: list[Message] = []

    async def keep(message: Message) -> None:
        seen.append(message)

    await app(scope, receive, keep)
    return seen[0]["status"], dict(seen[0].get("headers", ()))


async def _config(request: Request) -> JSONResponse:  # noqa: ARG001 - the signature of an endpoint
    return JSONResponse({"agent_id": "agent_7"}, headers={"cache-control": "no-store", "x-request-id": "7f3c2d"})


def _scope(method: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": PATH,
        "root_path": "",
        "query_string": bytes(bytearray(query)),
        "scheme": "http",
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "headers": [(bytes(bytearray(name)), bytes(bytearray(value))) for name, value in headers],
        "state": {},
    }
