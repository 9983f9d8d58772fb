"""guard: the gate around a Starlette or FastAPI app."""

import functools
import inspect
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from gatekeeper import ConfigError, CorsPolicy, FileSource, Gatekeeper, GatekeeperMiddleware, decision_from, guard
from tests.needs import fastapi_command
from tests.support.client_keys import KEY
from tests.support.starlette_client import TestClient
from tests.support.starting import accepts, wait_until_ready
from tests.wire.servers import free_ports

PAGE = "https://shop.acme.com"
STRANGE_PAGE = "https://evil.test"
ROW: dict[str, Any] = {"id": "1", "name": "shop", "last8": KEY[-8:], "domain_allowlist": [PAGE], "agent_id": "agent_7"}
ALLOWED = {"data-client-key": KEY, "origin": PAGE}
FOREIGN = {"data-client-key": KEY, "origin": STRANGE_PAGE}
PREFLIGHT = {"origin": STRANGE_PAGE, "access-control-request-method": "POST"}


async def tell_agent(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(decision_from(request).agent_id))


async def crash(_request: Request) -> PlainTextResponse:
    raise ZeroDivisionError


async def tell_state(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.state.database} {request.state.gatekeeper.agent_id}")


async def greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(str(decision_from(websocket).agent_id))
    await websocket.close()


ROUTES: list[BaseRoute] = [
    Route("/agent", tell_agent),
    Route("/crash", crash),
    Route("/state", tell_state),
    Route("/open", lambda _: PlainTextResponse("open")),
    WebSocketRoute("/live", greet),
]
both = pytest.mark.parametrize("make", [Starlette, FastAPI])


def gate() -> Gatekeeper:
    return Gatekeeper.from_rows([ROW])


def is_refreshing(live: Gatekeeper) -> bool:
    return live.status.is_refreshing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one key."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ROW]))
    return path


class Recorder:
    """A middleware that records the paths that reach it."""

    def __init__(self, app: ASGIApp, seen: list[str]) -> None:
        self.app = app
        self.seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.extend([scope["path"]] if scope["type"] == "http" else [])
        await self.app(scope, receive, send)


# What is served


@both
def test_the_app_that_is_guarded_is_the_app_that_is_given(make: Callable[..., Starlette]) -> None:
    app = make(routes=ROUTES)
    assert guard(app, gate()) is app
    client = TestClient(app)
    allowed = client.get("/agent", headers=ALLOWED)
    assert (allowed.status_code, allowed.text, allowed.headers["access-control-allow-origin"]) == (200, "agent_7", PAGE)
    refused = client.get("/agent", headers=FOREIGN)
    assert (refused.status_code, refused.json()["reason"]) == (403, "origin_not_allowed")
    preflight = client.options("/agent", headers=PREFLIGHT)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "*")


@both
def test_the_page_can_read_that_the_app_crashed(make: Callable[..., Starlette]) -> None:
    """Starlette answers a crash outside of all middleware that is added."""
    client = TestClient(guard(make(routes=ROUTES), gate()), raise_server_exceptions=False)
    answer = client.get("/crash", headers=ALLOWED)
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["vary"] == "Origin, data-client-key"


@both
def test_any_page_can_read_that_an_exempt_path_crashed(make: Callable[..., Starlette]) -> None:
    app = guard(make(routes=ROUTES), gate(), exempt=("/crash", "/open"), exempt_cors=True)
    client = TestClient(app, raise_server_exceptions=False)
    for path, status in (("/crash", 500), ("/open", 200)):
        answer = client.get(path, headers={"origin": STRANGE_PAGE})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, "*")


@both
def test_web_sockets_are_guarded(make: Callable[..., Starlette]) -> None:
    client = TestClient(guard(make(routes=ROUTES), gate()))
    with client.websocket_connect(f"/live?client_key={KEY}", headers={"origin": PAGE}) as websocket:
        assert websocket.receive_text() == "agent_7"
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(f"/live?client_key={KEY}", headers={"origin": STRANGE_PAGE}),
    ):
        pass  # refused before


