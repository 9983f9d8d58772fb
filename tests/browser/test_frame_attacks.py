"""Attacks on widgets in frames, by pages in a real browser."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Error, Frame, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from gatekeeper import FileSource, Gatekeeper, GatekeeperMiddleware, Reason, StaticSource
from tests.browser.conftest import until
from tests.browser.test_frames import call, widget_app
from tests.integration.conftest import serving, write_rows
from tests.support.certificates import Certificates
from tests.support.client_keys import KEY, OTHER_KEY

pytestmark = pytest.mark.browser

GLOBEX_KEY = "pk_live_globex_4fJq8ZtR2mXw9LbN6cVh1KsDglob-001"
SECRETS = ["0123456789abcdef"]

# Ways to embed a document that have the page as their only ancestor.
EMBEDDINGS = (
    '<iframe src="{url}"></iframe>',
    '<iframe src="{url}" sandbox="allow-scripts allow-same-origin"></iframe>',
    '<object data="{url}" type="text/html"></object>',
    '<embed src="{url}" type="text/html">',
    "<iframe srcdoc=\"<iframe src='{url}'></iframe>\"></iframe>",
    "<iframe name='blank'></iframe><script>blank.document.body.innerHTML = `<iframe src='{url}'></iframe>`</script>",
)
# Ways to send a request without reading its answer, from a page that stays and from one that goes there.
SENDINGS = (
    '<iframe src="{url}"></iframe>',
    '<object data="{url}"></object>',
    '<embed src="{url}">',
    '<img src="{url}">',
    '<script src="{url}"></script>',
    '<script type="module" src="{url}"></script>',
    '<link rel="stylesheet" href="{url}">',
    '<video src="{url}"></video>',
    '<a id="ping" href="#" ping="{url}">ping</a><script>document.getElementById("ping").click()</script>',
    '<script>window.open("{url}")</script>',
    '<script>window.open("{url}", "_blank", "noopener")</script>',
)
DEPARTURES = (
    '<a href="{url}">widget</a><script>document.links[0].click()</script>',
    '<meta http-equiv="refresh" content="0; url={url}">',
    '<script>location.replace("{url}")</script>',
)


class Hosts(NamedTuple):
    """The running servers.

    Attributes:
        widget: the base URL of the widget's service.
        port: the port of all customers' pages.
        gate: the gate of one of the two accounts that the service has.
        served: "method, page" of each request that the app has answered.
        passed: the seconds of the gate's clocks; the last one counts.
    """

    widget: str
    port: int
    gate: Gatekeeper
    served: list[str]
    passed: list[float]

    def page(self, host: str, path: str = "/") -> str:
        """The URL of a page."""
        return f"https://{host}:{self.port}{path}"

    def embed(self, key: str = KEY) -> str:
        """The URL of the frame's document."""
        return f"{self.widget}/embed?client_key={key}"


async def empty_page(request: Request) -> Response:
    """A page; its path is its referrer policy."""
    policy = request.path_params["policy"] or "strict-origin-when-cross-origin"
    return HTMLResponse("<title>page</title>", headers={"referrer-policy": policy})


async def redirect(request: Request) -> Response:
    """An open redirect, by the server, a script or a refresh."""
    url, how = request.query_params["to"], request.path_params["how"]
    if how == "server":
        return RedirectResponse(url, headers={"access-control-allow-origin": "*"})
    moves = {
        "script": f"<script>location.href = {url!r}</script>",
        "refresh": f'<meta http-equiv="refresh" content="0; url={url}">',
    }
    return HTMLResponse(moves[how], headers={"referrer-policy": request.query_params["policy"]})


