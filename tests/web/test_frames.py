"""Frames: documents, grants and the requests of a frame, called with a scope, a receive and a send."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gatekeeper import ConfigError, CorsPolicy, FileSource, Gatekeeper, GatekeeperMiddleware, StaticSource, decision_from
from tests.support.client_keys import DISABLED_KEY, KEY, OTHER_KEY, UNKNOWN_KEY
from tests.web.test_asgi import (
    ASKS_METHOD,
    OTHER_PAGE,
    PAGE,
    ROWS,
    STRANGE_PAGE,
    Answer,
    App,
    Header,
    ask,
    ask_later,
    headers,
    shake_hands,
)

HOST = "widget.test"
OWN = f"https://{HOST}"
FRAMES_HOST = "https://frames.test"
IN_FRAME = headers(("host", HOST), ("sec-fetch-dest", "iframe"))
QUERY = f"client_key={KEY}"
VARY = {"origin", "data-client-key", "data-client-grant", "sec-fetch-site"}


class Clock:
    """Seconds since 1970 and since the boot, moved together."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def guard(app: ASGIApp | None = None, clock: Clock | None = None, **options: Any) -> GatekeeperMiddleware:
    """Guard an app with frames."""
    clock = clock or Clock()
    gate = Gatekeeper(StaticSource(ROWS), grant_secrets=["0123456789abcdef"], clock=clock, wall_clock=clock)
    options = {"frames": ("/embed",), "grant_path": "/grant", "own_origins": (FRAMES_HOST,), **options}
    return GatekeeperMiddleware(app or App(), gate, **options)


def load(guarded: GatekeeperMiddleware, *fields: Header, query: str = QUERY, **parts: Any) -> Answer:
    """Ask for the document of a frame."""
    return ask(guarded, [*IN_FRAME, *fields], **{"path": "/embed", "query": query, **parts})


def grant_of(guarded: GatekeeperMiddleware, *, key: str = KEY, page: str | None = PAGE) -> bytes:
    """The grant that the app of a frame document is handed."""
    app = guarded.app
    assert isinstance(app, App)
    referer = () if page is None else headers(("referer", f"{page}/"))
    assert load(guarded, *referer, query=f"client_key={key}").status == 200
    grant = decision_from(app.scopes[-1]).grant
    assert grant is not None
    return grant.encode()


def with_grant(grant: bytes, *fields: Header, host: str = HOST, origin: str | None = OWN) -> list[Header]:
    """The headers of a frame's own request."""
    own = () if origin is None else headers(("origin", origin))
    return [*headers(("host", host), ("data-client-grant", grant)), *own, *fields]


# --- Documents


def test_a_document_on_an_allowed_page_is_served_for_its_pages_only() -> None:
    own = [
        (b"Cache-Control", b"public, max-age=60"),
        (b"Access-Control-Allow-Origin", b"*"),
        (b"vary", b"Cookie"),
        (b"content-security-policy", b"default-src 'self'"),
    ]
    app = App(*own)
    answer = load(guard(app), *headers(("referer", f"{PAGE}/cart")))
    assert (answer.status, answer.body) == (200, App.BODY)
    policies = answer.values("content-security-policy")
    assert policies == [f"frame-ancestors {PAGE} https://localhost:* http://localhost:*".encode(), b"default-src 'self'"]
    assert answer.value("cache-control") == b"no-store"
    assert answer.value("access-control-allow-origin") is None
    assert answer.names("vary") == VARY | {"referer", "cookie"}
    decision = decision_from(app.scopes[-1])
    assert (decision.reason, decision.origin, decision.via) == ("allowed", PAGE, "referer")
    assert decision.grant is not None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([], id="no referrer"),
        pytest.param(headers(("referer", f"{OWN}/embed?{QUERY}")), id="a reload"),
        pytest.param(headers(("referer", f"http://{HOST}/help")), id="a link in a frame over http"),
        pytest.param(headers(("referer", f"{FRAMES_HOST}/")), id="a link on an own origin"),
    ],
)
def test_a_document_whose_page_is_not_known_is_enforced_by_the_browser(fields: list[Header]) -> None:
    app = App()
    answer = load(guard(app), *fields)
    assert answer.status == 200
    assert (
        answer.value("content-security-policy") == f"frame-ancestors {PAGE} https://localhost:* http://localhost:*".encode()
    )
    decision = decision_from(app.scopes[-1])
    assert (decision.origin, decision.via) == (None, None)
    assert decision.grant is not None


