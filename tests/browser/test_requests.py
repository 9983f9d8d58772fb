"""Every kind of request of a page, over TLS, in a real browser: whether the app sees it, and what the page can read."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import BrowserContext, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from gatekeeper import Gatekeeper, StaticSource, check_key, decision_from, guard
from tests.integration.conftest import serving
from tests.support.certificates import Certificates
from tests.support.client_keys import KEY

pytestmark = pytest.mark.browser

# Makes a request of each kind, and returns what the page can read.
REQUESTS = """async ([base, key]) => {
  const url = (kind) => `${base}/${kind}?client_key=${key}`;
  const reasonIn = (answer) => answer.json().then((said) => said.reason ?? "allowed");
  const said = (promise) => promise.then(reasonIn).catch(() => "unreadable");
  const loaded = (element, url) => new Promise((settle) => {
    element.onload = () => settle("loaded");
    element.onerror = () => settle("refused");
    element.src = url;
    document.head.append(element);
  });
  const json = {"content-type": "application/json"};
  const headers = {"data-client-key": key, ...json};
  return {
    simple: await said(fetch(url("simple"))),
    simple_post: await said(fetch(url("simple_post"), {method: "POST", body: "text"})),
    preflighted: await said(fetch(base + "/preflighted", {method: "POST", headers, body: "{}"})),
    in_body: await said(fetch(base + "/in_body", {method: "POST", headers: json, body: JSON.stringify({key})})),
    events: await new Promise((settle) => {
      const events = new EventSource(url("events"));
      events.onmessage = () => { events.close(); settle("allowed"); };
      events.onerror = () => { events.close(); settle("refused"); };
    }),
    socket: await new Promise((settle) => {
      const socket = new WebSocket(url("socket").replace("https", "wss"));
      socket.onmessage = () => settle("allowed");
      socket.onclose = () => settle("refused");
    }),
    opaque: await fetch(url("opaque"), {mode: "no-cors"}).then((answer) => answer.type),
    script: await loaded(document.createElement("script"), url("script")),
    image: await loaded(new Image(), url("image")),
    beacon: navigator.sendBeacon(url("beacon"), "text"),
  };
}"""
FETCHED = ("simple", "simple_post", "preflighted", "in_body")
READ = {*FETCHED, "events", "socket"}  # the page can read the answer, and so the reason
NAMED = {*READ, "beacon"}  # the browser names the page in Origin
SENDING = ("origin", "strict-origin", "origin-when-cross-origin", "no-referrer-when-downgrade", "unsafe-url")  # policies
REFERRED = {"opaque", "script", "image"}  # it names the page in Referer only
PIXEL = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'


class Site(NamedTuple):
    """The running servers.

    Attributes:
        widget: the base URL of the widget's service.
        port: the port of the customers' pages.
        other_port: another port with the same pages.
        served: the kinds of the requests that the app has answered.
    """

    widget: str
    port: int
    other_port: int
    served: set[str]


def widget_app(served: set[str]) -> Starlette:
    """Answers each kind of request in its own way."""

    async def answer(request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind == "in_body":
            await check_key(request, (await request.json())["key"])
        served.add(kind)
        assert decision_from(request).allowed
        if kind == "image":
            return Response(PIXEL, media_type="image/svg+xml")
        if kind == "script":
            return Response("window.ran = true", media_type="text/javascript")
        if kind == "events":
            return StreamingResponse(events(), media_type="text/event-stream")
        return JSONResponse({})

    async def events() -> AsyncIterator[str]:
        yield "data: {}\n\n"

    async def socket(websocket: WebSocket) -> None:
        served.add("socket")
        await websocket.accept()
        await websocket.send_json({})
        await websocket.close()

    return Starlette(routes=[WebSocketRoute("/socket", socket), Route("/{kind}", answer, methods=["GET", "POST"])])


async def customer_page(request: Request) -> Response:
    """An empty page, or one with a sandboxed frame; its path is its referrer policy."""
    policy = request.path_params["policy"] or "strict-origin-when-cross-origin"
    sandbox = request.query_params.get("sandbox")
    frame = "" if sandbox is None else f'<iframe sandbox="{sandbox}" src="/"></iframe>'
    return HTMLResponse(f"<title>shop</title>{frame}", headers={"referrer-policy": policy})


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    served: set[str] = set()
    tls = Certificates().of("shop.acme.test", "blog.acme.test", "xn--bcher-kva.test", "evil.test", "widget.test")
    pages = Starlette(routes=[Route("/{policy:path}", customer_page)])
    with serving(pages, tls=tls) as shop, serving(pages, tls=tls) as other:
        entries = [f"https://{host}:{shop.port}" for host in ("shop.acme.test", "*.acme.test", "bücher.test")]
        row = {"id": "1", "name": "shop", "last8": KEY[-8:], "domain_allowlist": entries}
        guarded = guard(widget_app(served), Gatekeeper(StaticSource([row])), key_in_body=("/in_body",))
        with serving(guarded, tls=tls, ws="wsproto") as widget:
            yield Site(f"https://widget.test:{widget.port}", shop.port, other.port, served)


class Tab:
    """A page that notes what its console says."""

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self.site = site
        self.said: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))

    def requests_from(self, url: str) -> dict[str, Any]:
        """Open a page, and make a request of each kind."""
        self.page.goto(url)
        self.site.served.clear()
        read: dict[str, Any] = self.page.evaluate(REQUESTS, [self.site.widget, KEY])
        self.page.wait_for_timeout(200)  # nothing tells a page that its beacon has arrived
        return read


@pytest.fixture
def tab(context: BrowserContext, site: Site) -> Tab:
    return Tab(context.new_page(), site)


@pytest.mark.parametrize(
    ("host", "policy"),
    [
        *((host, "") for host in ("shop.acme.test", "blog.acme.test", "xn--bcher-kva.test")),
        *(("shop.acme.test", policy) for policy in SENDING),
    ],
)
def test_an_allowed_page_can_make_requests_of_every_kind(tab: Tab, site: Site, host: str, policy: str) -> None:
    read = tab.requests_from(f"https://{host}:{site.port}/{policy}")
    assert {kind: read[kind] for kind in READ} == dict.fromkeys(READ, "allowed")
    assert (read["script"], read["image"]) == ("loaded", "loaded")
    assert site.served == NAMED | REFERRED
    assert tab.said == []


@pytest.mark.parametrize("policy", ["no-referrer", "same-origin"])
def test_an_allowed_page_without_referrer_can_make_those_with_an_origin(tab: Tab, site: Site, policy: str) -> None:
    read = tab.requests_from(f"https://shop.acme.test:{site.port}/{policy}")
    assert {kind: read[kind] for kind in READ} == dict.fromkeys(READ, "allowed")
    assert site.served & REFERRED == set()
    assert not [text for text in tab.said if "CORS" in text]


@pytest.mark.parametrize(
    ("where", "policy"),
    [("evil.test", ""), ("evil.test", "unsafe-url"), ("evil.test", "no-referrer"), ("another port", "")],
)
def test_a_foreign_page_reaches_the_app_in_no_way_and_can_read_why(tab: Tab, site: Site, where: str, policy: str) -> None:
    host = f"shop.acme.test:{site.other_port}" if where == "another port" else f"{where}:{site.port}"
    read = tab.requests_from(f"https://{host}/{policy}")
    assert {kind: read[kind] for kind in FETCHED} == dict.fromkeys(FETCHED, "origin_not_allowed")
    assert (read["events"], read["socket"], read["script"], read["image"]) == ("refused",) * 4
    assert read["opaque"] == "opaque"
    assert site.served == set()
    assert not [text for text in tab.said if "CORS" in text], "the reason is not hidden behind an error of CORS"


@pytest.mark.parametrize(
    ("sandbox", "reason"), [("allow-scripts allow-same-origin", "allowed"), ("allow-scripts", "origin_null")]
)
def test_a_sandboxed_frame_of_a_page_needs_its_origin(tab: Tab, site: Site, sandbox: str, reason: str) -> None:
    tab.page.goto(f"https://shop.acme.test:{site.port}/?sandbox={sandbox}")
    (_, frame) = tab.page.frames
    ask = "(url) => fetch(url).then((answer) => answer.json()).then((said) => said.reason ?? 'allowed')"
    assert frame.evaluate(ask, f"{site.widget}/simple?client_key={KEY}") == reason
