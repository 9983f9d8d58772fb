"""Every reason for a refusal, as a real client sees it."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gatekeeper import FileSource, Gatekeeper, GatekeeperMiddleware, HubSource, Reason, decision_from
from tests.integration.conftest import ALLOWED, PAGE, ROW, STRANGE_PAGE, Http, Serve, Served, names, serving, write_rows
from tests.support.cases import OF_FRAMES
from tests.support.client_keys import DISABLED_KEY, EMPTY_KEY, KEY, TWIN_KEY, UNKNOWN_KEY

ROWS: list[dict[str, Any]] = [
    ROW,
    {**ROW, "id": "3", "last8": DISABLED_KEY[-8:], "disabled_at": "2026-01-02T03:04:05Z"},
    {**ROW, "id": "4", "last8": EMPTY_KEY[-8:], "domain_allowlist": ["*"]},
    {**ROW, "id": "5", "last8": TWIN_KEY[-8:]},
    {**ROW, "id": "6", "last8": TWIN_KEY[-8:]},
]


async def tell_agent(request: Request) -> JSONResponse:
    """Answer with the agent of the key."""
    return JSONResponse({"agent": decision_from(request).agent_id})


def guarded(gate: Gatekeeper, **options: Any) -> GatekeeperMiddleware:
    """Guard an app."""
    return GatekeeperMiddleware(Starlette(routes=[Route("/", tell_agent)], **options), gatekeeper=gate)


@pytest.fixture(scope="module")
def served(http: Http) -> Iterator[Served]:
    """Serve a guarded app to the tests of this module."""
    with serving(guarded(Gatekeeper.from_rows(ROWS)), http=http) as served:
        yield served


class Row(NamedTuple):
    """A reason, and a request that is refused for it."""

    reason: str
    status: int
    headers: list[tuple[str, str]]
    query: str = ""
    origin: str | None = PAGE
    last8: str | None = None
    retry_after: int | None = None


ON_PAGE = ("Origin", PAGE)
WITH_KEY = ("Data-Client-Key", KEY)
TABLE = [
    Row("key_missing", 400, [ON_PAGE]),
    Row("key_malformed", 400, [ON_PAGE], "client_key=sesame"),
    Row("key_conflict", 400, [ON_PAGE, WITH_KEY], f"client_key={TWIN_KEY}"),
    Row("key_unknown", 403, [ON_PAGE, ("DATA-CLIENT-KEY", UNKNOWN_KEY)], last8="what-006"),
    Row("key_ambiguous", 403, [ON_PAGE], f"client_key={TWIN_KEY}", last8="twin-005"),
    Row("key_disabled", 403, [ON_PAGE], f"client_key={DISABLED_KEY}", last8="gone-003"),
    Row("allowlist_empty", 403, [ON_PAGE], f"client_key={EMPTY_KEY}", last8="none-004"),
    Row("origin_conflict", 400, [ON_PAGE, ON_PAGE, WITH_KEY], origin=None, last8="shop-001"),
    Row("origin_malformed", 400, [("Origin", PAGE + "/"), WITH_KEY], origin=None, last8="shop-001"),
    Row("origin_null", 403, [("Origin", "null"), WITH_KEY], origin="null", last8="shop-001"),
    Row("origin_missing", 403, [WITH_KEY], origin=None, last8="shop-001"),
    Row("origin_not_allowed", 403, [("Origin", STRANGE_PAGE), WITH_KEY], origin=STRANGE_PAGE, last8="shop-001"),
]


def assert_refused(answer: httpx.Response, row: Row) -> None:
    """Assert that an answer is exactly the expected refusal."""
    assert (answer.status_code, answer.headers["content-type"]) == (row.status, "application/problem+json")
    problem = answer.json()
    assert problem.pop("title")
    assert problem.pop("detail")
    assert problem == {
        "type": f"urn:gatekeeper:{row.reason}",
        "status": row.status,
        "reason": row.reason,
        "origin": row.origin,
        "key": row.last8 and f"…{row.last8}",
        "retry_after": row.retry_after,
    }
    assert answer.headers["cache-control"] == "no-store"
    assert names(answer.headers["vary"]) >= {"origin", "data-client-key"}
    assert answer.headers["access-control-allow-origin"] == "*"
    assert names(answer.headers["access-control-expose-headers"]) == {"retry-after"}
    assert "access-control-allow-credentials" not in answer.headers


def test_the_table_covers_every_reason() -> None:
    assert {row.reason for row in TABLE} == set(Reason) - {"allowed", "not_ready", "expired"} - OF_FRAMES


@pytest.mark.parametrize("row", TABLE, ids=[row.reason for row in TABLE])
def test_a_request_is_refused_for_its_reason(served: Served, row: Row) -> None:
    for _ in range(2):
        answer = served.get(f"/?{row.query}", headers=row.headers)
        assert_refused(answer, row)
        assert "retry-after" not in answer.headers


def test_an_allowed_page_is_answered_by_the_app(served: Served) -> None:
    answer = served.get("/", headers=ALLOWED)
    assert (answer.status_code, answer.json()) == (200, {"agent": "agent_7"})
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert names(answer.headers["vary"]) == {"origin", "data-client-key"}


def test_a_page_named_by_its_referer_is_answered_by_the_app(served: Served) -> None:
    answer = served.get(f"/?client_key={KEY}", headers={"Referer": f"{PAGE}/cart?item=1"})
    assert (answer.status_code, answer.json()) == (200, {"agent": "agent_7"})
    assert "access-control-allow-origin" not in answer.headers
    assert names(answer.headers["vary"]) == {"origin", "data-client-key", "referer"}


def test_a_gate_whose_hub_never_answers_is_not_ready(serve: Serve) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # without listening, so that every connection is refused
        hub = HubSource(f"http://127.0.0.1:{closed.getsockname()[1]}", "sk_live_acme_secret")
        gate = Gatekeeper(hub, start_timeout=0.05)
        served = serve(guarded(gate, lifespan=gate.lifespan))
        for _ in range(2):
            answer = served.get("/", headers=ALLOWED)
            assert_refused(answer, Row("not_ready", 503, [], retry_after=2))
            assert answer.headers["retry-after"] == "2"


class Clock:
    """A clock that moves only when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_a_gate_with_a_list_past_hard_stale_has_expired(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    write_rows(path, *ROWS)
    clock = Clock()
    gate = Gatekeeper(FileSource(path), hard_stale=100, clock=clock)
    served = serve(guarded(gate))
    assert served.get("/", headers=[ON_PAGE]).json()["reason"] == "key_missing"
    path.write_text("")
    clock.now += 101
    for _ in range(2):
        answer = served.get("/", headers=ALLOWED)
        assert_refused(answer, Row("expired", 503, [], retry_after=30))
        assert answer.headers["retry-after"] == "30"