@pytest.mark.parametrize("destination", ["iframe", "frame", "object", "embed", None])
def test_a_document_is_loaded_by_anything_that_frames(destination: str | None) -> None:
    fields = headers(("host", HOST), *((("sec-fetch-dest", destination),) if destination else ()))
    assert ask(guard(), fields, path="/embed", query=QUERY).status == 200


@pytest.mark.parametrize(
    ("fields", "method"),
    [
        pytest.param(headers(("sec-fetch-dest", "document")), "GET", id="the address bar, a link, a popup"),
        pytest.param(headers(("sec-fetch-dest", "empty")), "GET", id="fetch"),
        pytest.param(headers(("sec-fetch-dest", "script")), "GET", id="a script"),
        pytest.param(headers(("sec-fetch-dest", "serviceworker")), "GET", id="a service worker"),
        pytest.param(headers(("sec-fetch-dest", "iframe"), ("sec-fetch-dest", "iframe")), "GET", id="twice"),
        pytest.param([*headers(("origin", PAGE))], "GET", id="fetch in cors mode"),
        pytest.param([*headers(("origin", OWN))], "GET", id="fetch in cors mode, by the frame"),
        pytest.param([*headers(("origin", "null"))], "GET", id="a sandboxed fetch"),
        pytest.param(headers(("sec-fetch-dest", "iframe"), ("origin", PAGE)), "POST", id="a form"),
        pytest.param(headers(("sec-fetch-dest", "iframe")), "HEAD", id="HEAD"),
    ],
)
def test_a_document_outside_of_a_frame_is_refused(fields: list[Header], method: str) -> None:
    app = App()
    answer = ask(guard(app), [*headers(("host", HOST)), *fields], path="/embed", query=QUERY, method=method)
    assert answer.status == 403
    assert b"<code>not_framed</code>" in answer.body
    assert answer.value("access-control-allow-origin") is None
    assert app.scopes == []


@pytest.mark.parametrize(
    ("query", "page", "status", "reason"),
    [
        ("", PAGE, 400, "key_missing"),
        ("client_key=nonsense", PAGE, 400, "key_malformed"),
        (f"client_key={UNKNOWN_KEY}", None, 403, "key_unknown"),
        (f"client_key={DISABLED_KEY}", None, 403, "key_disabled"),
        (QUERY, STRANGE_PAGE, 403, "origin_not_allowed"),
        (QUERY, OTHER_PAGE, 403, "origin_not_allowed"),
        (QUERY, f"https://{HOST}.evil.test", 403, "origin_not_allowed"),
        (QUERY, f"https://{HOST}:8443", 403, "origin_not_allowed"),
    ],
)
def test_a_refused_document_is_a_page_that_says_why(query: str, page: str | None, status: int, reason: str) -> None:
    app = App()
    referer = () if page is None else headers(("referer", f"{page}/"))
    answer = load(guard(app), *referer, query=query)
    assert (answer.status, app.scopes) == (status, [])
    assert answer.value("content-type") == b"text/html; charset=utf-8"
    assert answer.value("cache-control") == b"no-store"
    assert answer.names("vary") == VARY | {"referer"}
    assert f"<code>{reason}</code>".encode() in answer.body
    assert b"frame-ancestors" not in (answer.value("content-security-policy") or b""), "the foreign page may show it"
    assert b"<script" not in answer.body
    assert KEY.encode() not in answer.body
    if reason == "origin_not_allowed":
        assert page is not None
        assert page.encode() in answer.body


def test_a_refused_document_escapes_what_it_repeats() -> None:
    answer = load(guard(), query="client_key=pk_live_<script>alert(1)</script>")
    assert b"<script" not in answer.body
    assert answer.value("content-length") == str(len(answer.body)).encode()


@pytest.mark.anyio
@pytest.mark.asyncio
async def test_a_refused_document_says_when_to_ask_again(tmp_path: Path) -> None:
    gate = Gatekeeper(FileSource(tmp_path / "absent"), grant_secrets=["0123456789abcdef"], start_timeout=0.0)
    async with gate:
        answer = await ask_later(GatekeeperMiddleware(App(), gate, frames=("/embed",)), IN_FRAME, path="/embed", query=QUERY)
    assert (answer.status, answer.value("retry-after")) == (503, b"2")
    assert answer.value("refresh") == b"2", "browsers repeat a document by Refresh only"
    assert b"<code>not_ready</code>" in answer.body


