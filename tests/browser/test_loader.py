"""The loader, over TLS, in a real browser: what a customer's page, its frame and its console see."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Frame, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from gatekeeper import FileSource, Gatekeeper, GatekeeperMiddleware, StaticSource, decision_from
from tests.integration.conftest import serving, write_rows
from tests.support.certificates import Certificates
from tests.support.client_keys import DISABLED_KEY, KEY, OTHER_KEY

pytestmark = pytest.mark.browser

SHOP, BLOG, EVIL, FRAMES = "shop.acme.test", "blog.acme.test", "evil.test", "frames.test"
# What the scripts of a page and of a frame do with what the loader gives them.
CALLS = """
window.by = {
  get: (client) => client.fetch("/chat").then((answer) => answer.json()),
  post: (client) => client.fetch("/chat", { method: "POST", body: "x" }).then((answer) => answer.json()),
  events: (client) => client.eventSource("/events").then((events) => new Promise((settle) => {
    events.onmessage = (event) => { events.close(); settle(JSON.parse(event.data)); };
    events.onerror = () => { events.close(); settle("refused"); };
  })),
  socket: (client) => client.webSocket("/socket").then((socket) => new Promise((settle) => {
    socket.onmessage = (event) => settle(JSON.parse(event.data));
    socket.onclose = () => settle("refused");
  })),
};
window.messages = 0;
addEventListener("message", () => { window.messages += 1; });
"""
WAYS = ("get", "post", "events", "socket")
# Whether a frame has a grant: without one, its requests wait.
HAS_GRANT = """() => Promise.race([
  gatekeeper.fetch("/chat").then(() => true),
  new Promise((settle) => setTimeout(settle, 200, false)),
])"""


class Clock:
    """Seconds since 1970, by which grants end."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


class Site:
    """A widget's service, and the pages of its customers.

    Attributes:
        widget: the base URL of the service.
        port: the port of all pages.
        served: the path of each request that the service's app has answered.
        clock: the clock of grants.
    """

    def __init__(self, widget: str, port: int, pages: dict[str, Response], served: list[str], clock: Clock) -> None:
        self.widget = widget
        self.port = port
        self.served = served
        self.clock = clock
        self._pages = pages

    def origin(self, host: str = SHOP) -> str:
        """The origin of a page."""
        return f"https://{host}:{self.port}"

    def page(self, body: str, *, host: str = SHOP, headers: dict[str, str] | None = None) -> str:
        """Make a page, and return its URL."""
        path = f"/{len(self._pages)}"
        self._pages[path] = HTMLResponse(f"<!DOCTYPE html><title>shop</title><body>{body}</body>", headers=headers)
        return self.origin(host) + path

    def tag(self, mode: str = "frame", key: str = KEY, **data: str) -> str:
        """A script tag of the loader."""
        more = "".join(f' data-{name.replace("_", "-")}="{value}"' for name, value in data.items())
        return f'<script src="{self.widget}/gatekeeper/widget.js" data-client-key="{key}" data-mode="{mode}"{more}></script>'

    def static(self, key: str = KEY, frame_path: str = "/static") -> str:
        """A script tag for a frame whose document has no grant."""
        return self.tag(key=key, frame_path=frame_path, grant_path="/grant")


def widget_app(served: list[str]) -> Starlette:
    """The widget's service, which says for each request whose key and which page it knows."""

    def seen(request: Request | WebSocket) -> dict[str, Any]:
        served.append(request.url.path)
        decision = decision_from(request)
        return {"key": decision.key and decision.key.id, "page": decision.origin, "via": decision.via}

    def document(grant: str | None) -> Response:
        data = "" if grant is None else f' data-grant="{grant}"'
        return HTMLResponse(
            f'<title>widget</title><script src="/gatekeeper/frame.js"{data}></script><script>{CALLS}</script>'
        )

    async def templated(request: Request) -> Response:
        seen(request)
        return document(str(decision_from(request).grant))

    async def static(request: Request) -> Response:
        served.append(request.url.path)
        return document(request.query_params.get("agent"))  # a test may name a grant there

    async def chat(request: Request) -> Response:
        return JSONResponse(seen(request))

    async def events(request: Request) -> Response:
        async def stream() -> AsyncIterator[str]:
            yield f"data: {json.dumps(seen(request))}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(seen(websocket))
        if code := (await websocket.receive()).get("text"):
            await websocket.close(int(code))

    return Starlette(
        routes=[
            Route("/embed", templated),
            Route("/static", static),
            Route("/open", static),
            Route("/ended", static),
            Route("/chat", chat, methods=["GET", "POST"]),
            Route("/moved", RedirectResponse("/chat")),
            Route("/events", events),
            WebSocketRoute("/socket", socket),
        ]
    )


