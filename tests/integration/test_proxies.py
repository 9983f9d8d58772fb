"""What the reference says about proxies and access logs, with nginx, uvicorn and gunicorn."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect
from websockets.typing import Origin

from gatekeeper import Gatekeeper, StaticSource, decision_from, guard
from tests.integration.conftest import ALLOWED, DEADLINE, PAGE, ROW, STRANGE_PAGE, serving
from tests.needs import frameworks, nginx
from tests.support.client_keys import KEY, OTHER_KEY
from tests.support.examples import ROOT, example
from tests.support.nginx import caching_nginx, running_nginx
from tests.support.starting import accepts, wait_until, wait_until_ready
from tests.wire.servers import free_ports

pytestmark = pytest.mark.process

REFERENCE = "gatekeeper/web/README.md"
PROXIES = "Proxies and CDNs"
PUBLIC = "https://widget.example"
QUERY = f"client_key={KEY}"
OTHER_PAGE = "https://blog.acme.com"
OTHER_ROW = {**ROW, "id": "2", "last8": OTHER_KEY[-8:], "agent_id": "agent_8", "domain_allowlist": [OTHER_PAGE]}


def nginx_config(port: int, upstream: str, log: Path) -> str:
    """The configuration in the reference, with these addresses and this log."""
    text = (ROOT / REFERENCE).read_text(encoding="utf-8").partition(f"## {PROXIES}\n")[2]
    config = text.partition("```nginx\n")[2].partition("```")[0]
    for written, tried in (
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("http://127.0.0.1:8000;", f"{upstream};"),
        ("/var/log/nginx/access.log", str(log)),
    ):
        assert config.count(written) == 1
        config = config.replace(written, tried)
    return config


def service() -> Starlette:
    """A widget's service."""
    may_end = asyncio.Event()

    async def headers(request: Request) -> JSONResponse:
        return JSONResponse(dict(request.headers))

    async def embed(request: Request) -> HTMLResponse:
        return HTMLResponse(decision_from(request).grant)

    async def events(_request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "data: first\n\n"
            await may_end.wait()
            yield "data: last\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def end(_request: Request) -> PlainTextResponse:
        may_end.set()
        return PlainTextResponse("")

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    routes = [
        Route("/headers", headers),
        Route("/embed", embed),
        Route("/events", events),
        Route("/end", end),
        WebSocketRoute("/echo", echo),
    ]
    return Starlette(routes=routes)


class Proxied(NamedTuple):
    """A service behind nginx.

    Attributes:
        client: its client.
        port: the port of nginx.
        log: the access log of nginx.
    """

    client: httpx.Client
    port: int
    log: Path


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    program, folder = nginx(), tmp_path_factory.mktemp("proxies")
    gate = Gatekeeper(StaticSource([ROW]), grant_secrets=["0123456789abcdef"])
    guarded = guard(service(), gate, frames=("/embed",), exempt=("/end",))
    (port,) = free_ports(1)
    with serving(guarded, ws="websockets-sansio") as served:
        log = folder / "access.log"
        config = nginx_config(port, f"http://127.0.0.1:{served.port}", log)
        with (
            running_nginx(program, folder / "nginx", port, config) as url,
            httpx.Client(base_url=url, headers={"host": "widget.example"}, trust_env=False, timeout=DEADLINE) as client,
        ):
            yield Proxied(client, port, log)


def test_nginx_passes_on_what_the_gate_decides_by(proxied: Proxied) -> None:
    sent = {
        "origin": PAGE,
        "referer": f"{PAGE}/",
        "host": "widget.example",
        "data-client-key": KEY,
        "sec-fetch-dest": "empty",
        "sec-fetch-site": "cross-site",
    }
    answer = proxied.client.get("/headers", headers=sent)
    assert sent.items() <= answer.json().items()
    assert answer.headers["access-control-allow-origin"] == PAGE
    asked = {"origin": PAGE, "access-control-request-method": "POST"}
    assert proxied.client.options("/headers", headers=asked).status_code == 204


def test_a_frame_works_behind_nginx(proxied: Proxied) -> None:
    framed = {"referer": f"{PAGE}/", "sec-fetch-dest": "iframe", "sec-fetch-site": "cross-site"}
    grant = proxied.client.get(f"/embed?{QUERY}", headers=framed).text
    assert proxied.client.get("/headers", headers={"origin": PUBLIC, "data-client-grant": grant}).status_code == 200


def test_web_sockets_and_events_pass_nginx_piece_by_piece(proxied: Proxied) -> None:
    """By default, nginx passes no Upgrade on."""
    with connect(f"ws://127.0.0.1:{proxied.port}/echo?{QUERY}", origin=Origin(PAGE), proxy=None) as websocket:
        websocket.send("hello")
        assert websocket.recv(DEADLINE) == "hello"
    with proxied.client.stream("GET", "/events", headers=ALLOWED) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: first"
        proxied.client.get("/end")
        assert "data: last" in list(lines)


@pytest.mark.parametrize(
    "forwarded",
    [
        {"x-forwarded-host": "shop.acme.com", "x-forwarded-proto": "https"},
        {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1;host=shop.acme.com;proto=https"},
        {"x-original-host": "shop.acme.com", "x-forwarded-origin": PAGE},
    ],
)
def test_forwarding_headers_change_no_decision(proxied: Proxied, forwarded: dict[str, str]) -> None:
    """The server, uvicorn, trusts those of this machine."""
    foreign = proxied.client.get("/headers", headers={**forwarded, "data-client-key": KEY, "origin": STRANGE_PAGE})
    assert (foreign.status_code, foreign.json()["reason"]) == (403, "origin_not_allowed")
    assert proxied.client.get("/headers", headers={**ALLOWED, **forwarded}).status_code == 200


def test_nginx_logs_paths_without_keys(proxied: Proxied) -> None:
    proxied.client.get(f"/headers?{QUERY}", headers={"origin": PAGE, "referer": f"{PUBLIC}/embed?{QUERY}"})
    wait_until(proxied.log.read_text, lambda log: '"GET /headers" 200' in log)  # nginx logs a request after its answer
    assert KEY not in proxied.log.read_text()


@pytest.mark.parametrize("is_private", [False, True])
def test_private_answers_stay_out_of_a_cache_that_ignores_vary(tmp_path: Path, *, is_private: bool) -> None:
    """Without the middleware, the second page gets the answer of the first, as behind some CDNs."""

    async def tell_agent(request: Request) -> PlainTextResponse:
        said = decision_from(request).agent_id if request.url.path == "/" else "asset"
        return PlainTextResponse(said, headers={"cache-control": "public, max-age=60"})

    names: dict[str, Any] = {}
    exec(example(REFERENCE, PROXIES), names)
    middleware = [Middleware(names["PrivateAnswers"])] if is_private else []
    app = Starlette(routes=[Route("/", tell_agent), Route("/assets/a", tell_agent)], middleware=middleware)
    guarded = guard(app, Gatekeeper.from_rows([ROW, OTHER_ROW]), exempt=("/assets/*",))
    with (
        serving(guarded) as served,
        caching_nginx(nginx(), tmp_path / "nginx", f"http://127.0.0.1:{served.port}", ignored="Vary") as url,
        httpx.Client(base_url=url, trust_env=False, timeout=DEADLINE) as client,
    ):
        assert client.get("/", headers=ALLOWED).text == "agent_7"
        other = client.get("/", headers={"data-client-key": OTHER_KEY, "origin": OTHER_PAGE})
        assert other.text == ("agent_8" if is_private else "agent_7")
        assert other.headers["cache-control"] == f"{'private' if is_private else 'public'}, max-age=60"
        assert other.headers["access-control-allow-origin"] == (OTHER_PAGE if is_private else PAGE)
        assert client.get("/", headers={"origin": STRANGE_PAGE}).status_code == (400 if is_private else 200)
        assert [client.get("/assets/a").headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]


# --- Keys in access logs

MAIN = """
import json, pathlib
from gatekeeper import FileSource, Gatekeeper, guard
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute


async def echo(websocket):
    await websocket.accept()
    await websocket.close()


gate = Gatekeeper(FileSource(pathlib.Path(__file__).with_name("rows.json")))
routes = [Route("/chat", lambda _: PlainTextResponse("")), WebSocketRoute("/echo", echo)]
app = guard(Starlette(routes=routes), gate)
"""
COMMANDS = {
    "uvicorn": ["uvicorn", "main:app", "--host=127.0.0.1", "--port={port}"],
    "gunicorn": [
        *("gunicorn", "main:app", "--worker-class=uvicorn_worker.UvicornWorker", "--bind=127.0.0.1:{port}"),
        *("--access-logfile=-", "--log-level=info", "--no-control-socket"),
    ],
}


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("server", COMMANDS)
def test_a_server_logs_paths_without_keys(tmp_path: Path, server: str, *, filtered: bool) -> None:
    """Without the filter, the key is in the lines of requests and of WebSockets."""
    if server == "gunicorn":
        frameworks()
    (tmp_path / "rows.json").write_text(json.dumps([ROW]))
    (tmp_path / "main.py").write_text((example(REFERENCE, "Keys in access logs") if filtered else "") + MAIN)
    (port,) = free_ports(1)
    log = tmp_path / "log"
    command = [sys.executable, "-m", *(part.format(port=port) for part in COMMANDS[server])]
    with log.open("wb") as output, subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output) as process:
        try:
            wait_until_ready(process, partial(accepts, port), lambda: f"{server}, which wrote {log.read_text()!r},")
            url = f"http://127.0.0.1:{port}/chat?{QUERY}"
            assert httpx.get(url, headers={"origin": PAGE}, trust_env=False, timeout=DEADLINE).status_code == 200
            with connect(f"ws://127.0.0.1:{port}/echo?{QUERY}", origin=Origin(PAGE), proxy=None):
                pass
        finally:
            process.terminate()
            process.wait(DEADLINE)
    lines = [line for line in log.read_text().splitlines() if re.search(r"/chat|/echo", line)]
    assert len(lines) == 2, log.read_text()
    assert [KEY in line for line in lines] == [not filtered] * 2
