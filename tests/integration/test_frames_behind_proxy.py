"""Frames behind nginx, which names the upstream in Host, as it does without `proxy_set_header`."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from gatekeeper import Gatekeeper, GatekeeperMiddleware, StaticSource, decision_from
from tests.integration.conftest import DEADLINE, PAGE, ROW, STRANGE_PAGE, serving
from tests.needs import nginx
from tests.support.client_keys import KEY
from tests.support.nginx import caching_nginx

pytestmark = pytest.mark.process

PUBLIC = "https://widget.example"
DOCUMENT = f"/embed?client_key={KEY}"

Proxied = Callable[[tuple[str, ...]], httpx.Client]


async def embed(request: Request) -> HTMLResponse:
    """The frame's document, with its grant."""
    return HTMLResponse(f'<script data-grant="{decision_from(request).grant}"></script>')


async def chat(request: Request) -> PlainTextResponse:
    """The page that the frame is on."""
    return PlainTextResponse(str(decision_from(request).origin))


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Proxied]:
    """Serve the widget behind nginx, with these `own_origins`."""
    program = nginx()
    app = Starlette(routes=[Route("/embed", embed), Route("/chat", chat, methods=["POST"])])
    gate = Gatekeeper(StaticSource([ROW]), grant_secrets=["0123456789abcdef"])
    with ExitStack() as stack:

        def proxied(own_origins: tuple[str, ...]) -> httpx.Client:
            guarded = GatekeeperMiddleware(app, gate, frames=("/embed",), own_origins=own_origins)
            served = stack.enter_context(serving(guarded))
            url = stack.enter_context(caching_nginx(program, tmp_path / "nginx", f"http://127.0.0.1:{served.port}"))
            headers = {"host": "widget.example", "sec-fetch-dest": "iframe"}
            return stack.enter_context(httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=DEADLINE))

        yield proxied


def grant_in(document: httpx.Response) -> str:
    """The grant that a document carries."""
    assert document.status_code == 200, document.text
    found = re.search(r'data-grant="([^"]+)"', document.text)
    assert found is not None
    return found[1]


def test_a_frame_works_behind_a_proxy_that_hides_the_public_host(proxied: Proxied) -> None:
    client = proxied((PUBLIC,))
    grant = grant_in(client.get(DOCUMENT, headers={"referer": f"{PAGE}/"}))
    answer = client.post("/chat", headers={"origin": PUBLIC, "data-client-grant": grant})
    assert (answer.status_code, answer.text) == (200, PAGE)
    reloaded = grant_in(client.get(DOCUMENT, headers={"referer": f"{PUBLIC}{DOCUMENT}"}))
    assert client.post("/chat", headers={"origin": PUBLIC, "data-client-grant": reloaded}).text == "None"


def test_a_proxy_lets_no_other_origin_use_a_grant(proxied: Proxied) -> None:
    client = proxied((PUBLIC,))
    grant = grant_in(client.get(DOCUMENT, headers={"referer": f"{PAGE}/"}))
    for origin in (PAGE, STRANGE_PAGE, "http://widget.example", "https://other.widget.example"):
        answer = client.post("/chat", headers={"origin": origin, "data-client-grant": grant})
        assert (answer.status_code, answer.json()["reason"]) == (403, "grant_foreign")


def test_without_its_public_origin_a_proxied_frame_is_told_what_to_list(proxied: Proxied) -> None:
    client = proxied(())
    grant = grant_in(client.get(DOCUMENT, headers={"referer": f"{PAGE}/"}))
    answer = client.post("/chat", headers={"origin": PUBLIC, "data-client-grant": grant})
    assert (answer.status_code, answer.json()["reason"]) == (403, "grant_foreign")
    assert "own_origins" in answer.json()["detail"]