def row(key: str, *domains: str, **more: Any) -> dict[str, Any]:
    """A row of a hub."""
    return {"id": key[-8:-4], "name": "shop", "last8": key[-8:], "domain_allowlist": list(domains), **more}


@contextmanager
def running(
    source: Any, port: int, pages: dict[str, Response], tls: Certificates, *, enforce: bool = True
) -> Iterator[Site]:
    """Serve a widget."""
    served, clock = [], Clock()  # type: list[str], Clock
    gate = Gatekeeper(
        source,
        grant_secrets=["0123456789abcdef"],
        enforce=enforce,
        clock=clock,
        wall_clock=clock,
        start_timeout=0.0,
        refresh_interval=0.2,
    )
    app = widget_app(served)
    app.router.lifespan_context = gate.lifespan
    guarded = GatekeeperMiddleware(
        app,
        gate,
        frames=("/embed", "/static"),
        grant_path="/grant",
        own_origins=(f"https://{FRAMES}:{port}",),
        exempt=("/open", "/ended"),
        loader_path="/gatekeeper",
    )
    with serving(guarded, tls=tls.of("widget.test"), ws="wsproto") as widget:
        yield Site(f"https://widget.test:{widget.port}", port, pages, served, clock)


@pytest.fixture(scope="module")
def customers() -> Iterator[tuple[int, dict[str, Response], Certificates]]:
    """The customers' server: its port, its pages, and the authority of all certificates."""
    certificates, pages = Certificates(), {}  # type: Certificates, dict[str, Response]

    async def page(request: Request) -> Response:
        return pages.get(request.url.path) or HTMLResponse("", status_code=404)

    app = Starlette(routes=[Route("/{path:path}", page)])
    with serving(app, tls=certificates.of(SHOP, BLOG, EVIL, FRAMES)) as served:
        yield served.port, pages, certificates


@pytest.fixture(scope="module")
def site(customers: tuple[int, dict[str, Response], Certificates]) -> Iterator[Site]:
    port, *_ = customers
    shop, blog = f"https://{SHOP}:{port}", f"https://{BLOG}:{port}"
    rows = [row(KEY, shop, blog), row(OTHER_KEY, shop), row(DISABLED_KEY, shop, disabled_at="2026-01-02T03:04:05Z")]
    with running(StaticSource(rows), *customers) as site:
        yield site


@pytest.fixture(scope="module")
def observing(customers: tuple[int, dict[str, Response], Certificates]) -> Iterator[Site]:
    """A service whose gate lets every request through."""
    with running(StaticSource([row(KEY, f"https://{SHOP}")]), *customers, enforce=False) as site:
        yield site