@pytest.mark.parametrize("options", [{}, {"frames": (), "own_origins": (), "frame_ancestors": True}])
def test_a_mount_point_is_no_grant_path(options: dict[str, Any]) -> None:
    """Without a grant_path, the empty path below a mount point answered with a grant, in place of the app."""
    app = App()
    guarded = guard(app, grant_path=None, **options)
    fields = headers(("data-client-key", KEY), ("origin", PAGE))
    assert ask(guarded, fields, path="/widget", root_path="/widget").reason == "allowed"
    assert len(app.scopes) == 1


SPELLINGS = (
    *("/embed/", "//embed", "/embed;x", "/embed\n", "/Embed", "/embed%2f", "/%65mbed", "/./embed", "/x/../embed"),
    *("/embed\\", "/embed ", "/embed\x00", "/embed?", "embed", ""),
    *("/widget/embed", "/widgetembed", "/widget//embed", "/widget"),
)


async def serve_document(_request: Request) -> HTMLResponse:
    return HTMLResponse("the document")


@pytest.mark.parametrize("root_path", ["", "/widget", "/widget/", "/"])
@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_its_path_serves_an_unguarded_document(path: str, root_path: str) -> None:
    """A foreign page without referrer frames it: either the browser enforces the allowlist, or the request is refused.

    Starlette's router takes "/embed" and a line break for "/embed".
    """
    guarded = guard(Starlette(routes=[Route("/embed", serve_document)]))
    sent = [*IN_FRAME, *headers(("sec-fetch-site", "cross-site"))]
    grant = grant_of(guard())
    for query in (QUERY.encode(), QUERY.encode() + b"&client_grant=" + grant, b"client_grant=" + grant):
        answer = ask(guarded, sent, path=path, root_path=root_path, query=query)
        if b"the document" in answer.body:
            assert (answer.value("content-security-policy") or b"").startswith(b"frame-ancestors "), query
        else:
            assert answer.status in {400, 403}, query


def test_other_paths_are_not_documents() -> None:
    guarded = guard(frames=("/embed", "/frames/*"))
    for path, status in (("/embed", 200), ("/frames/a", 200), ("/embedded", 403), ("/embed/", 403), ("/frames/../x", 403)):
        assert load(guarded, path=path).status == status, path


# --- The frame's own requests