def row(number: int, key: str, *entries: str, **fields: Any) -> dict[str, Any]:
    return {"id": str(number), "name": "a key", "last8": key[-8:], "domain_allowlist": list(entries), **fields}


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    certificates, served, passed = Certificates(), [], [time.time()]  # type: Certificates, list[str], list[float]
    pages = Starlette(routes=[Route("/redirect/{how}", redirect), Route("/{policy:path}", empty_page)])
    with serving(pages, tls=certificates.of("shop.acme.test", "blog.acme.test", "evil.test")) as shop:
        at_shop, at_blog = (f"https://{host}.acme.test:{shop.port}" for host in ("shop", "blog"))
        acme = Gatekeeper(
            StaticSource([row(1, KEY, at_shop), row(2, OTHER_KEY, at_blog)], account="acme"),
            grant_secrets=SECRETS,
            clock=lambda: passed[-1],
            wall_clock=lambda: passed[-1],
        )
        globex = Gatekeeper(StaticSource([row(1, GLOBEX_KEY, at_shop)], account="globex"), grant_secrets=SECRETS)
        guarded = [GatekeeperMiddleware(widget_app(served), gate, frames=("/embed",)) for gate in (globex, acme)]
        app = Starlette(routes=[Mount("/globex", guarded[0]), Mount("/", guarded[1])])
        with serving(app, tls=certificates.of("widget.test"), ws="wsproto") as widget:
            yield Hosts(f"https://widget.test:{widget.port}", shop.port, acme, served, passed)


def show(tab: Page, url: str, html: str) -> None:
    """Open a page and put HTML into it."""
    tab.goto(url)
    tab.set_content(html, wait_until="load")


def grants(tab: Page) -> list[str]:
    """The grants in all frames of a tab."""
    found = []
    for frame in tab.frames:
        with suppress(Error):  # a frame that is blocked in an <object> goes away
            found.append(frame.evaluate("window.grant"))
    return [grant for grant in found if grant]


def blocked(tab: Page) -> int:
    """How many frames the browser has blocked and still shows."""
    return sum(frame.url.startswith("chrome-error:") for frame in tab.frames)


def granted(tab: Page, hosts: Hosts, key: str = KEY, host: str = "shop.acme.test") -> Frame:
    """A frame on a page that its key allows."""
    show(tab, hosts.page(host), f'<iframe src="{hosts.embed(key)}"></iframe>')
    (_, frame) = tab.frames
    return frame


def refusals(hosts: Hosts, reason: Reason = Reason.GRANT_FOREIGN) -> int:
    """How many requests have been refused for a reason so far."""
    return hosts.gate.decisions[reason]


def until_refused(tab: Page, hosts: Hosts, number: int) -> None:
    """Wait until so many requests have been refused for their grant."""
    until(tab, lambda: refusals(hosts) >= number)


# --- Clickjacking


@pytest.mark.parametrize(("host", "shown"), [("shop.acme.test", True), ("blog.acme.test", False), ("evil.test", False)])
def test_no_way_to_embed_a_document_shows_it_on_a_foreign_page(tab: Page, hosts: Hosts, host: str, *, shown: bool) -> None:
    """Without referrer the service cannot tell the pages apart, and the browser enforces the allowlist."""
    hosts.served.clear()
    number = len(EMBEDDINGS)
    show(tab, hosts.page(host, "/no-referrer"), "".join(EMBEDDINGS).replace("{url}", hosts.embed()))
    until(tab, lambda: hosts.served == ["GET None"] * number)
    until(tab, lambda: len(grants(tab)) == (number if shown else 0))
    until(tab, lambda: shown or blocked(tab) >= number - 2)  # <object> and <embed> show nothing instead


@pytest.mark.parametrize(("host", "shown"), [("shop.acme.test", 1), ("evil.test", 0)])
def test_a_frameset_is_as_good_as_an_iframe(tab: Page, hosts: Hosts, host: str, shown: int) -> None:
    show(tab, hosts.page(host, "/no-referrer"), f'<frameset><frame src="{hosts.embed()}"></frameset>')
    until(tab, lambda: (len(grants(tab)), blocked(tab)) == (shown, 1 - shown))


def test_a_foreign_page_that_is_known_is_refused_however_it_embeds(tab: Page, hosts: Hosts) -> None:
    """But for a blank frame, which sends no referrer: the browser blocks it."""
    hosts.served.clear()
    before = refusals(hosts, Reason.ORIGIN_NOT_ALLOWED)
    show(tab, hosts.page("evil.test"), "".join(EMBEDDINGS).replace("{url}", hosts.embed()))
    until(tab, lambda: refusals(hosts, Reason.ORIGIN_NOT_ALLOWED) == before + len(EMBEDDINGS) - 1 and blocked(tab) == 1)
    (blank,) = [frame for frame in tab.frames if frame.name == "blank"]
    assert [frame.url.partition(":")[0] for frame in blank.child_frames] == ["chrome-error"]
    assert (grants(tab), hosts.served) == ([], ["GET None"])