class Tab:
    """A tab of the browser.

    Attributes:
        page: the page in it.
        said: what the loader has written to the console.
        thrown: the errors that no script has caught.
        asked: the URLs of the requests for a grant that were answered.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.thrown: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text) if message.text[:10] == "gatekeeper" else None)
        page.on("response", lambda response: self.asked.append(response.url) if response.url.endswith("/grant") else None)
        page.on("pageerror", lambda error: self.thrown.append(str(error)))

    def open(self, url: str, *, frames: int = 1) -> list[Frame]:
        """Open a page, and return its frames once they have loaded."""
        self.page.goto(url, wait_until="load")
        self.page.evaluate(CALLS)
        self.until(lambda: [each.url[:5] for each in self.page.main_frame.child_frames] == ["https"] * frames)
        found = self.page.main_frame.child_frames
        for frame in found:
            frame.wait_for_load_state()
        return found

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        for _ in range(500):
            if holds():
                return
            self.page.wait_for_timeout(20)
        pytest.fail("it has not come to hold within 10 s")

    def call(self, way: str) -> Any:
        """Make a request with the client of the page's first script tag."""
        return self.page.evaluate("async (way) => by[way](await document.querySelector('script').gatekeeper)", way)


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A tab in which nothing is thrown, and no key is logged."""
    context = browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(15_000)
    tab = Tab(context.new_page())
    yield tab
    context.close()
    assert tab.thrown == []
    assert not any(KEY in text for text in tab.said)


def call(frame: Frame, way: str = "get") -> Any:
    """Make a request with the client of a frame."""
    return frame.evaluate("(way) => by[way](gatekeeper)", way)


def allowed(site: Site, via: str, *, key: str = KEY, host: str = SHOP) -> dict[str, str]:
    """What the service knows of an allowed request."""
    return {"key": key[-8:-4], "page": site.origin(host), "via": via}


UNGRANTED = "gatekeeper: data-grant is not a grant: the gate only observes this page, or the path is not in frames="
DISABLED = "gatekeeper: The widget key …{} is disabled. Enable it again, or put another key on the page."
NOT_READY = "gatekeeper: The list of widget keys has not been loaded yet. Try again in 2 s."


def refused(site: Site, host: str = EVIL) -> str:
    """What the console of a foreign page says."""
    return (
        f"gatekeeper: {site.origin(host)} is not among the allowed domains of the widget key …{KEY[-8:]}. "
        f"If the page is yours, add '{site.origin(host)}' to the key's allowed domains."
    )


# --- Pages


@pytest.mark.parametrize("policy", ["strict-origin-when-cross-origin", "no-referrer"])
def test_a_script_can_do_everything_on_an_allowed_page(tab: Tab, site: Site, policy: str) -> None:
    tab.open(site.page(site.tag("script", agent="robin"), headers={"referrer-policy": policy}), frames=0)
    for way in WAYS:
        assert tab.call(way) == allowed(site, "origin"), way
    given = "document.querySelector('script').gatekeeper.then((client) => [client.agent, Object.keys(client).sort()])"
    assert tab.page.evaluate(given) == ["robin", ["agent", "destroy", "eventSource", "fetch", "webSocket"]]
    assert tab.said == []


@pytest.mark.parametrize("policy", ["strict-origin-when-cross-origin", "no-referrer"])
def test_frames_can_do_everything_on_an_allowed_page(tab: Tab, site: Site, policy: str) -> None:
    """The frame's own referrer policy tells the service the page, whatever the policy of the page."""
    tags = site.tag(agent="robin", title="Chat") + site.static()
    frames = tab.open(site.page(tags, headers={"referrer-policy": policy}), frames=2)
    for frame in frames:
        for way in WAYS:
            assert call(frame, way) == allowed(site, "grant"), (frame.url, way)
    assert tab.said == []
    assert sorted("agent=robin" in frame.url for frame in frames) == [False, True]
    attributes = "[...document.querySelectorAll('iframe')].map((each) => each.getAttributeNames().sort())"
    assert tab.page.evaluate(attributes) == [["class", "referrerpolicy", "src", "title"]] * 2
    assert sorted(tab.page.evaluate("[...document.querySelectorAll('iframe')].map((each) => each.title)")) == [
        "Chat",
        "Widget",
    ]


def test_a_foreign_page_can_do_everything_while_the_gate_only_observes(tab: Tab, observing: Site) -> None:
    """A script, a frame with a template and one without: neither frame has a grant, and neither waits for one."""
    tags = observing.tag("script") + observing.tag() + observing.static()
    frames = tab.open(observing.page(tags, host=EVIL), frames=2)
    for way in WAYS:
        assert tab.call(way) == allowed(observing, "origin", host=EVIL), way
        for frame in frames:
            assert call(frame, way)["key"] is None, (frame.url, way)
    assert tab.said == [UNGRANTED]


def test_a_foreign_page_is_told_once_why_its_script_is_refused(tab: Tab, site: Site) -> None:
    tab.open(site.page(site.tag("script"), host=EVIL), frames=0)
    assert [tab.call(way) for way in ("events", "socket")] == ["refused", "refused"]
    assert [tab.call(way)["reason"] for way in ("get", "post")] == ["origin_not_allowed"] * 2
    assert tab.said == [refused(site)]


