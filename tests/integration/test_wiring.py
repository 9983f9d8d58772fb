"""The ways to guard an app, and what each one covers."""

import asyncio
import gc
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from gatekeeper import (
    Basis,
    CorsPolicy,
    Decision,
    FileSource,
    Gatekeeper,
    GatekeeperMiddleware,
    Unchanged,
    Updates,
    decision_from,
)
from tests.integration.conftest import (
    ALLOWED,
    DEADLINE,
    PAGE,
    ROW,
    STRANGE_PAGE,
    Http,
    Serve,
    Served,
    names,
    serving,
    write_rows,
)
from tests.support.client_keys import KEY, OTHER_KEY

OTHER_ROW = {**ROW, "id": "2", "last8": OTHER_KEY[-8:], "agent_id": "agent_8"}
OTHER_ALLOWED = {**ALLOWED, "Data-Client-Key": OTHER_KEY}


async def tell_agent(request: Request) -> PlainTextResponse:
    """Answer with the agent of the key."""
    decision: Decision = request.state.gatekeeper
    assert decision is decision_from(request)
    return PlainTextResponse(str(decision.agent_id))


async def crash(_request: Request) -> PlainTextResponse:
    """Raise an exception."""
    raise ZeroDivisionError


ROUTES: list[BaseRoute] = [Route("/agent", tell_agent), Route("/crash", crash)]


def listed_in_starlette(gate: Gatekeeper) -> ASGIApp:
    """Pass the middleware to the constructor of the app."""
    return Starlette(routes=ROUTES, middleware=[Middleware(GatekeeperMiddleware, gatekeeper=gate)])


def added_to_starlette(gate: Gatekeeper) -> ASGIApp:
    """Add the middleware to an existing app."""
    app = Starlette(routes=ROUTES)
    app.add_middleware(GatekeeperMiddleware, gatekeeper=gate)
    return app


def added_to_fastapi(gate: Gatekeeper) -> ASGIApp:
    """Add the middleware to a FastAPI app."""
    app = FastAPI(routes=ROUTES)
    app.add_middleware(GatekeeperMiddleware, gatekeeper=gate)

    @app.get("/typed")
    async def tell_name(request: Request) -> dict[str, Any]:
        decision = decision_from(request)
        return {"agent": decision.agent_id, "matched": decision.matched}

    return app


def wrapped_starlette(gate: Gatekeeper) -> ASGIApp:
    """Wrap the whole app."""
    return GatekeeperMiddleware(Starlette(routes=ROUTES), gatekeeper=gate)


def wrapped_fastapi(gate: Gatekeeper) -> ASGIApp:
    """Wrap a whole FastAPI app."""
    return GatekeeperMiddleware(FastAPI(routes=ROUTES), gatekeeper=gate)


INSIDE = [listed_in_starlette, added_to_starlette, added_to_fastapi]
OUTSIDE = [wrapped_starlette, wrapped_fastapi]

LAST = {**ALLOWED, "Connection": "close"}  # uvicorn closes the connection after a crash

in_every_way = pytest.mark.parametrize("served", [*INSIDE, *OUTSIDE], indirect=True)
from_outside = pytest.mark.parametrize("served", OUTSIDE, indirect=True)
from_inside = pytest.mark.parametrize("served", INSIDE, indirect=True)


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, http: Http) -> Iterator[Served]:
    """Serve an app that is guarded in one of these ways."""
    wiring: Callable[[Gatekeeper], ASGIApp] = request.param
    with serving(wiring(Gatekeeper.from_rows([ROW])), http=http) as served:
        yield served


@in_every_way
def test_every_wiring_guards_the_app_and_passes_on_the_decision(served: Served) -> None:
    allowed = served.get("/agent", headers=ALLOWED)
    assert (allowed.status_code, allowed.text) == (200, "agent_7")
    assert allowed.headers["access-control-allow-origin"] == PAGE
    refused = served.get("/agent", headers={"Origin": PAGE})
    assert (refused.status_code, refused.json()["reason"]) == (400, "key_missing")
    assert refused.headers["access-control-allow-origin"] == "*"


@in_every_way
def test_an_unknown_path_is_a_404_that_the_page_can_read(served: Served) -> None:
    answer = served.get("/nowhere", headers=ALLOWED)
    assert answer.status_code == 404
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert served.get("/nowhere").json()["reason"] == "key_missing"


