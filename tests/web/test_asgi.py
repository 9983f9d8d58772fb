"""GatekeeperMiddleware, called with a scope, a receive and a send."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from gatekeeper import (
    Basis,
    ConfigError,
    CorsPolicy,
    Decision,
    DecisionMissing,
    FileSource,
    Gatekeeper,
    GatekeeperMiddleware,
    Reason,
    Unchanged,
    Updates,
    decision_from,
)
from gatekeeper.gate.decisions import Conflict
from gatekeeper.gate.page import RequestIdentity
from tests.support.cases import OF_FRAMES
from tests.support.client_keys import DISABLED_KEY, EMPTY_KEY, KEY, OTHER_KEY, TWIN_KEY, UNKNOWN_KEY
from tests.web.queries import QUERIES

PAGE = "https://shop.acme.com"
OTHER_PAGE = "https://blog.acme.com"
STRANGE_PAGE = "https://evil.test"


ROWS: list[dict[str, Any]] = [
    {"id": "1", "name": "shop", "last8": KEY[-8:], "domain_allowlist": [PAGE, "localhost:*"], "agent_id": "agent_7"},
    {"id": "2", "name": "blog", "last8": OTHER_KEY[-8:], "domain_allowlist": [OTHER_PAGE, PAGE]},
    {
        "id": "3",
        "name": "gone",
        "last8": DISABLED_KEY[-8:],
        "domain_allowlist": ["https://gone.acme.com", PAGE],
        "disabled_at": "2026-01-02T03:04:05Z",
    },
    {"id": "4", "name": "none", "last8": EMPTY_KEY[-8:], "domain_allowlist": []},
    {"id": "5", "name": "twin", "last8": TWIN_KEY[-8:], "domain_allowlist": [PAGE]},
    {"id": "6", "name": "twin", "last8": TWIN_KEY[-8:], "domain_allowlist": [PAGE]},
]

Header = tuple[bytes, bytes]


def headers(*pairs: tuple[str, str | bytes]) -> list[Header]:
    """Encode headers as servers pass them."""
    return [(name.encode(), value.encode() if isinstance(value, str) else value) for name, value in pairs]


KEYED = headers(("data-client-key", KEY))
ON_PAGE = headers(("origin", PAGE))
ALLOWED = [*KEYED, *ON_PAGE]
ASKS_METHOD = headers(("access-control-request-method", "GET"))


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    headers: list[Header]
    body: bytes

    def values(self, name: str) -> list[bytes]:
        """The values of all header fields with this name."""
        return [value for field, value in self.headers if field.lower() == name.encode()]

    def value(self, name: str) -> bytes | None:
        """The value of the only header field with this name, or None."""
        values = self.values(name)
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    def names(self, name: str) -> set[str]:
        """The members of a list header, from all its lines."""
        return {item.strip().lower() for value in self.values(name) for item in value.decode().split(",")}

    @property
    def problem(self) -> dict[str, Any]:
        """The body of a refusal."""
        problem: dict[str, Any] = json.loads(self.body)
        return problem

    @property
    def reason(self) -> str:
        """The reason of the refusal, or "allowed"."""
        return "allowed" if self.body == App.BODY else str(self.problem["reason"])


class App:
    """An app that records its scopes and reuses one start message."""

    BODY = b"the app's own body"

    def __init__(self, *fields: Header) -> None:
        self.scopes: list[Scope] = []
        self.start: Message = {"type": "http.response.start", "status": 200, "headers": list(fields)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the body is not read
        """Answer."""
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send(self.start)
        await send({"type": "http.response.body", "body": self.BODY})


async def never_received() -> Message:
    """Fail, because the request's body must not be read."""
    raise AssertionError


def run_without_waiting(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits. A gate without a source does no IO."""

    async def step() -> None:
        with pytest.raises(StopIteration):
            coroutine.send(None)

    asyncio.run(step())


def scope_of(kind: str, fields: Iterable[Header], **parts: Any) -> Scope:
    """Make a scope, as servers do."""
    query: str | bytes = parts.pop("query", b"")
    scope = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "path": "/",
        "root_path": "",
        "query_string": query.encode() if isinstance(query, str) else query,
        "headers": list(fields),
        **parts,
    }
    return scope if kind == "websocket" else {"method": "GET", **scope}


def sender() -> tuple[list[Message], Send]:
    """Make a send, and the list of the messages sent."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    return sent, send


def read_answer(sent: list[Message]) -> Answer:
    """Read a complete response."""
    start, *bodies = sent
    assert start["type"] == "http.response.start"
    assert {body["type"] for body in bodies} == {"http.response.body"}
    assert not bodies[-1].get("more_body")
    fields = [(name, value) for name, value in start.get("headers", ())]
    assert all(type(name) is type(value) is bytes for name, value in fields)
    return Answer(start["status"], fields, b"".join(body["body"] for body in bodies))


def ask(guarded: ASGIApp, fields: Iterable[Header] = (), **parts: Any) -> Answer:
    """Make a request that never waits."""
    sent, send = sender()
    run_without_waiting(_call(guarded, scope_of("http", fields, **parts), never_received, send))
    return read_answer(sent)


async def ask_later(guarded: ASGIApp, fields: Iterable[Header] = (), **parts: Any) -> Answer:
    """Make a request that may have to wait."""
    sent, send = sender()
    await guarded(scope_of("http", fields, **parts), never_received, send)
    return read_answer(sent)


def shake_hands(guarded: ASGIApp, fields: Iterable[Header] = (), *, extension: bool, **parts: Any) -> list[Message]:
    """Open a WebSocket, on a server with or without the refusal extension."""
    sent, send = sender()
    if extension:
        parts["extensions"] = {"websocket.http.response": {}}
    run_without_waiting(_call(guarded, scope_of("websocket", fields, **parts), never_received, send))
    return sent


async def _call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def gate_for(*, https_only: bool = False) -> Gatekeeper:
    """Make the gate of these tests."""
    return Gatekeeper.from_rows(ROWS, https_only=https_only)


def guard(app: ASGIApp | None = None, **options: Any) -> GatekeeperMiddleware:
    """Guard an app."""
    return GatekeeperMiddleware(App() if app is None else app, gatekeeper=gate_for(), **options)


def without(fields: Iterable[Header], *names: bytes) -> list[Header]:
    """Drop some headers."""
    return [field for field in fields if field[0] not in names]


# --- The constructor


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gatekeeper": None}, "gatekeeper is None: expected a Gatekeeper"),
        ({"key_header": ""}, "key_header is ''"),
        ({"key_header": "client key"}, "key_header is 'client key'"),
        ({"key_header": b"x-key"}, "key_header is b'x-key'"),
        ({"key_query": "client key"}, "key_query is 'client key'"),
        ({"key_query": None}, "key_query is None"),
        ({"cors": "open"}, "cors is 'open': expected a CorsPolicy"),
        ({"exempt": "/healthz"}, "exempt is one string, '/healthz': expected a collection of paths, such as ('/healthz',)"),
        ({"exempt": ("healthz",)}, "exempt has 'healthz'"),
        ({"exempt": ("",)}, "exempt has ''"),
        ({"exempt": ("*",)}, "exempt has '*'"),
        ({"exempt": ("/*/x",)}, "exempt has '/*/x'"),
        ({"exempt": ("/**",)}, "exempt has '/**'"),
        ({"exempt": ("/static*",)}, "exempt has '/static*': expected '/*' at the end"),
        ({"exempt": ("/*",)}, "exempt has '/*', which guards nothing"),
        ({"exempt": (b"/healthz",)}, "exempt has b'/healthz'"),
        ({"exempt_cors": ("/fonts/*",)}, "exempt_cors is ('/fonts/*',): expected True or False"),
        ({"exempt_cors": None}, "exempt_cors is None: expected True or False"),
    ],
)
def test_a_wrong_argument_is_reported_with_its_value(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        GatekeeperMiddleware(App(), **{"gatekeeper": gate_for(), **options})
    (problem,) = error.value.problems
    assert problem.startswith(said)


def test_all_wrong_arguments_are_reported_together() -> None:
    wrong: dict[str, Any] = {
        "gatekeeper": "gate",
        "key_header": "",
        "key_query": "",
        "cors": {},
        "exempt": ("healthz", "/ok", "/static*"),
    }
    with pytest.raises(ConfigError) as error:
        GatekeeperMiddleware(App(), **wrong)
    beginnings = [problem.split()[0] for problem in error.value.problems]
    assert beginnings == ["gatekeeper", "key_header", "key_query", "cors", "exempt", "exempt"]


def test_credentials_need_strict_preflights_and_https() -> None:
    with pytest.raises(ConfigError) as error:
        guard(cors=CorsPolicy(allow_credentials=True))
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "allow_credentials=True needs CorsPolicy(preflight='strict')",
        "allow_credentials=True needs Gatekeeper(https_only=True)",
    ]


