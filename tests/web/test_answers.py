"""A decision as a response."""

import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from gatekeeper import CorsPolicy, Decision, Gatekeeper, GatekeeperMiddleware, Reason, answer
from gatekeeper.gate.decisions import CONFLICT, Conflict
from gatekeeper.web.answers import problem, refusal
from gatekeeper.web.cors import CorsHeaders
from gatekeeper.web.request import Header
from tests.support.client_keys import DISABLED_KEY, KEY
from tests.support.starlette_client import TestClient

PAGE = "https://shop.acme.com"
CORS = CorsHeaders(CorsPolicy(allow_credentials=True, preflight="strict", expose_headers=("x-trace",)), "data-client-key")
VARY = (b"vary", b"Origin, data-client-key")
VARY_WITH_REFERER = (b"vary", b"Origin, data-client-key, Referer")
READABLE = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"Retry-After")]


def problem_headers(body: bytes) -> list[Header]:
    return [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ALLOWED])
def test_a_problem_has_the_status_and_the_body_of_its_decision(reason: Reason) -> None:
    decision = Decision(reason, origin=PAGE)
    answer = problem(decision)
    assert (answer.status, answer.body) == (reason.status, decision.problem_json())
    assert json.loads(answer.body)["reason"] == reason
    assert answer.headers == problem_headers(answer.body)


def test_a_problem_says_when_to_retry() -> None:
    answer = problem(Decision(Reason.EXPIRED, retry_after=30))
    assert answer.headers == [*problem_headers(answer.body), (b"retry-after", b"30")]


def test_given_headers_come_before_those_of_the_problem() -> None:
    given = [(b"x-own", b"1")]
    answer = problem(Decision(Reason.KEY_MISSING), given)
    assert answer.headers == [*given, *problem_headers(answer.body)]
    assert given == [(b"x-own", b"1")]


@pytest.mark.parametrize(
    ("origin", "seen", "readable", "gained"),
    [
        pytest.param(PAGE.encode(), PAGE, True, [VARY, *READABLE], id="page"),
        pytest.param(PAGE.encode(), PAGE, False, [VARY], id="switched off"),
        pytest.param(b"null", "null", True, [VARY, *READABLE], id="null"),
        pytest.param(b"file://", None, True, [VARY, *READABLE], id="malformed"),
        pytest.param(CONFLICT, None, True, [VARY, *READABLE], id="two origins"),
        pytest.param(None, PAGE, True, [VARY_WITH_REFERER, *READABLE], id="page named by the Referer"),
        pytest.param(None, None, True, [VARY_WITH_REFERER, *READABLE], id="no page"),
    ],
)
def test_every_page_can_read_its_refusal_unless_that_is_switched_off(
    origin: bytes | Conflict | None, seen: str | None, gained: list[Header], *, readable: bool
) -> None:
    decision = Decision(Reason.KEY_MISSING, origin=seen)
    answer = refusal(decision, origin, CORS, readable=readable)
    assert answer == problem(decision, gained)


# The answers of handlers that decide by themselves

ROWS: list[dict[str, Any]] = [
    {"id": "1", "name": "shop", "last8": KEY[-8:], "domain_allowlist": [PAGE]},
    {"id": "2", "name": "gone", "last8": DISABLED_KEY[-8:], "domain_allowlist": [PAGE], "disabled_at": "now"},
]
GATE = Gatekeeper.from_rows(ROWS, https_only=True)
EXPOSED = CorsPolicy(expose_headers=("x-trace",))
CREDENTIALED = CorsPolicy(allow_credentials=True, preflight="strict")


def scope_of(key: str | None, *headers: Header) -> Scope:
    keyed = [] if key is None else [(b"data-client-key", key.encode())]
    return {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [*keyed, *headers]}


async def no_request() -> Message:
    raise AssertionError