def test_a_frame_below_an_opaque_origin_is_blocked_on_every_page(tab: Page, hosts: Hosts) -> None:
    html = f"<iframe src=\"data:text/html,<iframe src='{hosts.embed()}'></iframe>\"></iframe>"
    for host in ("shop.acme.test", "evil.test"):
        hosts.served.clear()
        show(tab, hosts.page(host), html)
        until(tab, lambda: hosts.served == ["GET None"] and blocked(tab) == 1)
        assert grants(tab) == []


# --- Open redirects on the customer's site


@pytest.mark.parametrize(
    ("how", "policy"), [("server", "origin"), ("server", "no-referrer"), ("script", "origin"), ("refresh", "origin")]
)
def test_an_open_redirect_of_the_customer_shows_no_frame_elsewhere(tab: Page, hosts: Hosts, how: str, policy: str) -> None:
    """A redirect by a script names the customer's page as the referrer, so the document is served, and then blocked."""
    to = hosts.page("shop.acme.test", f"/redirect/{how}?policy={policy}&to={quote(hosts.embed(), safe='')}")
    frame = f'<iframe src="{to}"></iframe>'
    show(tab, hosts.page("shop.acme.test", f"/{policy}"), frame)
    until(tab, lambda: len(grants(tab)) == 1)
    hosts.served.clear()
    show(tab, hosts.page("evil.test", f"/{policy}"), frame)
    if (how, policy) == ("server", "origin"):
        assert "origin_not_allowed" in tab.frames[1].content()
        assert hosts.served == []
    else:
        until(tab, lambda: len(hosts.served) == 1 and blocked(tab) == 1)
    assert grants(tab) == []


def test_an_open_redirect_of_the_customer_lends_no_origin_to_a_script(tab: Page, hosts: Hosts) -> None:
    grant = granted(tab, hosts).evaluate("window.grant")
    tab.goto(hosts.page("evil.test"))
    hosts.served.clear()
    for url in (f"{hosts.widget}/chat?client_key={KEY}", f"{hosts.widget}/chat?client_grant={grant}"):
        to = hosts.page("shop.acme.test", f"/redirect/server?to={quote(url, safe='')}")
        said = tab.evaluate("(url) => fetch(url).then((answer) => answer.json())", to)
        assert said["reason"] == ("origin_null" if "client_key" in url else "grant_foreign")
    assert hosts.served == []


# --- A grant in a URL


def test_a_grant_that_a_foreign_page_sends_in_a_url_is_refused(tab: Page, context: BrowserContext, hosts: Hosts) -> None:
    """Without Origin and Referer such a request looks like one of the frame, but for Sec-Fetch-Site."""
    grant = granted(tab, hosts).evaluate("window.grant")
    hosts.served.clear()
    for sendings in (SENDINGS, *((departure,) for departure in DEPARTURES)):
        before = refusals(hosts)
        html = [
            sending.replace("{url}", f"{hosts.widget}/chat?client_grant={grant}&number={number}")
            for number, sending in enumerate(sendings)
        ]
        page = context.new_page()
        page.goto(hosts.page("evil.test", "/no-referrer"))
        page.set_content("".join(html), wait_until="commit")
        until_refused(tab, hosts, before + len(sendings))
    assert hosts.served == []
    assert len(context.pages) == 4 + len(DEPARTURES)


