"""The tables of "CORS" and "Troubleshooting" in the reference, tried in a real browser."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from gatekeeper import CorsPolicy, Gatekeeper, GatekeeperMiddleware, HubSource, StaticSource, guard
from tests.browser.conftest import until
from tests.integration.conftest import ROW, serving
from tests.support.certificates import Certificates
from tests.support.client_keys import KEY

pytestmark = pytest.mark.browser

REFERENCE = (Path(__file__).parents[2] / "gatekeeper/web/README.md").read_text(encoding="utf-8")
CHANGES = "| the page's script | `cors=` |"
TROUBLES = "| the console says | because | change |"
METHODS = ["GET", "POST", "PUT", "DELETE"]
ELSEWHERE = "https://blog.example"
SCRIPT = b"window.ran = true;"


def rows(head: str) -> list[list[str]]:
    """The cells of a table of the reference."""
    table = REFERENCE.partition(head + "\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[1:]]


def code(cell: str) -> str:
    """What stands in the first backticks of a cell."""
    return cell.split("`")[1]


def gate_of(*entries: str) -> Gatekeeper:
    """A gate with a key that allows these entries."""
    source = StaticSource([{**ROW, "domain_allowlist": list(entries)}])
    return Gatekeeper(source, https_only=True, grant_secrets=["0123456789abcdef"])


def service(*middleware: Middleware) -> Starlette:
    """A widget's service."""

    async def chat(request: Request) -> Response:
        request.state.served.append(request.method)
        return Response(SCRIPT, media_type="text/javascript", headers={"x-total": "3"})

    async def crash(_request: Request) -> Response:
        raise ZeroDivisionError

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    routes = [
        Route("/chat", chat, methods=METHODS),
        Route("/open", chat, methods=METHODS),
        Route("/embed", lambda _: HTMLResponse("<title>frame</title>")),
        Route("/crash", crash),
        WebSocketRoute("/socket", socket),
    ]
    return Starlette(routes=routes, middleware=middleware)


async def customer_page(request: Request) -> HTMLResponse:
    """A page with the headers in its query. A missing icon would be a message in its console."""
    return HTMLResponse('<title>shop</title><link rel="icon" href="data:,">', headers=dict(request.query_params))


class Try(NamedTuple):
    """What a page does with a service.

    Attributes:
        script: a function of the service's URL and the client key that returns a response, or whether it worked.
        app: makes the service, by the page's origin.
        policies: headers of the page.
    """

    script: str
    app: Callable[[str], ASGIApp]
    policies: tuple[tuple[str, str], ...] = ()


class Site(NamedTuple):
    """The running servers.

    Attributes:
        page: the origin of a customer's page.
        widget: the origin of the widget's services.
        apps: the services, each below a path of its own.
        served: the methods of the requests that the services have answered.
    """

    page: str
    widget: str
    apps: list[BaseRoute]
    served: list[str]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    tls = Certificates().of("shop.acme.test", "widget.test")
    pages = Starlette(routes=[Route("/", customer_page)])
    served: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, list[str]]]:
        yield {"served": served}

    services = Starlette(lifespan=lifespan)
    with serving(pages, tls=tls) as shop, serving(services, tls=tls, ws="wsproto") as widget:
        page, host = f"https://shop.acme.test:{shop.port}", f"https://widget.test:{widget.port}"
        yield Site(page, host, services.router.routes, served)


RUN = "(given) => (SCRIPT)(given).then((got) => got instanceof Response ? got.ok : Boolean(got)).catch(() => false)"


class Tab:
    """A page that notes what its console says."""

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self.said: list[str] = []
        self._site = site
        page.on("console", lambda message: self.said.append(message.text))

    def run(self, tried: Try) -> Any:
        """Open a page, run the script with a service of its own, and tell whether it worked."""
        name = f"/{len(self._site.apps)}"
        self._site.apps.append(Mount(name, tried.app(self._site.page)))
        self.page.goto(f"{self._site.page}/?{urlencode(tried.policies)}")
        self.said.clear()
        return self.page.evaluate(RUN.replace("SCRIPT", tried.script), [self._site.widget + name, KEY])


