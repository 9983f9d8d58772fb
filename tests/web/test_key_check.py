"""Endpoints that find the key themselves: `key_in_body` and `check_key`."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from gatekeeper import (
    ConfigError,
    CorsPolicy,
    DecisionMissing,
    Gatekeeper,
    GatekeeperMiddleware,
    Reason,
    StaticSource,
    check_key,
    decision_from,
    guard,
)
from gatekeeper.gate.page import read_page
from gatekeeper.testing import FakeClock
from tests.support.client_keys import DISABLED_KEY, KEY, OTHER_KEY, UNKNOWN_KEY
from tests.support.starlette_client import TestClient

PAGE = "https://shop.acme.com"
STRANGE_PAGE = "https://evil.test"
ROWS: list[dict[str, Any]] = [
    {"id": "1", "name": "shop", "last8": KEY[-8:], "domain_allowlist": [PAGE], "agent_id": "agent_7"},
    {"id": "2", "name": "blog", "last8": OTHER_KEY[-8:], "domain_allowlist": [PAGE, STRANGE_PAGE], "agent_id": "agent_8"},
    {"id": "3", "name": "gone", "last8": DISABLED_KEY[-8:], "domain_allowlist": [PAGE], "disabled_at": "now"},
]
PREFLIGHT = {
    "origin": STRANGE_PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type",
}


async def chat(request: Request) -> Response:
    """Find the key in a JSON body."""
    message = await request.json()
    decision = await check_key(request, message.get("key"))
    assert decision is decision_from(request) is request.state.gatekeeper
    return PlainTextResponse(f"{decision.agent_id} says hello", headers={"vary": "Accept", "x-own": "1"})


async def form(request: Request) -> Response:
    """Find the key in a form."""
    fields = parse_qs((await request.body()).decode())
    decision = await check_key(request, fields.get("key", [""])[0])
    return PlainTextResponse(f"{decision.agent_id} says hello")


async def stream(request: Request) -> Response:
    await check_key(request, (await request.json()).get("key"))

    async def pieces() -> AsyncIterator[str]:
        yield "one, "
        yield "two"

    return StreamingResponse(pieces())


async def crash(request: Request) -> Response:
    await check_key(request, (await request.json()).get("key"))
    raise ZeroDivisionError


async def forget(_request: Request) -> Response:
    return PlainTextResponse("a secret")


async def swallow(request: Request) -> Response:
    """Answer whatever has been decided."""
    try:
        await check_key(request, (await request.json()).get("key"))
    except HTTPException:
        return PlainTextResponse("a secret", headers={"set-cookie": "a=b"})
    return PlainTextResponse("fine")


async def try_both(request: Request) -> Response:
    body = await request.json()
    try:
        decision = await check_key(request, body["first"])
    except HTTPException:
        decision = await check_key(request, body["second"])
    return PlainTextResponse(str(decision.agent_id))


async def live(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(str(decision_from(websocket).agent_id))
    await websocket.close()


ROUTES: list[BaseRoute] = [
    *(Route(f"/{each.__name__}", each, methods=["POST"]) for each in (chat, form, stream, crash, forget, swallow, try_both)),
    Route("/open", forget, methods=["POST"]),
    WebSocketRoute("/chat", live),
]
PATHS = tuple(f"/{each}" for each in ("chat", "form", "stream", "crash", "forget", "swallow", "try_both"))


def gate(**options: Any) -> Gatekeeper:
    return Gatekeeper.from_rows(ROWS, **options)


def client(app: Starlette | None = None, live: Gatekeeper | None = None, **options: Any) -> TestClient:
    """A client of an app whose endpoints find the key."""
    app = Starlette(routes=ROUTES) if app is None else app
    guarded = guard(app, live or gate(), **{"key_in_body": PATHS, "exempt": ("/open",), **options})
    return TestClient(guarded, raise_server_exceptions=False)


def of_middleware(key: str | None, headers: dict[str, str], **options: Any) -> Any:
    """The answer to the same request with its key in the header, on a guarded path."""
    keyed = {} if key is None else {"data-client-key": key}
    return client(key_in_body=(), **options).post("/chat", headers={**headers, **keyed}, json={})


# Allowed


@pytest.mark.parametrize("path", ["/chat", "/form"])
def test_a_key_in_the_body_is_decided_like_one_in_the_header(path: str) -> None:
    body: dict[str, Any] = {"json": {"key": KEY}} if path == "/chat" else {"data": {"key": KEY}}
    answer = client(cors=CorsPolicy(expose_headers=("x-own",))).post(path, headers={"origin": PAGE}, **body)
    assert (answer.status_code, answer.text) == (200, "agent_7 says hello")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-expose-headers"] == "x-own"
    assert answer.headers.get_list("vary") == ["Origin, data-client-key" + (", Accept" if path == "/chat" else "")]


@pytest.mark.parametrize("path", ["/stream", "/crash"])
def test_every_kind_of_response_has_the_headers(path: str) -> None:
    """A chat streams its answer; headers on FastAPI's `Response` parameter would be lost."""
    answer = client().post(path, headers={"origin": PAGE}, json={"key": KEY})
    assert answer.text == {"/stream": "one, two", "/crash": "Internal Server Error"}[path]
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["vary"] == "Origin, data-client-key"