def test_a_foreign_page_is_told_once_why_its_frame_is_refused(tab: Tab, site: Site) -> None:
    frames = tab.open(site.page(site.static() + site.static(), host=EVIL), frames=2)
    for frame in frames:
        assert frame.locator("code").inner_text() == "origin_not_allowed"
    tab.until(lambda: tab.asked == [f"{site.widget}/grant"] * 2)
    tab.until(lambda: tab.said != [])
    tab.page.wait_for_timeout(50)
    assert tab.said == [refused(site)]


@pytest.mark.parametrize("way", ["events", "socket"])
def test_the_console_says_why_a_stream_is_refused(tab: Tab, site: Site, way: str) -> None:
    tab.open(site.page(site.tag("script", DISABLED_KEY)), frames=0)
    assert tab.call(way) == "refused"
    tab.until(lambda: tab.said != [])
    assert tab.said == [DISABLED.format(DISABLED_KEY[-8:])]


def test_the_loader_asks_why_an_open_socket_was_revoked(tab: Tab, site: Site) -> None:
    """The gate closes with 1008, or 3003 where the server cannot; 1000 is the app's own end."""
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url) if request.resource_type == "fetch" else None)
    (frame,) = tab.open(site.page(site.tag("script") + site.tag()))
    end = """async (code) => {
        const client = window.gatekeeper ?? await document.querySelector("script").gatekeeper;
        const socket = await client.webSocket("/socket");
        socket.onmessage = () => socket.send(code);
        return new Promise((settle) => { socket.onclose = (event) => settle(event.code); });
    }"""
    for each in (tab.page.main_frame, frame):
        asked.clear()
        for code in (1000, 1008, 3003):
            assert each.evaluate(end, str(code)) == code
        tab.until(lambda: len(asked) > 1)
        assert asked == [f"{site.widget}/socket"] * 2


def test_the_loader_needs_three_sources_of_a_strict_policy(tab: Tab, site: Site) -> None:
    """No style, no eval, no handler in markup: nothing is reported."""
    secure = site.widget.replace("https:", "wss:")
    policy = f"default-src 'none'; script-src {site.widget}; frame-src {site.widget}; connect-src {site.widget} {secure}"
    violations: list[str] = []
    tab.page.on("console", lambda message: violations.append(message.text) if "Content Security" in message.text else None)
    tags = site.tag("script") + site.static()
    (frame,) = tab.open(site.page(tags, headers={"content-security-policy": policy}))
    for way in WAYS:
        assert call(frame, way) == allowed(site, "grant"), way
        assert tab.call(way) == allowed(site, "origin"), way
    assert violations == []


def test_two_widgets_work_on_one_page(tab: Tab, site: Site) -> None:
    page = site.page(site.static() + site.static() + site.static(OTHER_KEY) + site.tag("script", OTHER_KEY))
    frames = tab.open(page, frames=3)
    keys = sorted(call(frame)["key"] for frame in frames)
    assert keys == sorted([KEY[-8:-4], KEY[-8:-4], OTHER_KEY[-8:-4]])
    said = tab.page.evaluate("async () => by.get(await document.querySelectorAll('script')[3].gatekeeper)")
    assert said == allowed(site, "origin", key=OTHER_KEY)


def test_a_frame_on_another_host_can_do_everything(tab: Tab, site: Site) -> None:
    scripts = f'<script src="{site.widget}/gatekeeper/frame.js"></script><script>{CALLS}</script>'
    document = site.page(scripts, host=FRAMES)
    (frame,) = tab.open(site.page(site.static(frame_path=document)))
    for _ in range(3):
        for way in WAYS:
            assert call(frame, way) == allowed(site, "grant"), way
        site.clock.now += 500


def test_the_frame_stands_where_its_tag_stands(tab: Tab, site: Site) -> None:
    tab.open(site.page(f'<div id="here">{site.tag()}</div><p>after</p>'))
    assert tab.page.evaluate("document.querySelector('#here > script + iframe.gatekeeper-widget') !== null")
    page = site.page("<p>content</p>")
    tab.open(page, frames=0)
    tab.page.evaluate(
        """([src, key]) => {
            const script = document.createElement("script");
            Object.assign(script.dataset, { clientKey: key, mode: "frame" });
            script.src = src;
            document.head.append(script);
        }""",
        [f"{site.widget}/gatekeeper/widget.js", KEY],
    )
    tab.page.wait_for_function("document.querySelector('body > p + iframe') !== null")