@from_outside
def test_with_the_app_wrapped_the_page_can_read_that_it_crashed(served: Served) -> None:
    answer = served.get("/crash", headers=LAST)
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert names(answer.headers["vary"]) == {"origin", "data-client-key"}


@from_inside
def test_with_the_guard_inside_the_page_cannot_read_that_it_crashed(served: Served) -> None:
    """Starlette answers uncaught exceptions outside of an app's own middlewares."""
    answer = served.get("/crash", headers=LAST)
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert "access-control-allow-origin" not in answer.headers


@in_every_way
def test_a_refused_request_never_reaches_a_crashing_route(served: Served) -> None:
    assert served.get("/crash", headers={"Origin": PAGE}).json()["reason"] == "key_missing"


@pytest.mark.parametrize("served", [added_to_fastapi], indirect=True)
def test_a_fastapi_route_gets_the_decision(served: Served) -> None:
    assert served.get("/typed", headers=ALLOWED).json() == {"agent": "agent_7", "matched": PAGE}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one key."""
    path = tmp_path / "rows.json"
    write_rows(path, ROW)
    return path


def ask_until(served: Served, headers: dict[str, str], status: int) -> None:
    """Repeat a request until its answer has the status."""
    deadline = time.monotonic() + DEADLINE
    while (seen := served.get("/agent", headers=headers).status_code) != status:
        assert time.monotonic() < deadline, f"{seen} and not {status} within {DEADLINE} s"


def test_a_mounted_app_is_guarded_although_its_lifespan_never_runs(serve: Serve, path: Path) -> None:
    lifespans = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        lifespans.extend([scope["type"]] if scope["type"] == "lifespan" else [])
        await Starlette(routes=ROUTES)(scope, receive, send)

    guarded = GatekeeperMiddleware(inner, Gatekeeper(FileSource(path)), exempt=["/healthz"])
    served = serve(Starlette(routes=[Mount("/widget", app=guarded), Route("/open", lambda _: PlainTextResponse("open"))]))
    allowed = served.get("/widget/agent", headers=ALLOWED)
    assert (allowed.status_code, allowed.text) == (200, "agent_7")
    assert served.get("/widget/agent").json()["reason"] == "key_missing"
    assert served.get("/widget/healthz").status_code == 404
    assert served.get("/open").text == "open"
    assert lifespans == []


@pytest.mark.parametrize("with_lifespan", [True, False])
def test_a_disabled_key_is_refused_after_the_next_refresh(serve: Serve, path: Path, *, with_lifespan: bool) -> None:
    gate = Gatekeeper(FileSource(path), refresh_interval=0.1)
    app = Starlette(routes=ROUTES, lifespan=gate.lifespan if with_lifespan else None)
    served = serve(GatekeeperMiddleware(app, gate))
    assert served.get("/agent", headers=ALLOWED).text == "agent_7"
    write_rows(path, {**ROW, "disabled_at": "2026-01-02T03:04:05Z"})
    ask_until(served, ALLOWED, 403)
    assert served.get("/agent", headers=ALLOWED).json()["reason"] == "key_disabled"
    write_rows(path, ROW)
    ask_until(served, ALLOWED, 200)


def test_a_broken_file_changes_nothing(serve: Serve, path: Path) -> None:
    gate = Gatekeeper(FileSource(path), refresh_interval=0.02)
    served = serve(GatekeeperMiddleware(Starlette(routes=ROUTES, lifespan=gate.lifespan), gate))
    assert served.get("/agent", headers=ALLOWED).text == "agent_7"
    path.write_text("[")
    deadline = time.monotonic() + DEADLINE
    while gate.status.last_error is None:
        assert time.monotonic() < deadline
        assert served.get("/agent", headers=ALLOWED).text == "agent_7"
    assert served.get("/agent", headers=ALLOWED).text == "agent_7"


class HeldSource:
    """A source whose only answer, "unchanged", comes when a test says so."""

    account = None
    suffix_field = "last8"
    fingerprint = "held"

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.let_go = asyncio.Event()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Open a connection."""

        @asynccontextmanager
        async def updates(_basis: Basis) -> AsyncIterator[Unchanged]:
            self.asked.set()
            await self.let_go.wait()
            yield Unchanged()

        yield updates