def test_a_page_may_be_known_by_its_referer() -> None:
    answer = client().post("/chat", headers={"referer": f"{PAGE}/cart"}, json={"key": KEY})
    assert (answer.status_code, answer.headers["vary"]) == (200, "Origin, data-client-key, Referer, Accept")


@pytest.mark.parametrize("body", [{}, {"key": None}, {"key": ""}, {"key": KEY}])
@pytest.mark.parametrize("place", ["header", "query"])
def test_a_key_in_the_header_or_the_query_counts_too(place: str, body: dict[str, Any]) -> None:
    headers = {"origin": PAGE, **({"data-client-key": KEY} if place == "header" else {})}
    query = {"client_key": KEY} if place == "query" else {}
    assert client().post("/chat", headers=headers, params=query, json=body).text == "agent_7 says hello"


def test_several_keys_may_be_tried() -> None:
    answer = client().post("/try_both", headers={"origin": STRANGE_PAGE}, json={"first": KEY, "second": OTHER_KEY})
    assert (answer.text, answer.headers["access-control-allow-origin"]) == ("agent_8", STRANGE_PAGE)
    answer = client().post("/try_both", headers={"origin": STRANGE_PAGE}, json={"first": KEY, "second": UNKNOWN_KEY})
    assert (answer.status_code, answer.json()["reason"]) == (403, "key_unknown")


# Refused


@pytest.mark.parametrize("readable_denials", [True, False])
@pytest.mark.parametrize(
    ("key", "headers", "reason"),
    [
        pytest.param(KEY, {"origin": STRANGE_PAGE}, Reason.ORIGIN_NOT_ALLOWED, id="another page"),
        pytest.param(KEY, {"origin": "null"}, Reason.ORIGIN_NULL, id="null"),
        pytest.param(KEY, {"origin": "http://testserver"}, Reason.ORIGIN_NOT_ALLOWED, id="the service's own page"),
        pytest.param(KEY, {}, Reason.ORIGIN_MISSING, id="no page"),
        pytest.param(None, {"origin": PAGE}, Reason.KEY_MISSING, id="no key"),
        pytest.param("", {"origin": PAGE}, Reason.KEY_MISSING, id="an empty key"),
        pytest.param("pk_live", {"origin": PAGE}, Reason.KEY_MALFORMED, id="no client key"),
        pytest.param("pk_live_\ud800_4fJq8ZtR2mXw9LbN6cVh", {"origin": PAGE}, Reason.KEY_MALFORMED, id="half a character"),
        pytest.param(5, {"origin": PAGE}, Reason.KEY_MALFORMED, id="a number"),
        pytest.param([KEY], {"origin": PAGE}, Reason.KEY_MALFORMED, id="a list"),
        pytest.param(DISABLED_KEY, {"origin": PAGE}, Reason.KEY_DISABLED, id="disabled"),
    ],
)
def test_a_refusal_is_that_of_the_middleware(
    key: Any, headers: dict[str, str], reason: Reason, *, readable_denials: bool
) -> None:
    body = json.dumps({"key": key})
    answer = client(readable_denials=readable_denials).post("/chat", headers=headers, content=body)
    assert (answer.status_code, answer.json()["reason"]) == (reason.status, reason)
    if key is None or (isinstance(key, str) and key.isascii()):
        expected = of_middleware(key, headers, readable_denials=readable_denials)
        assert (answer.content, answer.headers.raw) == (expected.content, expected.headers.raw)