@both
def test_middleware_that_is_added_later_stays_inside_the_gate(make: Callable[..., Starlette]) -> None:
    seen: list[str] = []
    app = guard(make(routes=ROUTES), gate(), exempt=("/open",))
    app.add_middleware(Recorder, seen=seen)
    client = TestClient(app)
    assert client.get("/agent", headers=FOREIGN).status_code == 403
    assert client.options("/agent", headers=PREFLIGHT).status_code == 204
    assert seen == []
    assert client.get("/agent", headers=ALLOWED).status_code == 200
    assert client.get("/open").status_code == 200
    assert seen == ["/agent", "/open"]


@both
def test_cors_middleware_answers_only_on_exempt_paths(make: Callable[..., Starlette]) -> None:
    """Around a gate that is added as a middleware, it would answer preflights and refusals in the gate's place."""
    app = guard(make(routes=ROUTES), gate(), exempt=("/open",), cors=CorsPolicy(preflight="strict"))
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_credentials=True)
    client = TestClient(app)
    assert client.options("/agent", headers=PREFLIGHT).status_code == 403
    allowed = client.get("/agent", headers=ALLOWED)
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-credentials" not in allowed.headers
    refused = client.get("/agent", headers=FOREIGN)
    assert refused.status_code == 403
    assert "access-control-allow-credentials" not in refused.headers
    assert client.options("/open", headers=PREFLIGHT).status_code == 200
    assert "access-control-allow-origin" in client.get("/open", headers={"origin": STRANGE_PAGE}).headers


def test_a_mounted_app_is_guarded_on_its_own(path: Path) -> None:
    """The lifespan of a mounted app never runs, so the gate starts at the first request."""
    live = Gatekeeper(FileSource(path))
    parent = Starlette(routes=ROUTES)
    parent.mount("/widget", guard(FastAPI(routes=ROUTES), live, exempt=("/open",)))
    with TestClient(parent) as client:
        assert not is_refreshing(live)
        assert client.get("/widget/agent", headers=ALLOWED).text == "agent_7"
        assert is_refreshing(live)
        assert client.get("/widget/agent", headers=FOREIGN).status_code == 403
        for open_path in ("/open", "/widget/open", "/widget/docs", "/widget/openapi.json"):
            assert client.get(open_path).status_code == 200


# The lifespan


@both
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_gate_runs_as_long_as_the_app(make: Callable[..., Starlette], backend: Any, path: Path) -> None:
    live = Gatekeeper(FileSource(path))
    app = guard(make(routes=ROUTES), live)
    for _ in range(2):
        with TestClient(app, backend=backend) as client:
            assert live.status.state == "fresh"
            assert is_refreshing(live)
            assert client.get("/agent", headers=ALLOWED).text == "agent_7"
        assert not is_refreshing(live)


@both
def test_a_lifespan_of_the_apps_own_runs_inside_that_of_the_gate(make: Callable[..., Starlette], path: Path) -> None:
    live = Gatekeeper(FileSource(path))
    seen = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        seen.append((app, live.status.is_refreshing))
        yield {"database": "rows"}
        seen.append((app, live.status.is_refreshing))

    app = guard(make(routes=ROUTES, lifespan=lifespan), live)
    with TestClient(app) as client:
        for _ in range(2):
            assert client.get("/state", headers=ALLOWED).text == "rows agent_7"
    assert seen == [(app, True), (app, True)]


@both
def test_a_gate_that_the_lifespan_starts_too_runs_once(make: Callable[..., Starlette], path: Path) -> None:
    """The app had `lifespan=gate.lifespan` before it was guarded with guard()."""
    live = Gatekeeper(FileSource(path))
    with TestClient(guard(make(routes=ROUTES, lifespan=live.lifespan), live)) as client:
        assert client.get("/agent", headers=ALLOWED).text == "agent_7"
    assert not is_refreshing(live)


@both
def test_the_gate_stops_if_the_app_fails_to_start(make: Callable[..., Starlette], path: Path) -> None:
    live = Gatekeeper(FileSource(path))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        if is_refreshing(live):
            raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError), TestClient(guard(make(lifespan=lifespan), live)):
        pass  # it does not start
    assert not is_refreshing(live)