def test_a_wrong_gatekeeper_is_not_also_asked_for_https_only() -> None:
    cors = CorsPolicy(allow_credentials=True, preflight="strict")
    not_a_gate: Any = "gate"
    with pytest.raises(ConfigError) as error:
        GatekeeperMiddleware(App(), not_a_gate, cors=cors)
    assert error.value.problems == ("gatekeeper is 'gate': expected a Gatekeeper",)


@pytest.mark.parametrize(
    ("cors", "https_only", "missing"),
    [
        (CorsPolicy(allow_credentials=True), True, "preflight='strict'"),
        (CorsPolicy(allow_credentials=True, preflight="strict"), False, "https_only=True"),
    ],
)
def test_credentials_need_both_options(cors: CorsPolicy, missing: str, *, https_only: bool) -> None:
    with pytest.raises(ConfigError) as error:
        GatekeeperMiddleware(App(), gate_for(https_only=https_only), cors=cors)
    (problem,) = error.value.problems
    assert missing in problem


# --- The key


@pytest.mark.parametrize(
    ("fields", "query", "reason"),
    [
        pytest.param(KEYED, "", "allowed", id="header"),
        pytest.param([], f"client_key={KEY}", "allowed", id="query"),
        pytest.param(KEYED, f"client_key={KEY}", "allowed", id="both equal"),
        pytest.param(KEYED, f"client_key={OTHER_KEY}", "key_conflict", id="both different"),
        pytest.param(KEYED, "client_key=x", "key_conflict", id="both, one of them malformed"),
        pytest.param(KEYED * 2, "", "allowed", id="header twice, equal"),
        pytest.param([*KEYED, *headers(("data-client-key", OTHER_KEY))], "", "key_conflict", id="header twice, different"),
        pytest.param(
            [*headers(("data-client-key", OTHER_KEY)), *KEYED],
            f"client_key={KEY}",
            "key_conflict",
            id="header twice, different, and query",
        ),
        pytest.param([], f"client_key={KEY}&client_key={OTHER_KEY}", "key_conflict", id="query twice, different"),
        pytest.param([], "", "key_missing", id="none"),
        pytest.param([], "client_key=", "key_missing", id="query empty"),
        pytest.param(headers(("data-client-key", "")), "", "key_missing", id="header empty"),
        pytest.param(headers(("data-client-key", "")), f"client_key={KEY}", "allowed", id="header empty, query given"),
        pytest.param(KEYED, "client_key=", "allowed", id="header given, query empty"),
        pytest.param(headers(("data-client-key", KEY + " ")), "", "key_malformed", id="header with a space"),
        pytest.param(headers(("data-client-key", f"{KEY}, {KEY}")), "", "key_malformed", id="headers joined by a proxy"),
        pytest.param(headers(("cookie", f"client_key={KEY}")), "", "key_missing", id="cookie"),
        pytest.param(headers(("data-client-key", OTHER_KEY.upper())), "", "key_malformed", id="header in upper case"),
    ],
)
def test_the_key_comes_from_the_header_or_the_query(fields: list[Header], query: str, reason: str) -> None:
    assert ask(guard(), [*ON_PAGE, *fields], query=query).reason == reason


def test_the_names_of_the_header_and_the_parameter_are_options() -> None:
    guarded = guard(key_header="X-Widget-Key", key_query="k")
    for fields, query in ((headers(("x-widget-key", KEY)), ""), ([], f"k={KEY}")):
        answer = ask(guarded, [*ON_PAGE, *fields], query=query)
        assert answer.reason == "allowed"
        assert answer.names("vary") == {"origin", "x-widget-key"}
    assert ask(guarded, ALLOWED, query=f"client_key={KEY}").reason == "key_missing"


class Witness(Gatekeeper):
    """A gate that records the last key it was asked about."""

    seen: str | bytes | Conflict | None = None

    async def check_request(self, identity: RequestIdentity) -> Decision:
        """Record the key, and decide."""
        self.seen = identity[0]
        return await super().check_request(identity)


# --- The page


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param(headers(("origin", PAGE), ("origin", PAGE)), "origin_conflict", id="Origin twice, equal"),
        pytest.param(headers(("origin", PAGE), ("origin", STRANGE_PAGE)), "origin_conflict", id="Origin twice"),
        pytest.param(headers(*[("origin", PAGE)] * 3), "origin_conflict", id="Origin thrice"),
        pytest.param(headers(("origin", PAGE), ("origin", "null")), "origin_conflict", id="Origin and null"),
        pytest.param(headers(("referer", PAGE + "/a?b#c")), "allowed", id="Referer"),
        pytest.param(headers(("referer", PAGE)), "allowed", id="Referer without a path"),
        pytest.param(headers(("referer", STRANGE_PAGE + "/")), "origin_not_allowed", id="strange Referer"),
        pytest.param(headers(("referer", PAGE), ("referer", PAGE)), "origin_conflict", id="Referer twice"),
        pytest.param(headers(("referer", "about:blank")), "origin_malformed", id="Referer of no page"),
        pytest.param(headers(("referer", "")), "origin_malformed", id="Referer empty"),
        pytest.param(headers(("origin", STRANGE_PAGE), ("referer", PAGE)), "origin_not_allowed", id="Origin counts"),
        pytest.param(headers(("origin", PAGE), ("referer", STRANGE_PAGE)), "allowed", id="Referer does not count"),
        pytest.param(headers(("origin", PAGE), ("referer", "x"), ("referer", "y")), "allowed", id="nor if it is wrong"),
        pytest.param(headers(("origin", "null"), ("referer", PAGE)), "origin_null", id="null and Referer"),
        pytest.param(headers(("origin", ""), ("referer", PAGE)), "origin_malformed", id="empty Origin and Referer"),
        pytest.param(headers(("origin", "x"), ("referer", PAGE)), "origin_malformed", id="malformed Origin and Referer"),
        pytest.param(headers(("origin", PAGE + "/")), "origin_malformed", id="Origin with a path"),
        pytest.param(headers(("origin", PAGE + ":443")), "origin_malformed", id="Origin with the default port"),
        pytest.param(headers(("origin", PAGE.upper())), "origin_malformed", id="Origin in upper case"),
        pytest.param(headers(("origin", f"{PAGE} {PAGE}")), "origin_malformed", id="list of origins"),
        pytest.param([], "origin_missing", id="neither"),
    ],
)
def test_the_page_comes_from_the_origin_or_without_one_the_referer(fields: list[Header], reason: str) -> None:
    assert ask(guard(), [*KEYED, *fields]).reason == reason


# --- Refusals


class Refusal(NamedTuple):
    """A refused request, and the expected refusal."""

    reason: str
    status: int
    fields: list[Header]
    last8: str | None = None
    origin: str | None = PAGE


def with_key(key: str, *origins: str) -> list[Header]:
    """Make the headers of a page's request."""
    return headers(("data-client-key", key), *[("origin", origin) for origin in origins])


