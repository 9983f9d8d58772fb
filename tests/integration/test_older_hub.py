"""A gate works with a hub that lacks what newer hubs have."""

import pytest

from gatekeeper import Reason
from gatekeeper.testing import FakeHub, HubAnswer, HubRequest, json_answer
from tests.support.guarded import guarded
from tests.support.rows import client_key

pytestmark = pytest.mark.anyio

ROW = {"id": "key-1", "last8": "00000001", "domain_allowlist": ["acme.com"], "disabled_at": None}


async def test_a_hub_without_etags_scopes_and_reports_is_enough(hub: FakeHub) -> None:
    """Its rows have the fields that decisions need, and one that this gate does not know."""
    rows: list[dict[str, object]] = [{**ROW, "of_another_version": {"nested": [1]}}]
    hub.always(lambda request: _answer(request, rows))
    async with guarded(hub, usage_interval=1.0) as it:
        assert it.allows(1)
        await it.time.advance(30)
        rows[0]["disabled_at"] = "2026-01-02T03:04:05Z"
        await it.refresh()
        assert it.gate.decide(client_key(1), "https://acme.com").reason is Reason.KEY_DISABLED
        status = it.status
    assert (status.state, status.last_error, status.rejected_rows, status.token_scope) == ("fresh", None, 0, None)
    assert status.counters.get("refresh_failed", 0) == 0
    reports = [request for request in hub.requests if request.target.endswith("/usage")]
    assert len(reports) == 1  # the answer says that there is no such endpoint


def _answer(request: HubRequest, rows: list[dict[str, object]]) -> HubAnswer:
    return json_answer(rows) if request.method == "GET" else HubAnswer(404)