def test_a_gate_started_by_a_request_ends_with_its_event_loop() -> None:
    async def end_as_the_pause_after_a_fetch_begins() -> None:
        source = HeldSource()
        await Gatekeeper(source, start_timeout=0).check(KEY, PAGE)
        await source.asked.wait()
        source.let_go.set()

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(end_as_the_pause_after_a_fetch_begins())
        gc.collect()
    assert [str(warning.message) for warning in warned] == []


def test_a_new_key_works_at_its_first_request(serve: Serve, path: Path) -> None:
    gate = Gatekeeper(FileSource(path), refresh_interval=3600, unknown_key_wait=DEADLINE)
    served = serve(GatekeeperMiddleware(Starlette(routes=ROUTES, lifespan=gate.lifespan), gate))
    assert served.get("/agent", headers=OTHER_ALLOWED).json()["reason"] == "key_unknown"
    write_rows(path, ROW, OTHER_ROW)
    answer = served.get("/agent", headers=OTHER_ALLOWED)
    assert (answer.status_code, answer.text) == (200, "agent_8")
    assert served.get("/agent", headers={**ALLOWED, "Data-Client-Key": KEY}).text == "agent_7"


def test_the_lifespan_state_of_a_wrapped_app_reaches_requests(serve: Serve, path: Path) -> None:
    gate = Gatekeeper(FileSource(path))

    async def tell_state(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.state.database} {request.state.gatekeeper.agent_id}")

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, str]]:
        async with gate:
            yield {"database": "rows"}

    app = Starlette(routes=[Route("/state", tell_state)], lifespan=lifespan)
    served = serve(GatekeeperMiddleware(app, gate))
    assert gate.status.state == "fresh"
    for _ in range(2):
        assert served.get("/state", headers=ALLOWED).text == "rows agent_7"


def test_exempt_paths_are_relative_to_the_root_path_of_fastapi(serve: Serve, gate: Gatekeeper) -> None:
    """FastAPI(root_path="/w") refused the exempt "/widget.js": "/w" was cut off inside its first segment."""
    with warnings.catch_warnings(action="ignore"):  # later versions of FastAPI call the option deprecated
        app = FastAPI(root_path="/w", routes=[Route("/widget.js", lambda _: PlainTextResponse("script")), *ROUTES])
    app.add_middleware(GatekeeperMiddleware, gatekeeper=gate, exempt=("/widget.js",))
    served = serve(app)
    for path in ("/widget.js", "/w/widget.js"):
        assert (served.get(path).status_code, served.get(path).text) == (200, "script")
    for path in ("/agent", "/w/agent"):
        assert served.get(path).json()["reason"] == "key_missing"


# The orders that the reference warns of, and those that it recommends.

PREFLIGHT = {"Origin": STRANGE_PAGE, "Access-Control-Request-Method": "GET"}


def test_cors_middleware_outside_the_gate_answers_for_it(serve: Serve, gate: Gatekeeper) -> None:
    app = Starlette(routes=ROUTES)
    app.add_middleware(GatekeeperMiddleware, gatekeeper=gate, cors=CorsPolicy(preflight="strict"))
    app.add_middleware(CORSMiddleware, allow_origin_regex=".*", allow_credentials=True)
    served = serve(app)
    assert served.request("OPTIONS", "/agent", headers=PREFLIGHT).headers["access-control-allow-origin"] == STRANGE_PAGE
    refused = served.get("/agent", headers={**ALLOWED, "Origin": STRANGE_PAGE})
    assert (refused.status_code, refused.headers["access-control-allow-credentials"]) == (403, "true")


def test_a_gate_in_a_route_never_sees_a_preflight_but_one_in_a_mount_does(serve: Serve, gate: Gatekeeper) -> None:
    middleware = [Middleware(GatekeeperMiddleware, gatekeeper=gate)]
    route = Route("/agent", tell_agent, middleware=middleware)
    mount = Mount("/mounted", routes=[Route("/agent", tell_agent)], middleware=middleware)
    served = serve(Starlette(routes=[route, mount]))
    assert served.request("OPTIONS", "/agent", headers=PREFLIGHT).status_code == 405
    assert served.request("OPTIONS", "/mounted/agent", headers=PREFLIGHT).status_code == 204
    assert served.get("/mounted/agent", headers=ALLOWED).text == "agent_7"