def test_the_loader_waits_until_the_gate_is_ready(
    tab: Tab, customers: tuple[int, dict[str, Response], Certificates], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.json"
    with running(FileSource(rows), *customers) as site:
        (frame,) = tab.open(site.page(site.tag("script") + site.static()))
        assert frame.title() == "Not ready yet"
        tab.page.evaluate("document.querySelector('script').gatekeeper.then((it) => { window.answer = by.post(it); })")
        tab.until(lambda: len(tab.said) > 0)
        write_rows(rows, row(KEY, site.origin()))
        assert tab.page.evaluate("window.answer") == allowed(site, "origin")
        tab.until(lambda: frame.title() == "widget")
        frame.wait_for_function("window.by !== undefined")
        assert call(frame) == allowed(site, "grant")
        assert tab.said == [NOT_READY]
        assert site.served.count("/static") == 1
        tab.page.context.close()  # the server waits for the browser's connections


def test_a_frame_waits_for_the_gate_and_says_why_a_stream_has_ended(
    tab: Tab, site: Site, customers: tuple[int, dict[str, Response], Certificates], tmp_path: Path
) -> None:
    """The frame has its grant from another server with the same secret."""
    grant, rows = grant_for(tab, site), tmp_path / "rows.json"
    with running(FileSource(rows), *customers) as other:
        other.clock.now = site.clock.now
        (frame,) = tab.open(other.page(other.tag(frame_path="/ended", agent=grant)))
        frame.evaluate("void by.post(gatekeeper).then((answer) => { window.answer = answer; })")
        tab.until(lambda: tab.said == [NOT_READY])
        write_rows(rows, row(KEY, other.origin()))
        frame.wait_for_function("window.answer !== undefined")
        assert frame.evaluate("window.answer") == allowed(other, "grant")
        assert call(frame, "socket") == allowed(other, "grant")
        write_rows(rows, row(KEY, other.origin(), disabled_at="2026-01-02T03:04:05Z"))
        tab.until(lambda: len(tab.said) > 1)
        assert call(frame)["reason"] == "key_disabled"
        assert tab.said == [NOT_READY, DISABLED.format(KEY[-8:])]
        tab.page.context.close()


# --- What is wrong, and the end


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ('data-client-key="KEY" data-mode="popup"', 'mode is "popup": expected "script" or "frame"'),
        ('type="module"', "load widget.js with a <script> tag that has no type"),
        ("", "the client key is missing: expected data-client-key="),
        ('data-client-key="KEY" data-mode="frame" data-frame-path="https://[x"', "Failed to construct 'URL'"),
        ('data-client-key="KEY" data-mode="frame" data-frame-path="javascript:x()"', 'framePath is "javascript:x()"'),
        ('data-client-key="KEY" data-mode="frame" data-grant-path="https://a.test/"', "https://a.test is not the widget's"),
    ],
)
def test_a_wrong_tag_is_a_message_in_the_console(tab: Tab, site: Site, attributes: str, said: str) -> None:
    text = f'<script src="{site.widget}/gatekeeper/widget.js" {attributes.replace("KEY", KEY)}></script>'
    tab.open(site.page(text), frames=0)
    tab.until(lambda: tab.said != [])
    (message,) = tab.said
    assert said in message
    assert tab.page.locator("iframe").count() == 0


def test_a_wrong_tag_in_the_frame_is_a_message_in_the_console(tab: Tab, site: Site) -> None:
    """Templates write None for a grant that is missing, because the path is not in `frames`."""
    script = f'<script src="{site.widget}/gatekeeper/frame.js"'
    tab.open(site.page(f'{script} type="module"></script>{script} data-grant="None"></script>'), frames=0)
    tab.until(lambda: len(tab.said) == 2)
    assert tab.said == [
        UNGRANTED,
        "gatekeeper: load frame.js with a <script> tag that has no type",
    ]


