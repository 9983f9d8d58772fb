"""A decision as a response."""

import json

import pytest

from gatekeeper import CorsPolicy, Decision, Reason
from gatekeeper.gate.decisions import CONFLICT, Conflict
from gatekeeper.web.answers import problem, refusal
from gatekeeper.web.cors import CorsHeaders
from gatekeeper.web.request import Header

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