def test_a_frames_own_request_is_allowed_by_its_grant() -> None:
    app = App()
    guarded = guard(app)
    grant = grant_of(guarded)
    for _ in range(2):
        answer = ask(guarded, with_grant(grant), method="POST")
        assert answer.reason == "allowed"
        assert answer.value("access-control-allow-origin") == OWN.encode()
        assert answer.names("vary") == VARY
        assert answer.values("data-client-grant") == []
        decision = decision_from(app.scopes[-1])
        assert (decision.origin, decision.via, decision.agent_id) == (PAGE, "grant", "agent_7")


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        pytest.param(headers(("origin", OWN)), HOST, id="own host over TLS"),
        pytest.param(headers(("origin", OWN)), f"{HOST}:443", id="with the default port"),
        pytest.param(headers(("origin", OWN)), "Widget.Test", id="in upper case"),
        pytest.param(headers(("origin", f"{OWN}:8443")), f"{HOST}:8443", id="with another port"),
        pytest.param(headers(("origin", "http://localhost:8000")), "localhost:8000", id="localhost without TLS"),
        pytest.param(headers(("origin", "http://127.0.0.1:8000")), "127.0.0.1:8000", id="127.0.0.1 without TLS"),
        pytest.param(headers(("origin", "http://[::1]:8000")), "[::1]:8000", id="::1 without TLS"),
        pytest.param(headers(("origin", "http://[::1]")), "[::1]", id="::1, the default port"),
        pytest.param(headers(("origin", FRAMES_HOST)), HOST, id="a listed origin"),
        pytest.param(headers(("sec-fetch-site", "same-origin")), HOST, id="a GET without Origin"),
        pytest.param([], HOST, id="a browser without Sec-Fetch-Site"),
    ],
)
@pytest.mark.parametrize("in_query", [False, True])
def test_a_grant_counts_in_requests_of_the_widgets_own_frame(fields: list[Header], host: str, *, in_query: bool) -> None:
    guarded = guard()
    grant = grant_of(guarded)
    sent = [] if in_query else headers(("data-client-grant", grant))
    query = b"client_grant=" + grant if in_query else b""
    assert ask(guarded, [*headers(("host", host)), *sent, *fields], query=query).reason == "allowed"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(headers(("origin", PAGE)), id="the page that holds the frame"),
        pytest.param(headers(("origin", STRANGE_PAGE)), id="a foreign page"),
        pytest.param(headers(("origin", "null")), id="a sandboxed frame, a redirect"),
        pytest.param(headers(("origin", f"http://{HOST}")), id="own host without TLS"),
        pytest.param(headers(("origin", f"{OWN}:8443")), id="another port"),
        pytest.param(headers(("origin", f"https://evil.{HOST}")), id="a subdomain"),
        pytest.param(headers(("origin", f"https://{HOST}.evil.test")), id="a longer name"),
        pytest.param(headers(("origin", "http://frames.test")), id="a listed origin without TLS"),
        pytest.param(headers(("origin", "")), id="an empty origin"),
        pytest.param(headers(("origin", OWN), ("origin", STRANGE_PAGE)), id="two origins"),
        pytest.param(headers(("sec-fetch-site", "cross-site")), id="an image on a foreign page"),
        pytest.param(headers(("sec-fetch-site", "same-site")), id="a sibling host"),
        pytest.param(headers(("sec-fetch-site", "none")), id="the address bar"),
        pytest.param(headers(("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")), id="two sites"),
        pytest.param(headers(("sec-fetch-site", "same-origin"), ("origin", STRANGE_PAGE)), id="a contradiction"),
    ],
)
def test_a_grant_counts_nowhere_else(fields: list[Header]) -> None:
    app = App()
    guarded = guard(app)
    grant = grant_of(guarded)
    served = len(app.scopes)
    answer = ask(guarded, [*headers(("host", HOST), ("data-client-grant", grant)), *fields])
    assert (answer.status, answer.reason) == (403, "grant_foreign")
    assert len(app.scopes) == served
    assert grant not in answer.body


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (HOST, f"https://user@{HOST}"),
        (HOST, f"{OWN}."),
        (f"{HOST}.", OWN),
        (HOST, f"{OWN}:443"),
        (f"{HOST}:80", OWN),
        (HOST, f"HTTPS://{HOST}"),
        (HOST, "https://WIDGET.test"),
        (HOST, f"wss://{HOST}"),
        (HOST, f"{OWN}/"),
        (HOST, f"{OWN}, {STRANGE_PAGE}"),
        (f"{HOST}, evil.test", STRANGE_PAGE),
        (f"evil.test, {HOST}", OWN),
        (f"user@{HOST}", OWN),
        (f"https://{HOST}", OWN),
        ("", "https://"),
        ("null", "null"),
        ("evil.test", "http://evil.test"),
        ("127.0.0.1.evil.test", "http://127.0.0.1.evil.test"),
        ("localhost.evil.test", "http://localhost.evil.test"),
        ("localhost:8000", "http://localhost:8001"),
        ("[::2]", "http://[::2]"),
    ],
)
def test_a_grant_does_not_count_where_host_and_origin_differ(host: str, origin: str) -> None:
    guarded = guard()
    forwarded = headers(("x-forwarded-host", origin.partition("://")[2]), ("forwarded", f"host={origin}"))
    assert ask(guarded, with_grant(grant_of(guarded), *forwarded, host=host, origin=origin)).reason == "grant_foreign"