def test_paths_are_those_of_the_host_with_and_without_a_slash(tab: Tab, site: Site) -> None:
    (frame,) = tab.open(site.page(site.tag("script") + site.tag(frame_path="embed")))
    fetch = "(client) => client.fetch('chat').then((answer) => answer.json())"
    assert tab.page.evaluate(f"document.querySelector('script').gatekeeper.then({fetch})") == allowed(site, "origin")
    assert frame.evaluate(f"({fetch})(gatekeeper)") == allowed(site, "grant")


def test_a_redirect_is_not_followed(tab: Tab, site: Site) -> None:
    (frame,) = tab.open(site.page(site.tag("script") + site.tag()))
    site.served.clear()
    fetch = "(client) => client.fetch('/moved', { redirect: 'follow' }).then(() => 'followed', (error) => error.name)"
    assert tab.page.evaluate(f"document.querySelector('script').gatekeeper.then({fetch})") == "TypeError"
    assert frame.evaluate(f"({fetch})(gatekeeper)") == "TypeError"
    assert site.served == []


def test_the_key_is_sent_to_its_own_service_only(tab: Tab, site: Site) -> None:
    tab.open(site.page(site.tag("script")), frames=0)
    for call_of in ("fetch", "eventSource", "webSocket"):
        ask = f"document.querySelector('script').gatekeeper.then((client) => client.{call_of}('{site.origin()}/x'))"
        said = tab.page.evaluate(f"{ask}.then(() => 'sent', (error) => error.message)")
        assert said == f"{site.origin()} is not the widget's service, {site.widget}"


def test_a_destroyed_frame_is_gone_and_hands_out_nothing(tab: Tab, site: Site) -> None:
    (frame,) = tab.open(site.page(site.static()))
    assert call(frame) == allowed(site, "grant")
    tab.page.evaluate(
        "document.querySelector('script').gatekeeper.then((widget) => { widget.destroy(); widget.destroy(); })"
    )
    assert tab.page.locator("iframe").count() == 0
    assert tab.said == []


def test_a_destroyed_client_closes_its_streams(tab: Tab, site: Site) -> None:
    tab.open(site.page(site.tag("script")), frames=0)
    ended = """async () => {
        const client = await document.querySelector("script").gatekeeper;
        const socket = await client.webSocket("/socket");
        const events = await client.eventSource("/events");
        await new Promise((resume) => { socket.onmessage = resume; });
        const closed = new Promise((resume) => { socket.onclose = (event) => resume(event.wasClean); });
        client.destroy();
        const late = await client.webSocket("/socket");
        const asked = await client.fetch("/chat").then(() => "answered", (error) => error.name);
        return [await closed, events.readyState, late.readyState > 1, asked];
    }"""
    assert tab.page.evaluate(ended) == [True, 2, True, "AbortError"]
    assert tab.said == []


def test_a_module_mounts_the_same(tab: Tab, site: Site) -> None:
    tab.open(site.page('<main id="main"></main>'), frames=0)
    mount = """async ([url, key]) => {
        const { mount } = await import(url);
        const client = mount({ key });
        const widget = mount({ key, mode: "frame", target: document.querySelector("main") });
        const answer = await by.get(client);
        const held = document.querySelector("main > iframe") === widget.frame;
        widget.destroy();
        return [answer, held, document.querySelector("iframe")];
    }"""
    answer = tab.page.evaluate(mount, [f"{site.widget}/gatekeeper/widget.mjs", KEY])
    assert answer == [allowed(site, "origin"), True, None]


# --- Messages


def test_the_page_answers_its_own_frame_only(tab: Tab, site: Site) -> None:
    foreign, sibling = site.page("foreign", host=EVIL), f"{site.widget}/open"
    frames = tab.open(
        site.page(f'{site.static()}<iframe src="{foreign}"></iframe><iframe src="{sibling}"></iframe>'), frames=3
    )
    by_url = {frame.url.partition("?")[0]: frame for frame in frames}
    own = by_url[f"{site.widget}/static"]
    assert call(own) == allowed(site, "grant")
    tab.asked.clear()
    tab.page.evaluate("addEventListener('message', ({ data }) => { window.sent = (window.sent ?? 0) + (data?.sent ?? 0); })")
    ask = "parent.postMessage({ type: 'gatekeeper.grant_wanted', sent: 1 }, '*')"
    for sender in (by_url[foreign], by_url[sibling], tab.page.main_frame):
        sender.evaluate(ask)
    own.evaluate("parent.postMessage(null, '*')")
    own.evaluate("parent.postMessage({ type: 'another', sent: 1 }, '*')")
    tab.page.wait_for_function("window.sent === 4")
    assert tab.page.evaluate("fetch(location.href).then((answer) => answer.ok)")
    assert tab.asked == []
    own.evaluate(ask)
    tab.until(lambda: tab.asked == [f"{site.widget}/grant"])
    own.goto(foreign)
    tab.until(lambda: len(tab.asked) == 2)
    own.evaluate(ask)
    tab.page.wait_for_function("window.sent === 6")
    assert tab.page.evaluate("fetch(location.href).then((answer) => answer.ok)")
    assert len(tab.asked) == 2