@pytest.mark.parametrize("sent", [{"headers": {"data-client-key": OTHER_KEY}}, {"params": {"client_key": OTHER_KEY}}])
def test_a_body_with_another_key_than_the_header_or_the_query_is_refused(sent: dict[str, Any]) -> None:
    """A foreign page may name a key of its own in one place, and that of another customer in the other."""
    headers = {"origin": STRANGE_PAGE, **sent.pop("headers", {})}
    answer = client().post("/chat", headers=headers, json={"key": KEY}, **sent)
    assert (answer.status_code, answer.json()["reason"]) == (400, "key_conflict")


def test_two_keys_in_headers_are_refused() -> None:
    headers = [("origin", PAGE), ("data-client-key", KEY), ("data-client-key", OTHER_KEY)]
    assert client().post("/chat", headers=headers, json={}).json()["reason"] == "key_conflict"


def test_an_endpoint_that_goes_on_does_not_answer_a_refused_request() -> None:
    assert client().post("/swallow", headers={"origin": PAGE}, json={"key": KEY}).text == "fine"
    answer = client().post("/swallow", headers={"origin": STRANGE_PAGE}, json={"key": KEY})
    assert (answer.status_code, answer.json()["reason"]) == (403, "origin_not_allowed")
    assert "set-cookie" not in answer.headers


def test_handlers_of_exceptions_do_not_change_a_refusal() -> None:
    async def explain(_request: Request, _error: Exception) -> Response:
        return PlainTextResponse("Sorry", status_code=418)

    app = Starlette(routes=ROUTES, exception_handlers={HTTPException: explain, 403: explain})
    answer = client(app).post("/chat", headers={"origin": STRANGE_PAGE}, json={"key": KEY})
    assert (answer.status_code, answer.json()["reason"]) == (403, "origin_not_allowed")


# Preflights, and what is not decided


def test_preflights_are_answered_as_on_other_paths() -> None:
    answer = client().options("/chat", headers=PREFLIGHT)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "*")
    assert "content-type" in answer.headers["access-control-allow-headers"]
    assert answer.headers.raw == client(key_in_body=()).options("/chat", headers=PREFLIGHT).headers.raw


@pytest.mark.parametrize(("page", "status"), [(PAGE, 204), ("https://other.test", 403)])
def test_strict_preflights_are_answered_for_pages_of_any_key(page: str, status: int) -> None:
    answer = client(cors=CorsPolicy(preflight="strict")).options("/chat", headers={**PREFLIGHT, "origin": page})
    assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (
        status,
        page if status == 204 else None,
    )


def test_credentials_go_to_allowed_pages_only() -> None:
    options: dict[str, Any] = {
        "live": gate(https_only=True),
        "cors": CorsPolicy(allow_credentials=True, preflight="strict"),
    }
    allowed = client(**options).post("/chat", headers={"origin": PAGE}, json={"key": KEY})
    assert allowed.headers["access-control-allow-credentials"] == "true"
    for body, status in (('{"key": "' + KEY + '"}', 403), ("no JSON", 500)):
        answer = client(**options).post("/chat", headers={"origin": STRANGE_PAGE}, content=body)
        assert answer.status_code == status
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/chat", 405), ("OPTIONS", "/chat", 405), ("POST", "/chat/nowhere", 404), ("POST", "/crash", 500)],
)
def test_answers_before_the_check_are_the_apps_own_without_cors(method: str, path: str, status: int) -> None:
    answer = client(key_in_body=(*PATHS, "/chat/*")).request(method, path, headers={"origin": PAGE}, content="no JSON")
    assert answer.status_code == status
    assert (answer.headers["vary"], "access-control-allow-origin" in answer.headers) == ("Origin, data-client-key", False)


