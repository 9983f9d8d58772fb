"""Widgets in frames, over TLS, in a real browser: who can load the document, and what a grant is good for."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import BrowserContext, Frame, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from gatekeeper import FileSource, Gatekeeper, GatekeeperMiddleware, StaticSource, decision_from
from tests.browser.conftest import until
from tests.integration.conftest import serving, write_rows
from tests.support.certificates import Certificates
from tests.support.client_keys import KEY

pytestmark = pytest.mark.browser

# What a frame does with its grant. Each function returns what the answer said, or how it failed.
CALLS = """
window.by = {
  get: (grant) => fetch("/chat", {headers: {"data-client-grant": grant}}).then((answer) => answer.json()),
  post: (grant) => fetch("/chat", {method: "POST", headers: {"data-client-grant": grant}}).then((answer) => answer.json()),
  events: (grant) => new Promise((settle) => {
    const events = new EventSource("/events?client_grant=" + grant);
    events.onmessage = (event) => { events.close(); settle(JSON.parse(event.data)); };
    events.onerror = () => { events.close(); settle("refused"); };
  }),
  socket: (grant) => new Promise((settle) => {
    const socket = new WebSocket("wss://" + location.host + "/socket?client_grant=" + grant);
    socket.onmessage = (event) => settle(JSON.parse(event.data));
    socket.onclose = () => settle("refused");
  }),
};
"""
# What a foreign page does with a grant that it has got hold of.
REPLAYS = """async ([base, grant]) => {
  const url = base + "/chat?client_grant=" + grant;
  const said = (promise) => promise.then((answer) => answer.json()).then((said) => said.reason, () => "unreadable");
  return {
    query: await said(fetch(url)),
    header: await said(fetch(base + "/chat", {headers: {"data-client-grant": grant}})),
    simple_post: await said(fetch(url, {method: "POST", body: "x"})),
    opaque: await fetch(url, {mode: "no-cors"}).then((answer) => answer.type),
    beacon: navigator.sendBeacon(url, "x"),
    socket: await new Promise((settle) => {
      const socket = new WebSocket(base.replace("https", "wss") + "/socket?client_grant=" + grant);
      socket.onmessage = () => settle("allowed");
      socket.onclose = () => settle("refused");
    }),
  };
}"""


class Hosts(NamedTuple):
    """The running servers.

    Attributes:
        widget: the base URL of the widget's service.
        port: the port of all customers' pages.
        other_port: a port with the same pages that no entry allows.
        served: "method, page" of each request that the app has answered.
    """

    widget: str
    port: int
    other_port: int
    served: list[str]

    def shop(self, path: str = "/", host: str = "shop.acme.test") -> str:
        """The URL of a page."""
        return f"https://{host}:{self.port}{path}"

    def embed(self, key: str = KEY) -> str:
        """The URL of the frame's document."""
        return f"{self.widget}/embed?client_key={key}"


def widget_app(served: list[str]) -> Starlette:
    """The widget's service, which says for each request which page it knows."""

    def seen(request: Request | WebSocket) -> dict[str, Any]:
        decision = decision_from(request)
        served.append(f"{request.scope.get('method', 'WebSocket')} {decision.origin}")
        return {"page": decision.origin, "via": decision.via}

    async def embed(request: Request) -> Response:
        seen(request)
        grant = json.dumps(decision_from(request).grant)
        links = '<a id="link" href="/embed?client_key=' + KEY + '">again</a>'
        return HTMLResponse(f"<title>widget</title>{links}<script>window.grant = {grant};{CALLS}</script>")

    async def chat(request: Request) -> Response:
        return JSONResponse(seen(request))

    async def events(request: Request) -> Response:
        async def stream() -> AsyncIterator[str]:
            yield f"data: {json.dumps(seen(request))}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(seen(websocket))
        await websocket.close()

    return Starlette(
        routes=[
            Route("/embed", embed),
            Route("/chat", chat, methods=["GET", "POST"]),
            Route("/events", events),
            WebSocketRoute("/socket", socket),
        ]
    )