def grant_for(tab: Tab, site: Site, *, key: str = KEY, host: str = SHOP) -> str:
    """The grant that a page gets."""
    tab.open(site.page("", host=host), frames=0)
    ask = "([url, key]) => fetch(url, { headers: { 'data-client-key': key } }).then((answer) => answer.json())"
    grant: str = tab.page.evaluate(ask, [f"{site.widget}/grant", key])["grant"]
    return grant


def hand(tab: Tab, grant: Any, sender: Frame | None = None) -> None:
    """Post a grant to the widget's frame, from the page or from a frame beside it."""
    index = tab.page.evaluate("[...document.querySelectorAll('iframe')].findIndex((each) => each.title === 'Widget')")
    to, sender = ("frames", tab.page.main_frame) if sender is None else ("parent.frames", sender)
    frame = next(each for each in tab.page.frames if "client_key" in each.url)
    before = frame.evaluate("window.messages")
    sender.evaluate(f"(grant) => {to}[{index}].postMessage({{ type: 'gatekeeper.grant', grant }}, '*')", grant)
    frame.wait_for_function(f"window.messages > {before}")


def test_a_handed_grant_does_not_replace_a_templated_one(tab: Tab, site: Site) -> None:
    grant = grant_for(tab, site, key=OTHER_KEY)
    (frame,) = tab.open(site.page(site.tag()))
    hand(tab, grant)
    assert call(frame) == allowed(site, "grant", key=KEY)


def test_a_frame_takes_a_grant_of_its_page_from_its_page_only(tab: Tab, site: Site) -> None:
    grant, other = grant_for(tab, site), grant_for(tab, site, host=BLOG)
    beside = site.page("beside")
    frames = tab.open(site.page(site.tag(frame_path="/static") + f'<iframe src="{beside}"></iframe>'), frames=2)
    frame, sibling = sorted(frames, key=lambda each: each.url == beside)
    for wrong in (other, "e30.x", "", "nonsense", {"a": 1}, None):
        hand(tab, wrong)
    hand(tab, grant, sibling)
    assert frame.evaluate(HAS_GRANT) is False
    hand(tab, grant)
    assert frame.evaluate(HAS_GRANT) is True


@pytest.mark.parametrize(("outer", "taken"), [(SHOP, True), (BLOG, False), (EVIL, False)])
def test_a_frame_takes_no_grant_below_another_page(tab: Tab, site: Site, outer: str, *, taken: bool) -> None:
    """The document is on a host that sends no frame-ancestors."""
    inner = site.page(site.static(frame_path="/open"))
    (middle,) = tab.open(site.page(f'<iframe src="{inner}"></iframe>', host=outer))
    middle.wait_for_function("frames.length === 1")
    tab.until(lambda: any("/open" in each.url for each in middle.child_frames))
    (frame,) = middle.child_frames
    frame.wait_for_function("window.messages > 0")
    assert frame.evaluate(HAS_GRANT) is taken


def test_a_frame_asks_again_once_a_grant_has_not_come(tab: Tab, site: Site) -> None:
    failed: list[str] = []
    tab.page.on("requestfailed", lambda request: failed.append(request.url))
    tab.page.route(f"{site.widget}/grant", lambda route: route.abort())
    (frame,) = tab.open(site.page(site.static()))
    tab.until(lambda: f"{site.widget}/grant" in failed)
    tab.page.unroute(f"{site.widget}/grant")
    assert call(frame) == allowed(site, "grant")