OTHER_GRANT = "data-client-grant", "another"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param([("cookie", "a=1"), ("cookie", "b=2")], "allowed", id="cookies, split by HTTP/2"),
        pytest.param([("data-client-grant", "")], "grant_invalid", id="an empty grant"),
        pytest.param([OTHER_GRANT, OTHER_GRANT], "grant_invalid", id="another grant twice"),
        pytest.param([("host", HOST)], "allowed", id="the same host"),
        pytest.param([("host", "evil.test")], "grant_foreign", id="another host"),
        pytest.param([("host", "evil.test"), ("host", HOST)], "grant_foreign", id="another host between"),
        pytest.param([("origin", OWN)], "grant_foreign", id="the same origin"),
    ],
)
@pytest.mark.parametrize("is_last", [True, False])
def test_a_repeated_header_counts_only_with_the_same_value(
    fields: list[tuple[str, str]], reason: str, *, is_last: bool
) -> None:
    guarded = guard()
    sent, more = with_grant(grant_of(guarded)), headers(*fields)
    assert ask(guarded, [*sent, *more] if is_last else [*more, *sent]).reason == reason


def test_a_host_header_that_is_missing_or_repeated_is_not_ones_own() -> None:
    guarded = guard()
    grant = grant_of(guarded)
    for hosts in ([], headers(("host", HOST), ("host", "evil.test"))):
        fields = [*hosts, *headers(("data-client-grant", grant), ("origin", OWN))]
        assert ask(guarded, fields).reason == "grant_foreign"


@pytest.mark.parametrize(
    ("fields", "query", "reason"),
    [
        pytest.param(headers(("data-client-key", KEY)), b"", "allowed", id="its own key"),
        pytest.param([], f"client_key={KEY}".encode(), "allowed", id="its own key in the query"),
        pytest.param(headers(("data-client-key", OTHER_KEY)), b"", "key_conflict", id="another key"),
        pytest.param(headers(("data-client-key", "nonsense")), b"", "key_malformed", id="a malformed key"),
        pytest.param(headers(("data-client-grant", b"another")), b"", "grant_invalid", id="two grants"),
        pytest.param([], b"client_grant=another", "grant_invalid", id="another grant in the query"),
        pytest.param([], b"client_grant=", "allowed", id="an empty one in the query"),
    ],
)
def test_a_grant_and_what_else_a_request_sends_must_agree(fields: list[Header], query: bytes, reason: str) -> None:
    guarded = guard()
    assert ask(guarded, with_grant(grant_of(guarded), *fields), query=query).reason == reason


@pytest.mark.parametrize("field", [("origin", FRAMES_HOST), ("referer", f"{FRAMES_HOST}/embed")])
@pytest.mark.parametrize("path", ["/", "/grant"])
def test_a_refusal_never_advises_to_allow_an_own_origin(field: tuple[str, str], path: str) -> None:
    """A frame on another host sent its key. The detail advised to allow that host: every page that embeds the frame."""
    fields = headers(("host", HOST), ("data-client-key", KEY), field)
    answers = [ask(guard(), fields, path=path)]
    if field[0] == "origin":
        start, body = shake_hands(guard(), headers(("host", HOST), field), extension=True, query=QUERY)
        answers.append(Answer(start["status"], start["headers"], body["body"]))
    for answer in answers:
        if answer.reason == "origin_not_allowed":
            assert "the request comes from the widget's own frame" in answer.problem["detail"]
        assert "add " not in answer.problem["detail"]


def test_without_frames_a_grant_is_ignored() -> None:
    grant = grant_of(guard())
    guarded = GatekeeperMiddleware(App(), Gatekeeper(StaticSource(ROWS), grant_secrets=["0123456789abcdef"]))
    assert ask(guarded, with_grant(grant)).reason == "key_missing"


def test_with_frame_ancestors_alone_a_grant_is_ignored() -> None:
    guarded = GatekeeperMiddleware(App(), Gatekeeper(StaticSource(ROWS)), frame_ancestors=True)
    assert ask(guarded, with_grant(grant_of(guard()))).reason == "key_missing"


def test_an_api_on_another_host_takes_the_grants_of_listed_frames() -> None:
    api = guard(frames=(), grant_path=None)
    assert ask(api, with_grant(grant_of(guard()), host="api.test", origin=FRAMES_HOST)).reason == "allowed"


def test_an_edited_grant_is_invalid() -> None:
    guarded = guard()
    assert ask(guarded, with_grant(b"x" + grant_of(guarded))).reason == "grant_invalid"