async def customer_page(request: Request) -> Response:
    """A page that holds the frame named in its query; its path is its referrer policy."""
    frame, sandbox = request.query_params.get("frame"), request.query_params.get("sandbox")
    attribute = "" if sandbox is None else f' sandbox="{sandbox}"'
    body = "" if frame is None else f'<iframe src="{frame}"{attribute}></iframe>'
    policy = request.path_params["policy"] or "strict-origin-when-cross-origin"
    return HTMLResponse(f"<title>shop</title>{body}", headers={"referrer-policy": policy})


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    certificates, served = Certificates(), []  # type: Certificates, list[str]
    pages = Starlette(routes=[Route("/{policy}", customer_page), Route("/{policy:path}", customer_page)])
    tls = certificates.of("shop.acme.test", "blog.acme.test", "bücher.test", "evil.test")
    with serving(pages, tls=tls) as shop, serving(pages, tls=tls) as other:
        entries = [f"https://{host}:{shop.port}" for host in ("shop.acme.test", "*.acme.test", "bücher.test")]
        row = {"id": "1", "name": "shop", "last8": KEY[-8:], "domain_allowlist": entries}
        gate = Gatekeeper(StaticSource([row]), grant_secrets=["0123456789abcdef"])
        guarded = GatekeeperMiddleware(widget_app(served), gate, frames=("/embed",))
        with serving(guarded, tls=certificates.of("widget.test"), ws="wsproto") as widget:
            yield Hosts(f"https://widget.test:{widget.port}", shop.port, other.port, served)


def opened(tab: Page, url: str, embedded: str, **query: str) -> Frame:
    """Open a page with a frame, and return the frame once it has loaded."""
    more = "".join(f"&{name}={value}" for name, value in query.items())
    tab.goto(f"{url}?frame={embedded.replace('?', '%3F')}{more}", wait_until="load")
    (_, frame, *_) = tab.frames
    return frame


def call(frame: Frame, what: str, grant: str | None = None) -> Any:
    """Make one of the frame's own requests."""
    return frame.evaluate("([what, grant]) => by[what](grant ?? window.grant)", [what, grant])


@pytest.mark.parametrize("host", ["shop.acme.test", "blog.acme.test", "xn--bcher-kva.test"])
def test_a_frame_on_an_allowed_page_can_do_everything(tab: Page, hosts: Hosts, host: str) -> None:
    frame = opened(tab, hosts.shop(host=host), hosts.embed())
    page = hosts.shop("", host)
    for what in ("get", "post", "events", "socket"):
        assert call(frame, what) == {"page": page, "via": "grant"}, what


@pytest.mark.parametrize("policy", ["no-referrer", "same-origin"])
def test_a_frame_on_a_page_without_referrer_can_do_everything(tab: Page, hosts: Hosts, policy: str) -> None:
    frame = opened(tab, hosts.shop(f"/{policy}"), hosts.embed())
    for what in ("get", "post", "events", "socket"):
        assert call(frame, what) == {"page": None, "via": "grant"}, what


@pytest.mark.parametrize("policy", ["origin", "unsafe-url", "no-referrer-when-downgrade", "strict-origin"])
def test_a_page_that_sends_its_referrer_is_known(tab: Page, hosts: Hosts, policy: str) -> None:
    frame = opened(tab, hosts.shop(f"/{policy}"), hosts.embed())
    assert call(frame, "post") == {"page": hosts.shop(""), "via": "grant"}


def test_a_frame_still_works_after_a_reload_and_a_link(tab: Page, hosts: Hosts) -> None:
    frame = opened(tab, hosts.shop(), hosts.embed())
    for move in ("location.reload()", "document.getElementById('link').click()"):
        with tab.expect_event("framenavigated"):
            frame.evaluate(move)
        frame.wait_for_load_state()
        assert call(frame, "post")["via"] == "grant", move


@pytest.mark.parametrize("where", ["evil.test", "another port"])
def test_a_foreign_page_sees_why_its_frame_is_refused(tab: Page, hosts: Hosts, where: str) -> None:
    page = f"https://shop.acme.test:{hosts.other_port}" if where == "another port" else hosts.shop("", where)
    frame = opened(tab, f"{page}/", hosts.embed())
    assert f"{page} is not among the allowed domains" in frame.locator("body").inner_text()
    assert frame.locator("code").inner_text() == "origin_not_allowed"
    assert frame.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")[0] <= 300


@pytest.mark.parametrize("policy", ["no-referrer", "same-origin"])
def test_the_browser_keeps_a_frame_from_a_foreign_page(tab: Page, hosts: Hosts, policy: str) -> None:
    """The request for the document looks like one of an allowed page, so the document is served."""
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    frame = opened(tab, hosts.shop(f"/{policy}", "evil.test"), hosts.embed())
    until(tab, lambda: frame.url.startswith("chrome-error:"))
    assert any("frame-ancestors" in text for text in said), "the console says what keeps it out"
    assert frame.evaluate("window.grant") is None