def test_a_frame_gets_its_grant_before_its_images(tab: Tab, site: Site) -> None:
    scripts = f'<script src="{site.widget}/gatekeeper/frame.js"></script><script>{CALLS}</script>'
    document = site.page(f'{scripts}<img src="/image">', host=FRAMES)
    tab.page.route("**/image", lambda _: None)  # it never arrives
    with tab.page.expect_request("**/image"):
        tab.page.goto(site.page(site.static(frame_path=document)), wait_until="commit")
    (frame,) = tab.page.main_frame.child_frames
    frame.wait_for_function("window.by !== undefined")
    assert call(frame) == allowed(site, "grant")


def test_a_script_that_starts_late_gets_a_grant(tab: Tab, site: Site) -> None:
    """The app of the frame adds frame.js once the document has loaded."""
    (frame,) = tab.open(site.page(site.static(frame_path=site.page("", host=FRAMES))))
    tab.until(lambda: tab.asked == [f"{site.widget}/grant"])
    frame.add_script_tag(url=f"{site.widget}/gatekeeper/frame.js")
    frame.evaluate(CALLS)
    assert call(frame) == allowed(site, "grant")


def test_a_signal_ends_the_wait_for_a_grant(tab: Tab, site: Site) -> None:
    (frame,) = tab.open(site.page(site.tag(frame_path="/static")))
    ask = "gatekeeper.fetch('/chat', { signal: AbortSignal.timeout(20) }).catch((error) => error.name)"
    assert frame.evaluate(ask) == "TimeoutError"


# --- Renewal


def test_an_answer_renews_a_grant(tab: Tab, site: Site) -> None:
    frames = tab.open(site.page(site.tag() + site.static()), frames=2)
    for frame in frames:
        assert call(frame) == allowed(site, "grant")
    site.served.clear()
    for _ in range(3):
        site.clock.now += 500
        for frame in frames:
            assert call(frame) == allowed(site, "grant")
    assert site.served == ["/chat"] * 6


def test_a_frame_asks_the_page_for_a_grant_when_its_own_has_ended(tab: Tab, site: Site) -> None:
    (frame,) = tab.open(site.page(site.static()))
    assert call(frame) == allowed(site, "grant")
    site.served.clear()
    for way in ("get", "post"):
        site.clock.now += 1000
        assert call(frame, way) == allowed(site, "grant")
    assert site.served == ["/chat"] * 2


def test_a_stream_that_a_grant_no_longer_opens_gets_a_new_one(tab: Tab, site: Site) -> None:
    (frame,) = tab.open(site.page(site.static()))
    assert call(frame) == allowed(site, "grant")
    for way in ("events", "socket"):
        tab.asked.clear()
        site.clock.now += 1000
        assert call(frame, way) == "refused"
        tab.until(lambda: tab.asked == [f"{site.widget}/grant"])
        frame.wait_for_function(f"by.{way}(gatekeeper).then((said) => said.via === 'grant')")


def test_a_templated_frame_is_reloaded_when_its_grant_has_ended(tab: Tab, site: Site) -> None:
    (frame,) = tab.open(site.page(site.tag()))
    site.clock.now += 1000
    with tab.page.expect_event("framenavigated"):
        frame.evaluate("void by.get(gatekeeper)")
    frame.wait_for_load_state()
    frame.wait_for_function("window.by !== undefined")
    assert call(frame) == {**allowed(site, "grant"), "page": None}, "a reload sends the frame's own Referer"


@pytest.mark.parametrize("reason", ["grant_expired", "grant_invalid"])
def test_a_frame_whose_new_document_has_ended_too_is_not_reloaded_again(tab: Tab, site: Site, reason: str) -> None:
    """A grant is invalid once the servers have other secrets."""
    grant = grant_for(tab, site)
    if reason == "grant_invalid":
        grant = f"{grant.partition('.')[0]}.{'x' * 16}"
    site.clock.now += 1000
    (frame,) = tab.open(site.page(site.tag(frame_path="/ended", agent=grant)))
    site.served.clear()
    with tab.page.expect_event("framenavigated"):
        frame.evaluate("void by.get(gatekeeper)")
    frame.wait_for_load_state()
    frame.wait_for_function("window.by !== undefined")
    for _ in range(2):
        assert call(frame)["reason"] == reason
    assert site.served == ["/ended"]