@pytest.fixture(scope="module")
def tab(browser: Browser, site: Site) -> Iterator[Tab]:
    context = browser.new_context(ignore_https_errors=True)
    yield Tab(context.new_page(), site)
    context.close()  # servers wait for its connections


def guarded(*entries: str, **options: Any) -> Callable[[str], ASGIApp]:
    """A guarded service whose key allows these entries, or the page."""
    return lambda page: guard(service(), gate_of(*entries or (page,)), **options)


def inside_of_crashes(page: str) -> ASGIApp:
    return service(Middleware(GatekeeperMiddleware, gatekeeper=gate_of(page)))


def behind_cors_middleware(page: str) -> ASGIApp:
    return CORSMiddleware(guarded()(page), allow_origins=["*"])


def behind_adding_proxy(page: str) -> ASGIApp:
    app = guarded()(page)

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"access-control-allow-origin", b"*")]}
            await send(message)

        await app(scope, receive, send_more)

    return proxy


def without_hub(_page: str) -> ASGIApp:
    hub = HubSource("http://127.0.0.1:1", "sk_live_acme_x")
    return guard(service(), Gatekeeper(hub, start_timeout=0.05))


def fetching(path: str, options: str = "") -> str:
    """A script that sends the key in its header, with other options of `fetch`."""
    sent = f"{{headers: {{'data-client-key': key}}, {options}}}"
    return f"([url, key]) => fetch(url + '{path}', {sent})"


def tag(path: str, attributes: str = "") -> str:
    """A script that loads another one by a tag with these properties."""
    return f"""([url, key]) => new Promise((settle) => {{
      const script = Object.assign(document.createElement("script"), {{{attributes}}});
      script.onload = () => settle(true);
      script.onerror = () => settle(false);
      script.src = `${{url}}{path}`;
      document.head.append(script);
    }})"""


READ_OPEN = "([url]) => fetch(url + '/open')"
WITH_KEYS = "headers: {'data-client-key': key, authorization: 'Bearer x'}"
COOKIES = "credentials: 'include'"
SIMPLE = "([url, key]) => fetch(`${url}/chat?client_key=${key}`)"
COOKIES_WITHOUT_PREFLIGHT = SIMPLE.replace("`)", f"`, {{{COOKIES}}})")
KEYLESS = "([url]) => fetch(url + '/chat')"
CRASH = fetching("/crash")
SOCKET = """([url, key]) => new Promise((settle) => {
  const socket = new WebSocket(`${url.replace("http", "ws")}/socket?client_key=${key}`);
  socket.onopen = () => settle(true);
  socket.onerror = () => settle(false);
})"""
FRAME = """([url, key]) => new Promise((settle) => {
  const frame = Object.assign(document.createElement("iframe"), {referrerPolicy: "no-referrer"});
  frame.onload = () => settle(true);  // also for the browser's own page in place of a blocked one
  frame.src = `${url}/embed?client_key=${key}`;
  document.body.append(frame);
})"""
DIGEST = base64.b64encode(hashlib.sha256(SCRIPT).digest()).decode()
INTEGRITY = f"integrity: 'sha256-{DIGEST}'"
CROSS_ORIGIN = "crossOrigin: 'anonymous'"
EXEMPT = guarded(exempt=("/open",))
PUBLIC = guarded(exempt=("/open",), exempt_cors=True)
WITH_COOKIES = guarded(cors=CorsPolicy(allow_credentials=True, preflight="strict"))
STRICT = CorsPolicy(preflight="strict")
FRAMES = {"frames": ("/embed",)}
EMBEDDER = (("cross-origin-embedder-policy", "require-corp"),)
SELF_ONLY = (("content-security-policy", "connect-src 'self'"),)
OPENED = (("content-security-policy", "connect-src 'self' https://widget.test:*"),)