def test_an_endpoint_that_forgets_the_check_serves_nothing() -> None:
    app = guard(Starlette(routes=ROUTES), gate(), key_in_body=PATHS)
    with pytest.raises(DecisionMissing, match="'/forget' has answered without a call of check_key"):
        TestClient(app).post("/forget", headers={"origin": PAGE})
    answer = client().post("/forget", headers={"origin": PAGE})
    assert (answer.status_code, answer.text) == (500, "")


@pytest.mark.parametrize("path", ["/open", "/guarded"])
def test_check_key_on_another_path_says_what_to_list(path: str) -> None:
    app = Starlette(routes=[Route(path, chat, methods=["POST"])])
    headers = {"origin": PAGE, "data-client-key": KEY}
    with pytest.raises(ConfigError, match=rf"key_in_body=\('{path}',\)"):
        TestClient(guard(app, gate(), exempt=("/open",))).post(path, headers=headers, json={"key": KEY})


def test_a_websocket_on_such_a_path_names_its_key_in_the_query() -> None:
    with client().websocket_connect(f"/chat?client_key={KEY}", headers={"origin": PAGE}) as websocket:
        assert websocket.receive_text() == "agent_7"
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/chat", headers={"origin": PAGE}):
        pass  # refused before


def test_an_observing_gate_passes_on_answers_without_the_check(caplog: pytest.LogCaptureFixture) -> None:
    observed = gate(enforce=False)
    observing = client(live=observed)
    for path, status in (("/forget", 200), ("/forget", 200), ("/nowhere", 404)):
        answer = client(live=observed, key_in_body=(*PATHS, "/nowhere")).post(path, headers={"origin": STRANGE_PAGE})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, "*")
    caplog.clear()
    assert [observing.post("/forget").status_code for _ in range(3)] == [200] * 3
    (logged,) = caplog.messages
    assert "the endpoint of '/forget' has answered without a call of check_key" in logged
    observed.enforce = True
    assert observing.post("/forget").status_code == 500


@pytest.mark.parametrize("status", [200, 404])
def test_an_answer_that_has_begun_ends_with_a_refused_check(status: int) -> None:
    async def late(request: Request) -> Response:
        if status == 200:
            await check_key(request, OTHER_KEY)

        async def pieces() -> AsyncIterator[str]:
            yield "first"
            try:
                await check_key(request, KEY)
            except HTTPException:
                yield "a secret"
            yield "the end"

        return StreamingResponse(pieces(), status)

    routes = [Route("/chat", late, methods=["POST"])]
    for page, expected in ((STRANGE_PAGE, "first"), (PAGE, "firstthe end")):
        answer = client(Starlette(routes=routes)).post("/chat", headers={"origin": page})
        assert (answer.status_code, answer.text) == (status, expected)


def test_html_of_such_a_path_may_be_framed_by_the_pages_of_its_key_only() -> None:
    async def show(request: Request) -> Response:
        await check_key(request, (await request.json()).get("key"))
        return HTMLResponse("<p>hello")

    async def refuse(*_: object) -> Response:
        return HTMLResponse("<p>nothing is decided", 404)

    app = Starlette(routes=[Route("/chat", show, methods=["POST"])], exception_handlers={404: refuse})
    framing = client(app, frame_ancestors=True, key_in_body=("/chat", "/nowhere"))
    answer = framing.post("/chat", headers={"origin": PAGE}, json={"key": KEY})
    assert (answer.status_code, answer.headers["content-security-policy"]) == (200, f"frame-ancestors {PAGE}")
    undecided = framing.post("/nowhere", headers={"origin": PAGE})
    assert (undecided.status_code, "content-security-policy" in undecided.headers) == (404, False)


# Ways to mount


def test_a_path_below_a_mount_point_is_found() -> None:
    parent = Starlette(routes=[Mount("/widget", app=guard(Starlette(routes=ROUTES), gate(), key_in_body=PATHS))])
    assert TestClient(parent).post("/widget/chat", headers={"origin": PAGE}, json={"key": KEY}).status_code == 200
    assert TestClient(parent).post("/widget/chat", headers={"origin": STRANGE_PAGE}, json={"key": KEY}).status_code == 403


def test_the_middleware_has_the_same_option() -> None:
    app = TestClient(GatekeeperMiddleware(Starlette(routes=ROUTES), gate(), key_in_body=PATHS))
    assert app.post("/chat", headers={"origin": PAGE}, json={"key": KEY}).status_code == 200
    assert app.post("/chat", headers={"origin": STRANGE_PAGE}, json={"key": KEY}).json()["reason"] == "origin_not_allowed"