def test_a_router_that_is_included_later_keeps_its_lifespan(path: Path) -> None:
    live = Gatekeeper(FileSource(path))
    seen = []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, str]]:
        seen.append(live.status.is_refreshing)
        yield {"database": "rows"}

    app = guard(FastAPI(routes=ROUTES), live)
    app.include_router(APIRouter(lifespan=lifespan))
    with TestClient(app) as client:
        assert client.get("/state", headers=ALLOWED).text == "rows agent_7"
    assert seen == [True]


# FastAPI's documentation

DOCS = ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect")


def test_the_documentation_of_fastapi_needs_no_key() -> None:
    client = TestClient(guard(FastAPI(), gate()))
    assert {client.get(path).status_code for path in DOCS} == {200}


def test_the_documentation_of_fastapi_can_be_guarded() -> None:
    client = TestClient(guard(FastAPI(), gate(), exempt_docs=False))
    assert {client.get(path).status_code for path in DOCS} == {400}


def test_the_documentation_of_fastapi_may_be_at_other_paths() -> None:
    app = FastAPI(docs_url="/help", redoc_url=None, openapi_url="/v1/schema", swagger_ui_oauth2_redirect_url=None)
    client = TestClient(guard(app, gate()))
    assert {client.get(path).status_code for path in ("/help", "/v1/schema")} == {200}
    assert {client.get(path).status_code for path in DOCS} == {400}


def test_only_reads_of_documentation_need_no_key() -> None:
    app = FastAPI(docs_url="/")
    app.add_api_route("/", tell_agent, methods=["POST", "DELETE"])
    app.add_api_websocket_route("/", greet)
    client = TestClient(guard(app, gate()))
    assert [client.request(method, "/").status_code for method in ("GET", "HEAD", "POST", "DELETE")] == [200, 200, 400, 400]
    assert client.post("/", headers=ALLOWED).text == "agent_7"
    assert client.post("/", headers=FOREIGN).status_code == 403
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/"):
        pass


def test_any_page_can_read_documentation_if_exempt_paths_are_public() -> None:
    for exempt_cors, expected in ((True, "*"), (False, None)):
        client = TestClient(guard(FastAPI(), gate(), exempt_cors=exempt_cors, exempt=("/open",)))
        answer = client.get("/openapi.json", headers={"origin": STRANGE_PAGE})
        assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (200, expected)


def test_documentation_behind_a_root_path_needs_no_key() -> None:
    client = TestClient(guard(FastAPI(), gate()), root_path="/api/v1")
    for path in DOCS:
        assert client.get(path).status_code == client.get(f"/api/v1{path}").status_code == 200
    assert client.get("/api/v1/agent").status_code == 400


def test_paths_at_which_fastapi_serves_no_documentation_are_guarded() -> None:
    """Without a schema it serves no page, though the app has a path for one."""
    client = TestClient(guard(FastAPI(openapi_url=None), gate()))
    assert {client.get(path).status_code for path in DOCS} == {400}


def test_an_app_of_starlette_has_no_documentation_to_exempt() -> None:
    client = TestClient(guard(Starlette(routes=[Route("/docs", tell_agent)]), gate()))
    assert client.get("/docs").json()["reason"] == "key_missing"


# Mistakes