def test_a_grant_past_half_its_life_is_renewed_in_the_answer() -> None:
    clock, app = Clock(), App((b"Cache-Control", b"max-age=60"), (b"content-type", b"text/plain"))
    guarded = guard(app, clock)
    grant = grant_of(guarded)
    clock.now += 450
    answer = ask(guarded, with_grant(grant))
    new = answer.value("data-client-grant")
    assert new not in {None, grant}
    assert answer.value("cache-control") == b"no-store"
    assert answer.value("content-type") == b"text/plain"
    assert b"data-client-grant" in (answer.value("access-control-expose-headers") or b"")
    clock.now += 451
    assert ask(guarded, with_grant(grant)).reason == "grant_expired"
    assert ask(guarded, with_grant(new or b"")).reason == "allowed"


def test_a_request_with_a_key_is_never_given_a_grant() -> None:
    fields = headers(("data-client-key", KEY), ("origin", PAGE))
    answer = ask(guard(), fields)
    assert answer.reason == "allowed"
    assert answer.values("data-client-grant") == []


@pytest.mark.parametrize(("origin", "status"), [(OWN, None), (FRAMES_HOST, None), (PAGE, 403), (STRANGE_PAGE, 403)])
def test_a_websocket_is_decided_by_its_grant(origin: str, status: int | None) -> None:
    guarded = guard()
    query = b"client_grant=" + grant_of(guarded)
    first, *_ = shake_hands(guarded, headers(("host", HOST), ("origin", origin)), extension=True, query=query)
    assert first.get("status") == status


def test_a_file_of_a_frame_without_a_grant_is_told_what_to_list() -> None:
    """The scripts and styles of the document are requested without a grant."""
    answer = ask(guard(), headers(("host", HOST), ("referer", f"{OWN}/embed?{QUERY}")), path="/chat.css")
    assert answer.reason == "key_missing"
    assert "lists them in exempt" in answer.problem["detail"]
    assert KEY not in answer.problem["detail"]


# --- Grants for a page's script


def test_a_page_gets_a_grant_by_its_key_and_origin() -> None:
    app = App()
    guarded = guard(app)
    answer = ask(guarded, headers(("host", HOST), ("data-client-key", KEY), ("origin", PAGE)), path="/grant")
    assert (answer.status, app.scopes) == (200, [])
    assert answer.value("access-control-allow-origin") == PAGE.encode()
    assert answer.value("cache-control") == b"no-store"
    assert answer.names("vary") == VARY
    given = json.loads(answer.body)
    assert given.keys() == {"grant", "expires_in"}
    assert given["expires_in"] == 900
    assert ask(guarded, with_grant(given["grant"].encode())).reason == "allowed"
    assert decision_from(app.scopes[-1]).origin == PAGE


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (headers(("data-client-key", KEY), ("origin", STRANGE_PAGE)), "origin_not_allowed"),
        (headers(("data-client-key", KEY), ("origin", OWN)), "origin_not_allowed"),
        (headers(("data-client-key", KEY), ("origin", "null")), "origin_null"),
        (headers(("data-client-key", KEY), ("referer", f"{PAGE}/")), "origin_missing"),
        (headers(("origin", PAGE)), "key_missing"),
    ],
)
def test_a_grant_is_given_to_an_allowed_origin_only(fields: list[Header], reason: str) -> None:
    answer = ask(guard(), [*headers(("host", HOST)), *fields], path="/grant")
    assert answer.reason == reason
    assert answer.value("access-control-allow-origin") == b"*"


def test_the_preflight_of_a_grant_is_answered() -> None:
    answer = ask(guard(), [*headers(("origin", PAGE)), *ASKS_METHOD], path="/grant", method="OPTIONS")
    assert answer.status == 204


# --- CORS for frames on another host than the API


@pytest.mark.parametrize("preflight", ["open", "strict"])
def test_own_origins_may_send_and_read_grants(preflight: Any) -> None:
    guarded = guard(cors=CorsPolicy(preflight=preflight))
    answer = ask(guarded, [*headers(("host", HOST), ("origin", FRAMES_HOST)), *ASKS_METHOD], method="OPTIONS")
    assert answer.status == 204
    assert "data-client-grant" in answer.names("access-control-allow-headers")
    allowed = ask(guarded, with_grant(grant_of(guarded), origin=FRAMES_HOST))
    assert allowed.value("access-control-allow-origin") == FRAMES_HOST.encode()
    assert allowed.names("access-control-expose-headers") == {"data-client-grant"}


