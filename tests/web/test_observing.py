"""A gate that only observes: each path lets through what it would refuse, and nothing is granted."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from gatekeeper import CorsPolicy, Gatekeeper, GatekeeperMiddleware, StaticSource, check_key, decision_from
from tests.support.client_keys import DISABLED_KEY, EMPTY_KEY, KEY, TWIN_KEY, UNKNOWN_KEY
from tests.support.rows import client_key, row
from tests.web.test_asgi import (
    ALLOWED,
    ASKS_METHOD,
    KEYED,
    PAGE,
    ROWS,
    STRANGE_PAGE,
    Answer,
    App,
    Header,
    SilentSource,
    ask,
    ask_later,
    headers,
    shake_hands,
)
from tests.web.test_frames import HOST, IN_FRAME, OWN, grant_of, with_grant
from tests.web.test_streams import WIDGET, Exchange, running

STRANGE = [*KEYED, *headers(("origin", STRANGE_PAGE))]
FOREIGN_KEYS = {"key_unknown": UNKNOWN_KEY, "key_disabled": DISABLED_KEY, "allowlist_empty": EMPTY_KEY}
REFUSED: dict[str, list[Header]] = {
    "origin_not_allowed": STRANGE,
    "origin_null": [*KEYED, *headers(("origin", "null"))],
    "origin_malformed": [*KEYED, *headers(("origin", ""))],
    "origin_conflict": [*KEYED, *headers(("origin", PAGE), ("origin", STRANGE_PAGE))],
    "origin_missing": KEYED,
    "key_missing": headers(("origin", PAGE)),
    "key_malformed": headers(("data-client-key", "nonsense"), ("origin", PAGE)),
    "key_conflict": [*ALLOWED, *headers(("data-client-key", UNKNOWN_KEY))],
    "key_ambiguous": headers(("data-client-key", TWIN_KEY), ("origin", PAGE)),
    **{reason: headers(("data-client-key", key), ("origin", PAGE)) for reason, key in FOREIGN_KEYS.items()},
}


def observing(app: Any = None, *, https_only: bool = False, **options: Any) -> tuple[GatekeeperMiddleware, Gatekeeper]:
    gate = Gatekeeper(StaticSource(ROWS), enforce=False, https_only=https_only, grant_secrets=["0123456789abcdef"])
    return GatekeeperMiddleware(App() if app is None else app, gate, **options), gate


def reason_in(app: Any) -> str:
    assert isinstance(app, App)
    decision = decision_from(app.scopes[-1])
    assert not decision.allowed
    return decision.reason.value


def assert_grants_nothing(answer: Answer) -> None:
    """No credentials, no grant, and no origin by name."""
    assert answer.values("access-control-allow-credentials") == []
    assert answer.values("data-client-grant") == []
    assert set(answer.values("access-control-allow-origin")) <= {b"*"}


# HTTP


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize("reason", REFUSED)
def test_a_refused_request_reaches_the_app_with_its_decision(reason: str, method: str) -> None:
    guarded, gate = observing(cors=CorsPolicy(expose_headers=("x-total",)))
    answer = ask(guarded, REFUSED[reason], method=method)
    assert (answer.status, answer.body) == (200, App.BODY)
    assert reason_in(guarded.app) == reason
    has_origin = any(name == b"origin" for name, _ in REFUSED[reason])
    assert answer.values("access-control-allow-origin") == ([b"*"] if has_origin else [])
    assert answer.names("access-control-expose-headers") == ({"x-total"} if has_origin else set())
    assert answer.names("vary") == {"origin", "data-client-key"} | (set() if has_origin else {"referer"})
    assert_grants_nothing(answer)
    assert (gate.status.observed, gate.decisions.total()) == (1, 1)


def test_the_apps_own_cors_headers_are_replaced_as_for_an_allowed_page() -> None:
    own = [(b"Access-Control-Allow-Origin", STRANGE_PAGE.encode()), (b"access-control-allow-credentials", b"true")]
    guarded, _ = observing(App(*own, (b"vary", b"Cookie"), (b"x-own", b"1")))
    answer = ask(guarded, STRANGE)
    assert answer.value("access-control-allow-origin") == b"*"
    assert answer.names("vary") == {"origin", "data-client-key", "cookie"}
    assert answer.value("x-own") == b"1"
    assert_grants_nothing(answer)


def test_a_policy_with_credentials_gives_them_to_allowed_pages_only() -> None:
    cors = CorsPolicy(allow_credentials=True, preflight="strict")
    guarded, _ = observing(https_only=True, cors=cors)
    allowed = ask(guarded, ALLOWED)
    assert allowed.value("access-control-allow-origin") == PAGE.encode()
    assert allowed.value("access-control-allow-credentials") == b"true"
    assert_grants_nothing(ask(guarded, STRANGE))
    assert_grants_nothing(ask(guarded, [*headers(("origin", STRANGE_PAGE)), *ASKS_METHOD], method="OPTIONS"))


def test_an_allowed_request_is_answered_as_by_an_enforcing_gate() -> None:
    guarded, gate = observing()
    enforcing = GatekeeperMiddleware(App(), Gatekeeper.from_rows(ROWS))
    for _ in range(2):
        assert ask(guarded, ALLOWED) == ask(enforcing, ALLOWED)
    assert gate.status.observed == 0
    assert gate.refusals == ()


def test_the_switch_counts_from_the_next_request_on() -> None:
    guarded, gate = observing()
    for expected in (200, 403, 200):
        assert ask(guarded, STRANGE).status == expected
        assert ask(guarded, ALLOWED).status == 200
        gate.enforce = not gate.enforce
    (page,) = gate.refusals
    assert (page.origin, page.reason, page.count) == (STRANGE_PAGE, "origin_not_allowed", 3)
    assert gate.status.observed == 2


def test_before_the_first_list_requests_pass() -> None:
    gate = Gatekeeper(SilentSource(), start_timeout=0, enforce=False)
    answer = asyncio.run(ask_later(GatekeeperMiddleware(app := App(), gate), ALLOWED))
    assert (answer.status, reason_in(app)) == (200, "not_ready")
    assert answer.value("access-control-allow-origin") == b"*"


# Preflights


@pytest.mark.parametrize("origin", [STRANGE_PAGE, "null", "https://evil.test/path", ""])
@pytest.mark.parametrize("query", ["", f"client_key={KEY}", f"client_key={DISABLED_KEY}"])
def test_a_strict_preflight_is_answered_as_an_open_one(origin: str, query: str) -> None:
    fields = [*headers(("origin", origin)), *ASKS_METHOD]
    strict, _ = observing(cors=CorsPolicy(preflight="strict"))
    opened = GatekeeperMiddleware(App(), Gatekeeper.from_rows(ROWS))
    answer = ask(strict, fields, method="OPTIONS", query=query)
    well_formed = [*headers(("origin", STRANGE_PAGE)), *ASKS_METHOD]
    assert answer == ask(opened, well_formed, method="OPTIONS", query=query)
    assert (answer.status, answer.value("access-control-allow-origin")) == (204, b"*")
    assert isinstance(strict.app, App)
    assert strict.app.scopes == []


def test_a_strict_preflight_still_names_an_allowed_page() -> None:
    guarded, gate = observing(cors=CorsPolicy(preflight="strict"))
    fields = [*headers(("origin", PAGE)), *ASKS_METHOD]
    assert ask(guarded, fields, method="OPTIONS").value("access-control-allow-origin") == PAGE.encode()
    gate.enforce = True
    strange = [*headers(("origin", STRANGE_PAGE)), *ASKS_METHOD]
    assert ask(guarded, strange, method="OPTIONS").status == 403


# WebSockets


@pytest.mark.parametrize("extension", [True, False])
@pytest.mark.parametrize("query", [f"client_key={KEY}", "", f"client_key={DISABLED_KEY}"])
def test_a_refused_websocket_reaches_the_app(query: str, *, extension: bool) -> None:
    guarded, gate = observing()
    fields = headers(("origin", STRANGE_PAGE))
    assert shake_hands(guarded, fields, extension=extension, query=query) == [{"type": "websocket.accept"}]
    reason_in(guarded.app)
    assert gate.status.observed == 1
    gate.enforce = True
    first, *_ = shake_hands(guarded, fields, extension=extension, query=query)
    assert first["type"] in {"websocket.close", "websocket.http.response.start"}


# Frames


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (headers(("referer", f"{STRANGE_PAGE}/")), "origin_not_allowed"),
        (headers(("origin", STRANGE_PAGE)), "not_framed"),
    ],
)
def test_a_refused_document_is_served_without_grant_and_frame_ancestors(fields: list[Header], reason: str) -> None:
    app = App((b"content-type", b"text/html"), (b"access-control-allow-origin", b"*"))
    guarded, gate = observing(app, frames=("/embed",), frame_ancestors=True)
    answer = ask(guarded, [*IN_FRAME, *fields], path="/embed", query=f"client_key={KEY}")
    assert (answer.status, answer.body, reason_in(app)) == (200, App.BODY, reason)
    assert decision_from(app.scopes[-1]).grant is None
    assert answer.values("content-security-policy") == []
    assert answer.value("cache-control") == b"no-store"
    assert answer.values("access-control-allow-origin") == []
    assert gate.status.observed == 1
    gate.enforce = True
    assert ask(guarded, [*IN_FRAME, *fields], path="/embed", query=f"client_key={KEY}").status == 403


def test_html_of_other_paths_may_be_framed_by_a_refused_page() -> None:
    guarded, _ = observing(App((b"content-type", b"text/html")), frame_ancestors=True)
    assert ask(guarded, STRANGE).values("content-security-policy") == []
    assert ask(guarded, ALLOWED).value("content-security-policy") is not None


def test_a_refused_page_is_told_that_it_has_no_grant() -> None:
    guarded, gate = observing(frames=("/embed",), grant_path="/grant")
    answer = ask(guarded, [*headers(("host", HOST)), *STRANGE], path="/grant")
    assert (answer.status, json.loads(answer.body)) == (200, {"grant": None, "expires_in": 0})
    assert answer.value("access-control-allow-origin") == b"*"
    assert answer.value("cache-control") == b"no-store"
    assert_grants_nothing(answer)
    allowed = json.loads(ask(guarded, [*headers(("host", HOST)), *ALLOWED], path="/grant").body)
    assert allowed["grant"]
    gate.enforce = True
    assert ask(guarded, [*headers(("host", HOST)), *STRANGE], path="/grant").status == 403


def test_a_bad_grant_passes_and_is_not_renewed() -> None:
    guarded, _ = observing(frames=("/embed",))
    grant = grant_of(guarded)
    for fields, reason in (
        (with_grant(grant, origin=STRANGE_PAGE), "grant_foreign"),
        (with_grant(grant + b"x"), "grant_invalid"),
        (with_grant(grant, *headers(("data-client-key", UNKNOWN_KEY))), "key_conflict"),
        (headers(("host", HOST), ("origin", OWN)), "key_missing"),
    ):
        answer = ask(guarded, fields)
        assert (answer.status, reason_in(guarded.app)) == (200, reason)
        assert answer.value("access-control-allow-origin") == b"*"
        assert_grants_nothing(answer)


# Streams


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_stream_of_a_refused_page_stays_open(kind: str) -> None:
    async with running(WIDGET, enforce=False) as service:
        stream = await service.opens(kind, 1, "https://evil.test")
        assert stream.sent
        await service.revokes(row(1, disabled_at="now"), row(2))
        service.gate.enforce = True
        await service.naps.look()
        assert (stream.ended, service.closed) == (False, 0)
        refused = await service.opens(kind, 1, "https://evil.test")
        assert refused.ended


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_revoked_stream_ends_once_the_gate_enforces(kind: str) -> None:
    async with running(WIDGET, enforce=False) as service:
        stream, other = await service.opens(kind), await service.opens(kind, 2)
        await service.revokes(row(1, disabled_at="now"), row(2))
        late = await service.opens(kind, 2)
        assert not any(each.ended for each in (stream, other, late))
        service.gate.enforce = True
        await anyio.wait_all_tasks_blocked()
        assert [each.ended for each in (stream, other, late)] == [True, False, False]
        assert service.closed == 1


@pytest.mark.anyio
@pytest.mark.parametrize("origin", [PAGE, STRANGE_PAGE])
async def test_a_stream_of_a_path_with_keys_in_bodies_ends_if_it_was_allowed(origin: str) -> None:
    """The key is revoked while both streams run, and the gate enforces."""

    async def idle(request: Request) -> StreamingResponse:
        await check_key(request, client_key(1))

        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            await anyio.sleep_forever()

        return StreamingResponse(pieces())

    async with running(WIDGET, enforce=False) as service:
        service.app = GatekeeperMiddleware(Starlette(routes=[Route("/", idle)]), service.gate, key_in_body=("/",))
        service.source.rows = [row(1, domain_allowlist=[PAGE])]
        await service.gate.refresh()
        stream = await service.opens(origin=origin, query="")
        assert stream.pieces[0] == b"first"
        service.gate.enforce = True
        await service.revokes(row(1, disabled_at="now"))
        assert stream.ended == (origin == PAGE)


@pytest.mark.anyio
async def test_a_streamed_document_of_a_refused_page_is_sent_to_its_end() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async def embed(_: Request) -> StreamingResponse:
        return StreamingResponse(pieces())

    gate = Gatekeeper(StaticSource(ROWS), enforce=False, grant_secrets=["0123456789abcdef"])
    guarded = GatekeeperMiddleware(Starlette(routes=[Route("/embed", embed)]), gate, frames=("/embed",))
    exchange = Exchange(query=f"client_key={KEY}", origin=None, referer=f"{STRANGE_PAGE}/")
    exchange.scope["path"] = "/embed"
    await exchange.run(guarded)
    assert exchange.pieces == [b"one", b"two", b""]


# --- The service's own host, which no key may allow: every page could embed its frame then


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_no_entry_is_advised_for_the_services_own_host(method: str, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gatekeeper.from_rows(ROWS)
    guarded = GatekeeperMiddleware(App(), gate, cors=CorsPolicy(preflight="strict"))
    own = headers(("host", "widgets.acme.io"), ("origin", "https://widgets.acme.io"))
    if method == "OPTIONS":
        ask(guarded, [*own, *ASKS_METHOD], method=method, query=f"client_key={KEY}")
    else:
        ask(guarded, [*KEYED, *own])
    assert [(page.origin, page.entry) for page in gate.refusals] == [("https://widgets.acme.io", None)]
    assert "widgets.acme.io" in caplog.text
    assert "allowed domains" not in caplog.text


@pytest.mark.parametrize("enforce", [True, False])
def test_a_strict_preflight_and_its_request_are_one_refusal(*, enforce: bool) -> None:
    """No request follows a preflight that is refused."""
    gate = Gatekeeper.from_rows(ROWS, enforce=enforce)
    guarded = GatekeeperMiddleware(App(), gate, cors=CorsPolicy(preflight="strict"))
    preflight = [*headers(("origin", STRANGE_PAGE)), *ASKS_METHOD]
    if ask(guarded, preflight, method="OPTIONS", query=f"client_key={KEY}").status == 204:
        ask(guarded, STRANGE)
    assert [(page.origin, page.count) for page in gate.refusals] == [(STRANGE_PAGE, 1)]
    assert gate.status.observed == (not enforce)


def test_an_app_with_the_name_of_the_host_is_no_page_of_the_service() -> None:
    """A development server on localhost, and an app of Capacitor at capacitor://localhost."""
    gate = Gatekeeper.from_rows(ROWS)
    sent = [*KEYED, *headers(("host", "localhost"), ("origin", "capacitor://localhost"))]
    detail = json.loads(ask(GatekeeperMiddleware(App(), gate), sent).body)["detail"]
    assert "capacitor://localhost" in detail
    assert "own host" not in detail
    assert [page.entry for page in gate.refusals] == ["capacitor://localhost"]


def test_no_entry_is_advised_for_a_websocket_of_the_services_own_host() -> None:
    gate = Gatekeeper.from_rows(ROWS)
    own = headers(("host", "widgets.acme.io"), ("origin", "https://widgets.acme.io"))
    shake_hands(GatekeeperMiddleware(App(), gate), own, extension=True, query=f"client_key={KEY}")
    assert [page.entry for page in gate.refusals] == [None]


def test_no_entry_is_advised_for_an_own_origin_that_asks_for_a_grant() -> None:
    gate = Gatekeeper.from_rows(ROWS, grant_secrets=["0123456789abcdef"])
    guarded = GatekeeperMiddleware(App(), gate, grant_path="/grant", own_origins=(OWN,))
    ask(guarded, [*KEYED, *headers(("origin", OWN))], path="/grant")
    assert [page.entry for page in gate.refusals] == [None]