REFUSALS = [
    Refusal("key_missing", 400, ON_PAGE),
    Refusal("key_malformed", 400, with_key("sesame", PAGE)),
    Refusal("key_conflict", 400, [*with_key(KEY), *with_key("sesame", PAGE)]),
    Refusal("key_unknown", 403, with_key(UNKNOWN_KEY, PAGE), "what-006"),
    Refusal("key_ambiguous", 403, with_key(TWIN_KEY, PAGE), "twin-005"),
    Refusal("key_disabled", 403, with_key(DISABLED_KEY, PAGE), "gone-003"),
    Refusal("allowlist_empty", 403, with_key(EMPTY_KEY, PAGE), "none-004"),
    Refusal("origin_conflict", 400, with_key(KEY, PAGE, PAGE), "shop-001", None),
    Refusal("origin_malformed", 400, with_key(KEY, "file://"), "shop-001", None),
    Refusal("origin_null", 403, with_key(KEY, "null"), "shop-001", "null"),
    Refusal("origin_missing", 403, with_key(KEY), "shop-001", None),
    Refusal("origin_not_allowed", 403, with_key(KEY, STRANGE_PAGE), "shop-001", STRANGE_PAGE),
]
each_refusal = pytest.mark.parametrize("refusal", REFUSALS, ids=[refusal.reason for refusal in REFUSALS])


def test_these_refusals_cover_every_reason_that_needs_no_source() -> None:
    assert {refusal.reason for refusal in REFUSALS} == set(Reason) - {"not_ready", "expired", "allowed"} - OF_FRAMES


@each_refusal
def test_a_refusal_is_a_problem_that_says_why(refusal: Refusal) -> None:
    app = App()
    answer = ask(guard(app), refusal.fields)
    problem = answer.problem
    assert answer.status == problem["status"] == refusal.status
    assert problem.keys() == {"type", "title", "status", "detail", "reason", "origin", "key", "retry_after"}
    assert (problem["reason"], problem["type"]) == (refusal.reason, f"urn:gatekeeper:{refusal.reason}")
    assert (problem["origin"], problem["key"]) == (refusal.origin, refusal.last8 and f"…{refusal.last8}")
    assert problem["title"]
    assert problem["detail"].endswith(".")
    assert app.scopes == []


@each_refusal
def test_a_refusal_never_shows_a_whole_key(refusal: Refusal) -> None:
    body = ask(guard(), refusal.fields).body
    assert [value for name, value in refusal.fields if name == b"data-client-key" and value in body] == []


@each_refusal
def test_a_refusal_is_not_cacheable_and_has_a_vary_header(refusal: Refusal) -> None:
    answer = ask(guard(), refusal.fields)
    assert answer.value("content-type") == b"application/problem+json"
    assert answer.value("content-length") == str(len(answer.body)).encode()
    assert answer.value("cache-control") == b"no-store"
    assert answer.value("x-content-type-options") == b"nosniff"
    referer = {"referer"} if refusal.reason == "origin_missing" else set()
    assert answer.names("vary") == {"origin", "data-client-key"} | referer
    assert len(answer.headers) == 7


@each_refusal
def test_every_page_can_read_a_refusal_and_none_is_echoed(refusal: Refusal) -> None:
    """CORS scanners (Corsy, CORScanner) report an echoed origin as reflected, whatever the answer says."""
    answer = ask(guard(), refusal.fields)
    assert answer.value("access-control-allow-origin") == b"*"
    assert answer.values("access-control-allow-credentials") == []


@each_refusal
def test_readable_denials_can_be_switched_off(refusal: Refusal) -> None:
    readable, hidden = ask(guard(), refusal.fields), ask(guard(readable_denials=False), refusal.fields)
    assert hidden.headers == without(readable.headers, b"access-control-allow-origin", b"access-control-expose-headers")
    assert (hidden.status, hidden.body) == (readable.status, readable.body)


@each_refusal
def test_a_refusal_is_the_same_the_second_time(refusal: Refusal) -> None:
    guarded = guard()
    first, second = ask(guarded, refusal.fields), ask(guarded, refusal.fields)
    assert first == second
    assert second.reason == refusal.reason


def test_a_refusal_never_allows_credentials() -> None:
    cors = CorsPolicy(allow_credentials=True, preflight="strict", expose_headers=("x-trace",))
    guarded = GatekeeperMiddleware(App(), gate_for(https_only=True), cors=cors)
    answer = ask(guarded, [*KEYED, *headers(("origin", STRANGE_PAGE))])
    assert answer.value("access-control-allow-origin") == b"*"
    assert answer.values("access-control-allow-credentials") == []


def test_a_refusal_names_the_entry_that_would_allow_the_page() -> None:
    detail = ask(guard(), [*KEYED, *headers(("origin", STRANGE_PAGE))]).problem["detail"]
    assert STRANGE_PAGE in detail
    assert "'evil.test'" in detail


def test_a_page_refused_by_its_referer_gets_the_same_answer() -> None:
    answer = ask(guard(), [*KEYED, *headers(("referer", STRANGE_PAGE + "/path?secret"))])
    assert (answer.reason, answer.problem["origin"]) == ("origin_not_allowed", STRANGE_PAGE)
    assert answer.value("access-control-allow-origin") == b"*"
    assert answer.names("vary") == {"origin", "data-client-key", "referer"}


def test_no_two_refusals_share_headers() -> None:
    guarded = guard()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"].append((b"set-cookie", b"a=b"))
        sent.append(message)

    for _ in range(3):
        run_without_waiting(_call(guarded, scope_of("http", ON_PAGE), never_received, send))
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert [len(start["headers"]) for start in starts] == [len(starts[0]["headers"])] * 3


class SilentSource:
    """A source that never returns a list."""

    account = "acme"
    suffix_field = "last8"
    fingerprint = "silent"

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Updates]:
        """Open a connection whose fetches never end."""

        @asynccontextmanager
        async def updates(_basis: Basis) -> AsyncIterator[Unchanged]:
            await anyio.sleep_forever()
            yield Unchanged()

        yield updates


