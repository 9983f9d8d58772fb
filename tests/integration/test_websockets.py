"""WebSockets, decided in the handshake, with both of uvicorn's implementations."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from gatekeeper import FileSource, Gatekeeper, GatekeeperMiddleware, decision_from
from tests.integration.conftest import DEADLINE, PAGE, ROW, STRANGE_PAGE, Served, WebSockets, serving
from tests.support.client_keys import KEY, TWIN_KEY

ROWS = [ROW, {**ROW, "id": "2", "last8": TWIN_KEY[-8:], "disabled_at": "2026-01-02T03:04:05Z"}]


async def converse(websocket: WebSocket) -> None:
    """Send the agent of the key, then echo."""
    await websocket.accept()
    await websocket.send_text(str(decision_from(websocket).agent_id))
    async for text in websocket.iter_text():
        await websocket.send_text(text)


ROUTES = [WebSocketRoute("/ws", converse), WebSocketRoute("/open", converse)]


@pytest.fixture(scope="module", params=["websockets-sansio", "wsproto"])
def speaks(request: pytest.FixtureRequest) -> WebSockets:
    """Both WebSocket implementations of uvicorn."""
    way: WebSockets = request.param
    return way


@pytest.fixture(scope="module", params=["wrapped", "listed"])
def served(request: pytest.FixtureRequest, speaks: WebSockets) -> Iterator[Served]:
    """Serve a wrapped app, or one with the middleware inside."""
    gate = Gatekeeper.from_rows(ROWS)
    if request.param == "wrapped":
        app: GatekeeperMiddleware | Starlette = GatekeeperMiddleware(Starlette(routes=ROUTES), gate)
    else:
        app = Starlette(routes=ROUTES, middleware=[Middleware(GatekeeperMiddleware, gatekeeper=gate)])
    with serving(app, ws=speaks) as served:
        yield served


def shake_hands(served: Served, query: str, origin: str | None, **headers: str) -> ClientConnection:
    """Open a WebSocket as a page does."""
    return connect(
        f"ws://127.0.0.1:{served.port}/ws?{query}",
        origin=None if origin is None else Origin(origin),
        additional_headers=Headers(**headers),
        proxy=None,
        open_timeout=DEADLINE,
    )


def test_an_allowed_page_talks_with_the_app(served: Served) -> None:
    with shake_hands(served, f"client_key={KEY}", PAGE) as connection:
        assert connection.recv(DEADLINE) == "agent_7"
        connection.send("hello")
        assert connection.recv(DEADLINE) == "hello"


@pytest.mark.parametrize(
    ("query", "origin", "status", "reason"),
    [
        ("", PAGE, 400, "key_missing"),
        ("client_key=sesame", PAGE, 400, "key_malformed"),
        (f"client_key={KEY}&client_key={TWIN_KEY}", PAGE, 400, "key_conflict"),
        (f"client_key={KEY[:-1]}", PAGE, 403, "key_unknown"),
        (f"client_key={TWIN_KEY}", PAGE, 403, "key_disabled"),
        (f"client_key={KEY}", None, 403, "origin_missing"),
        (f"client_key={KEY}", "null", 403, "origin_null"),
        (f"client_key={KEY}", PAGE + "/", 400, "origin_malformed"),
        (f"client_key={KEY}", STRANGE_PAGE, 403, "origin_not_allowed"),
    ],
)
def test_any_other_page_is_refused_by_an_http_answer_with_the_reason(
    served: Served, query: str, origin: str | None, status: int, reason: str
) -> None:
    with pytest.raises(InvalidStatus) as refused, shake_hands(served, query, origin):
        pass
    response = refused.value.response
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.headers["cache-control"] == "no-store"
    problem = json.loads(response.body)
    assert (problem["reason"], problem["status"]) == (reason, status)
    assert problem["detail"]


def test_a_key_in_a_header_of_the_handshake_is_ignored(served: Served) -> None:
    with pytest.raises(InvalidStatus) as refused, shake_hands(served, "", PAGE, data_client_key=KEY):
        pass
    assert json.loads(refused.value.response.body)["reason"] == "key_missing"


def test_a_gate_without_a_list_is_not_ready(speaks: WebSockets, tmp_path: Path) -> None:
    gate = Gatekeeper(FileSource(tmp_path / "nothing.json"), start_timeout=0)
    with (
        serving(GatekeeperMiddleware(Starlette(routes=ROUTES), gate), ws=speaks) as served,
        pytest.raises(InvalidStatus) as refused,
        shake_hands(served, f"client_key={KEY}", PAGE),
    ):
        pass
    response = refused.value.response
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert json.loads(response.body)["reason"] == "not_ready"


def test_two_origins_never_open_a_websocket(served: Served) -> None:
    """Some servers refuse them, and the others leave it to the guard."""
    lines = [
        f"GET /ws?client_key={KEY} HTTP/1.1",
        "Host: widgets.test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Origin: {PAGE}",
        f"Origin: {PAGE}",
    ]
    with served.connect() as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        with connection.makefile("rb") as answer:
            assert answer.readline().startswith(b"HTTP/1.1 400 ")