# For each row, what goes wrong, and what works after the change.
TRIES = [
    (Try(fetching("/open"), EXEMPT), Try(fetching("/open"), guarded())),
    (Try(fetching("/chat"), guarded(ELSEWHERE, cors=STRICT)), Try(fetching("/chat"), guarded(cors=STRICT))),
    (Try(fetching("/chat"), behind_cors_middleware), Try(fetching("/chat"), guarded())),
    (Try(READ_OPEN, EXEMPT), Try(READ_OPEN, PUBLIC)),
    (Try(CRASH, inside_of_crashes), Try(f"(given) => ({CRASH})(given).then((answer) => answer.status === 500)", guarded())),
    (Try(SIMPLE, behind_adding_proxy), Try(SIMPLE, guarded())),
    (
        Try(fetching("/chat", "method: 'PUT'"), guarded()),
        Try(fetching("/chat", "method: 'PUT'"), guarded(cors=CorsPolicy(allow_methods=("GET", "HEAD", "POST", "PUT")))),
    ),
    (
        Try(fetching("/chat", WITH_KEYS), guarded()),
        Try(fetching("/chat", WITH_KEYS), guarded(cors=CorsPolicy(allow_headers=("content-type", "authorization")))),
    ),
    (Try(fetching("/chat"), guarded(key_header="x-key")), Try(fetching("/chat"), guarded())),
    (Try(fetching("/chat", COOKIES), guarded()), Try(fetching("/chat", COOKIES), WITH_COOKIES)),
    (Try(COOKIES_WITHOUT_PREFLIGHT, guarded()), Try(COOKIES_WITHOUT_PREFLIGHT, WITH_COOKIES)),
    (Try(KEYLESS, guarded()), Try(fetching("/chat"), guarded())),
    (Try(fetching("/chat"), guarded(ELSEWHERE)), Try(fetching("/chat"), guarded())),
    (Try(fetching("/chat"), without_hub), Try(fetching("/chat"), guarded())),
    (Try(SOCKET, guarded(ELSEWHERE)), Try(SOCKET, guarded())),
    (Try(FRAME, guarded(ELSEWHERE, **FRAMES)), Try(FRAME, guarded(**FRAMES))),
    (Try("() => fetch('http://widget.test/chat')", guarded()), Try(fetching("/chat"), guarded())),
    (Try(tag("/open"), EXEMPT, EMBEDDER), Try(tag("/open", CROSS_ORIGIN), PUBLIC, EMBEDDER)),
    (Try(tag("/open", INTEGRITY), EXEMPT), Try(tag("/open", f"{INTEGRITY}, {CROSS_ORIGIN}"), PUBLIC)),
    (Try(fetching("/chat"), guarded(), SELF_ONLY), Try(fetching("/chat"), guarded(), OPENED)),
]


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [pytest.param(code(row[0]), *tries, id=row[1]) for row, tries in zip(rows(TROUBLES), TRIES, strict=True)],
)
def test_the_console_says_it_until_the_line_is_changed(tab: Tab, text: str, wrong: Try, right: Try) -> None:
    pattern = re.compile(re.escape(text).replace("…", ".*"))
    tab.run(wrong)
    until(tab.page, lambda: any(map(pattern.search, tab.said)))
    assert tab.run(right) is True
    assert not [said for said in tab.said if pattern.search(said)]


@pytest.mark.parametrize(("script", "cors"), [pytest.param(code(row[0]), row[1], id=row[0]) for row in rows(CHANGES)])
def test_the_policy_of_the_table_is_what_the_script_needs(site: Site, tab: Tab, script: str, cors: str) -> None:
    """With the default policy, the script cannot do it, unless that is the policy of the table."""
    ask = (
        f"async ([base, key]) => {{ const url = `${{base}}/chat?client_key=${{key}}`; return {script.replace('…', 'x')}; }}"
    )
    policy = eval(code(cors), {"CorsPolicy": CorsPolicy})
    for tried in {policy, CorsPolicy()}:
        site.served.clear()
        worked = tab.run(Try(ask, guarded(cors=tried)))
        until(tab.page, lambda: bool(site.served or tab.said))  # nothing tells a page that its beacon has arrived
        assert (worked and bool(site.served) and not tab.said) == (tried == policy)


def test_a_tag_can_name_the_page_where_its_policy_hides_it(tab: Tab) -> None:
    hidden = (("referrer-policy", "no-referrer"),)
    named = tag("/chat?client_key=${key}", "referrerPolicy: 'origin'")
    assert tab.run(Try(tag("/chat?client_key=${key}"), guarded(), hidden)) is False
    assert tab.said == []  # no console says that an image or a script was refused
    assert tab.run(Try(named, guarded(), hidden)) is True