def test_a_grant_in_the_url_of_a_frame_changes_nothing(tab: Page, hosts: Hosts) -> None:
    """Any page can put a grant into the URL of a frame: a foreign one, and a customer's for another key."""
    grant = granted(tab, hosts).evaluate("window.grant")
    put = f"&client_grant={grant}&grant={grant}#client_grant={grant}"
    show(tab, hosts.page("blog.acme.test"), f'<iframe src="{hosts.embed(OTHER_KEY)}{put}"></iframe>')
    (_, frame) = tab.frames
    assert frame.evaluate("window.grant") != grant
    assert call(frame, "post") == {"page": hosts.page("blog.acme.test", ""), "via": "grant"}
    for host, key in (("evil.test", KEY), ("evil.test", OTHER_KEY), ("blog.acme.test", KEY)):
        show(tab, hosts.page(host), f'<iframe src="{hosts.embed(key)}{put}"></iframe>')
        assert grants(tab) == []
        assert "origin_not_allowed" in tab.frames[1].content()
    show(tab, hosts.page("evil.test"), f'<iframe src="{hosts.widget}/embed?x=1{put}"></iframe>')
    assert "key_missing" in tab.frames[1].content()


# --- Grants of others


def test_a_grant_of_another_account_on_the_same_host_is_invalid(tab: Page, hosts: Hosts) -> None:
    """Both accounts sign with the same secret, and their keys have the same id."""
    show(tab, hosts.page("shop.acme.test"), f'<iframe src="{hosts.widget}/globex/embed?client_key={GLOBEX_KEY}"></iframe>')
    (_, frame) = tab.frames
    own = frame.evaluate("fetch('/globex/chat', {headers: {'data-client-grant': grant}}).then((answer) => answer.json())")
    assert own == {"page": hosts.page("shop.acme.test", ""), "via": "grant"}
    hosts.served.clear()
    assert call(frame, "get")["reason"] == "grant_invalid"
    assert call(frame, "post")["reason"] == "grant_invalid"
    assert (call(frame, "events"), call(frame, "socket")) == ("refused", "refused")
    assert hosts.served == []


def test_a_frame_cannot_use_its_grant_for_another_key(tab: Page, hosts: Hosts) -> None:
    frame = granted(tab, hosts)
    send = (
        "(key) => fetch('/chat?client_key=' + key, {headers: {'data-client-grant': grant}}).then((answer) => answer.json())"
    )
    assert frame.evaluate(send, OTHER_KEY)["reason"] == "key_conflict"
    assert frame.evaluate(send, KEY) == {"page": hosts.page("shop.acme.test", ""), "via": "grant"}


def test_an_edited_grant_is_refused_in_its_own_frame(tab: Page, hosts: Hosts) -> None:
    frame = granted(tab, hosts)
    grant = frame.evaluate("window.grant")
    for edited in (grant[1:], grant[:-1], f"x{grant}", f"{grant}=", f"{grant}~~~~", grant.upper()):
        assert call(frame, "get", edited)["reason"] == "grant_invalid", edited
        assert (call(frame, "events", edited), call(frame, "socket", edited)) == ("refused", "refused"), edited


# --- Revocation, and the end


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[tuple[Hosts, Callable[..., None]]]:
    """Servers, and a function that replaces the key's row."""
    certificates, served = Certificates(), []  # type: Certificates, list[str]
    pages = Starlette(routes=[Route("/{policy:path}", empty_page)])
    path = tmp_path / "rows.json"
    with serving(pages, tls=certificates.of("shop.acme.test")) as shop:

        def change(entry: str = f"https://shop.acme.test:{shop.port}", **fields: Any) -> None:
            write_rows(path, row(1, KEY, entry, **fields))

        change()
        gate = Gatekeeper(FileSource(path), refresh_interval=0.1, grant_secrets=SECRETS)
        guarded = GatekeeperMiddleware(widget_app(served), gate, frames=("/embed",))
        with serving(guarded, tls=certificates.of("widget.test"), ws="wsproto") as widget:
            yield Hosts(f"https://widget.test:{widget.port}", shop.port, gate, served, []), change