async def fine(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def answer_of_the_middleware(scope: Scope, **options: Any) -> tuple[int, list[Header], bytes]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await GatekeeperMiddleware(fine, GATE, **options)(scope, no_request, send)
    return sent[0]["status"], sent[0]["headers"], sent[1]["body"]


ORIGIN = (b"origin", PAGE.encode())
REFERER = (b"referer", f"{PAGE}/cart".encode())


@pytest.mark.anyio
@pytest.mark.parametrize("cors", [None, EXPOSED, CREDENTIALED])
@pytest.mark.parametrize("readable_denials", [True, False])
@pytest.mark.parametrize(
    ("key", "headers"),
    [
        pytest.param(KEY, [ORIGIN], id="allowed by its Origin"),
        pytest.param(KEY, [REFERER], id="allowed by its Referer"),
        pytest.param(KEY, [(b"origin", b"https://evil.test")], id="another page"),
        pytest.param(KEY, [(b"origin", b"null")], id="null"),
        pytest.param(KEY, [(b"origin", b"file://")], id="malformed"),
        pytest.param(KEY, [], id="no page"),
        pytest.param(KEY, [(b"origin", b"https://widgets.test"), (b"host", b"widgets.test")], id="the service's own page"),
        pytest.param(DISABLED_KEY, [ORIGIN], id="disabled"),
        pytest.param(None, [ORIGIN], id="no key"),
        pytest.param("pk_live", [REFERER], id="no client key"),
    ],
)
async def test_the_answer_of_a_handler_is_that_of_the_middleware(
    key: str | None, headers: list[Header], cors: CorsPolicy | None, *, readable_denials: bool
) -> None:
    scope = scope_of(key, *headers)
    sent = dict(headers)
    decision = await GATE.check(key, sent.get(b"origin"), referer=sent.get(b"referer"))
    expected = await answer_of_the_middleware(scope, cors=cors, readable_denials=readable_denials)
    for request in (scope, Request(scope)):
        assert answer(decision, request, cors=cors, readable_denials=readable_denials) == expected


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"origin", b"https://evil.test")], id="another origin"),
        pytest.param([(b"origin", b"null")], id="null"),
    ],
)
def test_an_origin_that_was_not_decided_is_not_repeated(headers: list[Header]) -> None:
    """The handler has checked an origin that it found elsewhere, in the body for example."""
    decision = GATE.decide(KEY, PAGE)
    assert decision.allowed
    assert answer(decision, scope_of(KEY, *headers), cors=CREDENTIALED) == (200, [VARY], b"")


def test_an_origin_beside_the_referer_that_was_decided_is_not_repeated() -> None:
    decision = GATE.decide(KEY, None, referer=f"{PAGE}/cart")
    assert decision.allowed
    assert answer(decision, scope_of(KEY, ORIGIN), cors=CREDENTIALED) == (200, [VARY], b"")


@pytest.mark.anyio
async def test_several_origins_are_refused_though_the_handler_has_read_one() -> None:
    """As a dict, or by `request.headers.get`, the headers of a request have one of them."""
    scope = scope_of(KEY, ORIGIN, (b"origin", b"https://evil.test"))
    decision = GATE.decide(KEY, PAGE)
    assert decision.allowed
    assert answer(decision, scope) == await answer_of_the_middleware(scope)
    assert json.loads(answer(decision, scope).body)["reason"] == "origin_conflict"


def test_an_answer_becomes_a_response_of_starlette() -> None:
    """As in the reference: the names of its headers differ, and none has to be left out."""

    async def handler(request: Request) -> Response:
        decision = await GATE.check((await request.json())["key"], request.headers.get("origin"))
        gated = answer(decision, request)
        headers = {name.decode(): value.decode() for name, value in gated.headers}
        if not decision.allowed:
            return Response(gated.body, gated.status, headers)
        return JSONResponse({}, headers=headers)

    client = TestClient(Starlette(routes=[Route("/", handler, methods=["POST"])]))
    allowed = client.post("/", headers={"origin": PAGE}, json={"key": KEY})
    assert (allowed.status_code, allowed.json(), allowed.headers["access-control-allow-origin"]) == (200, {}, PAGE)
    refused = client.post("/", headers={"origin": "https://evil.test"}, json={"key": KEY})
    assert (refused.status_code, refused.json()["reason"]) == (403, "origin_not_allowed")
    assert all(len(answered.headers.get_list(name)) == 1 for answered in (allowed, refused) for name in answered.headers)


def test_an_answer_shares_its_headers_with_no_other() -> None:
    decision = GATE.decide(KEY, PAGE)
    first, second = (answer(decision, scope_of(KEY, ORIGIN)) for _ in range(2))
    first.headers.append((b"x-own", b"1"))
    assert second.headers == [(b"access-control-allow-origin", PAGE.encode()), VARY]


def test_a_scope_without_headers_is_answered() -> None:
    assert answer(GATE.decide(KEY, None), {"type": "http"}).status == 403
