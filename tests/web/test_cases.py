"""The middleware answers every request of the table exactly: status, headers, and the app's own body."""

import json
from typing import Any

import pytest

from gatekeeper import Gatekeeper, GatekeeperMiddleware, Reason
from gatekeeper.testing import FakeClock
from tests.support.cases import CASES, OF_FRAMES, PAGE, ROWS, Case, assert_headers_equal
from tests.support.memory_source import MemorySource

pytestmark = pytest.mark.anyio

BODY = b"the app's own body"


async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - an ASGI app
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": BODY})


async def answer(guarded: GatekeeperMiddleware, case: Case) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    own = {"data-client-key": case.key, "origin": case.origin, "referer": case.referer}
    fields = [(name, value) for name, value in own.items() if value is not None]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": case.method,
        "path": "/",
        "root_path": "",
        "query_string": case.query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in (*fields, *case.more)],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the middleware read the body")

    async def send(message: Any) -> None:
        sent.append(message)

    await guarded(scope, receive, send)
    start, *bodies = sent
    return start["status"], start["headers"], b"".join(body["body"] for body in bodies)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_each_request_of_the_table_gets_its_exact_answer(case: Case) -> None:
    fake, source = FakeClock(), MemorySource(*ROWS)
    source.unopenable = "down" if case.state == "not_ready" else None
    options: dict[str, Any] = {"clock": fake, "sleep": fake.sleep, "start_timeout": 0, "unknown_key_wait": 0}
    async with Gatekeeper(source, hard_stale=60, **options) as gate:
        await fake.asleep()
        source.unopenable = "down"
        if case.state == "expired":
            fake.now += 60
        status, headers, body = await answer(GatekeeperMiddleware(app, gate), case)
    expected = dict(case.headers)
    if status == Reason.ALLOWED.status:
        expected["x-app"] = "1"
        assert body == BODY
    elif case.name != "preflight":
        assert json.loads(body)["reason"] == case.name
        expected |= {
            "content-type": "application/problem+json",
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        }
    assert status == case.status
    assert_headers_equal(headers, expected)


def test_the_table_has_every_reason() -> None:
    assert {case.name for case in CASES} >= {reason.value for reason in Reason} - OF_FRAMES


def test_an_unexpected_header_fails() -> None:
    with pytest.raises(AssertionError):
        assert_headers_equal([(b"origin", PAGE.encode()), (b"x-more", b"1")], {"origin": PAGE})
