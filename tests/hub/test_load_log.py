"""LoadLog: the answer to a request beyond what the hub can do, and its line in the log."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gatekeeper.errors import HubOverloaded
from gatekeeper.hub.load_log import LoadLog

from .support import assert_problem

pytestmark = pytest.mark.anyio


async def test_a_line_a_minute_says_what_was_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    seconds, reasons = 0.0, iter(["it waits for A", "it waits for B", "it waits for C", "it waits for D", "it waits for E"])

    async def refuse(_request: Request) -> Response:
        raise HubOverloaded(next(reasons))

    log = LoadLog(period=60.0, clock=lambda: seconds)
    app = Starlette(routes=[Route("/", refuse)], exception_handlers={HubOverloaded: log.answer})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub.test") as client:
        for moment in (0.0, 1.0, 59.9, 60.0, 120.0):
            seconds = moment
            answer = await client.get("/")
            body = assert_problem(answer, 503, "overloaded")
            assert "waits" not in body["detail"]
            assert int(answer.headers["Retry-After"]) >= 1
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "the hub is overloaded: it waits for A"),
        ("WARNING", "the hub is overloaded: it waits for D (2 more requests were refused since the last such line)"),
        ("WARNING", "the hub is overloaded: it waits for E"),
    ]