def test_other_middleware_between_the_gate_and_the_endpoint_does_no_harm() -> None:
    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            return await call_next(request)

    passing = client(Starlette(routes=ROUTES, middleware=[Middleware(Passing)]))
    assert passing.post("/chat", headers={"origin": PAGE}, json={"key": KEY}).text == "agent_7 says hello"
    refused = passing.post("/chat", headers={"origin": STRANGE_PAGE}, json={"key": KEY})
    assert refused.json()["reason"] == "origin_not_allowed"


def test_a_grant_takes_the_place_of_the_key() -> None:
    """The frame of a widget sends its grant to the endpoint to which scripts of a page send the key."""
    app = Starlette(routes=[Route("/embed", lambda request: JSONResponse(decision_from(request).grant)), *ROUTES])
    options: dict[str, Any] = {"live": gate(grant_secrets=["secret-" * 8]), "frames": ("/embed",)}
    framed = client(app, **options)
    grant = framed.get(f"/embed?client_key={KEY}", headers={"referer": f"{PAGE}/"}).json()
    own = {"data-client-grant": grant, "sec-fetch-site": "same-origin"}
    assert framed.post("/chat", headers=own, json={}).text == "agent_7 says hello"
    assert framed.post("/chat", headers=own, json={"key": OTHER_KEY}).json()["reason"] == "key_conflict"
    foreign = framed.post("/chat", headers={"data-client-grant": grant, "origin": PAGE}, json={})
    assert foreign.json()["reason"] == "grant_foreign"


def test_a_renewed_grant_is_handed_to_the_frame() -> None:
    """A grant is renewed in the second half of its life."""
    clock = FakeClock()
    live = Gatekeeper(StaticSource(ROWS), grant_secrets=["secret-" * 8], clock=clock, wall_clock=clock)
    grant = asyncio.run(live.grant(KEY.encode(), read_page(PAGE.encode(), None))).grant
    assert grant is not None
    framed = client(live=live, own_origins=("https://widget.example",))
    own = {"data-client-grant": grant, "origin": "https://widget.example"}
    fresh = framed.post("/chat", headers=own, json={})
    assert (fresh.status_code, "data-client-grant" in fresh.headers) == (200, False)
    clock.now += 800
    renewed = framed.post("/chat", headers=own, json={})
    assert (renewed.status_code, renewed.headers["cache-control"]) == (200, "no-store")
    assert renewed.headers["data-client-grant"] != grant
    assert "data-client-grant" in renewed.headers["access-control-expose-headers"]


# Options


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"key_in_body": "/chat"}, "key_in_body is one string, '/chat'"),
        ({"key_in_body": ("chat",)}, "key_in_body has 'chat'"),
        ({"key_in_body": ("/*",)}, "key_in_body has '/*'"),
        ({"key_in_body": ("/chat",), "exempt": ("/chat",)}, "key_in_body has '/chat', which exempt covers"),
        ({"key_in_body": ("/api/*",), "frames": ("/api/embed",)}, "frames has '/api/embed', which key_in_body covers"),
        ({"key_in_body": ("/grant",), "grant_path": "/grant"}, "grant_path has '/grant', which key_in_body covers"),
        ({"key_in_body": ("/gate/*",), "loader_path": "/gate"}, "loader_path is '/gate', but key_in_body covers"),
    ],
)
def test_paths_that_fit_no_other_option_are_a_mistake(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        guard(Starlette(), gate(grant_secrets=["secret-" * 8]), **options)
    (found,) = raised.value.problems
    assert found.startswith(problem)


def test_an_exempt_path_may_be_below_one_with_keys_in_bodies() -> None:
    app = guard(Starlette(routes=ROUTES), gate(), key_in_body=("/api/*",), exempt=("/api/open",))
    app.router.routes.append(Mount("/api", routes=ROUTES))
    assert TestClient(app).post("/api/open").text == "a secret"
    assert TestClient(app).post("/api/chat", headers={"origin": PAGE}, json={"key": KEY}).status_code == 200