@pytest.mark.parametrize("page", [PAGE, STRANGE_PAGE])
def test_other_pages_may_not_send_grants(page: str) -> None:
    answer = ask(guard(), [*headers(("host", HOST), ("origin", page)), *ASKS_METHOD], method="OPTIONS")
    assert "data-client-grant" not in answer.names("access-control-allow-headers")


# --- Options, and what is written down


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frames": "/embed"}, "frames is one string, '/embed'"),
        ({"frames": ("embed",)}, "frames has 'embed': expected a path"),
        ({"frames": ("/*",)}, "frames has '/*', which guards nothing"),
        ({"frames": None}, "frames is None: expected a collection of paths"),
        ({"exempt": None}, "exempt is None: expected a collection of paths"),
        ({"grant_path": "grant"}, "grant_path is 'grant': expected one path"),
        ({"grant_path": "/grant/*"}, "grant_path is '/grant/*': expected one path"),
        ({"grant_path": 5}, "grant_path is 5: expected one path"),
        ({"grant_path": "/embed"}, "grant_path has '/embed', which frames covers"),
        ({"key_header": "Data-Client-Grant"}, "key_header is 'Data-Client-Grant', which is the name for grants"),
        ({"key_query": "client_grant"}, "key_query is 'client_grant', which is the name for grants"),
        ({"own_origins": FRAMES_HOST}, f"own_origins is '{FRAMES_HOST}': expected a collection"),
        ({"own_origins": None}, "own_origins is None: expected a collection"),
        ({"own_origins": ("frames.test",)}, "own_origins has 'frames.test': expected an origin"),
        ({"own_origins": ("https://frames.test/",)}, "own_origins has 'https://frames.test/'"),
        ({"own_origins": ("null",)}, "own_origins has 'null'"),
        ({"own_origins": (5,)}, "own_origins has 5: expected an origin"),
        ({"own_origins": (b"https://frames.test",)}, "own_origins has b'https://frames.test'"),
        ({"exempt": ("/embed",)}, "frames has '/embed', which exempt covers"),
        ({"exempt": ("/embed/*",), "frames": ("/embed/a.html",)}, "frames has '/embed/a.html', which exempt covers"),
        ({"exempt": ("/embed/*",), "frames": ("/embed/frames/*",)}, "frames has '/embed/frames/*', which exempt covers"),
        ({"exempt": ("/grant",)}, "grant_path has '/grant', which exempt covers"),
        ({"exempt": ("embed",)}, "exempt has 'embed': expected a path"),
    ],
)
def test_a_wrong_option_about_frames_is_a_config_error(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        guard(**options)
    (problem,) = error.value.problems
    assert problem.startswith(said)


@pytest.mark.parametrize("options", [{"frames": ("/embed",)}, {"grant_path": "/grant"}, {"own_origins": (FRAMES_HOST,)}])
def test_frames_need_a_secret(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="frames, grant_path and own_origins need Gatekeeper"):
        GatekeeperMiddleware(App(), Gatekeeper(StaticSource(ROWS)), **options)


def test_a_path_among_the_documents_may_be_exempt() -> None:
    guarded = guard(frames=("/frames/*",), exempt=("/frames/app.js", "/frames/static/*"))
    for path, status in (("/frames/a", 403), ("/frames/app.js", 200), ("/frames/static/a.css", 200)):
        assert ask(guarded, headers(("host", HOST), ("sec-fetch-dest", "script")), path=path).status == status, path


def test_no_log_and_no_answer_shows_a_grant(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    guarded = guard()
    grant = grant_of(guarded)
    for fields in (with_grant(grant), with_grant(grant, origin=STRANGE_PAGE), with_grant(grant + b"x")):
        answer = ask(guarded, fields)
        assert grant not in answer.body
    assert grant.decode() not in caplog.text


async def _fails(scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError(f"the app failed with {decision_from(scope)!r}")


def test_an_error_that_repeats_the_decision_shows_no_grant() -> None:
    app: Any = _fails
    with pytest.raises(RuntimeError, match="grant='…'"):
        load(guard(app))


def test_the_app_may_send_the_same_message_with_every_document() -> None:
    app = App((b"content-type", b"text/html"))
    guarded = guard(app)
    answers = [load(guarded) for _ in range(3)]
    assert len({tuple(answer.headers) for answer in answers}) == 1
    assert app.start["headers"] == [(b"content-type", b"text/html")]
