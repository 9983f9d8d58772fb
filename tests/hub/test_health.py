"""GET /healthz and GET /readyz."""

import httpx
import pytest

from .support import RunningHub, assert_problem

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("path", "status"), [("/healthz", "alive"), ("/readyz", "ready")])
async def test_health_checks_need_no_token(hub: RunningHub, path: str, status: str) -> None:
    stranger = await hub.client_with({})
    answer = await stranger.get(path)
    assert (answer.status_code, answer.json()) == (httpx.codes.OK, {"status": status})
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
async def test_another_method_is_a_405(hub: RunningHub, path: str) -> None:
    stranger = await hub.client_with({})
    answer = await stranger.post(path)
    assert_problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}