@pytest.mark.parametrize(
    ("policy", "changed", "reason"),
    [
        ("", {"disabled_at": "2026-01-02T03:04:05Z"}, "key_disabled"),
        ("", {"entry": "blog.acme.test"}, "origin_not_allowed"),
        ("no-referrer", {"entry": "blog.acme.test"}, "grant_expired"),
    ],
)
def test_an_open_frame_is_refused_once_its_key_or_page_is_revoked(
    changing: tuple[Hosts, Callable[..., None]], tab: Page, policy: str, changed: dict[str, str], reason: str
) -> None:
    hosts, change = changing
    show(tab, hosts.page("shop.acme.test", f"/{policy}"), f'<iframe src="{hosts.embed()}"></iframe>')
    (_, frame) = tab.frames
    assert call(frame, "get")["via"] == "grant"
    change(**changed)
    until(tab, lambda: call(frame, "get").get("reason") == reason)
    assert call(frame, "post")["reason"] == reason
    assert (call(frame, "events"), call(frame, "socket")) == ("refused", "refused")
    show(tab, hosts.page("shop.acme.test", f"/{policy}"), f'<iframe src="{hosts.embed()}"></iframe>')
    assert grants(tab) == []


RENEW = """async () => {
  const answer = await fetch("/chat", {headers: {"data-client-grant": grant}});
  window.grant = answer.headers.get("data-client-grant") ?? grant;
  return (await answer.json()).reason ?? "allowed";
}"""


def test_a_frame_renews_its_grant_for_12_hours_and_then_loads_again(hosts: Hosts, tab: Page) -> None:
    frame = granted(tab, hosts)
    first = frame.evaluate("window.grant")
    for _ in range(49):
        hosts.passed.append(hosts.passed[-1] + 864.0)
        assert frame.evaluate(RENEW) == "allowed"
    assert call(frame, "get", first)["reason"] == "grant_expired"
    hosts.passed.append(hosts.passed[-1] + 864.0)
    assert frame.evaluate(RENEW) == "grant_expired"
    assert granted(tab, hosts).evaluate(RENEW) == "allowed"


# --- Service workers


WORKER = """
const seen = [];
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => { seen.push(event.request.url); event.respondWith(fetch(event.request)); });
self.addEventListener("message", async (event) => {
  const read = (url, options) => fetch(url, options).then((answer) => answer.text(), () => "unreadable");
  const said = [];
  for (const options of [{}, {mode: "no-cors"}, {referrer: ""}, {mode: "no-cors", referrer: ""}])
    said.push(await read(event.data, options));
  event.source.postMessage({seen, said});
});
"""
REGISTER = """async () => {
  await navigator.serviceWorker.register("/worker.js");
  await navigator.serviceWorker.ready;
  if (!navigator.serviceWorker.controller)
    await new Promise((settle) => navigator.serviceWorker.addEventListener("controllerchange", settle, {once: true}));
}"""
ASK_WORKER = """(url) => new Promise((settle) => {
  navigator.serviceWorker.addEventListener("message", (event) => settle(event.data), {once: true});
  navigator.serviceWorker.controller.postMessage(url);
})"""


@pytest.mark.parametrize(("host", "shown"), [("localhost", 1), ("127.0.0.1", 0)])
def test_a_service_worker_of_the_page_sees_and_reads_no_document(tab: Page, host: str, shown: int) -> None:
    served: list[str] = []
    worker = Response(WORKER, media_type="text/javascript")
    pages = Starlette(routes=[Route("/worker.js", lambda _: worker), Route("/{policy:path}", empty_page)])
    gate = Gatekeeper(StaticSource([row(1, KEY, "localhost:*")]), grant_secrets=SECRETS)
    guarded = GatekeeperMiddleware(widget_app(served), gate, frames=("/embed",))
    with serving(pages) as shop, serving(guarded) as widget:
        url = f"http://localhost:{widget.port}/embed?client_key={KEY}"
        tab.goto(f"http://{host}:{shop.port}/")
        tab.evaluate(REGISTER)
        tab.evaluate(
            "(url) => { document.body.innerHTML = `<iframe src='${url}'></iframe><script src='/own.js'></script>`; }", url
        )
        until(tab, lambda: len(tab.frames) == 2 and tab.frames[1].url == url)
        tab.evaluate("fetch('/own')")
        assert len(grants(tab)) == shown
        served.clear()
        answer = tab.evaluate(ASK_WORKER, url)
        assert answer["said"] == ["unreadable", "", "unreadable", ""]
        assert [seen for seen in answer["seen"] if "/embed" in seen] == []
        assert f"http://{host}:{shop.port}/own" in answer["seen"]
        assert gate.decisions[Reason.NOT_FRAMED] == 4
        assert served == []