class Clock:
    """A clock that moves only when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace a file of rows atomically."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(rows))
    fresh.rename(path)


def test_before_the_first_list_every_request_is_a_503_with_retry_after() -> None:
    app = App()
    guarded = GatekeeperMiddleware(app, Gatekeeper(SilentSource(), start_timeout=0))
    answer = asyncio.run(ask_later(guarded, ALLOWED))
    assert (answer.status, answer.reason, answer.value("retry-after")) == (503, "not_ready", b"2")
    assert answer.value("access-control-allow-origin") == b"*"
    assert app.scopes == []


def test_an_expired_list_refuses_a_new_request(tmp_path: Path) -> None:
    answer = asyncio.run(_ask_when_expired(tmp_path / "rows.json", asked_before=False))
    assert (answer.status, answer.reason, answer.value("retry-after")) == (503, "expired", b"30")


def test_an_expired_list_refuses_a_request_that_it_allowed_before(tmp_path: Path) -> None:
    answer = asyncio.run(_ask_when_expired(tmp_path / "rows.json", asked_before=True))
    assert (answer.status, answer.reason, answer.value("retry-after")) == (503, "expired", b"30")


async def _ask_when_expired(path: Path, *, asked_before: bool) -> Answer:
    write_rows(path, ROWS)
    clock = Clock()
    gate = Gatekeeper(FileSource(path), hard_stale=100, clock=clock)
    guarded = GatekeeperMiddleware(App(), gate)
    async with gate:
        if asked_before:
            assert (await ask_later(guarded, ALLOWED)).reason == "allowed"
        os.truncate(path, 0)
        clock.now += 101
        assert (await gate.refresh()).outcome == "failed"
        return await ask_later(guarded, ALLOWED)


def test_a_new_list_after_the_expiry_decides_again(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        path = tmp_path / "rows.json"
        write_rows(path, ROWS)
        clock = Clock()
        gate = Gatekeeper(FileSource(path), hard_stale=100, unknown_key_wait=0, clock=clock)
        guarded = GatekeeperMiddleware(App(), gate)
        async with gate:
            clock.now += 101
            reasons = [(await ask_later(guarded, ALLOWED)).reason]
            await gate.refresh()
            return [*reasons, (await ask_later(guarded, ALLOWED)).reason]

    assert asyncio.run(scenario()) == ["expired", "allowed"]


# --- Allowed requests


def test_the_app_gets_the_request_and_its_decision() -> None:
    app = App()
    state = {"database": object()}
    scope = scope_of("http", ALLOWED, state=state, path="/chat")
    run_without_waiting(_call(guard(app), scope, never_received, sender()[1]))
    (seen,) = app.scopes
    assert seen is scope
    assert seen["state"] == {"database": state["database"], "gatekeeper": seen["state"]["gatekeeper"]}
    decision = seen["state"]["gatekeeper"]
    assert isinstance(decision, Decision)
    assert (decision.reason, decision.origin, decision.matched) == (Reason.ALLOWED, PAGE, PAGE)
    assert decision.key is not None
    assert (decision.key.id, decision.agent_id) == ("1", "agent_7")


@pytest.mark.parametrize("parts", [{}, {"state": {"database": 1}}])
def test_the_decision_is_found_from_a_request_and_from_its_scope(parts: dict[str, Any]) -> None:
    app = App()
    assert ask(guard(app), ALLOWED, **parts).status == 200
    (scope,) = app.scopes
    request = Request(scope)
    assert decision_from(request) is decision_from(scope) is request.state.gatekeeper is scope["state"]["gatekeeper"]
    assert decision_from(request).agent_id == "agent_7"


@pytest.mark.parametrize("state", [None, {}, {"other": 1}, {"gatekeeper": "allowed"}])
def test_an_undecided_request_raises_decision_missing(state: dict[str, Any] | None) -> None:
    scope = scope_of("http", ALLOWED, path="/chat")
    if state is not None:
        scope["state"] = state
    for request in (scope, Request(scope)):
        with pytest.raises(DecisionMissing, match="'/chat'"):
            decision_from(request)


@pytest.mark.parametrize("page", [PAGE, "http://localhost:3000", "https://localhost"])
def test_an_allowed_page_can_read_the_answer(page: str) -> None:
    answer = ask(guard(), [*KEYED, *headers(("origin", page))])
    assert answer.value("access-control-allow-origin") == page.encode()
    assert answer.names("vary") == {"origin", "data-client-key"}
    assert len(answer.headers) == 2
    assert (answer.status, answer.body) == (200, App.BODY)


def test_a_page_named_by_the_referer_alone_gets_no_cors_headers() -> None:
    answer = ask(guard(cors=CorsPolicy(expose_headers=("x-trace",))), [*KEYED, *headers(("referer", PAGE + "/"))])
    assert answer.reason == "allowed"
    assert answer.names("vary") == {"origin", "data-client-key", "referer"}
    assert len(answer.headers) == 1


@pytest.mark.parametrize("origin", [*ON_PAGE, *headers(("referer", PAGE))])
@pytest.mark.parametrize("name", [b"access-control-allow-origin", b"Access-Control-Allow-Origin"])
@pytest.mark.parametrize("value", [b"*", b"null", PAGE.encode(), STRANGE_PAGE.encode()])
def test_the_apps_own_allowed_origin_is_replaced(origin: Header, name: bytes, value: bytes) -> None:
    app = App((name, value), (b"x-own", b"1"))
    answer = ask(guard(app), [*KEYED, origin])
    assert answer.values("access-control-allow-origin") == ([PAGE.encode()] if origin in ON_PAGE else [])
    assert answer.value("x-own") == b"1"


@pytest.mark.parametrize("name", [b"access-control-allow-credentials", b"Access-Control-Allow-Credentials"])
def test_the_apps_own_allow_credentials_is_dropped(name: bytes) -> None:
    assert ask(guard(App((name, b"true"))), ALLOWED).values("access-control-allow-credentials") == []


@pytest.mark.parametrize("name", [b"access-control-allow-credentials", b"Access-Control-Allow-Credentials"])
def test_configured_credentials_are_allowed_once(name: bytes) -> None:
    cors = CorsPolicy(allow_credentials=True, preflight="strict")
    guarded = GatekeeperMiddleware(App((name, b"true")), gate_for(https_only=True), cors=cors)
    answer = ask(guarded, ALLOWED)
    assert answer.values("access-control-allow-credentials") == [b"true"]
    assert answer.value("access-control-allow-origin") == PAGE.encode()
    assert ask(guarded, [*KEYED, *headers(("referer", PAGE))]).values("access-control-allow-credentials") == []


def test_the_apps_headers_keep_their_order() -> None:
    own = [(b"x-own", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"X-Own", b"2")]
    answer = ask(guard(App(*own)), ALLOWED)
    assert answer.names("vary") == {"origin", "data-client-key"}
    assert [field for field in answer.headers if field in own] == own


def test_exposed_headers_are_sent_to_pages() -> None:
    app = App((b"access-control-expose-headers", b"x-own"))
    answer = ask(guard(app, cors=CorsPolicy(expose_headers=("x-trace", "etag"))), ALLOWED)
    assert answer.names("access-control-expose-headers") == {"x-own", "x-trace", "etag"}


def test_a_start_message_that_the_app_reuses_is_not_changed() -> None:
    app = App((b"x-own", b"1"), (b"access-control-allow-origin", b"*"))
    before = {**app.start, "headers": list(app.start["headers"])}
    guarded = guard(app, frame_ancestors=True)
    pages = [PAGE, "http://localhost:1", PAGE, "http://localhost:2"]
    answers = [ask(guarded, [*KEYED, *headers(("origin", page))]) for page in pages]
    assert app.start == before
    assert [answer.value("access-control-allow-origin") for answer in answers] == [page.encode() for page in pages]
    assert [len(answer.headers) for answer in answers] == [3] * 4


@pytest.mark.parametrize("shape", [list, tuple, iter])
@pytest.mark.parametrize("pair", [list, tuple])
@pytest.mark.parametrize("frame_ancestors", [True, False])
def test_headers_may_have_every_shape_that_asgi_allows(
    shape: Callable[[object], object], pair: Callable[[object], object], *, frame_ancestors: bool
) -> None:
    app = App()
    app.start["headers"] = shape([pair((b"x-own", b"1")), pair((b"access-control-allow-origin", b"*"))])
    answer = ask(guard(app, frame_ancestors=frame_ancestors), ALLOWED)
    assert answer.value("x-own") == b"1"
    assert answer.value("access-control-allow-origin") == PAGE.encode()


@pytest.mark.parametrize("frame_ancestors", [True, False])
def test_an_app_may_send_no_headers(*, frame_ancestors: bool) -> None:
    app = App()
    del app.start["headers"]
    answer = ask(guard(app, frame_ancestors=frame_ancestors), ALLOWED)
    assert answer.value("access-control-allow-origin") == PAGE.encode()
    assert len(answer.headers) == 2


@pytest.mark.parametrize("frame_ancestors", [True, False])
def test_messages_are_sent_immediately_and_only_the_start_is_changed(*, frame_ancestors: bool) -> None:
    sent, send = sender()
    messages: list[Message] = [
        {"type": "http.response.debug", "info": {}},
        {"type": "http.response.early_hint", "links": [b"</x>; rel=preload"]},
        {"type": "http.response.start", "status": 200, "headers": [], "trailers": True},
        {"type": "http.response.body", "body": b"first", "more_body": True},
        {"type": "http.response.body", "body": b"last"},
        {"type": "http.response.pathsend", "path": "/x"},
        {
            "type": "http.response.trailers",
            "headers": [(b"access-control-allow-origin", b"*"), (b"content-type", b"text/html")],
        },
    ]

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for count, message in enumerate(messages, start=1):
            await send(message)
            assert len(sent) == count

    run_without_waiting(_call(guard(app, frame_ancestors=frame_ancestors), scope_of("http", ALLOWED), never_received, send))
    for message, passed_on in zip(messages, sent, strict=True):
        if message["type"] == "http.response.start":
            assert {**passed_on, "headers": []} == message
            assert len(passed_on["headers"]) == 2
        else:
            assert passed_on is message


def test_the_app_gets_the_servers_own_receive() -> None:
    received = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        received.append(receive)

    run_without_waiting(_call(guard(app), scope_of("http", ALLOWED), never_received, sender()[1]))
    assert received == [never_received]


def test_an_exception_of_the_app_propagates() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(guard(app), ALLOWED)


# --- Preflights


def preflight(guarded: ASGIApp, *fields: tuple[str, str | bytes], **parts: Any) -> Answer:
    """Send a preflight, as browsers do."""
    return ask(guarded, [*ASKS_METHOD, *headers(*fields)], method="OPTIONS", **parts)


@pytest.mark.parametrize("page", [PAGE, STRANGE_PAGE, "http://localhost:3000", "http://[::1]:8080"])
def test_an_open_preflight_answers_every_page(page: str) -> None:
    app = App()
    answer = preflight(guard(app), ("origin", page))
    assert (answer.status, answer.body) == (204, b"")
    assert answer.value("access-control-allow-origin") == b"*"
    assert answer.names("access-control-allow-methods") == {"get", "head", "post"}
    assert answer.names("access-control-allow-headers") == {"content-type", "data-client-key"}
    assert answer.value("access-control-max-age") == b"600"
    assert answer.names("vary") == {"origin", "access-control-request-method", "access-control-request-headers"}
    assert len(answer.headers) == 5
    assert app.scopes == []


def test_a_preflight_omits_what_is_not_allowed() -> None:
    asked = headers(
        ("access-control-request-method", "DELETE"),
        ("access-control-request-headers", "data-client-key,x-strange"),
    )
    answer = ask(guard(), [*ON_PAGE, *asked], method="OPTIONS")
    assert answer.status == 204
    assert answer.names("access-control-allow-methods") == {"get", "head", "post"}
    assert answer.names("access-control-allow-headers") == {"content-type", "data-client-key"}


def test_a_preflight_answers_with_the_policy() -> None:
    cors = CorsPolicy(allow_methods=("PATCH",), allow_headers=("x-trace",), max_age=0)
    answer = preflight(guard(cors=cors, key_header="X-Key"), ("origin", PAGE))
    assert answer.names("access-control-allow-methods") == {"patch"}
    assert answer.names("access-control-allow-headers") == {"x-trace", "x-key"}
    assert answer.value("access-control-max-age") == b"0"


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_a_preflight_opens_a_private_network_if_asked_and_allowed(*, asked: bool, allowed: bool) -> None:
    fields = (("access-control-request-private-network", "true"),) if asked else ()
    answer = preflight(guard(cors=CorsPolicy(allow_private_network=allowed)), ("origin", PAGE), *fields)
    opened = answer.value("access-control-allow-private-network")
    assert (answer.status, opened) == (204, b"true" if asked and allowed else None)


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ([("origin", "null")], 403, "origin_null"),
        ([("origin", "null"), ("referer", PAGE)], 403, "origin_null"),
        ([("origin", PAGE + "/")], 400, "origin_malformed"),
        ([("origin", b"\xff")], 400, "origin_malformed"),
        ([("origin", "*")], 400, "origin_malformed"),
        ([("origin", PAGE), ("origin", PAGE)], 400, "origin_conflict"),
        ([("referer", PAGE)], 403, "origin_missing"),
        ([], 403, "origin_missing"),
    ],
)
@pytest.mark.parametrize("kind", ["open", "strict"])
def test_a_preflight_without_a_page_is_refused(
    kind: Any, fields: list[tuple[str, str | bytes]], status: int, reason: str
) -> None:
    answer = preflight(guard(cors=CorsPolicy(preflight=kind)), *fields, query=f"client_key={KEY}")
    assert (answer.status, answer.reason) == (status, reason)
    assert [name for name, _ in answer.headers if name.startswith(b"access-control-")] == []
    assert "origin" in answer.names("vary")
    assert answer.value("cache-control") == b"no-store"


def test_options_without_a_requested_method_is_an_ordinary_request() -> None:
    app = App()
    guarded = guard(app)
    assert ask(guarded, ALLOWED, method="OPTIONS").reason == "allowed"
    assert app.scopes[0]["method"] == "OPTIONS"
    assert ask(guarded, ON_PAGE, method="OPTIONS").reason == "key_missing"


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_only_options_is_a_preflight(method: str) -> None:
    assert ask(guard(), [*ON_PAGE, *ASKS_METHOD], method=method).reason == "key_missing"


def test_options_with_a_key_header_is_not_a_preflight() -> None:
    app = App()
    assert ask(guard(app), [*ALLOWED, *ASKS_METHOD], method="OPTIONS").reason == "allowed"
    strange = headers(("origin", STRANGE_PAGE))
    assert ask(guard(app), [*KEYED, *strange, *ASKS_METHOD], method="OPTIONS").reason == "origin_not_allowed"
    assert len(app.scopes) == 1


@pytest.mark.parametrize(
    ("page", "query", "reason"),
    [
        pytest.param(PAGE, f"client_key={KEY}", None, id="the key in the URL allows the page"),
        pytest.param(OTHER_PAGE, f"client_key={KEY}", "origin_not_allowed", id="it does not, though another one does"),
        pytest.param(PAGE, f"client_key={UNKNOWN_KEY}", "key_unknown", id="the key in the URL is unknown"),
        pytest.param(PAGE, f"client_key={DISABLED_KEY}", "key_disabled", id="the key in the URL is disabled"),
        pytest.param(PAGE, "client_key=x", "key_malformed", id="the key in the URL is none"),
        pytest.param(PAGE, f"client_key={KEY}&client_key={OTHER_KEY}", "key_conflict", id="two keys in the URL"),
        pytest.param(OTHER_PAGE, "", None, id="some enabled key allows the page"),
        pytest.param("https://localhost:1234", "client_key=", None, id="some enabled key allows it, by a pattern"),
        pytest.param(STRANGE_PAGE, "", "origin_not_allowed", id="no key allows the page"),
        pytest.param("https://gone.acme.com", "", "origin_not_allowed", id="only a disabled key allows the page"),
    ],
)
def test_a_strict_preflight_answers_pages_that_some_key_allows(page: str, query: str, reason: str | None) -> None:
    guarded = guard(cors=CorsPolicy(preflight="strict"))
    answer = preflight(guarded, ("origin", page), query=query)
    if reason is None:
        assert answer.status == 204
        assert answer.value("access-control-allow-origin") == page.encode()
    else:
        assert answer.status == Reason(reason).status
        assert answer.reason == reason
        assert [name for name, _ in answer.headers if name.startswith(b"access-control-")] == []


def test_a_strict_preflight_allows_credentials() -> None:
    cors = CorsPolicy(allow_credentials=True, preflight="strict")
    guarded = GatekeeperMiddleware(App(), gate_for(https_only=True), cors=cors)
    assert preflight(guarded, ("origin", PAGE)).value("access-control-allow-credentials") == b"true"
    refused = preflight(guarded, ("origin", PAGE.replace("https", "http")))
    assert refused.status == 403
    assert refused.values("access-control-allow-credentials") == []


def test_a_strict_preflight_follows_the_list(tmp_path: Path) -> None:
    fields = [*ASKS_METHOD, *ON_PAGE]

    async def scenario() -> list[int]:
        path = tmp_path / "rows.json"
        statuses = []
        write_rows(path, [])
        gate = Gatekeeper(FileSource(path))
        guarded = GatekeeperMiddleware(App(), gate, cors=CorsPolicy(preflight="strict"))
        async with gate:
            for rows in ([], ROWS[:1], [{**ROWS[0], "disabled_at": "now"}], ROWS[:1], []):
                write_rows(path, rows)
                await gate.refresh()
                statuses.append((await ask_later(guarded, fields, method="OPTIONS")).status)
        return statuses

    assert asyncio.run(scenario()) == [403, 204, 403, 204, 403]


def test_a_strict_preflight_before_the_first_list_is_a_503() -> None:
    gate = Gatekeeper(SilentSource(), start_timeout=0)
    guarded = GatekeeperMiddleware(App(), gate, cors=CorsPolicy(preflight="strict"))
    answer = asyncio.run(ask_later(guarded, [*ASKS_METHOD, *ON_PAGE], method="OPTIONS"))
    assert (answer.status, answer.reason) == (503, "not_ready")


def test_an_open_preflight_needs_no_list() -> None:
    guarded = GatekeeperMiddleware(App(), Gatekeeper(SilentSource(), start_timeout=0))
    assert preflight(guarded, ("origin", PAGE)).status == 204


# --- Exempt paths

EXEMPT = ("/healthz", "/static/*")


@pytest.mark.parametrize(("path", "exempt"), [("/healthz", True), ("/static/a/b", True), ("/static", False)])
def test_an_exempt_path_needs_no_key(path: str, *, exempt: bool) -> None:
    guarded = guard(exempt=EXEMPT)
    assert ask(guarded, path=path).reason == ("allowed" if exempt else "key_missing")
    (message, *_) = shake_hands(guarded, extension=False, path=path)
    assert message["type"] == ("websocket.accept" if exempt else "websocket.close")


@pytest.mark.parametrize("fields", [[], ALLOWED, [*ON_PAGE, *ASKS_METHOD]])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_an_exempt_request_is_not_touched(kind: str, fields: list[Header]) -> None:
    calls: list[tuple[Scope, Receive, Send]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append((scope, receive, send))

    scope = scope_of(kind, fields, path="/healthz")
    before = dict(scope)
    _, send = sender()
    run_without_waiting(_call(guard(app, exempt=EXEMPT), scope, never_received, send))
    assert calls == [(scope, never_received, send)]
    assert calls[0][0] is scope
    assert scope == before
    with pytest.raises(DecisionMissing):
        decision_from(scope)


NAMES_PAGE = (b"Access-Control-Allow-ORIGIN", ON_PAGE[0][1])
NAMES_CREDENTIALS = (b"Access-Control-Allow-Credentials", b"true")
PUBLIC = headers(("access-control-allow-origin", "*"))


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("fields", [[], headers(("origin", STRANGE_PAGE)), headers(("origin", "null")), ALLOWED])
def test_any_page_may_read_an_exempt_answer_if_that_is_configured(fields: list[Header], method: str) -> None:
    app = App((b"Vary", b"Accept"))
    answer = ask(guard(app, exempt=EXEMPT, exempt_cors=True), fields, path="/static/a", method=method)
    assert answer == (200, [(b"Vary", b"Accept"), *PUBLIC], App.BODY)
    assert app.start["headers"] == [(b"Vary", b"Accept")]  # the message is the app's, which may send it again


@pytest.mark.parametrize("own", [[NAMES_PAGE], [NAMES_CREDENTIALS], [NAMES_PAGE, NAMES_CREDENTIALS]])
def test_an_exempt_answer_with_the_apps_own_cors_is_left_alone(own: list[Header]) -> None:
    answer = ask(guard(App(*own), exempt=EXEMPT, exempt_cors=True), ON_PAGE, path="/healthz")
    assert answer.headers == own


def test_the_preflight_of_an_exempt_path_is_left_to_the_app() -> None:
    answer = ask(guard(exempt=EXEMPT, exempt_cors=True), [*ON_PAGE, *ASKS_METHOD], path="/healthz", method="OPTIONS")
    assert answer.headers == []


@pytest.mark.parametrize("fields", [[], ON_PAGE, ALLOWED])
def test_other_paths_are_no_more_public_than_before(fields: list[Header]) -> None:
    guarded = guard(exempt=EXEMPT, exempt_cors=True)
    assert ask(guarded, fields, path="/static") == ask(guard(), fields, path="/static")


@pytest.mark.parametrize("path", ["/healthz", "/static"])
def test_a_websocket_is_as_before_where_exempt_answers_are_public(path: str) -> None:
    public, plain = guard(exempt=EXEMPT, exempt_cors=True), guard(exempt=EXEMPT)
    said = [shake_hands(each, extension=True, path=path) for each in (public, plain)]
    assert said[0] == said[1]


# --- Other connections


@pytest.mark.parametrize("kind", ["lifespan", "webtransport", "http.next"])
def test_other_connections_are_not_touched(kind: str) -> None:
    calls: list[tuple[Scope, Receive, Send]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append((scope, receive, send))

    scope: Scope = {"type": kind}
    _, send = sender()
    run_without_waiting(_call(guard(app, exempt=EXEMPT, frame_ancestors=True), scope, never_received, send))
    assert calls == [({"type": kind}, never_received, send)]
    assert calls[0][0] is scope


# --- WebSockets


def test_an_allowed_websocket_reaches_the_app_with_its_decision() -> None:
    calls: list[tuple[Scope, Receive, Send]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append((scope, receive, send))

    _, send = sender()
    for parts in ({}, {"state": {"database": 1}}):
        scope = scope_of("websocket", ON_PAGE, query=f"client_key={KEY}", **parts)
        run_without_waiting(_call(guard(app), scope, never_received, send))
        assert calls.pop() == (scope, never_received, send)
        websocket = WebSocket(scope, never_received, send)
        assert decision_from(websocket) is decision_from(scope) is websocket.state.gatekeeper
        assert decision_from(websocket).agent_id == "agent_7"


SOCKETS = [
    pytest.param(ON_PAGE, "", "key_missing", id="no key"),
    pytest.param(ALLOWED, "", "key_missing", id="key in the header"),
    pytest.param(ON_PAGE, "client_key=x", "key_malformed", id="malformed key"),
    pytest.param(ON_PAGE, f"client_key={KEY}&client_key={OTHER_KEY}", "key_conflict", id="two keys"),
    pytest.param(ON_PAGE, f"client_key={UNKNOWN_KEY}", "key_unknown", id="unknown key"),
    pytest.param(ON_PAGE, f"client_key={TWIN_KEY}", "key_ambiguous", id="ambiguous key"),
    pytest.param(ON_PAGE, f"client_key={DISABLED_KEY}", "key_disabled", id="disabled key"),
    pytest.param(ON_PAGE, f"client_key={EMPTY_KEY}", "allowlist_empty", id="key without domains"),
    pytest.param([], f"client_key={KEY}", "origin_missing", id="no Origin"),
    pytest.param(headers(("referer", PAGE)), f"client_key={KEY}", "origin_missing", id="Referer does not count"),
    pytest.param([*ON_PAGE, *ON_PAGE], f"client_key={KEY}", "origin_conflict", id="Origin twice"),
    pytest.param(headers(("origin", "null")), f"client_key={KEY}", "origin_null", id="null"),
    pytest.param(headers(("origin", "x")), f"client_key={KEY}", "origin_malformed", id="malformed"),
    pytest.param(headers(("origin", STRANGE_PAGE)), f"client_key={KEY}", "origin_not_allowed", id="strange page"),
    pytest.param(
        headers(("origin", f"https://{'a' * 63}.{'b' * 63}.{'c' * 63}.test")),
        f"client_key={KEY}",
        "origin_not_allowed",
        id="long page",
    ),
]


@pytest.mark.parametrize(("fields", "query", "reason"), SOCKETS)
def test_a_refused_websocket_gets_the_problem_before_it_is_accepted(fields: list[Header], query: str, reason: str) -> None:
    app = App()
    start, body = shake_hands(guard(app), fields, extension=True, query=query)
    assert (start["type"], body["type"]) == ("websocket.http.response.start", "websocket.http.response.body")
    assert start["status"] == Reason(reason).status
    answer = Answer(start["status"], start["headers"], body["body"])
    assert (answer.reason, answer.problem["status"]) == (reason, answer.status)
    assert answer.value("content-type") == b"application/problem+json"
    assert answer.value("content-length") == str(len(answer.body)).encode()
    assert answer.value("cache-control") == b"no-store"
    assert app.scopes == []


@pytest.mark.parametrize(("fields", "query", "reason"), SOCKETS)
@pytest.mark.parametrize("parts", [{}, {"extensions": None}, {"extensions": {"tls": {}}}])
def test_without_the_extension_a_refused_websocket_is_closed(
    fields: list[Header], query: str, reason: str, parts: dict[str, Any]
) -> None:
    app = App()
    (close,) = shake_hands(guard(app), fields, extension=False, query=query, **parts)
    assert (close["type"], close["code"]) == ("websocket.close", 1008)
    assert close["reason"] == f"{reason}: {Decision(Reason(reason)).title}"
    assert len(close["reason"].encode()) <= 123
    assert app.scopes == []


def test_a_websocket_without_a_query_in_its_scope_has_no_key() -> None:
    scope = scope_of("websocket", ON_PAGE)
    del scope["query_string"]  # ASGI lets WebSockets go without
    sent, send = sender()
    run_without_waiting(_call(guard(), scope, never_received, send))
    assert sent[0]["reason"].startswith("key_missing")


def test_a_websocket_is_not_ready_before_the_first_list() -> None:
    async def scenario() -> list[Message]:
        sent, send = sender()
        guarded = GatekeeperMiddleware(App(), Gatekeeper(SilentSource(), start_timeout=0))
        extensions: dict[str, Any] = {"websocket.http.response": {}}
        scope = scope_of("websocket", ON_PAGE, query=f"client_key={KEY}", extensions=extensions)
        await guarded(scope, never_received, send)
        return sent

    start, _ = asyncio.run(scenario())
    assert start["status"] == 503
    assert dict(start["headers"])[b"retry-after"] == b"2"


# --- Frames


@pytest.mark.parametrize("kind", [b"text/html", b"text/html; charset=utf-8", b"TEXT/HTML"])
@pytest.mark.parametrize("name", [b"content-type", b"Content-Type"])
def test_html_can_be_framed_only_by_the_pages_of_its_key(name: bytes, kind: bytes) -> None:
    answer = ask(guard(App((name, kind)), frame_ancestors=True), ALLOWED)
    policy = f"frame-ancestors {PAGE} https://localhost:* http://localhost:*"
    assert answer.value("content-security-policy") == policy.encode()
    assert answer.value("access-control-allow-origin") == PAGE.encode()


@pytest.mark.parametrize("fields", [[], [(b"content-type", b"application/json")], [(b"x-type", b"text/html")]])
def test_other_content_gets_no_policy(fields: list[Header]) -> None:
    assert ask(guard(App(*fields), frame_ancestors=True), ALLOWED).values("content-security-policy") == []


def test_html_gets_no_policy_by_default() -> None:
    assert ask(guard(App((b"content-type", b"text/html"))), ALLOWED).values("content-security-policy") == []


def test_the_policy_is_added_to_the_apps_own() -> None:
    own = (b"content-security-policy", b"default-src 'self'")
    answer = ask(guard(App((b"content-type", b"text/html"), own), frame_ancestors=True), ALLOWED)
    first, second = answer.values("content-security-policy")
    assert first == own[1]
    assert second.startswith(b"frame-ancestors ")


def test_every_key_has_its_own_policy() -> None:
    guarded = guard(App((b"content-type", b"text/html")), frame_ancestors=True)
    other = [*headers(("data-client-key", OTHER_KEY)), *ON_PAGE]
    answers = [ask(guarded, fields) for fields in (ALLOWED, other, ALLOWED)]
    first, second, third = (answer.value("content-security-policy") for answer in answers)
    assert second == f"frame-ancestors {OTHER_PAGE} {PAGE}".encode()
    assert first == third != second


# --- Arbitrary bytes

VALUES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([PAGE, STRANGE_PAGE, "null", KEY, DISABLED_KEY, "https://", "http://[::1", "https://a:", ""]).map(
        str.encode
    ),
    st.builds(bytes.__add__, st.just(PAGE.encode()), st.binary(max_size=4)),
    st.builds(bytes.__add__, st.sampled_from([b"https://", b"http://"]), st.binary(max_size=20)),
    st.builds(lambda byte, count: byte * count, st.binary(min_size=1, max_size=1), st.sampled_from([300, 70_000])),
)
NAMES = st.sampled_from([b"origin", b"referer", b"data-client-key"])
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
ANY_QUERY = st.one_of(QUERIES, st.binary(max_size=40), VALUES.map(lambda value: b"client_key=" + value))
GUARDED = guard(App((b"content-type", b"text/html")), frame_ancestors=True)
STRICT = guard(cors=CorsPolicy(preflight="strict"))


@settings(max_examples=300)
@given(FIELDS, ANY_QUERY, st.sampled_from(["GET", "OPTIONS", "POST"]), st.sampled_from([GUARDED, STRICT]))
def test_every_request_gets_a_documented_status(
    fields: list[Header], query: bytes, method: str, guarded: GatekeeperMiddleware
) -> None:
    for _ in range(2):
        answer = ask(guarded, fields, query=query, method=method)
        assert answer.status == Reason(answer.reason).status
        readers = answer.value("access-control-allow-origin")
        if answer.reason == "allowed":
            assert readers is None or [readers] == [value for name, value in fields if name == b"origin"]
        else:
            assert readers == b"*" or method == "OPTIONS"


@settings(max_examples=300)
@given(FIELDS, ANY_QUERY, st.sampled_from([GUARDED, STRICT]))
def test_every_preflight_gets_a_documented_status(fields: list[Header], query: bytes, guarded: GatekeeperMiddleware) -> None:
    keyless = [*ASKS_METHOD, *without(fields, b"data-client-key")]
    answer = ask(guarded, keyless, query=query, method="OPTIONS")
    if answer.status == 204:
        origins = [value for name, value in fields if name == b"origin"]
        assert [answer.value("access-control-allow-origin")] == (origins if guarded is STRICT else [b"*"])
    else:
        assert answer.status == Reason(answer.reason).status
        assert answer.reason != "allowed"


@settings(max_examples=300)
@given(FIELDS, ANY_QUERY, st.booleans())
def test_every_websocket_is_accepted_or_refused(fields: list[Header], query: bytes, extension: bool) -> None:  # noqa: FBT001
    first, *_ = shake_hands(GUARDED, fields, extension=extension, query=query)
    expected = ["websocket.accept", "websocket.http.response.start" if extension else "websocket.close"]
    assert first["type"] in expected
    assert "status" not in first or first["status"] in {400, 403}


@settings(max_examples=300)
@given(FIELDS, ANY_QUERY)
def test_the_middleware_decides_as_its_gate_does(fields: list[Header], query: bytes) -> None:
    gate = Witness.from_rows(ROWS)
    answer = ask(GatekeeperMiddleware(App(), gate), fields, query=query)
    origins = [value for name, value in fields if name == b"origin"]
    referers = [value for name, value in fields if name == b"referer"]

    def only(values: list[bytes]) -> bytes | Conflict | None:
        return values[0] if len(values) == 1 else Conflict.CONFLICT if values else None

    expected = gate_for().decide(gate.seen, only(origins), referer=only(referers))
    assert answer.reason == expected.reason


# --- Headers of the app, in every spelling


@pytest.mark.parametrize("page", [*ON_PAGE, *headers(("referer", PAGE))])
@pytest.mark.parametrize(
    ("own", "members"),
    [
        ([(b"vary", b"Accept-Encoding")], {"accept-encoding"}),
        ([(b"Vary", b"Accept-Encoding")], {"accept-encoding"}),
        ([(b"VARY", b"accept-encoding,  Cookie"), (b"vArY", b"COOKIE, X-Own")], {"accept-encoding", "cookie", "x-own"}),
        ([(b"vary", b"origin, DATA-CLIENT-KEY, Referer")], {"referer"}),
        ([(b"vary", b""), (b"vary", b" ,, ")], set()),
    ],
)
def test_an_answer_has_one_vary_line(own: list[Header], members: set[str], page: Header) -> None:
    """Caches exist that read only the last line (nginx before 1.23), and an app's own came last.

    So the answer to one customer's page was served to another one's, without a decision.
    """
    answer = ask(guard(App(*own, (b"x-own", b"1"))), [*KEYED, page])
    line = answer.value("vary")
    assert line is not None
    listed = [member.strip().lower() for member in line.decode().split(",")]
    referer = {"referer"} if page not in ON_PAGE else set()
    assert sorted(listed) == sorted({"origin", "data-client-key"} | members | referer)
    assert answer.value("x-own") == b"1"


@pytest.mark.parametrize("own", [[b"*"], [b"Accept, *"], [b"*", b"Accept"], [b"Accept", b"*"]])
def test_a_vary_of_everything_stays_one(own: list[bytes]) -> None:
    assert ask(guard(App(*[(b"Vary", value) for value in own])), ALLOWED).value("vary") == b"*"


def test_no_vary_line_of_one_answer_gets_into_the_next() -> None:
    guarded = guard(App((b"vary", b"cookie")))
    plain = guard(App())
    assert [ask(guarded, ALLOWED).names("vary") for _ in range(2)] == [{"origin", "data-client-key", "cookie"}] * 2
    assert ask(plain, ALLOWED).names("vary") == {"origin", "data-client-key"}


@pytest.mark.parametrize("page", [*ON_PAGE, *headers(("referer", PAGE))])
@pytest.mark.parametrize("spelling", [bytes.upper, bytes.title, lambda name: name.replace(b"o", b"O"), bytes.swapcase])
@pytest.mark.parametrize(
    ("name", "value"), [(b"access-control-allow-origin", b"*"), (b"access-control-allow-credentials", b"true")]
)
def test_the_apps_own_cors_headers_are_replaced_in_every_spelling(
    name: bytes, value: bytes, spelling: Callable[[bytes], bytes], page: Header
) -> None:
    """Two lines of Access-Control-Allow-Origin make every browser refuse the answer."""
    app = App((spelling(name), value), (b"ETAG", b"1"), (b"Date", b"2"), (b"link", b"3"))
    answer = ask(guard(app), [*KEYED, page])
    assert answer.values("access-control-allow-origin") == ([PAGE.encode()] if page in ON_PAGE else [])
    assert answer.values("access-control-allow-credentials") == []
    assert [field for field in answer.headers if field in app.start["headers"][1:]] == app.start["headers"][1:]


# --- Scopes that leave out what is empty


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("left_out", [True, False])
@pytest.mark.parametrize("part", ["query_string", "root_path", "headers", "state", "extensions"])
def test_a_part_of_a_scope_that_is_none_or_missing_is_empty(kind: str, part: str, *, left_out: bool) -> None:
    """ASGI lets a WebSocket scope have None there, and some servers and tests do so with HTTP."""
    query = "" if part == "query_string" else f"client_key={KEY}"
    scope = scope_of(kind, ON_PAGE, query=query, path="/chat", state={}, extensions={"websocket.http.response": {}})
    if left_out:
        del scope[part]
    else:
        scope[part] = None
    app = App()
    sent, send = sender()
    run_without_waiting(_call(guard(app, exempt=EXEMPT), scope, never_received, send))
    if part in {"query_string", "headers"}:
        reason = "key_missing" if part == "query_string" else "origin_missing"
        assert json.loads(sent[1]["body"])["reason"] == reason
        assert decision_reason(scope) is None
    else:
        assert app.scopes == [scope]
        assert decision_reason(scope) == "allowed"


def decision_reason(scope: Scope) -> str | None:
    """The reason of the decision in a scope, or None."""
    try:
        return decision_from(scope).reason
    except DecisionMissing:
        return None


def test_an_empty_state_of_a_server_is_kept() -> None:
    state: dict[str, Any] = {}
    for kind in ("http", "websocket"):
        scope = scope_of(kind, ON_PAGE, query=f"client_key={KEY}", state=state)
        run_without_waiting(_call(guard(App()), scope, never_received, sender()[1]))
        assert scope["state"] is state


# --- What a refused page can read


def test_a_page_can_read_when_to_ask_again() -> None:
    """A script reads only the headers that are exposed, and Retry-After was not."""
    guarded = GatekeeperMiddleware(App(), Gatekeeper(SilentSource(), start_timeout=0))
    answer = asyncio.run(ask_later(guarded, ALLOWED))
    assert answer.value("retry-after") == b"2"
    assert answer.names("access-control-expose-headers") == {"retry-after"}
    assert answer.problem["retry_after"] == 2


def test_no_answer_echoes_an_origin_that_was_not_allowed() -> None:
    """Corsy and CORScanner report an echoed origin as "origin reflected", severity high."""
    strange = headers(("origin", STRANGE_PAGE))
    for kind in ("open", "strict"):
        guarded = guard(cors=CorsPolicy(preflight=kind))
        answers = [ask(guarded, strange), ask(guarded, [*KEYED, *strange]), preflight(guarded, *[("origin", STRANGE_PAGE)])]
        for answer in answers:
            assert STRANGE_PAGE.encode() not in [value for _, value in answer.headers]
            assert answer.values("access-control-allow-credentials") == []
        readers = [answer.value("access-control-allow-origin") for answer in answers]
        assert readers == [b"*", b"*", b"*" if kind == "open" else None]


# --- The widget's own frame


OWN_PAGE = "https://widgets.example"
ADVICE = "add "


@pytest.mark.parametrize("key", [KEY, EMPTY_KEY])
@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("widgets.example", ("origin", OWN_PAGE)),
        ("Widgets.Example", ("origin", OWN_PAGE)),
        ("widgets.example:443", ("origin", OWN_PAGE)),
        ("widgets.example", ("referer", f"{OWN_PAGE}/embed?x=1")),
        ("widgets.example", ("origin", "http://widgets.example")),
        ("widgets.example:8443", ("origin", f"{OWN_PAGE}:8443")),
        ("127.0.0.1:8000", ("origin", "http://127.0.0.1:8000")),
        ("[::1]:8000", ("origin", "http://[::1]:8000")),
    ],
)
def test_a_refusal_never_advises_to_allow_the_services_own_host(host: str, named: tuple[str, str], key: str) -> None:
    """Inside the widget's own iframe, the browser names the widget's origin and not the customer's page.

    A customer who adds that host, as the detail said, lets every page in that embeds the frame.
    """
    fields = headers(("host", host), named, ("data-client-key", key))
    answers = [ask(guard(), fields) for _ in range(2)]
    if named[0] == "origin":
        query = f"client_key={key}"
        start, body = shake_hands(guard(), headers(("host", host), named), extension=True, query=query)
        answers.append(Answer(start["status"], start["headers"], body["body"]))
    for answer in answers:
        assert answer.reason == ("origin_not_allowed" if key == KEY else "allowlist_empty")
        detail = answer.problem["detail"]
        assert "the request comes from the widget's own frame" in detail
        assert answer.problem["origin"] in detail
        assert ADVICE not in detail


@pytest.mark.parametrize(
    ("host", "page"),
    [
        ("widgets.example", "https://shop.example"),
        ("widgets.example", "https://widgets.example.evil.test"),
        ("localhost:8000", "http://localhost:3000"),
        ("", STRANGE_PAGE),
        ("\xff", STRANGE_PAGE),
    ],
)
def test_another_page_is_told_which_entry_would_allow_it(host: str, page: str) -> None:
    fields = headers(("host", host.encode("latin-1")), ("origin", page), ("data-client-key", DISABLED_KEY))
    assert "frame" not in ask(guard(), fields).problem["detail"]
    row = {**ROWS[0], "domain_allowlist": ["https://other.example"]}
    guarded = GatekeeperMiddleware(App(), Gatekeeper.from_rows([row]))
    for hosts in (1, 2):
        fields = headers(*[("host", host.encode("latin-1"))] * hosts, ("origin", page), ("data-client-key", KEY))
        assert ADVICE in ask(guarded, fields).problem["detail"]


def test_a_disabled_key_in_the_widgets_own_frame_is_said_to_be_disabled() -> None:
    fields = headers(("host", "widgets.example"), ("origin", OWN_PAGE), ("data-client-key", DISABLED_KEY))
    assert "is disabled" in ask(guard(), fields).problem["detail"]


# --- The name of the key header


@pytest.mark.parametrize(("name", "instead"), [("client_key", "client-key"), ("X_Widget-Key", "X-Widget-Key")])
def test_a_key_header_with_an_underscore_is_refused(name: str, instead: str) -> None:
    """Such a header never arrives behind nginx (underscores_in_headers), so every key would be missing."""
    with pytest.raises(ConfigError) as error:
        guard(key_header=name)
    (problem,) = error.value.problems
    assert problem.startswith(f"key_header is {name!r}: nginx and other servers drop headers with an underscore")
    assert repr(instead) in problem
