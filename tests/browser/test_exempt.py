"""Modules, fonts and JSON of exempt paths on the page of a customer, in a real browser."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from gatekeeper import Gatekeeper, guard
from tests.integration.conftest import ROW, serving

pytestmark = pytest.mark.browser

MODULE = b'import { part } from "./part.js"; window.part = part;'
FILES = {
    "widget.js": (b"window.widget = true;", "text/javascript"),
    "module.js": (MODULE, "text/javascript"),
    "part.js": (b"export const part = 7;", "text/javascript"),
    "config.json": (b'{"agent": 7}', "application/json"),
}
INTEGRITY = {
    name: f"sha384-{base64.b64encode(hashlib.sha384(content).digest()).decode()}" for name, (content, _) in FILES.items()
}

# Loads each of them, and returns what has come.
LOAD = """async ([base, integrity]) => {
  const script = (name, attributes) => new Promise((settle) => {
    const element = Object.assign(document.createElement("script"), attributes);
    element.onload = () => settle("loaded");
    element.onerror = () => settle("blocked");
    element.src = `${base}/${name}`;
    document.head.append(element);
  });
  return {
    plain: await script("widget.js", {}),
    checked: await script("widget.js", {crossOrigin: "anonymous", integrity: integrity["widget.js"]}),
    edited: await script("part.js", {crossOrigin: "anonymous", integrity: integrity["widget.js"]}),
    module: await script("module.js", {type: "module", crossOrigin: "anonymous", integrity: integrity["module.js"]}),
    part: window.part ?? null,
    json: await fetch(`${base}/config.json`).then((answer) => answer.json()).then(({agent}) => agent).catch(() => "blocked"),
    font: await new FontFace("icons", `url(${base}/config.json)`).load().catch(() => "no font"),
    credentials: await fetch(`${base}/config.json`, {credentials: "include"}).then(() => "read").catch(() => "blocked"),
  };
}"""


ON_ANY_PAGE = {"plain": "loaded", "edited": "blocked", "font": "no font", "credentials": "blocked"}
BLOCKED_FONT = "Access to font at"


async def asset(request: Request) -> Response:
    content, kind = FILES[request.path_params["name"]]
    return Response(content, media_type=kind)


@contextmanager
def site(*, exempt_cors: bool) -> Iterator[list[str]]:
    """Serve the files and a page that no key allows, and give their URLs."""
    app = Starlette(routes=[Route("/assets/{name}", asset)])
    guarded = guard(app, Gatekeeper.from_rows([ROW]), exempt=("/assets/*",), exempt_cors=exempt_cors)
    pages = Starlette(routes=[Route("/", lambda _: HTMLResponse("<title>shop</title>"))])
    with serving(guarded) as widget, serving(pages) as shop:
        yield [f"http://shop.acme.test:{shop.port}/", f"http://widget.test:{widget.port}/assets"]


def load(page: Page, url: str, base: str) -> tuple[dict[str, object], list[str]]:
    """What the page could load, and what the console says."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(url)
    loaded: dict[str, object] = page.evaluate(LOAD, [base, INTEGRITY])
    return loaded, said


def test_any_page_loads_modules_fonts_and_checked_scripts_of_exempt_paths(page: Page) -> None:
    """The file that is loaded as a font is none, so that it is refused only after it was read."""
    with site(exempt_cors=True) as urls:
        loaded, said = load(page, *urls)
    assert loaded == {**ON_ANY_PAGE, "checked": "loaded", "module": "loaded", "part": 7, "json": 7}
    assert not [text for text in said if text.startswith(BLOCKED_FONT)]


def test_without_exempt_cors_a_page_loads_plain_scripts_only(page: Page) -> None:
    with site(exempt_cors=False) as urls:
        loaded, said = load(page, *urls)
    blocked = dict.fromkeys(("checked", "module", "json"), "blocked")
    assert loaded == {**ON_ANY_PAGE, **blocked, "part": None}
    assert [text for text in said if text.startswith(BLOCKED_FONT)]
