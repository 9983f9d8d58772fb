"""The pages of two extensions in a real browser: one of them is listed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from gatekeeper import CorsPolicy, Gatekeeper, GatekeeperMiddleware, StaticSource, decision_from
from tests.browser.conftest import ARGUMENTS
from tests.integration.conftest import serving
from tests.needs import chromium
from tests.support.client_keys import KEY

pytestmark = pytest.mark.browser

LISTED, OTHER = "listed", "other"
ASK = """async ({ url, key }) => {
  const answer = await fetch(`${url}/chat`, { headers: { "data-client-key": key } });
  return [answer.status, await answer.json()];
}"""
OPEN = """({ url, key }) => new Promise((settle) => {
  const socket = new WebSocket(`${url.replace("http", "ws")}/socket?client_key=${key}`);
  socket.onopen = () => settle("open");
  socket.onclose = () => settle("refused");
})"""
HAND_GRANT = """async ({ url, key }) => {
  const frame = document.createElement("iframe");
  frame.src = `${url}/embed?client_key=${key}`;
  await new Promise((settle) => { frame.onload = settle; document.body.append(frame); });
  const answer = await fetch(`${url}/grant`, { headers: { "data-client-key": key } });
  const { grant } = await answer.json();
  frame.contentWindow.postMessage({ type: "gatekeeper.grant", grant }, new URL(url).origin);
}"""


def write_extension(folder: Path) -> str:
    """Write an extension with a page and a worker, which has no permission."""
    folder.mkdir()
    manifest = {"manifest_version": 3, "name": folder.name, "version": "1", "background": {"service_worker": "worker.js"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "worker.js").write_text(f"self.label = {json.dumps(folder.name)};")
    (folder / "page.html").write_text("<!doctype html><title>page</title><body></body>")
    return str(folder)


def origins_of(context: BrowserContext) -> dict[str, str]:
    """The origins of the extensions, by their names. Chromium derives an id from the path."""
    while len(context.service_workers) < len((LISTED, OTHER)):
        context.wait_for_event("serviceworker")
    return {worker.evaluate("self.label"): worker.evaluate("self.origin") for worker in context.service_workers}


@pytest.fixture(scope="module")
def extensions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BrowserContext, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("extensions")
    paths = ",".join(write_extension(folder / name) for name in (LISTED, OTHER))
    arguments = [
        *ARGUMENTS,
        f"--load-extension={paths}",
        f"--disable-extensions-except={paths}",
        "--disable-features=DisableLoadExtensionCommandLineSwitch,LocalNetworkAccessChecks",
    ]
    executable = chromium()
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder / "profile", executable_path=executable, args=arguments, ignore_default_args=["--disable-extensions"]
        )
        context.set_default_timeout(15_000)
        yield context, origins_of(context)
        context.close()


@pytest.fixture(scope="module")
def url(extensions: tuple[BrowserContext, dict[str, str]]) -> Iterator[str]:
    """The widget's service. The owner of the key has pasted the origin in upper case."""

    async def chat(request: Request) -> Response:
        decision = decision_from(request)
        return JSONResponse({"page": decision.origin, "via": decision.via})

    async def embed(_request: Request) -> Response:
        return HTMLResponse('<title>widget</title><script src="/gatekeeper/frame.js"></script>')

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    _, origins = extensions
    rows = [{"id": "1", "last8": KEY[-8:], "domain_allowlist": [origins[LISTED].upper()]}]
    gate = Gatekeeper(StaticSource(rows), grant_secrets=["0123456789abcdef"])
    routes = [Route("/chat", chat), Route("/embed", embed), WebSocketRoute("/socket", socket)]
    guarded = GatekeeperMiddleware(
        Starlette(routes=routes, lifespan=gate.lifespan),
        gate,
        frames=("/embed",),
        grant_path="/grant",
        loader_path="/gatekeeper",
        cors=CorsPolicy(preflight="strict"),
    )
    with serving(guarded, ws="wsproto") as served:
        yield f"http://localhost:{served.port}"


@pytest.fixture
def opened(extensions: tuple[BrowserContext, dict[str, str]]) -> Iterator[dict[str, Page]]:
    """A page of each extension."""
    context, origins = extensions
    pages = {name: context.new_page() for name in origins}
    for name, page in pages.items():
        page.goto(f"{origins[name]}/page.html")
    yield pages
    for page in pages.values():
        page.close()


def test_only_the_page_of_the_listed_extension_is_answered(
    extensions: tuple[BrowserContext, dict[str, str]], opened: dict[str, Page], url: str
) -> None:
    """The preflight of the other one is refused, so its script cannot read why."""
    _, origins = extensions
    given = {"url": url, "key": KEY}
    assert opened[LISTED].evaluate(ASK, given) == [200, {"page": origins[LISTED], "via": "origin"}]
    assert opened[LISTED].evaluate(OPEN, given) == "open"
    assert opened[OTHER].evaluate(f"(given) => ({ASK})(given).catch(() => 'failed')", given) == "failed"
    assert opened[OTHER].evaluate(OPEN, given) == "refused"


def test_only_the_page_of_the_listed_extension_holds_a_frame(
    extensions: tuple[BrowserContext, dict[str, str]], opened: dict[str, Page], url: str
) -> None:
    """Its document is enforced by the browser, and its script takes the grant that the page hands over."""
    _, origins = extensions
    opened[LISTED].evaluate(HAND_GRANT, {"url": url, "key": KEY})
    (frame,) = opened[LISTED].main_frame.child_frames
    seen = frame.evaluate('gatekeeper.fetch("/chat").then((answer) => answer.json())')
    assert seen == {"page": origins[LISTED], "via": "grant"}
    opened[OTHER].evaluate(f"(given) => ({HAND_GRANT})(given).catch(() => 0)", {"url": url, "key": KEY})
    (frame,) = opened[OTHER].main_frame.child_frames
    assert frame.evaluate("document.title") != "widget"