@pytest.mark.parametrize(("outer", "innermost"), [("evil.test", "chrome-error"), ("blog.acme.test", "https")])
def test_a_frame_below_two_pages_needs_both_of_them(tab: Page, hosts: Hosts, outer: str, innermost: str) -> None:
    inner = hosts.shop() + "?frame=" + hosts.embed().replace("?", "%3F")
    opened(tab, hosts.shop(host=outer), inner.replace("?", "%3F").replace("%3Fclient", "%253Fclient"))
    until(tab, lambda: [frame.url.partition(":")[0] for frame in tab.frames] == ["https", "https", innermost])
    if innermost == "https":
        assert call(tab.frames[2], "post") == {"page": hosts.shop(""), "via": "grant"}


def test_a_document_in_a_tab_of_its_own_is_refused(tab: Page, context: BrowserContext, hosts: Hosts) -> None:
    tab.goto(hosts.embed())
    assert tab.locator("code").inner_text() == "not_framed"
    frame = opened(tab, hosts.shop(), hosts.embed())
    with context.expect_page() as popup:
        frame.evaluate("void window.open(location.href)")
    popup.value.wait_for_load_state()
    assert popup.value.locator("code").inner_text() == "not_framed"


@pytest.mark.parametrize(
    ("sandbox", "reason"), [("allow-scripts allow-same-origin", None), ("allow-scripts", "grant_foreign")]
)
def test_a_sandboxed_frame_needs_its_origin(tab: Page, hosts: Hosts, sandbox: str, reason: str | None) -> None:
    frame = opened(tab, hosts.shop(), hosts.embed(), sandbox=sandbox)
    said = frame.evaluate("fetch('/chat?client_grant=' + grant, {method: 'POST'}).then((answer) => answer.json())")
    assert said.get("reason") == reason


@pytest.mark.parametrize("host", ["shop.acme.test", "evil.test"])
def test_a_grant_is_worth_nothing_outside_of_its_frame(tab: Page, hosts: Hosts, host: str) -> None:
    """Not even on the customer's own page, where a script sends the key."""
    grant = opened(tab, hosts.shop(), hosts.embed()).evaluate("window.grant")
    tab.goto(hosts.shop(host=host))
    hosts.served.clear()
    assert tab.evaluate(REPLAYS, [hosts.widget, grant]) == {
        "query": "grant_foreign",
        "header": "unreadable",  # the preflight does not allow the header
        "simple_post": "grant_foreign",
        "opaque": "opaque",
        "beacon": True,
        "socket": "refused",
    }
    assert hosts.served == []


def test_a_grant_in_a_form_of_a_foreign_page_is_refused(tab: Page, hosts: Hosts) -> None:
    grant = opened(tab, hosts.shop(), hosts.embed()).evaluate("window.grant")
    tab.goto(hosts.shop(host="evil.test"))
    hosts.served.clear()
    for method in ("post", "get"):
        form = f'<form method="{method}" action="{hosts.widget}/chat?client_grant={grant}"><input name="client_grant" '
        tab.set_content(f'{form} value="{grant}"></form>')
        with tab.expect_navigation():
            tab.evaluate("document.forms[0].submit()")
        assert '"reason":"grant_foreign"' in tab.content(), method
        tab.goto(hosts.shop(host="evil.test"))
    assert hosts.served == []


def test_no_script_of_a_page_can_read_the_document(tab: Page, hosts: Hosts) -> None:
    tab.goto(hosts.shop("/no-referrer"))
    read = "(url) => fetch(url, {referrerPolicy: 'no-referrer'}).then((answer) => answer.text(), () => 'unreadable')"
    assert tab.evaluate(read, hosts.embed()) == "unreadable"
    hosts.served.clear()
    assert tab.evaluate("(url) => fetch(url, {mode: 'no-cors'}).then((answer) => answer.type)", hosts.embed()) == "opaque"
    assert hosts.served == []


def test_a_document_that_is_not_ready_loads_again_by_itself(tab: Page, hosts: Hosts, tmp_path: Path) -> None:
    """Browsers ignore Retry-After of a document."""
    rows = tmp_path / "rows.json"
    gate = Gatekeeper(FileSource(rows), grant_secrets=["0123456789abcdef"], start_timeout=0.0, refresh_interval=0.2)
    tls = Certificates().of("widget.test")
    guarded = GatekeeperMiddleware(widget_app([]), gate, frames=("/embed",))
    with serving(guarded, tls=tls) as widget:
        frame = opened(tab, hosts.shop(), f"https://widget.test:{widget.port}/embed?client_key={KEY}")
        assert frame.locator("code").inner_text() == "not_ready"
        write_rows(rows, {"id": "1", "name": "shop", "last8": KEY[-8:], "domain_allowlist": [hosts.shop("")]})
        frame.locator("#link").wait_for()
        assert call(frame, "post")["via"] == "grant"
        tab.context.close()  # a server waits for the end of connections over TLS
