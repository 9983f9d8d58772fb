"""Real caches between the hub and the gate: nginx, which writes a Date of its own and no Age."""

from pathlib import Path

import httpx
import pytest

from gatekeeper import Reason
from gatekeeper.testing import FakeHub, HubAnswer
from tests.needs import nginx
from tests.support.guarded import guarded, hub_source
from tests.support.nginx import caching_nginx
from tests.support.rows import as_json, row

pytestmark = [pytest.mark.anyio, pytest.mark.process]


class Balancer(httpx.AsyncHTTPTransport):
    """Sends requests to another server, as a load balancer does.

    Attributes:
        url: the address of the server.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the server."""
        server = httpx.URL(self.url)
        request.url = request.url.copy_with(scheme=server.scheme, host=server.host, port=server.port)
        return await super().handle_async_request(request)


@pytest.mark.fault("stale copy")
async def test_a_copy_in_another_cache_brings_no_revoked_key_back(hub: FakeHub, tmp_path: Path) -> None:
    """Two caches before a hub without Cache-Control: the key is revoked through one, and allowed in the other's copy."""
    program = nginx()
    before, after = "2026-01-02T12:00:00Z", "2026-01-02T13:00:00Z"
    hub.always(HubAnswer(200, as_json(row(1, updated_at=before), row(2, updated_at=before))))
    with (
        caching_nginx(program, tmp_path / "one", hub.url) as one,
        caching_nginx(program, tmp_path / "two", hub.url) as two,
    ):
        async with guarded(hub_source(one)) as it:
            assert it.allows(1, 2)  # the first cache has a copy now
        hub.always(HubAnswer(200, as_json(row(1, updated_at=after, disabled_at=after), row(2, updated_at=before))))
        balancer = Balancer(two)
        async with guarded(hub_source("http://hub.test", http=lambda: httpx.AsyncClient(transport=balancer))) as it:
            assert it.reason(1) is Reason.KEY_DISABLED
            for balancer.url in (two, one, two, one):
                await it.refresh()
                assert (it.reason(1), it.allows(2)) == (Reason.KEY_DISABLED, True)
            assert it.status.counters["rows_overruled"] > 0
    assert len(hub.requests) == 2