def problems(*args: Any, **options: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        guard(*args, **options)
    return raised.value.problems


@both
def test_an_app_is_guarded_once(make: Callable[..., Starlette]) -> None:
    app = guard(make(), gate())
    (problem,) = problems(app, gate())
    assert problem.startswith("app is guarded already: ")


def test_an_app_is_guarded_once_though_others_wrap_the_same_method() -> None:
    """OpenTelemetry's instrumentation replaces it in this way."""
    app = guard(FastAPI(), gate())
    build = app.build_middleware_stack

    @functools.wraps(build)
    def instrumented(_app: FastAPI) -> ASGIApp:
        return build()

    vars(app)["build_middleware_stack"] = types.MethodType(instrumented, app)
    (problem,) = problems(app, gate())
    assert problem.startswith("app is guarded already: ")


def test_a_subclass_with_a_stack_of_its_own_is_guarded() -> None:
    class Recording(FastAPI):
        def build_middleware_stack(self) -> ASGIApp:
            return Recorder(super().build_middleware_stack(), seen)

    seen: list[str] = []
    client = TestClient(guard(Recording(routes=ROUTES), gate()))
    assert client.get("/agent", headers=FOREIGN).status_code == 403
    assert seen == []
    assert client.get("/agent", headers=ALLOWED).status_code == 200
    assert seen == ["/agent"]


@both
def test_an_app_with_the_middleware_is_not_guarded_again(make: Callable[..., Starlette]) -> None:
    app = make()
    app.add_middleware(GatekeeperMiddleware, gatekeeper=gate())
    (problem,) = problems(app, gate())
    assert problem.startswith("app has GatekeeperMiddleware already: ")


@both
def test_an_app_that_has_started_is_not_guarded(make: Callable[..., Starlette]) -> None:
    app = make()
    assert TestClient(app).get("/").status_code == 404
    (problem,) = problems(app, gate())
    assert problem.startswith("app has started already: ")


@pytest.mark.parametrize("app", [Router(), APIRouter(), Mount("/", app=Starlette()), None, Recorder(Starlette(), [])])
def test_another_app_is_told_to_use_the_middleware(app: object) -> None:
    (problem,) = problems(app, gate())
    assert problem.endswith("use GatekeeperMiddleware(app, gate)")


def test_all_mistakes_are_told_at_once_and_change_nothing() -> None:
    app = FastAPI(routes=ROUTES)
    assert TestClient(app).get("/open").status_code == 200
    lifespan = app.router.lifespan_context
    found = problems(app, None, key_header="Origin", exempt="/open", frames=["embed"], loader_path="gatekeeper")
    starts = [
        "app has started",
        "gatekeeper is None",
        "key_header is",
        "exempt is one string",
        "frames has",
        "loader_path is",
    ]
    assert [problem[: len(start)] for problem, start in zip(found, starts, strict=True)] == starts
    assert app.router.lifespan_context is lifespan
    assert TestClient(app).get("/open").status_code == 200


@pytest.mark.parametrize("exempt", ["/open", None, ("open",), 7])
def test_exempt_paths_are_checked_as_they_are_given(exempt: Any) -> None:
    for found in problems(FastAPI(), gate(), exempt=exempt):
        assert found.startswith("exempt ")
        assert "/docs" not in found


def test_the_options_are_those_of_the_middleware() -> None:
    ours, theirs = (dict(inspect.signature(each, eval_str=True).parameters) for each in (guard, GatekeeperMiddleware))
    assert ours.pop("exempt_docs").default is True
    del ours["app"], ours["gate"], theirs["app"], theirs["gatekeeper"]
    assert ours == theirs


# Programs that are given the app by its name

MAIN = """
import json, pathlib
from fastapi import FastAPI
from gatekeeper import FileSource, Gatekeeper, guard
from gatekeeper.fastapi import Checked

gate = Gatekeeper(FileSource(pathlib.Path(__file__).with_name("rows.json")))
app = FastAPI()


@app.get("/agent")
async def tell_agent(decision: Checked) -> str | None:
    return decision.agent_id


guard(app, gate)
"""


Command = Callable[[int], list[str]]


def uvicorn_main(port: int) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "main:app", "--port", str(port)]


def fastapi_run(port: int) -> list[str]:
    return [*fastapi_command(), "run", "--host", "127.0.0.1", "--port", str(port)]


def fastapi_dev(port: int) -> list[str]:
    return [*fastapi_command(), "dev", "--port", str(port)]


@pytest.mark.process
@pytest.mark.parametrize("command", [uvicorn_main, fastapi_run, fastapi_dev])
def test_servers_that_find_the_app_by_name_serve_the_guarded_one(command: Callable[[int], list[str]], path: Path) -> None:
    """The middleware around a FastAPI app is no FastAPI app: the command line of FastAPI ran the one inside."""
    path.with_name("main.py").write_text(MAIN)
    (port,) = free_ports(1)
    log = path.with_name("log")
    with log.open("wb") as output:
        server = subprocess.Popen(command(port), cwd=path.parent, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until_ready(server, partial(accepts, port), lambda: f"{command.__name__}, which wrote {log.read_text()!r},")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as client:
            assert client.get("/agent", headers=ALLOWED).json() == "agent_7"
            assert client.get("/agent", headers=FOREIGN).json()["reason"] == "origin_not_allowed"
            assert client.get("/docs").status_code == 200
    finally:
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(server.pid, signal.SIGTERM)  # a server that reloads has a child
        server.wait(20)
